"""What is kept and told of a decision: since when, and never a flood."""

import re
from pathlib import Path
from typing import Any

import pytest

from admission.decided import Decided, Hold, Short
from admission.instance import Event
from scheduler.autoscale import Decision, FleetSpec
from scheduler.autoscale.decision import Act, Why
from scheduler.decisions import Told, decided_of, news_of

GAP_MS = 120_000
FULL = Why(Short.WORKERS_MAX, "3 workers are the most")
POOR = Why(Short.BUDGET, "no money")
PAUSED = Why(Hold.POOL_PAUSED, "the pool is paused")
CALM = Decision(reason="as it is: …")
GROWS = Decision(reason="1 more: …", undrains=(Act("a", "…"),), numbers={"load": 4.5})


class Teller:
    """Decides by the script of a test; what was told, by name."""

    def __init__(self) -> None:
        self.now_ms, self.before, self.told = 1_000_000, None, Told()
        self.heard: list[Event] = []

    before: Decided | None

    def decide(self, decision: Decision, after_s: float = 5) -> Decided:
        self.now_ms += round(after_s * 1000)
        self.before = decided_of(decision, self.before, self.now_ms, gap_ms=GAP_MS)
        event, self.told = news_of(decision, self.before, self.told, "chat")
        self.heard += [event] if event else []
        return self.before

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.heard]


def lacking(why: Why) -> Decision:
    return Decision(reason=f"more is wanted, but {why.words}", short=why)


def test_what_is_in_the_way_has_a_beginning() -> None:
    teller = Teller()
    began_ms = teller.now_ms + 5_000
    for words in ("3 workers are the most", "4 workers are the most"):
        decided = teller.decide(lacking(Why(Short.WORKERS_MAX, words)))
        assert decided.short
        assert (decided.short.since_ms, decided.short.reason) == (began_ms, words)
    other = teller.decide(lacking(POOR)).short
    assert other
    assert (other.code, other.since_ms) == ("budget", teller.now_ms)
    assert teller.decide(CALM).short is None


def test_a_shortage_outlives_a_hold_and_no_gap() -> None:
    teller = Teller()
    since_ms = teller.now_ms + 5_000
    teller.decide(lacking(FULL))
    held = teller.decide(Decision.held(PAUSED))
    assert held.hold
    assert held.short
    assert (held.hold.code, held.short.since_ms) == ("pool_paused", since_ms)
    again = teller.decide(lacking(FULL)).short
    assert again
    assert again.since_ms == since_ms
    after = teller.decide(lacking(FULL), 121).short
    assert after
    assert after.since_ms == teller.now_ms


def test_the_last_that_was_done_stays_in_sight() -> None:
    teller = Teller()
    assert teller.decide(CALM).acted_ms is None
    teller.decide(GROWS)
    acted_ms = teller.now_ms
    for decision in (CALM, Decision.held(PAUSED)):
        decided = teller.decide(decision, 200)
        assert (decided.acted_ms, decided.acted) == (acted_ms, "1 more: …")


def test_news_are_told_once() -> None:
    teller = Teller()
    for decision in (CALM, lacking(FULL), CALM, Decision.held(PAUSED), CALM):
        for _ in range(30):
            teller.decide(decision)
    assert teller.names == ["short", "go_on", "hold", "go_on"]
    assert [event.ok for event in teller.heard] == [False, True, False, True]
    hold = teller.heard[2]
    assert (hold.instance_id, hold.reason) == ("", "hold: the pool is paused")
    assert (hold.detail["pool"], hold.detail["hold"], hold.detail["short"]) == (
        "chat",
        "pool_paused",
        None,
    )


@pytest.mark.parametrize("other", [CALM, lacking(POOR), Decision.held(PAUSED)])
def test_what_comes_and_goes_is_no_flood(other: Decision) -> None:
    teller = Teller()
    for number in range(720):  # an hour
        teller.decide((lacking(FULL), other)[number % 2])
    assert len(teller.heard) <= 60
    names: list[Any] = [event.detail for event in teller.heard]
    assert names[0]["short"] == "workers_max"


def test_each_step_is_told_with_its_numbers() -> None:
    teller = Teller()
    for _ in range(2):
        teller.decide(GROWS)
    assert teller.names == ["scale", "scale"]
    assert teller.heard[0].detail == {
        "pool": "chat",
        "hold": None,
        "short": None,
        "launches": 0,
        "drains": 0,
        "undrains": 1,
        "terminations": 0,
        "load": 4.5,
    }


def test_every_code_stands_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "autoscale.md").read_text()
    for title, codes in (("hold", Hold), ("short", Short)):
        table = text.partition(f"| `{title}` |")[2].partition("\n\n")[0]
        found = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?`) \|", table, re.M))))
        assert found == {code.value for code in codes}


def test_every_knob_stands_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "autoscale.md").read_text()
    table = text.partition("| knob |")[2].partition("\n\n")[0]
    known = {name.removesuffix("_ms") for name in FleetSpec.__struct_fields__}
    found = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?`) \|", table, re.M))))
    assert known - found == {"pool", "schedule"}, "these are said in words"
    assert found <= known
