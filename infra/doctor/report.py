"""What an examination found, for people line by line and for programs as JSON."""

from collections.abc import Iterator
from typing import Any

from infra.doctor.examination import Examination, Verdict
from infra.doctor.rules import CHAPTERS

SIGNS = {"held": "✓", "broken": "✗", "skipped": "–"}
_CHAPTER_OF = {id(rule): name for name, rules in CHAPTERS.items() for rule in rules}


def told(verdict: Verdict) -> Iterator[str]:
    """The lines of one rule: one, and what was expected and seen when it does not hold."""
    rule = verdict.rule
    why = f" (skipped: {verdict.why})" if verdict.why else ""
    yield f"{SIGNS[verdict.outcome]} {_CHAPTER_OF.get(id(rule), 'rules')} · {rule.name}{why}"
    if verdict.outcome == "broken":
        yield f"    rule      {rule.says}"
        yield f"    after     {verdict.call}"
        yield f"    expected  {verdict.expected}"
        yield f"    seen      {verdict.seen}"


def summed(done: Examination) -> Iterator[str]:
    """The last lines."""
    yield from (f"✗ left behind, take it away by hand: {path}" for path in done.left)
    counts = [f"{len(done.of(outcome))} {outcome}" for outcome in SIGNS]
    yield f"{len(done.verdicts)} rules at {done.url}: {', '.join(counts)}"


def as_json(done: Examination) -> dict[str, Any]:
    """Everything; names are those of ``Verdict``."""
    return {
        "url": done.url,
        "ok": done.good,
        **{outcome: len(done.of(outcome)) for outcome in SIGNS},
        "left": done.left,
        "rules": [
            {
                "chapter": _CHAPTER_OF.get(id(one.rule)),
                "name": one.rule.name,
                "says": one.rule.says,
                "outcome": one.outcome,
                "seconds": one.seconds,
                "call": one.call,
                "expected": one.expected,
                "seen": one.seen,
                "why": one.why,
            }
            for one in done.verdicts
        ],
    }
