"""Every mistake an administrator can make at ``vestibule owui`` gets one clear line."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import requests

from admission.settings import read_settings
from infra import cli
from infra.errors import CommandError
from infra.owui import signin
from infra.owui.target import Target
from infra.owui.webui import OpenWebUI
from tests.owui.fake_webui import ADMIN, FakeWebUI, reply

WHO = [f"--email={ADMIN[0]}", f"--password={ADMIN[1]}"]


def words(**given: Any) -> argparse.Namespace:
    known = ("admission_url", "gateway_url", "service_key", "prefix_id", "jwt")
    return argparse.Namespace(**{**dict.fromkeys(known), "function_id": "vestibule", **given})


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VESTIBULE_STATE_DIR", str(tmp_path))
    for name in ("OWUI_PASSWORD", "OWUI_API_KEY", "VESTIBULE_SERVICE_KEY"):
        monkeypatch.delenv(name, raising=False)


def complaint(capsys: pytest.CaptureFixture[str], *given: str) -> str:
    assert cli.main(["owui", *given]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    return printed.err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([*WHO, "--service-key=k"], "no Open WebUI answers at http://127.0.0.1:1: "),
        (["--url=localhost:8080", "--service-key=k"], "--url: localhost:8080 is no http://"),
        (["--url=http://[::1", "--service-key=k"], "--url: http://[::1 is no http://"),
        (["--admission-url=http://[::1"], "--admission-url: http://[::1 is no http://"),
        (["--gateway-url=gpu:1", "--service-key=k"], "--gateway-url: gpu:1 is no http://"),
        (["--gateway-url=http://me:pw@gpu:1"], "--gateway-url: http://me:pw@gpu:1 is no http://"),
        ([], "keys.json: start `vestibule up` once"),
        (
            ["--service-key=a", "--service-key=b", "--gateway-url=http://a"],
            "--service-key: 2 were given for 1 of --gateway-url",
        ),
    ],
)
def test_before_anything_is_asked(
    nothing_set: None, capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    assert said in complaint(capsys, "install", "--url=http://127.0.0.1:1", *given)


def refuses_key(webui: FakeWebUI, path: str) -> tuple[int, Any] | None:
    said = {"detail": "Use of API key is not enabled in the environment."}
    return (403, said) if path == "/openai/config" else None


def no_admin(webui: FakeWebUI, path: str) -> tuple[int, Any] | None:
    return (401, {"detail": "no permission"}) if path == "/openai/config" else None


def no_passwords(webui: FakeWebUI, path: str) -> tuple[int, Any] | None:
    return (403, {"detail": "not allowed"}) if path.endswith("signin") else None


def second_factor(webui: FakeWebUI, path: str) -> tuple[int, Any] | None:
    return (200, {"mfa": True}) if path.endswith("signin") else None


def something_else(webui: FakeWebUI, path: str) -> tuple[int, Any] | None:
    return 200, {"version": "3"}


def too_often(webui: FakeWebUI, path: str) -> tuple[int, Any] | None:
    return (429, {"detail": "rate limit"}) if path.endswith("signin") else None


def as_ever(webui: FakeWebUI, path: str) -> tuple[int, Any] | None:
    return None


@pytest.mark.parametrize(
    ("given", "behaves", "said"),
    [
        ([], as_ever, "name an administrator"),
        (["--email=a@b.c"], as_ever, "give the password in OWUI_PASSWORD"),
        (["--email=a@b.c", "--password=x"], as_ever, "knows no a@b.c with this password"),
        (["--api-key=sk-1"], refuses_key, "ENABLE_API_KEYS=true"),
        (WHO, no_admin, "admin@example.org is no administrator of this Open WebUI"),
        (WHO, no_passwords, "does not let you sign in with a password (not allowed)"),
        (WHO, second_factor, "wants more than a password"),
        (WHO, too_often, "(rate limit): too many have tried. Wait three minutes"),
        (WHO, something_else, "is not an Open WebUI"),
    ],
)
def test_at_the_door(
    nothing_set: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    behaves: Any,
    said: str,
) -> None:
    webui = FakeWebUI({})

    def request(session: requests.Session, method: str, url: str, **body: Any) -> Any:
        other = behaves(webui, url.removeprefix("http://webui"))
        return reply(url, *other) if other else webui.request(session, method, url, **body)

    monkeypatch.setattr(requests.Session, "request", request)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    for action in (["install", "--service-key=k"], ["status"], ["uninstall"]):
        assert said in complaint(capsys, *action, "--url=http://webui", *given)
    assert webui.writes == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (requests.exceptions.SSLError("self-signed"), "is not trusted: self-signed. Name the file"),
        (requests.exceptions.SSLError("wrong version number"), "http://webui speaks http, not"),
        (requests.exceptions.ProxyError("Refused"), "without one: NO_PROXY=webui"),
        (requests.ConnectTimeout(), "no answer from http://webui within 30 s"),
        (requests.ConnectionError("Name or service not known"), "Name or service not known"),
    ],
)
def test_on_the_way(
    nothing_set: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    said: str,
) -> None:
    def request(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(requests.Session, "request", request)
    assert said in complaint(capsys, "status", "--url=http://webui", *WHO)


def test_who_ends_the_prompt_has_given_no_password(
    nothing_set: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(_: str) -> str:
        raise EOFError

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", ended)
    with pytest.raises(CommandError, match="no password was given"):
        signin.password(argparse.Namespace(password=None, email=ADMIN[0]))


def test_who_signed_in_is_not_taken_for_the_one_of_a_netrc(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine webui login ada password lovelace\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    sent: list[str] = []

    def send(_: object, prepared: requests.PreparedRequest, **__: object) -> requests.Response:
        sent.append(prepared.headers["Authorization"])
        return reply("http://webui/", 200, {})

    monkeypatch.setattr(requests.Session, "send", send)
    with OpenWebUI("http://webui") as webui:
        webui.carry("token")
        webui.read("/openai/config")
    assert sent == ["Bearer token"]


@pytest.mark.parametrize("name", ["my-queue", "a b/c", "", "2nd"])
def test_an_id_is_a_name(capsys: pytest.CaptureFixture[str], name: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["owui", "status", "--url=http://webui", f"--function-id={name}"])
    assert ended.value.code == 2
    assert f"{name!r} is not letters, digits and underscores" in capsys.readouterr().err


def test_a_redirect_is_named(
    nothing_set: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"version": "0.12.4", "deployment_id": ""}
    there = reply("https://webui/below/api/version", 200, said)
    there.history = [reply("http://webui/api/version", 301, "")]
    monkeypatch.setattr(requests.Session, "request", lambda *_, **__: there)
    told = complaint(capsys, "status", "--url=http://webui", *WHO)
    assert "http://webui redirects to https://webui/below: give that one" in told


def test_addresses_and_key_come_from_what_up_runs_with(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text('{"service_key": "from-file"}')
    settings = read_settings({"VESTIBULE_STATE_DIR": str(tmp_path), "VESTIBULE_PORT": "8700"})
    found = Target.of(words(), settings)
    assert (found.here, found.gateways, found.key) == ("http://127.0.0.1:8700", (), "from-file")
    assert "from-file" not in repr(found)
    named = Target.of(words(admission_url="https://q.example/v1/", service_key=["k"]), settings)
    assert (named.admission, named.gateways[0].url) == ("https://q.example",) * 2
    assert "'k'" not in repr(named)


def test_the_jwt_follows_the_setting_unless_it_is_named() -> None:
    given = {"VESTIBULE_SERVICE_KEY": "k"}
    by_jwt = read_settings({**given, "VESTIBULE_OWUI_JWT_SECRET": "s" * 32})
    assert Target.of(words(), by_jwt).jwt
    assert not Target.of(words(), read_settings(given)).jwt
    assert not Target.of(words(jwt=False), by_jwt).jwt


def test_one_value_goes_to_all_gateways_or_one_to_each() -> None:
    urls = ["http://a", "http://b/v1"]
    settings = read_settings({})
    one = Target.of(words(gateway_url=urls, service_key=["k"]), settings)
    assert [(g.url, g.key) for g in one.gateways] == [("http://a", "k"), ("http://b", "k")]
    each = Target.of(words(gateway_url=urls, service_key=["k"], prefix_id=["a", "b"]), settings)
    assert [g.prefix_id for g in each.gateways] == ["a", "b"]
    alone = Target.of(words(service_key=["k"], prefix_id=["a"]), settings)
    assert (alone.gateways, alone.prefix_id) == ((), "a")
    with pytest.raises(CommandError, match="--prefix-id: 3 were given for 2"):
        Target.of(words(gateway_url=urls, service_key=["k"], prefix_id=["a"] * 3), settings)
