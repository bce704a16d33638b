"""What ``vestibule owui install`` and ``uninstall`` change, print, warn of and leave alone."""

from collections.abc import Callable
from typing import Any

import pytest
import requests

from infra import cli
from tests.owui import installs
from tests.owui.fake_webui import ADMIN, FakeWebUI
from tests.owui.installs import Printed, Site

A, B = "http://127.0.0.1:8600", "http://gpu-2:8600"
KEYS = ("key-of-a", "key-of-b")
NOBODY_ELSE = ("OWUI_API_KEY", "VESTIBULE_SERVICE_KEY", "VESTIBULE_OWUI_JWT_SECRET")


class FakeSite(Site):
    """The fake, and the commands run in this process."""

    gateways, keys = (A, B), KEYS

    def __init__(self, webui: FakeWebUI, capsys: pytest.CaptureFixture[str]) -> None:
        self.webui, self._capsys = webui, capsys

    def owui(self, *words: str) -> Printed:
        action, *rest = words
        who = ("--url=http://webui", f"--email={ADMIN[0]}")
        code = cli.main(["owui", action, *who, *rest])
        printed = self._capsys.readouterr()
        return Printed(code, printed.out, printed.err)

    def snapshot(self) -> Any:
        return self.webui.snapshot()

    def put_older(self, text: str, valves: dict[str, Any]) -> None:
        self.webui.functions["vestibule"]["content"] = text
        self.webui.valves["vestibule"] = valves

    def stored_valves(self) -> dict[str, Any]:
        return self.webui.valves["vestibule"]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> FakeSite:
    webui = FakeWebUI(dict(zip((A, B), KEYS, strict=True)))

    def request(session: requests.Session, method: str, url: str, **given: Any) -> Any:
        return webui.request(session, method, url, **given)

    monkeypatch.setattr(requests.Session, "request", request)
    monkeypatch.setenv("OWUI_PASSWORD", ADMIN[1])
    for name in NOBODY_ELSE:
        monkeypatch.delenv(name, raising=False)
    return FakeSite(webui, capsys)


@pytest.mark.parametrize("expectation", installs.EXPECTATIONS, ids=lambda one: one.__name__)
def test_what_an_administrator_expects(site: FakeSite, expectation: Callable[[Site], None]) -> None:
    expectation(site)


def test_a_dry_run_and_a_second_run_write_nothing(site: FakeSite) -> None:
    site.install("--dry-run")
    assert site.webui.writes == []
    site.install()
    written = len(site.webui.writes)
    assert written
    site.install()
    site.owui("status")
    assert len(site.webui.writes) == written


def test_the_source_is_shown_when_asked_for(site: FakeSite) -> None:
    site.install()
    older = site.webui.functions["vestibule"]
    older["content"] = older["content"].replace("author: Vestibule", "author: Vestibule\nold: yes")
    assert "source: 0 lines added, 1 removed (--verbose" in site.install("--dry-run").out
    assert "    -old: yes" in site.install("--verbose").out


def test_it_is_switched_on_when_it_has_its_valves(site: FakeSite) -> None:
    site.install()
    order = ["create", "valves/update", "toggle", "toggle/global", "connections"]
    assert site.webui.writes == order


