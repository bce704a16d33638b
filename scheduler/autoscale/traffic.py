"""What is learnt of a pool's traffic: how many come, how that changes, how long a slot is held.

Rates are per ms. Windows are time constants: what is a window old counts 1/e.
"""

import math

from msgspec import Struct
from msgspec.structs import replace

from scheduler.autoscale.demand import Demand
from scheduler.autoscale.spec import FleetSpec

SURE = 4.0  # standard deviations of a Poisson count by which a change must be off the usual
LEAST_ENDED = 3.0  # turns that must have ended before their mean length counts


class Traffic(Struct, frozen=True, kw_only=True):
    """Smoothed arrivals (Holt: level and trend), a fast copy for surges, and the time held."""

    at_ms: int | None = None
    arrived_total: int | None = None
    begun_total: int | None = None
    in_use: int = 0
    seen_ms: float = 0  # so long the rates have been watched
    rate: float | None = None
    trend: float = 0.0  # of the rate, per ms
    fast_rate: float | None = None  # of the panic window
    sign: int = 0  # 1 of a surge, -1 of a slump, in the newest look
    signs_ms: int = 0  # so long each look showed it
    change: int = 0  # the same once it lasted: what is usual was set anew by this look
    used_ms: float = 0.0  # slot-ms in use, and how many turns ended: their decayed sums
    ended: float = 0.0
    held_ms: float | None = None  # mean time that a slot is held, by the newest that was learnt
    busy: float | None = None  # slots in use, smoothed over ``up_after_ms``

    def heard(self, demand: Demand, spec: FleetSpec, now_ms: int) -> "Traffic":
        """After one more look at the counters; after a gap, or when they began anew, anew."""
        in_use = demand.in_use or 0
        first = Traffic(
            at_ms=now_ms,
            arrived_total=demand.arrived_total,
            begun_total=demand.begun_total,
            in_use=in_use,
            busy=in_use,
            held_ms=self.held_ms,
        )
        if self.at_ms is None or not 0 <= now_ms - self.at_ms <= spec.gap_ms:
            return first
        if now_ms == self.at_ms:
            return self
        passed, used = now_ms - self.at_ms, (in_use + self.in_use) / 2
        before = used if self.busy is None else self.busy
        busy = before + _share(passed, spec.up_after_ms) * (used - before)
        began = _grown(self.begun_total, demand.begun_total)
        if began is None or self.arrived_total is None or demand.arrived_total is None:
            return replace(first, busy=busy)
        came = max(0, demand.arrived_total - self.arrived_total)  # fewer: more left than came
        kept = math.exp(-passed / spec.usual_window_ms)
        used_ms = kept * self.used_ms + used * passed
        ended = kept * self.ended + max(0, began - (in_use - self.in_use))
        return replace(
            self._arrivals(came, passed, spec),
            at_ms=now_ms,
            arrived_total=demand.arrived_total,
            begun_total=demand.begun_total,
            in_use=in_use,
            used_ms=used_ms,
            ended=ended,
            held_ms=used_ms / ended if ended >= LEAST_ENDED and used_ms else self.held_ms,
            busy=busy,
        )

    def _arrivals(self, came: int, passed: int, spec: FleetSpec) -> "Traffic":
        seen = came / passed
        if self.rate is None or self.fast_rate is None:
            return replace(self, rate=seen, fast_rate=seen)
        # While little was seen, a plain mean: the first moment is not worth a whole window.
        window = min(spec.usual_window_ms, max(self.seen_ms, passed))
        expected = self.rate + self.trend * passed
        # Who comes all at once is a queue, no rate, until it lasts: then it is a surge.
        usual = self.rate * passed
        counted = min(seen, (usual + SURE * math.sqrt(usual + 1)) / passed)
        rate = max(0.0, expected + _share(passed, window) * (counted - expected))
        slope = (rate - self.rate) / passed
        trend = self.trend + _share(passed, spec.trend_window_ms) * (slope - self.trend)
        fast = self.fast_rate + _share(passed, spec.panic_window_ms) * (seen - self.fast_rate)
        if self.seen_ms < spec.usual_window_ms:
            trend = 0.0
        after = replace(self, rate=rate, trend=trend, fast_rate=fast, seen_ms=self.seen_ms + passed)
        sign = after._sign(came, passed, spec)
        signs_ms = self.signs_ms + passed if sign and sign == self.sign else 0
        after = replace(after, sign=sign, signs_ms=signs_ms, change=0)
        change = sign if signs_ms >= spec.panic_window_ms else 0
        if not change:
            return after
        # What is usual is what there is now; how long that was seen begins with the short window.
        return replace(after, rate=fast, trend=0.0, seen_ms=2 * spec.panic_window_ms, change=change)

    def rate_in(self, ms: float, spec: FleetSpec) -> float | None:
        """The arrivals per ms that are expected after ``ms``, the trend damped: it is believed for
        one of its windows. None: not known."""
        if self.rate is None:
            return None
        ahead = spec.trend_window_ms * (1 - math.exp(-ms / spec.trend_window_ms))
        return min(2 * self.rate, max(0.0, self.rate + self.trend * ahead))

    def _sign(self, came: int, passed: int, spec: FleetSpec) -> int:
        """1 when far more come in the short window than is usual, -1 when far fewer do, by more
        than chance, and the newest (``came`` in ``passed`` ms) say so too; else 0."""
        usual, now = self._counts(spec)
        newest = (self.rate or 0.0) * passed
        if abs(now - usual) <= SURE * math.sqrt(usual + 1):
            return 0
        if now > spec.panic_ratio * usual and came > newest + SURE / 2 * math.sqrt(newest + 1):
            return 1
        return -1 if spec.panic_ratio * now < usual and came < newest else 0

    def _counts(self, spec: FleetSpec) -> tuple[float, float]:
        """How many come in a short window, usually and now. An exponential window of w holds as
        much as the last 2 w counted plainly."""
        if self.rate is None or self.fast_rate is None or self.seen_ms < spec.panic_window_ms:
            return 0.0, 0.0
        return 2 * spec.panic_window_ms * self.rate, 2 * spec.panic_window_ms * self.fast_rate


def _share(passed: float, window: float) -> float:
    """What a new value weighs after ``passed`` ms."""
    return 1 - math.exp(-passed / window) if window else 1.0


def _grown(before: int | None, after: int | None) -> int | None:
    """None when it is not known, or the counter began anew."""
    if before is None or after is None or after < before:
        return None
    return after - before
