"""The environment, read once: all problems at once, and no secret shown (DESIGN section 7)."""

import pytest

from admission.domain import Priority
from admission.settings import Settings, SettingsError, Upstream, read_settings


def problems(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read_settings(environ)
    return str(caught.value).splitlines()


def test_defaults_are_those_of_the_design() -> None:
    settings = read_settings({})
    assert (settings.max_active_users, settings.session_duration) == (50, 1200)
    assert (settings.draft_duration, settings.presence_grace) == (300, 60)
    assert (settings.host, settings.port, settings.auth) == ("127.0.0.1", 8600, True)
    assert settings.redis_address() is None


def test_all_problems_are_listed_at_once() -> None:
    found = problems(
        MAX_ACTIVE_USERS="many",
        SESSION_DURATION="0",
        VESTIBULE_PORT="70000",
        VESTIBULE_AUTH="maybe",
        VESTIBULE_UPSTREAMS="vllm:8000",
        VESTIBULE_WORKER_NETWORKS="10.0.0.1/8",
        WORKER_AGENT_SHA256="abc",
        VESTIBULE_WHEN_FULL="panic",
        VESTIBULE_COLOUR="red",
    )
    assert {line.split(":")[0] for line in found} == {
        "MAX_ACTIVE_USERS",
        "SESSION_DURATION",
        "VESTIBULE_PORT",
        "VESTIBULE_AUTH",
        "VESTIBULE_UPSTREAMS",
        "VESTIBULE_WORKER_NETWORKS",
        "WORKER_AGENT_SHA256",
        "VESTIBULE_WHEN_FULL",
        "VESTIBULE_COLOUR",
    }


@pytest.mark.parametrize("name", ["VESTIBULE_SERVICE_KYE", "VESTIBULE_PROT", "VESTIBULE_"])
def test_an_unknown_name_is_an_error(name: str) -> None:
    assert problems(**{name: "x"}) == [f"{name}: unknown setting"]


def test_a_name_that_another_part_reads_is_known() -> None:
    assert read_settings({"VESTIBULE_MODEL": "x"}, also_known=["VESTIBULE_MODEL"])


def test_service_links_of_kubernetes_are_ignored() -> None:
    settings = read_settings(
        {
            "VESTIBULE_PORT": "tcp://10.0.0.7:8600",
            "VESTIBULE_SERVICE_HOST": "10.0.0.7",
            "VESTIBULE_SERVICE_PORT": "8600",
            "VESTIBULE_SERVICE_PORT_HTTP": "8600",
            "VESTIBULE_PORT_8600_TCP": "tcp://10.0.0.7:8600",
            "VESTIBULE_PORT_8600_TCP_PROTO": "tcp",
            "VESTIBULE_PORT_8600_TCP_PORT": "8600",
            "VESTIBULE_PORT_8600_TCP_ADDR": "10.0.0.7",
            "VESTIBULE_REDIS_PORT": "tcp://10.0.0.8:6379",
            "REDIS_PORT": "tcp://10.0.0.8:6379",
        }
    )
    assert (settings.port, settings.redis_port, settings.service_key) == (8600, 6379, None)


def test_only_a_port_may_look_like_a_service_link() -> None:
    (problem,) = problems(VESTIBULE_UPSTREAMS="tcp://10.0.0.9:8000")
    assert problem.startswith("VESTIBULE_UPSTREAMS: ")


@pytest.mark.parametrize(
    ("text", "upstreams"),
    [
        ("http://a:8000", [Upstream("http://a:8000", 1)]),
        ("http://a:8000/v1", [Upstream("http://a:8000", 1)]),
        ("http://a:8000/v1/;slots=4", [Upstream("http://a:8000", 4)]),
        ("https://a/ollama/v1", [Upstream("https://a/ollama", 1)]),
        (
            " http://a , http://[::1]:9;slots=2 ,",
            [Upstream("http://a", 1), Upstream("http://[::1]:9", 2)],
        ),
        ("", []),
    ],
)
def test_upstreams_with_or_without_v1_and_slots(text: str, upstreams: list[Upstream]) -> None:
    assert read_settings({"VESTIBULE_UPSTREAMS": text}).upstreams == tuple(upstreams)


@pytest.mark.parametrize(
    "text",
    [
        "a:8000",
        "ftp://a",
        "http://",
        "http://a;slots=0",
        "http://a;slots=two",
        "http://a;cards=2",
        "http://a?x=1",
        "http://a:99999",
        "http://[::1",
        "http://me:secret@a",
    ],
)
def test_an_upstream_of_another_form_is_an_error(text: str) -> None:
    (problem,) = problems(VESTIBULE_UPSTREAMS=text)
    assert problem.startswith("VESTIBULE_UPSTREAMS: ")
    assert "secret" not in problem


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "vestibule.example"])
def test_auth_off_is_refused_unless_on_loopback(host: str) -> None:
    (problem,) = problems(VESTIBULE_AUTH="off", VESTIBULE_HOST=host)
    assert problem.startswith("VESTIBULE_AUTH: ")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_auth_may_be_off_on_loopback(host: str) -> None:
    assert read_settings({"VESTIBULE_AUTH": "off", "VESTIBULE_HOST": host}).auth is False


