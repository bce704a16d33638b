"""What a load test found: for programs as JSON, for people as text made of that."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from infra.load_test.rehearsal import Rehearsal
from infra.load_test.visit import Visit
from infra.load_test.watch import Sample

_CUT = {
    "": "",
    "limit": ", cut at its limit",
    "told": ", told to stop",
    "away": ", stopped: nobody answered",
}
_OF_A_VISIT = (
    "user",
    "came_s",
    "ended",
    "why",
    "waited",
    "announced_s",
    "announced_high_s",
    "admitted_s",
    "gone_s",
)


def as_json(rehearsal: Rehearsal) -> dict[str, Any]:
    """Everything; times in seconds, spreads as of ``spread``."""
    visits, watch = rehearsal.visits, rehearsal.watch
    answers = [answer for visit in visits for answer in visit.answers]
    return {
        "url": rehearsal.target.url,
        "pool": rehearsal.target.pool,
        "model": rehearsal.model,
        "ok": not watch.broken,
        "seconds": round(rehearsal.seconds, 3),
        "cut": rehearsal.cut,
        "broken": [asdict(broken) for broken in watch.broken],
        "people": {
            "planned": len(rehearsal.plans),
            "came": len(visits),
            **Counter(visit.ended for visit in visits),
        },
        "refusals": _counted(visit.why for visit in visits if visit.ended == "refused"),
        "ends": _counted(visit.why for visit in visits if visit.ended == "over"),
        "errors": _counted(visit.why for visit in visits if visit.ended == "error"),
        "admission": spread(visit.admitted_s for visit in _at_once(visits)),
        "hand_over": spread(visit.handed_s for visit in _in_turn(visits)),
        "wait": spread(visit.admitted_s for visit in visits if visit.waited),
        "announced": _announced(visits),
        "answers": {
            "whole": sum(not answer.code for answer in answers),
            "other": _counted(answer.code for answer in answers if answer.code),
            "first": spread(answer.first_s for answer in answers),
            "last": spread(answer.whole_s for answer in answers if not answer.code),
        },
        "fairness": _fairness(visits),
        "slots": _slots(watch.samples),
        "missed_looks": watch.missed,
        "samples": [asdict(sample) for sample in watch.samples],
        "visits": [_visit(visit) for visit in visits],
    }


def told(report: dict[str, Any]) -> Iterator[str]:
    """The same for people, without the samples."""
    people, answers, announced = report["people"], report["answers"], report["announced"]
    how = [f"{number} {word}" for word, number in people.items() if word not in ("planned", "came")]
    yield f"{report['url']}, pool {report['pool']}, model {report['model']}"
    yield f"  {'time':<12}{report['seconds']:.0f} s{_CUT[report['cut']]}"
    yield f"  {'people':<12}{people['came']} came: {', '.join(how) or 'nobody'}"
    yield _row("admission", report["admission"], "with a slot free", 1000, "ms")
    yield _row("hand-over", report["hand_over"], "from grant to knowing", 1000, "ms")
    yield _row("wait", report["wait"], "of who waited", 1, "s")
    if announced["told"]:
        off = announced["off"]
        yield (
            f"  {'announced':<12}off by {off['p50']:.1f} s p50, {off['p95']:.1f} p95;"
            f" {announced['within']:.0%} of {announced['told']} within its upper end"
        )
    yield f"  {'answers':<12}{answers['whole']} whole{_codes(answers['other'])}"
    yield _row("first words", answers["first"], "after the message", 1000, "ms")
    for name in ("refusals", "ends", "errors"):
        yield f"  {name:<12}{_codes(report[name]).removeprefix(', ') or 'none'}"
    yield from _fairly(report)
    if report["missed_looks"]:
        yield f"  {'not seen':<12}{report['missed_looks']} looks at the queue had no answer"
    for broken in report["broken"]:
        yield f"✗ {broken['rule']}: {broken['seen']} (after {broken['at_s']:.1f} s)"
    seen = " as far as was seen" if report["missed_looks"] else ""
    yield f"every invariant held{seen}" if report["ok"] else f"{len(report['broken'])} times broken"


def spread(values: Iterable[float | None]) -> dict[str, float | None]:
    """How many, the median, the 95th percentile (nearest rank), and the most."""
    known = sorted(value for value in values if value is not None)

    def rank(share: float) -> float | None:
        return round(known[math.ceil(share * len(known)) - 1], 4) if known else None

    return {"n": len(known), "p50": rank(0.5), "p95": rank(0.95), "max": rank(1.0)}


def _at_once(visits: Sequence[Visit]) -> list[Visit]:
    return [visit for visit in visits if not visit.waited and not visit.asked_first]


def _in_turn(visits: Sequence[Visit]) -> list[Visit]:
    """Who waited and then had a session without being asked: its start is the grant."""
    return [visit for visit in visits if visit.waited and not visit.asked_first]


def _announced(visits: Sequence[Visit]) -> dict[str, Any]:
    """The first estimate of who waited, against their wait until the session."""
    told = [
        (visit.admitted_s, visit.announced_s, visit.announced_high_s or visit.announced_s)
        for visit in _in_turn(visits)
        if visit.admitted_s is not None and visit.announced_s is not None
    ]
    within = sum(wait_s <= high_s for wait_s, _, high_s in told)
    return {
        "told": len(told),
        "off": spread(abs(wait_s - said_s) for wait_s, said_s, _ in told),
        "within": round(within / len(told), 4) if told else None,
    }


def _fairness(visits: Sequence[Visit]) -> dict[str, Any]:
    """Who was overtaken: somebody who joined later had a session earlier, on the service's clock.
    And Jain's index of the time people had their slots: 1 when all had the same (Jain 1984)."""
    times = sorted(
        (visit.joined, visit.started)
        for visit in _in_turn(visits)
        if visit.joined is not None and visit.started is not None
    )
    overtaken, earliest = 0, None
    for at, (_, started) in reversed(list(enumerate(times))):
        same = at + 1 < len(times) and times[at + 1][0] == times[at][0]
        overtaken += earliest is not None and earliest < started and not same
        earliest = started if earliest is None else min(earliest, started)
    had = [visit.slot_s for visit in visits if visit.ended == "left" and visit.slot_s]
    squares = len(had) * sum(each * each for each in had)
    return {
        "waited": len(times),
        "overtaken": overtaken,
        "slot_time": round(sum(had) ** 2 / squares, 4) if squares else None,
    }


