"""The numbers of a report, of visits made by hand."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from infra.load_test import report
from infra.load_test.chat import Answer
from infra.load_test.person import Person
from infra.load_test.rehearsal import Rehearsal, Target
from infra.load_test.visit import Visit

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def _visit(joined_s: float, started_s: float, **facts: Any) -> Visit:
    """Somebody who waited."""
    return Visit(
        "ada",
        came_s=joined_s,
        ended="left",
        waited=True,
        admitted_s=started_s - joined_s,
        joined=BEGAN + timedelta(seconds=joined_s),
        started=BEGAN + timedelta(seconds=started_s),
        gone_s=started_s + 10,
        **facts,
    )


def _report(*visits: Visit, **seen: Any) -> dict[str, Any]:
    done = Rehearsal(Target("http://127.0.0.1:1", "k", "default"), [], 1.0)
    done.people = [cast(Person, SimpleNamespace(visit=visit)) for visit in visits]
    for at_s, metrics in enumerate(seen.get("samples", ())):
        names = ("capacity", "active", "draft", "finishing", "waiting")
        done.watch.sampled(dict(zip(names, metrics, strict=True)), at_s)
    return report.as_json(done)


def test_a_spread_is_of_what_is_known() -> None:
    assert report.spread([3.0, None, 1.0, 2.0]) == {"n": 3, "p50": 2.0, "p95": 3.0, "max": 3.0}
    assert report.spread([]) == {"n": 0, "p50": None, "p95": None, "max": None}


def test_in_order_nobody_is_overtaken() -> None:
    found = _report(_visit(0, 10), _visit(1, 10), _visit(2, 20))
    assert found["fairness"] == {"waited": 3, "overtaken": 0, "slot_time": 1.0}


def test_who_is_overtaken_is_counted_once() -> None:
    found = _report(_visit(0, 30), _visit(1, 10), _visit(2, 20))
    assert found["fairness"]["overtaken"] == 1


def test_slot_times_apart() -> None:
    longer = _visit(0, 10)
    longer.gone_s = 10 + 30
    found = _report(longer, _visit(1, 10))
    assert found["fairness"]["slot_time"] == pytest.approx((30 + 10) ** 2 / (2 * (900 + 100)))


def test_what_was_announced() -> None:
    good = _visit(0, 10, announced_s=8, announced_high_s=12)
    late = _visit(0, 20, announced_s=5, announced_high_s=9)
    found = _report(good, late, _visit(0, 1))
    assert found["announced"]["told"] == 2
    assert found["announced"]["off"]["max"] == 15
    assert found["announced"]["within"] == 0.5


def test_slots_in_use() -> None:
    found = _report(samples=[(4, 4, 0, 0, 3), (4, 1, 1, 0, 0)])
    assert found["slots"]["used"] == 0.75
    assert found["slots"]["used_while_people_waited"] == 1.0
    assert (found["slots"]["most_waiting"], found["slots"]["most_held"]) == (3, 4)


def test_refusals_and_errors_stand_apart() -> None:
    refused = Visit("a", 0, ended="refused", why="queue_full")
    wrong = Visit("b", 0, ended="error", why="away", answers=[Answer(429, "no_session")])
    found = _report(refused, wrong)
    assert (found["refusals"], found["errors"]) == ({"queue_full": 1}, {"away": 1})
    assert found["answers"]["other"] == {"no_session": 1}
    text = "\n".join(report.told(found))
    assert "1 queue_full" in text
    assert text.endswith("every invariant held")


def test_what_broke_is_the_end_of_the_text() -> None:
    found = _report(samples=[(1, 1, 0, 0, 0), (1, 2, 0, 0, 0)])
    *_, sign, last = report.told(found)
    assert sign.startswith("✗ never more than capacity: 2 slots held of 1")
    assert last == "1 times broken"


def test_no_line_is_wider_than_an_ordinary_terminal() -> None:
    people = [_visit(0, 9_999, announced_s=1, announced_high_s=2) for _ in range(99)]
    for ended in ("stopped", "vanished", "cut"):
        people += [Visit("a", 0, ended=ended) for _ in range(9)]
    people += [Visit("b", 0, ended="error", why="away"), Visit("c", 0, ended="over")]
    found = _report(*people, samples=[(999, 999, 0, 0, 9_999)])
    found["cut"] = "away"
    assert [line for line in report.told(found) if len(line) > 80] == []
