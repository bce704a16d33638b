"""Which connections ``vestibule owui`` takes for ours, and what becomes of the others."""

from dataclasses import replace
from typing import Any

import pytest

from admission.settings import Settings
from infra.owui.connections import (
    HEADERS,
    USER,
    USER_HEADER,
    WAIT,
    WAIT_S,
    Connection,
    Connections,
)
from infra.owui.target import Gateway, Target
from infra.owui.trial import header_problem
from owui_pipeline.function import Filter

HERE = "http://127.0.0.1:8600"
OTHERS = "http://elsewhere/v1"
PLAIN = {USER_HEADER: USER, **HEADERS}
Json = dict[str, Any]


def target(*urls: str, jwt: bool = False) -> Target:
    gateways = tuple(Gateway(url, "new-key") for url in urls)
    return Target("vestibule", None, gateways, HERE, "new-key", jwt=jwt)


def stored(*urls: str, **configs: Any) -> Json:
    return {
        "ENABLE_OPENAI_API": True,
        "OPENAI_API_BASE_URLS": list(urls),
        "OPENAI_API_KEYS": [f"key of {url}" for url in urls],
        "OPENAI_API_CONFIGS": {name.lstrip("_"): config for name, config in configs.items()},
    }


def gated(before: Json, wanted: Target, **old: str) -> Json:
    return Connections.of(before).gated(wanted, old, {"service_key": "new-key"}).body()


def test_the_gateway_is_added_behind_the_other_connections() -> None:
    after = gated(stored(OTHERS, _0={"prefix_id": "x"}), target())
    assert after["OPENAI_API_BASE_URLS"] == [OTHERS, f"{HERE}/v1"]
    assert after["OPENAI_API_KEYS"] == [f"key of {OTHERS}", "new-key"]
    assert after["OPENAI_API_CONFIGS"]["0"] == {"prefix_id": "x"}
    assert after["OPENAI_API_CONFIGS"]["1"]["headers"] == PLAIN


def test_doing_it_again_changes_nothing() -> None:
    once = gated(stored(OTHERS), target())
    assert gated(once, target()) == once


def test_what_an_administrator_added_to_the_connection_stays() -> None:
    mine = {"tags": ["gpu"], "prefix_id": "gpu", "headers": {"X-Mine": "1"}, "enable": False}
    config = gated(stored(f"{HERE}/v1/", _0=mine), target())["OPENAI_API_CONFIGS"]["0"]
    assert config["headers"] == {"X-Mine": "1", **PLAIN}
    assert (config["tags"], config["prefix_id"], config["enable"]) == (["gpu"], "gpu", True)


def test_a_header_that_an_administrator_wrote_is_not_taken_for_ours() -> None:
    mine = {"headers": {USER_HEADER: "{{USER_EMAIL}}", **HEADERS}}
    headers = gated(stored(f"{HERE}/v1", _0=mine), target(jwt=True))["OPENAI_API_CONFIGS"]["0"]
    assert headers["headers"] == {USER_HEADER: "{{USER_EMAIL}}", **HEADERS}


@pytest.mark.parametrize(
    ("named", "stands"),
    [
        ([], ["http://moved/v1"]),
        (["http://moved"], ["http://moved/v1"]),
        (["http://new:1"], ["http://moved/v1", "http://new:1/v1"]),
    ],
)
def test_one_of_ours_stays_and_another_stands_beside_it(
    named: list[str], stands: list[str]
) -> None:
    before = stored(OTHERS, "http://moved/v1", _1={"headers": dict(HEADERS)})
    after = gated(before, target(*named))
    assert after["OPENAI_API_BASE_URLS"] == [OTHERS, *stands]
    assert after["OPENAI_API_CONFIGS"]["1"]["headers"] == PLAIN


def test_a_prefix_goes_to_the_gateway_that_is_meant() -> None:
    after = gated(stored(OTHERS), replace(target(), prefix_id="gpu"))
    assert after["OPENAI_API_CONFIGS"]["1"]["prefix_id"] == "gpu"