@pytest.mark.parametrize("call", ["toggle", "toggle/global"])
def test_a_switch_that_another_install_flips_as_well_is_on_in_the_end(
    site: FakeSite, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    flip, others = site.webui._function, [call]

    def both(method: str, name: str, called: str, body: Any) -> tuple[int, Any]:
        if called in others:
            others.remove(called)
            flip(method, name, called, body)
        return flip(method, name, called, body)

    monkeypatch.setattr(site.webui, "_function", both)
    site.install()
    assert (site.owui("status").code, others) == (0, [])


@pytest.mark.parametrize(("call", "switch"), [("toggle", "active"), ("toggle/global", "global")])
def test_a_switch_that_somebody_switches_off_again_and_again_is_named(
    site: FakeSite, monkeypatch: pytest.MonkeyPatch, call: str, switch: str
) -> None:
    flip = site.webui._function

    def back(method: str, name: str, called: str, body: Any) -> tuple[int, Any]:
        if called == call:
            flip(method, name, called, body)
        return flip(method, name, called, body)

    monkeypatch.setattr(site.webui, "_function", back)
    done = site.owui("install", "--service-key", KEYS[0])
    said = f"cannot be switched to {switch}: somebody switches it off again"
    assert (done.code, said in done.err, f"+ {switch} = yes" in done.out) == (1, True, False)
    assert site.owui("status").code == 1


@pytest.mark.parametrize("path", ["create", "valves/update", "toggle", "global", "config/update"])
def test_what_was_broken_off_is_finished_by_the_next_install(site: FakeSite, path: str) -> None:
    answers = site.webui._answer

    def breaks_off(method: str, called: str, body: Any) -> tuple[int, Any]:
        if method == "POST" and called.endswith(path):
            raise KeyboardInterrupt
        return answers(method, called, body)

    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(site.webui, "_answer", breaks_off)
        assert site.owui("install", "--service-key", KEYS[0]).code == 130
    assert site.owui("status").code == 1
    site.install()
    assert site.owui("status").code == 0


def test_a_refused_update_leaves_the_valves_as_they_were(
    site: FakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install()
    found = site.webui.functions["vestibule"]
    site.put_older(found["content"] + installs.OLDER, valves := {"of_old": 7, "max_wait_s": "x"})
    monkeypatch.setattr(site.webui, "_update", lambda *_: (400, {"detail": "no disk"}))
    done = site.owui("install", "--service-key=k")
    assert (done.code, "no disk" in done.err) == (1, True)
    assert site.stored_valves() == valves


def test_an_api_that_was_off_is_off_again(site: FakeSite) -> None:
    theirs = site.webui.openai
    theirs["ENABLE_OPENAI_API"] = False
    theirs["OPENAI_API_BASE_URLS"].append("https://off.example/v1")
    theirs["OPENAI_API_KEYS"].append("")
    theirs["OPENAI_API_CONFIGS"]["1"] = {"enable": False}
    before = site.snapshot()
    done = site.install()
    assert "OpenAI API: changed\n  - enabled = no\n  + enabled = yes" in done.out
    assert "https://elsewhere.example/v1 is switched on by this as well" in done.out
    assert "https://off.example/v1 is switched on" not in done.out
    assert site.install().changed() == []
    site.owui("uninstall", "--yes")
    assert site.snapshot() == before


HIDDEN = "Open WebUI takes tiny, b, c and 1 more from"
FOUR = ["tiny", "b", "c", "d"]


def in_front(webui: FakeWebUI) -> str:
    webui.openai["OPENAI_API_CONFIGS"] = {}
    webui.offers = {"https://elsewhere.example": FOUR, A: FOUR}
    return f"{HIDDEN} https://elsewhere.example/v1, not from {A}/v1"


def of_ollama(webui: FakeWebUI) -> str:
    webui.ollama, webui.offers = FOUR, {A: FOUR}
    return f"{HIDDEN} an Ollama connection, not from {A}/v1"


@pytest.mark.parametrize("offered", [in_front, of_ollama])
def test_a_model_that_never_comes_through_the_gateway_is_named(
    site: FakeSite, offered: Callable[[FakeWebUI], str]
) -> None:
    said = offered(site.webui)
    for words in (["--dry-run"], [], []):
        assert f"warning: {said}: such chats go past the queue" in site.install(*words).out
    status = site.owui("status")
    assert (status.code, f"problem: {said}" in status.out) == (1, True)
    site.install("--prefix-id=gpu")
    assert site.owui("status").code == 0


def test_what_stands_behind_the_gateway_hides_nothing(site: FakeSite) -> None:
    site.webui.offers = {"https://behind.example": FOUR, A: FOUR, B: FOUR}
    site.install(*site.both()[:4], "--service-key", KEYS[0], "--service-key", KEYS[1])
    site.webui.openai["OPENAI_API_BASE_URLS"].append("https://behind.example/v1")
    site.webui.openai["OPENAI_API_KEYS"].append("")
    assert site.owui("status").code == 0


def test_a_new_address_of_vestibule_takes_its_connection_along(site: FakeSite) -> None:
    site.webui.gateways[B] = KEYS[0]
    before = site.snapshot()
    site.install("--prefix-id=gpu")
    moved = site.owui("install", "--admission-url", B, "--service-key", KEYS[0])
    assert moved.changed() == [
        "valves: changed",
        f"  - admission_url = {A}",
        f"  + admission_url = {B}",
        f"connection {B}/v1: changed",
        f"  - url = {A}/v1",
        f"  + url = {B}/v1",
    ]
    assert site.webui.openai["OPENAI_API_CONFIGS"]["1"]["prefix_id"] == "gpu"
    assert site.owui("status").code == 0
    site.owui("uninstall", "--yes")
    assert site.snapshot() == before


def pipelines_too(webui: FakeWebUI) -> None:
    webui.pipelines = [{"id": "vestibule_pipeline", "name": "Vestibule"}]


def newer(webui: FakeWebUI) -> None:
    webui.version = "0.120.1"


def older(webui: FakeWebUI) -> None:
    webui.version = "0.9.6"


def no_gateway(webui: FakeWebUI) -> None:
    webui.gateways.clear()


def another_key(webui: FakeWebUI) -> None:
    webui.gateways[A] = "changed"


def with_jwt(webui: FakeWebUI) -> None:
    webui.wants_jwt = {A}


def with_less_patience(webui: FakeWebUI) -> None:
    webui.wait_limit = 60


def copied(webui: FakeWebUI) -> None:
    mine = webui.functions["vestibule"]
    webui.functions["other"] = {**mine, "id": "other"}
    webui.valves["other"] = dict(webui.valves["vestibule"])


def switched_off(webui: FakeWebUI) -> None:
    webui.functions["vestibule"]["is_active"] = False


@pytest.mark.parametrize(
    ("happens", "said"),
    [
        (with_less_patience, "refuses each chat: X-Vestibule-Wait: whole seconds from 0"),
        (pipelines_too, "http://pipes runs Vestibule too"),
        (newer, "this Open WebUI is 0.120.1; the Function was tried on 0.12.4"),
        (older, "this Open WebUI is 0.9.6, and the Function needs 0.12.4 or newer"),
        (no_gateway, "host.docker.internal"),
        (another_key, "does not accept the key (Nobody knows this key.)"),
        (with_jwt, "does not know who chats: X-OpenWebUI-User-Jwt is missing."),
        (copied, "the function other is Vestibule too"),
        (switched_off, "SAFE_MODE"),
    ],
)
def test_what_stands_in_the_way_is_said(
    site: FakeSite, happens: Callable[[FakeWebUI], None], said: str
) -> None:
    assert "warning" not in site.install().out
    happens(site.webui)
    told = site.owui("status").out
    assert said in told
    assert said in site.install().out


OLD = "the Function needs 0.12.4 or newer"
NEW = "the Function was tried on 0.12.4"


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("0.9.6", OLD),
        ("0.12", OLD),
        ("0.12.0", OLD),
        ("0.12.3", OLD),
        ("0.12.dev9", OLD),
        ("unknown", OLD),
        ("0.12.4", None),
        ("0.12.4.dev1", None),
        ("0.12.10", None),
        ("0.13", NEW),
        ("0.13.0", NEW),
        ("1", NEW),
    ],
)
def test_a_version_it_was_not_tried_on_is_named(
    site: FakeSite, version: str, said: str | None
) -> None:
    site.webui.version = version
    out = site.install().out
    assert [text for text in (OLD, NEW) if text in out] == ([said] if said else [])
    assert ("warning" in out) == (said is not None)


