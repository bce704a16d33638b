"""One difference in Open WebUI: as it is printed, and how it is made.

Knows neither what differs nor how Open WebUI is called.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass


class Secret(str):
    """A value that is never printed."""

    __slots__ = ()


Facts = Mapping[str, object]
"""What is true of a thing, by name, in the order in which a person reads it."""


@dataclass(frozen=True)
class Change:
    """From what stands to what is wanted; None where there is nothing."""

    title: str
    before: Facts | None
    after: Facts | None
    make: Callable[[], None]
    notes: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """What becomes of the thing."""
        if self.before is None:
            return "new"
        if self.after is None:
            return "removed"
        return "changed" if self.before != self.after else "unchanged"

    def lines(self) -> Iterator[str]:
        """As it is printed, the same before and after it is made."""
        yield f"{self.title}: {self.word}"
        yield from difference(self.before or {}, self.after or {})
        yield from self.notes


def difference(before: Facts, after: Facts) -> Iterator[str]:
    """``- old`` and ``+ new`` for each fact that differs."""
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if name in before:
            yield f"  - {name} = {shown(old)}"
        if name in after:
            changed = isinstance(new, Secret) and bool(new) and bool(old)
            yield f"  + {name} = {'(changed)' if changed else shown(new)}"


def shown(value: object) -> str:
    """A value as a person reads it; a secret only as being there or not."""
    if isinstance(value, Secret):
        return "(set)" if value else "(empty)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "(not set)"
    return str(value).replace("\n", "\\n")
