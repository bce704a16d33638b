"""Which machines somebody looks after, and by which files, by the leases of the ticks that do.

Each provider and each pool of a fleet's file has a tick of its own, under a lease of its name. As
long as anybody's is good it is looked after: so it does not matter whose file is asked, when
several schedulers have files of different age.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from admission.instance import Instance, State

if TYPE_CHECKING:  # the commands, which know the names of ticks, ask over HTTP alone
    from admission.store.redis_store import RedisStore
    from admission.store.tick_store import TickFacts

AUTOSCALER = "autoscaler"
"""``asked_by`` of what the autoscaler ordered: nobody else means to end it."""
LATELY_MS = 15_000
"""A lease is 5 s; who is started anew, or whose tick failed, is without it for some more."""
GOING = frozenset({State.PROVISIONING, State.BOOTING, State.READY})
"""What leaves these states comes to its end whoever its pool belongs to."""
OVER = frozenset({State.TERMINATED, State.ARCHIVED})

_FILE = "file-"


def provider_tick(provider: str) -> str:
    """The tick that brings a provider's machines further."""
    return f"instances-{provider}"


def pool_tick(pool: str) -> str:
    """The tick that fits a pool's machines to its queue."""
    return f"scale-{pool}"


def file_tick(digest: str) -> str:
    """The lease of whoever has the fleet file of this digest."""
    return f"{_FILE}{digest}"


def is_file(tick: str) -> bool:
    """Whether a lease is that of a fleet file: without a holder it is a file of old."""
    return tick.startswith(_FILE)


def files_of(ticks: "Sequence[TickFacts]") -> dict[str, str]:
    """The digests of the fleet files that schedulers have now, each with one who has it."""
    return {
        tick.name.removeprefix(_FILE): tick.holder
        for tick in ticks
        if tick.holder is not None and is_file(tick.name)
    }


def files_words(files: Mapping[str, str]) -> str:
    """What is wrong with `files_of`; "" where there is one file, or none."""
    if len(files) < 2:
        return ""
    each = ", ".join(f"{holder} has {digest}" for digest, holder in sorted(files.items()))
    return f"schedulers have different fleet files, and each does what its own says: {each}"


class Attendance(NamedTuple):
    """Until when each tick's lease was or is good, and the pools there are, at ``now_ms``."""

    now_ms: int
    until_ms: dict[str, int]
    pools: frozenset[str]

    @classmethod
    async def of(cls, store: "RedisStore") -> "Attendance":
        """
        Raises:
            StoreUnavailable.
        """
        until_ms = {tick.name: tick.until_ms for tick in await store.ticks.all()}
        return cls(await store.fleet.now_ms(), until_ms, frozenset(await store.pools()))

    def led(self, tick: str, within_ms: int = LATELY_MS) -> bool:
        """Whether a scheduler has this tick, or had it so lately."""
        return self.until_ms.get(tick, 0) > self.now_ms - within_ms

    def lack(self, one: Instance) -> str:
        """Why nobody looks after a machine, or would ever end it; "" where all is well."""
        provider, pool = one.order.provider, one.order.pool
        if one.state in OVER:
            return ""
        if not self.led(provider_tick(provider)):
            return f"no scheduler has its provider {provider}: nobody looks after it, or ends it"
        if one.state not in GOING:
            return ""
        if pool not in self.pools:
            return f"there is no pool {pool} any more: it serves nobody"
        if one.asked_by == AUTOSCALER and not self.led(pool_tick(pool)):
            return f"no scheduler follows its pool {pool}: nobody ends it when it is not needed"
        return ""