@pytest.mark.parametrize(
    ("former", "named", "stands"),
    [
        ("http://old", ["http://new"], ["http://new/v1"]),
        ("http://old/v1/", ["http://new"], ["http://new/v1"]),
        ("http://other", ["http://new"], ["http://old/v1", "http://new/v1"]),
        ("http://old", ["http://gpu"], ["http://old/v1", "http://gpu/v1"]),
    ],
)
def test_ours_goes_along_with_admission_and_no_other(
    former: str, named: list[str], stands: list[str]
) -> None:
    before = stored(OTHERS, "http://old/v1", _1={"headers": dict(HEADERS)})
    wanted = replace(target(*named), admission="http://new")
    after = gated(before, wanted, admission_url=former)
    assert after["OPENAI_API_BASE_URLS"] == [OTHERS, *stands]


def test_a_connection_at_the_new_address_leaves_the_old_one_alone() -> None:
    ours = {"headers": dict(HEADERS)}
    before = stored("http://old/v1", "http://new/v1", _0=ours, _1=ours)
    wanted = replace(target("http://new"), admission="http://new")
    after = gated(before, wanted, admission_url="http://old")
    assert after["OPENAI_API_BASE_URLS"] == before["OPENAI_API_BASE_URLS"]


def test_a_new_key_goes_wherever_the_old_one_stood() -> None:
    ours = {"headers": dict(PLAIN)}
    before = stored("http://a/v1", "http://b/v1", "http://c/v1", _0=ours, _1=ours, _2=ours)
    before["OPENAI_API_KEYS"] = ["of-a", "of-a", "of-c"]
    after = gated(before, target("http://a"), service_key="of-a")
    assert after["OPENAI_API_KEYS"] == ["new-key", "new-key", "of-c"]


def test_settings_filed_under_an_address_survive() -> None:
    before = stored(OTHERS)
    before["OPENAI_API_CONFIGS"] = {OTHERS: {"enable": False}}
    before["OPENAI_API_KEYS"] = []
    after = gated(before, target())
    assert after["OPENAI_API_CONFIGS"]["0"] == {"enable": False}
    assert after["OPENAI_API_KEYS"] == ["", "new-key"]


def test_what_is_taken_out_leaves_the_others_with_their_own_settings() -> None:
    ours = {"headers": dict(PLAIN)}
    before = Connections.of(stored("http://a/v1", OTHERS, _0=ours, _1={"prefix_id": "x"}))
    after = before.without([0]).body()
    assert after == stored(OTHERS, _0={"prefix_id": "x"})


def test_a_chat_may_wait_at_the_gateway_as_long_as_on_the_page_and_as_the_gateway_allows() -> None:
    assert Filter.Valves().max_wait_s == WAIT_S <= Settings.model_validate({}).wait_limit
    assert PLAIN[WAIT] == "1800"
    strict = replace(target(), wait_limit=60)
    assert gated(stored(), strict)["OPENAI_API_CONFIGS"]["0"]["headers"] == {**PLAIN, WAIT: "60"}


@pytest.mark.parametrize("chosen", ["0", "600", None])
def test_an_older_connection_gets_the_header_and_a_chosen_time_stays(chosen: str | None) -> None:
    headers = {k: v for k, v in PLAIN.items() if k != WAIT} | ({WAIT: chosen} if chosen else {})
    before = stored(f"{HERE}/v1", _0={"headers": headers})
    problem = header_problem(Connection(HERE, "", {"headers": headers}), HEADERS)
    assert problem == (None if chosen else f"{HERE} lacks {WAIT}: install again")
    after = gated(before, target())["OPENAI_API_CONFIGS"]["0"]["headers"]
    assert after == {**PLAIN, WAIT: chosen or "1800"}


def test_a_key_is_in_no_repr() -> None:
    assert "key of" not in repr(Connections.of(stored(OTHERS)))
