"""What the autoscaler decided of a pool, as it is kept and shown. No I/O, nothing of ours imported.

The autoscaler itself is the scheduler's (``scheduler.autoscale``); admission shows its last word.
"""

from enum import StrEnum

from msgspec import Struct


class Hold(StrEnum):
    """Why nothing is decided: something is missing, or nothing would come of it."""

    DEMAND_UNKNOWN = "demand_unknown"
    DEMAND_OLD = "demand_old"
    POOL_UNKNOWN = "pool_unknown"  # no worker could register
    FLEET_UNKNOWN = "fleet_unknown"
    FLEET_OLD = "fleet_old"
    POOL_PAUSED = "pool_paused"
    CAPACITY_FIXED = "capacity_fixed"  # a number, whatever workers there are
    WORKERS_SILENT = "workers_silent"  # more than half of them at once
    COMMANDS_WAIT = "commands_wait"  # nobody takes what was asked of the fleet


class Short(StrEnum):
    """Why less is ordered than is wanted."""

    WORKERS_MAX = "workers_max"
    SLOTS_MOST = "slots_most"  # of more machines no slot could be used: MAX_ACTIVE_USERS
    BUDGET = "budget"
    QUOTA = "quota"
    PLACES_CLOSED = "places_closed"  # each failed too often, and opens again later
    OFFERS_OLD = "offers_old"
    NO_PLACE = "no_place"  # nobody offers anything that may be ordered


class Obstacle(Struct, frozen=True):
    """One of these that lasts. ``since_ms``: in force without a break, with whatever words."""

    code: str
    reason: str
    since_ms: int


class Decided(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The last decision of one pool.

    ``short`` stays what it was while it holds: nobody looked. ``acted``: the last decision that
    asked for anything, in words. ``cold_start_ms``: while no worker is ready, how long until the
    first one is; None: one is, or none is coming. ``numbers``: those of
    ``decision_views.decided_view``, None or left out where they are not known; spans in ms.
    """

    at_ms: int
    reason: str
    hold: Obstacle | None = None
    short: Obstacle | None = None
    acted_ms: int | None = None
    acted: str = ""
    cold_start_ms: int | None = None
    numbers: dict[str, float | int | None] = {}
