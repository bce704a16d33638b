"""The words of the fleet as types: what was ordered, a machine's life, its volumes, its history.

No I/O, nothing of ours imported. The life cycle itself is the scheduler's (``scheduler.fleet``);
admission shows it and passes commands on.
"""

import hashlib
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct, field

INSTANCE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""Also its worker's id, its host name (RFC 1123) and the token that makes its launch idempotent
(EC2's ClientToken has at most 64 characters)."""


class State(StrEnum):
    """Where an instance is in its life (DESIGN section 10)."""

    PROVISIONING = "provisioning"  # wanted; the provider may or may not have made it yet
    BOOTING = "booting"  # made: it starts, installs, loads its model
    READY = "ready"
    DRAINING = "draining"  # gets nothing new, finishes what runs
    TERMINATING = "terminating"  # to be gone, with its volumes
    TERMINATED = "terminated"  # the provider said that it is gone
    ARCHIVED = "archived"  # out of sight; its history stays
    PROVISIONING_FAILED = "provisioning_failed"  # the provider refused it
    STARTUP_FAILED = "startup_failed"  # made, but never ready
    FAILED = "failed"  # was ready, and is lost


class Order(Struct, frozen=True, omit_defaults=True):
    """What was asked of a provider. It never changes: a repeated launch says the same words."""

    provider: str  # "aws", "bare-metal", "local", …: a name among those configured
    pool: str = "default"
    type: str = ""  # the provider's name of a machine type; "" for its only one
    zone: str = ""  # "" where it has none
    market: str = "on-demand"  # or "spot"
    model: str = ""  # "" for what the provider's settings say
    price_per_hour: float | None = None  # when it was ordered; None: nobody told one
    currency: str = "USD"
    options: dict[str, str] = {}  # what only this provider knows, never a secret
    billed_least_s: int = 0  # so long, also when it ended sooner


class Volume(Struct, frozen=True, omit_defaults=True):
    """A disk that a provider bills apart from the machine."""

    provider_volume_id: str
    volume_type: str
    size_gb: int
    is_boot: bool = False
    delete_on_terminate: bool = True  # False: it is kept, by its owner's wish
    state: str = "attached"  # detached, deleting, deleted, kept
    deleted_ms: int | None = None  # when the provider said that it is gone


class Instance(Struct, frozen=True, omit_defaults=True):
    """A machine that is wanted, runs or ran. Instants are ms since 1970.

    ``version`` grows by one with each change: who changes it names the version that was read.
    """

    id: str
    order: Order
    state: State
    version: int
    progress: int  # 0-100 (DESIGN section 10); on a failure it stays where it failed
    requested_ms: int
    since_ms: int  # in this state
    moved_ms: int  # since the progress is what it is
    asked_by: str = ""  # "autoscaler", or a command's id
    provider_id: str = ""  # "" until the provider named it
    worker_id: str = ""  # its agent's, where the provider says another than ``id``
    address: str = ""  # host of its agent, "" until it is known
    error_code: str = ""  # STARTUP_TIMEOUT, … ; what led to the failure, kept to the end
    error: str = ""  # the same in words
    tried_ms: int | None = None  # its launch, the last time: from then on it may exist
    launched_ms: int | None = None  # billed from here
    ready_ms: int | None = None  # for the first time
    drain_by_ms: int | None = None  # its running requests are given until then
    ended_ms: int | None = None  # billed until here
    volumes: tuple[Volume, ...] = ()


BUDGET_ALARM = "budget_alarm"
"""The name of an event that is of no instance: a budget is used up to some share."""


class Event(Struct, frozen=True, omit_defaults=True):
    """One line of an instance's history: a transition, or an action and how it went."""

    instance_id: str  # "" for a budget's alarm
    at_ms: int
    version: int  # of the instance after it
    name: str  # of the transition or action: "drain", "launch", "delete_volume"
    source: str = ""  # the states of a transition; "" for an action
    target: str = ""
    reason: str = ""
    progress: int = 0
    ok: bool = True
    detail: dict[str, Any] = field(default_factory=dict)  # flat; never a secret


class Offer(Struct, frozen=True):
    """A machine that may be ordered, cheapest first where a provider lists several."""

    type: str
    zone: str
    market: str
    price_per_hour: float | None  # None: none is known
    currency: str = "USD"
    slots: int = 1  # requests that one such worker runs well at once
    source: str = ""  # of the price: a page or file, and its date
    billed_least_s: int = 0  # seconds that are billed also of a machine that ended sooner
    ending: str = ""  # what the end of such a machine means, for who is asked before it


class Kind(StrEnum):
    """What may be asked of the fleet."""

    PROVISION = "provision"
    DRAIN = "drain"
    RESUME = "resume"
    TERMINATE = "terminate"
    ARCHIVE = "archive"


class Command(Struct, frozen=True, omit_defaults=True):
    """What somebody wants of the fleet. It is taken once, together with all that it changes.

    Whoever asks for new instances chooses their ids, so that they can be followed at once, and a
    command that is said twice means the same machines.
    """

    id: str  # said again within 24 h it is the same command
    kind: Kind
    at_ms: int
    asked_by: str  # the id of an admin's key, "autoscaler", …
    instances: tuple[str, ...]  # of a provision: the new ones, COMMAND_INSTANCES_MAX at most
    order: Order | None = None  # of a provision, for each of them
    drain_s: int | None = None  # of drain and terminate; None: what the settings say, 0: at once
    reason: str = ""


COMMAND_INSTANCES_MAX = 50
ASKABLE: Mapping[Kind, frozenset[State]] = {
    Kind.DRAIN: frozenset({State.READY, State.DRAINING}),
    Kind.RESUME: frozenset({State.DRAINING}),
    Kind.TERMINATE: frozenset(State) - {State.TERMINATING, State.TERMINATED, State.ARCHIVED},
    Kind.ARCHIVE: frozenset({State.TERMINATED}),
}
"""In which states the life cycle has room for it (``scheduler.fleet.table``); a provision needs no
instance."""


def instance_ids(provider: str, command_id: str, count: int) -> tuple[str, ...]:
    """Ids for the machines of a provision: the same ones when the same command is said again."""
    digests = (
        hashlib.sha256(f"{command_id} {number}".encode()).hexdigest() for number in range(count)
    )
    return tuple(f"{provider[:40]}-{digest[:12]}" for digest in digests)