def _slots(samples: Sequence[Sample]) -> dict[str, Any]:
    """Shares of the capacity in use."""

    def used(chosen: list[Sample]) -> float | None:
        there = sum(sample.capacity for sample in chosen)
        held = sum(min(sample.held, sample.capacity) for sample in chosen)
        return round(held / there, 4) if there else None

    return {
        "used": used(list(samples)),
        "used_while_people_waited": used([s for s in samples if s.waiting]),
        "most_waiting": max((sample.waiting for sample in samples), default=0),
        "most_held": max((sample.held for sample in samples), default=0),
    }


def _visit(visit: Visit) -> dict[str, Any]:
    values = {name: getattr(visit, name) for name in _OF_A_VISIT}
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in values.items()
    }


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(Counter(words).most_common())


def _codes(counts: dict[str, int]) -> str:
    return "".join(f", {number} {code}" for code, number in counts.items())


def _row(name: str, found: dict[str, Any], of: str, times: float, unit: str) -> str:
    if not found["n"]:
        return f"  {name:<12}nobody"
    middle, most, longest = (f"{found[p] * times:.1f}" for p in ("p50", "p95", "max"))
    return f"  {name:<12}{middle} {unit} p50, {most} p95, {longest} at most; {found['n']} {of}"


def _fairly(report: dict[str, Any]) -> Iterator[str]:
    fairness, slots = report["fairness"], report["slots"]
    alike = fairness["slot_time"]
    index = "" if alike is None else f"; slot times alike by {alike:.2f} of 1"
    yield (
        f"  {'fairness':<12}{fairness['overtaken']} of {fairness['waited']} who waited were"
        f" overtaken{index}"
    )
    used, busy = slots["used"], slots["used_while_people_waited"]
    if used is not None:
        then = "" if busy is None else f", {busy:.0%} while people waited"
        yield f"  {'slots':<12}{used:.0%} in use{then}; at most {slots['most_waiting']} waited"