def test_no_secret_is_shown() -> None:
    secret = "a-very-secret-thing"
    settings = read_settings(
        {
            "VESTIBULE_SERVICE_KEY": secret,
            "VESTIBULE_ADMIN_KEY": secret,
            "VESTIBULE_WORKER_TOKEN": secret,
            "VESTIBULE_OWUI_JWT_SECRET": secret,
            "REDIS_URL": f"redis://user:{secret}@host/0",
        }
    )
    assert settings.service_key is not None
    assert settings.service_key.get_secret_value() == secret
    assert secret not in f"{settings} {settings!r}"


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({"REDIS_URL": "redis://a/1", "REDIS_HOST": "b"}, "redis://a/1"),
        ({"REDIS_HOST": "b"}, "redis://b:6379/0"),
        ({"REDIS_HOST": "b", "REDIS_PORT": "7", "REDIS_DB": "3"}, "redis://b:7/3"),
    ],
)
def test_redis_is_named_by_url_or_by_parts(environ: dict[str, str], address: str) -> None:
    assert read_settings(environ).redis_address() == address


SENTINEL = {"VESTIBULE_REDIS_MODE": "sentinel", "VESTIBULE_REDIS_SENTINEL_MASTER": "m"}
CLUSTER = {"VESTIBULE_REDIS_MODE": "cluster"}


@pytest.mark.parametrize(
    "environ",
    [
        {**SENTINEL, "REDIS_URL": "rediss://user:secret@a:26379,b,[::1]:7/1"},
        {**CLUSTER, "REDIS_URL": "redis://a:7000,b:7001/0"},
        {**CLUSTER, "REDIS_HOST": "a"},
    ],
)
def test_several_servers_are_named_in_one_url(environ: dict[str, str]) -> None:
    assert read_settings(environ).redis_mode == environ["VESTIBULE_REDIS_MODE"]


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"VESTIBULE_REDIS_MODE": "many", "REDIS_URL": "redis://a"}, "VESTIBULE_REDIS_MODE"),
        ({"REDIS_URL": "127.0.0.1:6379"}, "REDIS_URL"),
        ({"REDIS_URL": "http://127.0.0.1"}, "REDIS_URL"),
        ({"REDIS_URL": "redis://h:port/0"}, "REDIS_URL"),
        ({"REDIS_URL": "redis://a,b"}, "REDIS_URL"),
        ({**CLUSTER, "REDIS_URL": "redis://a:7000,b:70000"}, "REDIS_URL"),
        ({**CLUSTER, "REDIS_URL": "redis://a/1"}, "REDIS_URL"),
        ({**CLUSTER, "REDIS_URL": "unix:///run/redis.sock"}, "REDIS_URL"),
        (CLUSTER, "VESTIBULE_REDIS_MODE"),
        (
            {"VESTIBULE_REDIS_MODE": "sentinel", "REDIS_URL": "redis://a"},
            "VESTIBULE_REDIS_SENTINEL_MASTER",
        ),
        ({"VESTIBULE_PROCESSES": "0"}, "VESTIBULE_PROCESSES"),
    ],
)
def test_what_does_not_fit_together_is_named(environ: dict[str, str], named: str) -> None:
    (problem,) = problems(**environ)
    assert problem.startswith(f"{named}: ")


def test_the_switches_take_their_words() -> None:
    for word, value in {"on": True, "TRUE": True, "1": True, "off": False, "0": False}.items():
        assert read_settings({"VESTIBULE_REQUEUE": word}).requeue is value


def test_seconds_become_milliseconds_of_the_policy() -> None:
    settings = Settings.model_validate({"SESSION_DURATION": "7", "VESTIBULE_QUEUE_TIMEOUT": "9"})
    policy = settings.pool_policy(needs_worker=True)
    assert (policy.session_ms, policy.queue_timeout_ms, policy.needs_worker) == (7000, 9000, True)


def test_classes_are_seconds_and_weights() -> None:
    settings = read_settings({"VESTIBULE_PRIORITIES": "vip=600;weight=4, batch=-3600;weight=0.25"})
    assert settings.priorities == {"vip": Priority(600_000, 4), "batch": Priority(-3_600_000, 0.25)}


@pytest.mark.parametrize(
    "text",
    ["vip", "vip=", "VIP=1", "vip=1.5", "vip=1;weight=0", "vip=1;weight=101", "vip=1;share=2",
     "vip=86401", "vip=1,vip=2"],
)  # fmt: skip
def test_a_class_that_cannot_be_is_refused(text: str) -> None:
    (problem,) = problems(VESTIBULE_PRIORITIES=text)
    assert problem.startswith("VESTIBULE_PRIORITIES: ")
