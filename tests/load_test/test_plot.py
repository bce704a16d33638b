"""The pictures: round axes, names that can be read, and what they show."""

import re
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest

from infra.load_test import plot
from infra.load_test.chart import LINE, Axis, Panel


@pytest.mark.parametrize(
    ("most", "last"), [(0, 1), (1, 1), (5, 5), (7, 8), (33, 40), (61, 80), (100, 100), (1234, 1500)]
)
def test_counts_end_at_the_next_round_step(most: float, last: float) -> None:
    ticks = [value for value, _ in Axis(most).ticks()]
    assert ticks[-1] == last
    assert len(ticks) <= 8


@pytest.mark.parametrize(
    ("most", "words"),
    [
        (0.4, ["0", "1 s"]),
        (45, ["0", "10 s", "20 s", "30 s", "40 s", "50 s"]),
        (640, ["0", "2 min", "4 min", "6 min", "8 min", "10 min", "12 min"]),
        (90 * 60, ["0", "20 min", "40 min", "60 min", "80 min", "100 min"]),
        (5 * 3600, ["0", "1 h", "2 h", "3 h", "4 h", "5 h"]),
        (10 * 86_400, ["0", "48 h", "96 h", "144 h", "192 h", "240 h"]),
    ],
)
def test_times_have_their_unit(most: float, words: list[str]) -> None:
    assert [written for _, written in Axis(most, time=True).ticks()] == words


def test_an_axis_may_end_where_its_values_do() -> None:
    across = Axis(640, time=True, tight=True)
    assert across.most == 640
    assert [written for _, written in across.ticks()][-1] == "10 min"


def test_names_do_not_lie_over_one_another() -> None:
    panel = Panel(0, 100, Axis(10), Axis(10), "words")
    for height, words in ((5, "b"), (5.5, "a"), (5, "c"), (0, "d"), (0, "e")):
        panel.name(height, words, "blue")
    found = re.findall(r'name" x="[\d.]+" y="([\d.]+)"[^>]*>(.)', "\n".join(panel.drawn()))
    assert [name for _, name in found] == ["a", "b", "c", "d", "e"]
    assert all(float(b) - float(a) >= LINE - 0.1 for (a, _), (b, _) in pairwise(found))
    assert float(found[-1][0]) == 104  # not among the words of the axis


def _visit(came_s: float, announced_s: float | None, waited_s: float) -> dict[str, Any]:
    high_s = announced_s and announced_s * 1.5
    return {
        "came_s": came_s,
        "announced_s": announced_s,
        "announced_high_s": high_s,
        "admitted_s": waited_s,
    }


def _report(visits: list[dict[str, Any]], waiting: int = 2) -> dict[str, Any]:
    names = ("capacity", "active", "draft", "finishing", "waiting")
    sample = dict(zip(names, (3, 1, 1, 1, waiting), strict=True))
    return {
        "people": {"came": len(visits)},
        "slots": {"used_while_people_waited": 1.0 if waiting else None},
        "samples": [{"at_s": 0.0, **sample}, {"at_s": 60.0, **sample}],
        "visits": visits,
    }


def _kinds(picture: str) -> list[str]:
    return [part.get("class", "") for part in ElementTree.fromstring(picture).iter()]


def test_who_waited_is_a_dot_and_what_was_announced_a_bar() -> None:
    told = plot.waits(_report([_visit(1, 10, 12), _visit(2, None, 0.1), _visit(3, 20, 16)]))
    assert _kinds(told).count("blue dot") == 2
    assert _kinds(told).count("orange bar") == 2
    assert "more than is drawn" not in told


def test_what_is_far_beyond_the_waits_is_counted_not_drawn() -> None:
    told = plot.waits(_report([_visit(1, 1200, 12), _visit(3, 20, 16)]))
    assert _kinds(told).count("orange bar") == 1
    assert "; 1 was told more than is drawn here" in told
    assert "60 s" in told
    assert "20 min" not in told


def test_nobody_waited() -> None:
    found = _report([_visit(0, None, 0.1)], waiting=0)
    assert "one person came" in plot.slots(found)
    assert "no people waited" in plot.waits(found)
