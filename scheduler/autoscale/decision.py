"""What one decision says: what to order, drain, take back and end, each with its reason."""

from msgspec import Struct

from admission.decided import Hold, Short
from scheduler.autoscale.places import Place


class Why(Struct, frozen=True):
    """Why nothing is done, or less than is wanted: its kind, and all of it in words."""

    code: Hold | Short
    words: str


class Launch(Struct, frozen=True):
    """An instance to order. ``id`` is its name from now on: to order it twice makes it once."""

    id: str
    place: Place
    reason: str


class Act(Struct, frozen=True):
    """Something to be done to an instance. ``by_ms``: a drain's deadline."""

    id: str
    reason: str
    by_ms: int | None = None


class Decision(Struct, frozen=True, kw_only=True):
    """One pool's next step. With ``hold`` there is none; ``short``: more is wanted than can be
    had."""

    reason: str
    hold: Why | None = None
    short: Why | None = None
    launches: tuple[Launch, ...] = ()
    drains: tuple[Act, ...] = ()
    undrains: tuple[Act, ...] = ()
    terminations: tuple[Act, ...] = ()
    numbers: dict[str, float | int | None] = {}

    @classmethod
    def held(cls, why: Why) -> "Decision":
        """Nothing, and why."""
        return cls(reason=f"hold: {why.words}", hold=why)

    @property
    def acts(self) -> int:
        """How many things it asks for."""
        return sum(
            map(len, (self.launches, self.drains, self.undrains, self.terminations)),
        )
