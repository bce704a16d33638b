"""What a machine costs: its price by the hour times the time it is billed. Pure.

Money is counted in whole millionths of a currency (micro), rounded down at each instant since the
launch. So what parts of a time cost comes to exactly what the whole of it costs.
"""

import math
from collections.abc import Iterator, Sequence

from msgspec import Struct

from admission.instance import Instance

HOUR_MS = 3_600_000
MICRO = 1_000_000
PROMPT_WEIGHT, COMPLETION_WEIGHT = 1, 4
"""How much of a machine a token counts for. A choice: a prompt is read at once, an answer token by
token."""
OF_MACHINES = ("pool", "instance", "hour", "day")
BY = ("pool", "model", "user", "project", "key", "instance", "hour", "day")
"""By which costs are told apart; the first without a wish. The others follow from use."""
_NANO = 1_000_000_000
_NANO_MS_OF_MICRO = HOUR_MS * (_NANO // MICRO)


class Uptime(Struct, frozen=True, kw_only=True):
    """What a machine is billed for. Instants are ms since 1970. It may run still (``ended_ms``
    None), have ended before it began (a clock that went back), or have no known price."""

    instance_id: str
    worker: str = ""  # whose requests it ran
    provider: str = ""
    pool: str = "default"
    type: str = ""
    zone: str = ""
    market: str = "on-demand"
    model: str = ""
    currency: str = "USD"
    price_per_hour: float | None = None  # None: nobody told one
    launched_ms: int
    ended_ms: int | None = None
    least_ms: int = 0  # billed at least

    @classmethod
    def of(cls, one: Instance) -> "Uptime | None":
        """An instance's; None before its launch."""
        if one.launched_ms is None:
            return None
        order = one.order
        names = ("provider", "pool", "type", "zone", "market", "model", "currency")
        return cls(
            instance_id=one.id,
            worker=one.worker_id or one.id,
            **{name: getattr(order, name) for name in names},
            price_per_hour=order.price_per_hour,
            launched_ms=one.launched_ms,
            ended_ms=one.ended_ms,
            least_ms=order.billed_least_s * 1000,
        )

    @property
    def is_priced(self) -> bool:
        """Whether a price is known; 0 is one."""
        price = self.price_per_hour
        return price is not None and math.isfinite(price) and price >= 0

    @property
    def per_hour(self) -> int:
        """Micro; 0 where no price is known."""
        return round(_nano(self) / (_NANO // MICRO))

    def end_ms(self, now_ms: int) -> int:
        """Up to when it is billed, as far as that is over."""
        ended_ms = now_ms if self.ended_ms is None else self.ended_ms
        return min(now_ms, max(ended_ms, self.launched_ms + self.least_ms))

    def cost(self, from_ms: int, to_ms: int, now_ms: int) -> int:
        """Micro, for what lies between; 0 where no price is known."""
        end_ms = min(to_ms, self.end_ms(now_ms))
        return max(0, self._until(end_ms) - self._until(from_ms))

    def hours(self, from_ms: int, to_ms: int, now_ms: int) -> Iterator[tuple[int, int]]:
        """Each hour of UTC in which it is billed between these instants, and its cost there."""
        at_ms = max(from_ms, self.launched_ms)
        end_ms = min(to_ms, self.end_ms(now_ms))
        before = self._until(at_ms)
        while at_ms < end_ms:
            hour_ms = at_ms - at_ms % HOUR_MS
            at_ms = min(hour_ms + HOUR_MS, end_ms)
            after = self._until(at_ms)
            yield hour_ms, after - before
            before = after

    def _until(self, at_ms: int) -> int:
        """Micro, from the launch to an instant, as if it never ended."""
        return _nano(self) * max(0, at_ms - self.launched_ms) // _NANO_MS_OF_MICRO


def _nano(uptime: Uptime) -> int:
    return round((uptime.price_per_hour or 0) * _NANO) if uptime.is_priced else 0


def divide(total: int, weights: Sequence[float]) -> list[int]:
    """``total`` in whole parts that are as large as their weights and come to exactly it.

    Args:
        weights: not below 0, and one at least above.
    """
    whole, seen, given = math.fsum(weights), 0.0, 0
    parts = []
    last = max(index for index, weight in enumerate(weights) if weight > 0)
    for index, weight in enumerate(weights):
        seen += weight
        upto = total if index >= last else min(total, round(total * (seen / whole)))
        parts.append(upto - given)
        given = upto
    return parts