NOT_MODELS: list[Any] = [5, None, {}, [{}], ["tiny"], [{"id": 5}], [{"id": "tiny"}, {}]]


@pytest.mark.parametrize("said", [5, "<html>", {}, *({"data": data} for data in NOT_MODELS)])
def test_a_stranger_at_the_gateways_address_is_named(site: FakeSite, said: Any) -> None:
    site.webui.strangers[A] = said
    told = f"what answers at {A}/v1 is not Vestibule: check --gateway-url"
    assert f"warning: {told}" in site.install().out
    status = site.owui("status")
    assert (status.code, f"problem: {told}" in status.out) == (1, True)


@pytest.mark.parametrize(
    ("models", "said"), [([], "offers no models yet"), (["tiny", "tiny"], f"{A}/v1: 2 offered")]
)
def test_a_gateway_is_no_stranger_whatever_it_offers(
    site: FakeSite, models: list[str], said: str
) -> None:
    site.webui.offers[A] = models
    assert said in site.install().out


@pytest.mark.parametrize("models", NOT_MODELS)
def test_what_has_no_name_hides_no_model(
    site: FakeSite, monkeypatch: pytest.MonkeyPatch, models: Any
) -> None:
    monkeypatch.setattr(site.webui, "_models", lambda: models)
    site.webui.strangers[A] = {"data": []}  # so that no chat is tried
    assert "warning: Open WebUI takes" not in site.install().out


def test_two_vestibules_have_a_function_each(site: FakeSite) -> None:
    site.install()
    words = ("--function-id=vestibule_2", "--admission-url", B, "--service-key", KEYS[1])
    second = site.owui("install", *words)
    assert (second.code, "warning" in second.out) == (0, False)
    assert site.install().changed() == []
    assert site.owui("install", *words).out.count("unchanged") == 4
    site.owui("uninstall", "--yes", "--function-id=vestibule_2", "--function-only")
    site.owui("uninstall", "--yes", "--gateway-url", B)
    assert site.install().changed() == []
    assert site.owui("status").code == 0


def test_an_open_webui_without_functions_is_refused(site: FakeSite) -> None:
    site.webui.features["enable_functions"] = False
    done = site.owui("install", "--service-key=k")
    assert (done.code, "runs no Functions" in done.err, site.webui.writes) == (1, True, [])


def test_a_function_of_somebody_else_is_not_touched(site: FakeSite) -> None:
    site.install()
    site.webui.functions["vestibule"]["meta"] = {"manifest": {"author": "Somebody"}}
    written = len(site.webui.writes)
    for action in ("install", "uninstall"):
        done = site.owui(action, *(["--service-key=k"] if action == "install" else ["--yes"]))
        assert (done.code, "belongs to another function" in done.err) == (1, True)
    assert len(site.webui.writes) == written
