"""What ``vestibule owui install`` decides: what it writes, leaves alone, and refuses."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from admission.settings import read_settings
from infra import cli, owui
from infra.errors import CommandError
from infra.owui import IDENTITY_HEADERS, Target

HERE = "http://127.0.0.1:8600"
OTHERS = "http://elsewhere/v1"


def target(address: str | None = None) -> Target:
    return Target("vestibule", admission=address, gateway=address, here=HERE, key="new-key")


def connections(*urls: str, **configs: Any) -> dict[str, Any]:
    return {
        "ENABLE_OPENAI_API": True,
        "OPENAI_API_BASE_URLS": list(urls),
        "OPENAI_API_KEYS": [f"key of {url}" for url in urls],
        "OPENAI_API_CONFIGS": {name.lstrip("_"): config for name, config in configs.items()},
    }


def words(**given: Any) -> argparse.Namespace:
    known = ("email", "password", "api_key", "admission_url", "gateway_url", "service_key")
    named = {"url": "http://127.0.0.1:1", "function_id": "vestibule", "dry_run": False}
    return argparse.Namespace(**{**dict.fromkeys(known), **named, **given})


def test_the_gateway_is_added_behind_the_other_connections() -> None:
    before = connections(OTHERS, _0={"prefix_id": "x"})
    after, index = owui.merged_connections(before, target())
    assert index == 1
    assert after["OPENAI_API_BASE_URLS"] == [OTHERS, f"{HERE}/v1"]
    assert after["OPENAI_API_KEYS"] == [f"key of {OTHERS}", "new-key"]
    assert after["OPENAI_API_CONFIGS"]["0"] == {"prefix_id": "x"}
    assert after["OPENAI_API_CONFIGS"]["1"]["headers"] == IDENTITY_HEADERS


def test_installing_again_changes_nothing() -> None:
    once, _ = owui.merged_connections(connections(OTHERS), target())
    assert owui.merged_connections(once, target()) == (once, 1)


def test_what_an_administrator_added_to_the_connection_stays() -> None:
    mine = {"tags": ["gpu"], "prefix_id": "gpu", "headers": {"X-Mine": "1"}, "enable": False}
    after, index = owui.merged_connections(connections(f"{HERE}/v1/", _0=mine), target())
    config = after["OPENAI_API_CONFIGS"]["0"]
    assert index == 0
    assert config["headers"] == {"X-Mine": "1", **IDENTITY_HEADERS}
    assert (config["tags"], config["prefix_id"], config["enable"]) == (["gpu"], "gpu", True)


@pytest.mark.parametrize(
    ("named", "stands"), [(None, "http://moved/v1"), ("http://new:1", "http://new:1/v1")]
)
def test_a_gateway_that_moved_is_known_by_its_headers(named: str | None, stands: str) -> None:
    before = connections(OTHERS, "http://moved/v1", _1={"headers": dict(IDENTITY_HEADERS)})
    after, _ = owui.merged_connections(before, target(named))
    assert after["OPENAI_API_BASE_URLS"] == [OTHERS, stands]


def test_settings_filed_under_an_address_survive() -> None:
    before = connections(OTHERS)
    before["OPENAI_API_CONFIGS"] = {OTHERS: {"enable": False}}
    before["OPENAI_API_KEYS"] = []
    after, _ = owui.merged_connections(before, target())
    assert after["OPENAI_API_CONFIGS"]["0"] == {"enable": False}
    assert after["OPENAI_API_KEYS"] == ["", "new-key"]


@pytest.mark.parametrize(
    ("named", "current", "stands"),
    [
        (None, {}, HERE),
        (None, {"admission_url": "http://docker:8600"}, "http://docker:8600"),
        ("http://new:1", {"admission_url": "http://docker:8600"}, "http://new:1"),
    ],
)
def test_valves_that_were_changed_stay(
    named: str | None, current: dict[str, Any], stands: str
) -> None:
    merged = owui.merged_valves({**current, "max_wait_s": 7, "service_key": "old"}, target(named))
    assert merged == {"max_wait_s": 7, "admission_url": stands, "service_key": "new-key"}


def test_a_function_of_somebody_else_is_not_overwritten() -> None:
    found = {"content": "...", "meta": {"manifest": {"author": "Somebody"}}}
    with pytest.raises(CommandError, match="belongs to another function"):
        owui.function_form("vestibule", "source", found)


def test_an_update_keeps_the_name_given_there() -> None:
    meta = {"description": "mine", "manifest": {"author": "Vestibule"}}
    form = owui.function_form("vestibule", "source", {"name": "The queue", "meta": meta})
    assert (form["name"], form["content"], form["meta"]) == ("The queue", "source", meta)


def test_addresses_and_key_come_from_what_up_runs_with(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text('{"service_key": "from-file"}')
    settings = read_settings({"VESTIBULE_STATE_DIR": str(tmp_path), "VESTIBULE_PORT": "8700"})
    found = Target.of(words(), settings)
    assert (found.here, found.admission, found.key) == ("http://127.0.0.1:8700", None, "from-file")
    assert "from-file" not in repr(found)
    named = Target.of(words(gateway_url="https://q.example/v1/", service_key="k"), settings)
    assert (named.admission, named.gateway) == ("https://q.example",) * 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--email=a@b.c", "--password=x", "--service-key=k"], "no Open WebUI answers at"),
        (["--url=localhost:8080", "--service-key=k"], "is not an address"),
        (["--service-key=k"], "name an administrator"),
        (["--service-key=k", "--email=a@b.c"], "give the password"),
        ([], "keys.json: start `vestibule up` once"),
    ],
)
def test_mistakes_get_one_clear_line(
    given: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VESTIBULE_STATE_DIR", str(tmp_path))
    for name in ("OWUI_PASSWORD", "OWUI_API_KEY", "VESTIBULE_SERVICE_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["owui", "install", "--url=http://127.0.0.1:1", *given]) == 1
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
