"""What one decision says: what to order, drain, take back and end, each with its reason."""

from msgspec import Struct

from scheduler.autoscale.places import Place


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
    """One pool's next step. With ``hold`` there is none.

    ``cold_start_ms``: while no worker is ready, how long until the first one is; to be shown to who
    waits. None: one is ready, or none is coming.
    """

    reason: str
    hold: str | None = None
    launches: tuple[Launch, ...] = ()
    drains: tuple[Act, ...] = ()
    undrains: tuple[Act, ...] = ()
    terminations: tuple[Act, ...] = ()
    cold_start_ms: int | None = None
    numbers: dict[str, float | int | None] = {}

    @property
    def acts(self) -> int:
        """How many things it asks for."""
        return sum(
            map(len, (self.launches, self.drains, self.undrains, self.terminations)),
        )
