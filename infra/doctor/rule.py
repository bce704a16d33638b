"""A rule of the contract, and what may come of asking for it."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infra.doctor.room import Room

Check = Callable[["Room"], Awaitable[None]]


class Broken(Exception):
    """The rule does not hold: after which call, what was expected and what was seen."""

    def __init__(self, call: str, expected: object, seen: object) -> None:
        self.call = call
        self.expected, self.seen = ("nothing" if it is None else str(it) for it in (expected, seen))
        super().__init__(f"{call}: expected {self.expected}, seen {self.seen}")


class Skipped(Exception):
    """The rule cannot be asked for here; says why."""


def expect(what: str, seen: object, expected: object) -> None:
    """Raises Broken unless both are equal."""
    if seen != expected:
        raise Broken(what, expected, seen)


@dataclass(frozen=True)
class Pool:
    """The pool a rule is asked in: its settings as ``PUT /admin/pools`` takes them.

    ``shared``: with other rules, which then see each other's tickets and change no settings.
    """

    settings: Mapping[str, Any]
    shared: bool = False


WIDE = Pool({"capacity": 1000}, shared=True)
SHUT = Pool({"capacity": 0}, shared=True)


def own(**settings: Any) -> Pool:
    """A pool for one rule alone."""
    return Pool(settings)


@dataclass(frozen=True)
class Rule:
    """``says``: the sentence of DESIGN, shortened where it speaks of more than this."""

    name: str
    says: str
    pool: Pool
    check: Check


class Rules:
    """The rules of one module, in its order: ``@rules(SENTENCE, POOL)`` before a coroutine."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def __call__(self, says: str, pool: Pool = WIDE) -> Callable[[Check], Check]:
        def add(check: Check) -> Check:
            name = check.__name__.replace("_", " ")
            self._rules.append(Rule(name, says, pool, check))
            return check

        return add

    def __iter__(self) -> Iterator[Rule]:
        return iter(self._rules)
