"""Day: hours of traffic on a pool from one seed, with everything that goes wrong.

People come in waves. An admin changes slots, pauses, removes people; the ticks fall silent for
minutes; Redis' clock jumps ahead or stands still; processes crash, replies get lost, calls arrive
twice (``service``). After each call all invariants are looked at (``invariants``).
"""

import random
from dataclasses import asdict, dataclass

from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.domain import PoolPolicy, Priority, WorkerReport
from tests.simulation.hours import Hours
from tests.simulation.invariants import Witness
from tests.simulation.ledger import Broken, hold
from tests.simulation.people import MINUTE, SECOND, Person
from tests.simulation.requests import Caller
from tests.simulation.service import POOL, Service

USERS = 50
VISITS = 3  # of each user in 24 hours
HOUR = 60 * MINUTE
CLASSES = {"vip": Priority(3 * MINUTE, 3), "batch": Priority(-10 * MINUTE, 0.5)}
TICKS_MAX_MS = 60 * SECOND  # a day of ticks each second would be mostly ticks
DRAINS_MAX = 2000
PASSES = 15  # of announce, until all it keeps of the past is judged


@dataclass(frozen=True)
class Report:
    """What a day was: its seed and settings, and how much happened."""

    seed: int
    policy: PoolPolicy
    calls: int
    admitted: int
    expired: int
    crashes: int


def draw_policy(rng: random.Random, kind: str | None) -> PoolPolicy:
    """A pool's settings; ``kind`` is "session", "request", or None for either."""
    requests = (kind or rng.choice(("session", "session", "request"))) == "request"
    auto = rng.random() < 0.2
    return PoolPolicy(
        kind="request" if requests else "session",
        capacity="auto" if auto else rng.randint(1, 4),
        max_active=rng.randint(3, 5),
        sessions_per_slot=1 if requests else 2,
        session_ms=rng.choice((2, 5)) * MINUTE if requests else rng.choice((5, 10, 20)) * MINUTE,
        draft_ms=rng.choice((60, 120, 300)) * SECOND,
        grace_ms=60 * SECOND,
        idle_ms=rng.choice((90, 300)) * SECOND,
        user_concurrency=rng.choice((None, 1, 2)),
        priorities=CLASSES if rng.random() < 0.6 else {},
        queue_limit=rng.choice((None, None, 12)),
        queue_timeout_ms=rng.choice((None, None, 15 * MINUTE)),
        requeue=rng.random() < 0.35,
        needs_worker=auto or rng.random() < 0.1,
    )


class Day:
    """One pool, 50 users, and whoever else has a hand in it."""

    def __init__(self, url: str, seed: int, hours: float = 24, kind: str | None = None) -> None:
        """``kind`` is the pool's, "session" or "request"; None lets the seed choose."""
        self.seed, self.kind = seed, kind
        self.rng = random.Random(seed)
        self.policy = draw_policy(self.rng, kind)
        self.clock = ManualClock()
        self.hours = Hours(self.clock)
        self.lasts_ms = round(hours * HOUR)
        self.redis = Redis.from_url(url, socket_timeout=None)
        users = [f"somebody-{number:02}" for number in range(USERS)]
        classes = [*self.policy.priorities] * 8 + ["default"] * USERS
        self.rng.shuffle(users)
        self.classes = dict(zip(users, classes, strict=False))
        self.witness = Witness(self.redis, self.clock, self.policy, POOL, self.classes)
        self.service = Service(url, self.clock, self.policy, self.rng, self.witness)

    async def live(self) -> Report:
        """All of it, and the quiet after it, on an empty server.

        Raises:
            Broken: an invariant did not hold; says the seed, the last steps, how to see it again.
        """
        try:
            with self.service.listening():
                await self._live()
        except Exception as error:  # also a crash of the engine, or of a person
            raise Broken(self._story(error)) from error
        finally:
            await self.service.close()
            await self.redis.aclose()
        ledger, service = self.witness.ledger, self.service
        return Report(
            self.seed, self.policy, service.calls, ledger.admitted, ledger.expired, service.crashes
        )

    async def _live(self) -> None:
        await self.redis.flushall()
        await self.redis.config_set("rdbcompression", "no")  # so that DUMP shows names
        for user in sorted(self.classes):
            who = Caller if self.policy.kind == "request" else Person
            person = who(user, self.classes[user], self.service, self.hours, self.rng)
            self.hours.begin(person.live(self._arrivals()))
        for life in (self._tick(), self._admin(), self._weather()):
            self.hours.begin(life)
        if self.policy.needs_worker:
            self.hours.begin(self._fleet())
        await self.hours.run(self.lasts_ms)
        await self._drain()

    def _story(self, error: Exception) -> str:
        hours = self.lasts_ms / HOUR
        steps = "\n  ".join(self.service.last)
        return (
            f"seed {self.seed}, {hours:g} h, {self.policy}\n  {steps}\n"
            f"{type(error).__name__}: {error}\nagain: python -m tests.simulation.soak --days 1"
            f" --seed {self.seed} --hours {hours:g} --kind {self.kind or 'any'}"
        )

    def _arrivals(self) -> list[int]:
        """Moments (ms) at which somebody comes: around a few peaks, in the same for all."""
        number = max(1, round(self.lasts_ms / HOUR / 24 * VISITS))
        peaks = [
            self.lasts_ms * at for at in ((0.2,) if self.lasts_ms <= HOUR else (0.3, 0.6, 0.8))
        ]
        spread = min(HOUR, self.lasts_ms / 8)
        drawn = (self.rng.gauss(self.rng.choice(peaks), spread) for _ in range(number))
        return sorted(round(max(0.0, at)) for at in drawn)

    async def _tick(self) -> None:
        """The scheduler's ticks: at the next deadline, sometimes silent for minutes."""
        while True:
            if self.rng.random() < 0.02:
                await self.hours.sleep(self.rng.randrange(2, 12) * MINUTE)
            next_ms = await self.service.call("expire")
            if self.rng.random() < 0.1:
                await self.service.call("announce")
            if self.rng.random() < 0.1:
                await self.service.call("expire_workers")
            most = TICKS_MAX_MS if next_ms is not None else 5 * TICKS_MAX_MS
            await self.hours.sleep(min(next_ms or most, most))

    async def _admin(self) -> None:
        """Changes slots, pauses for a while, removes somebody."""
        while True:
            await self.hours.sleep(self.rng.expovariate(1 / 25) * MINUTE)
            deed = self.rng.random()
            if deed < 0.4 and self.policy.capacity != "auto":
                await self.service.call("set_capacity", capacity=self.rng.randint(0, 5))
            elif deed < 0.6:
                await self.service.surely("pause", paused=True)
                await self.hours.sleep(self.rng.expovariate(1 / 3) * MINUTE)
                await self.service.surely("pause", paused=False)
            else:
                await self.service.call("cancel", user=self.rng.choice(sorted(self.classes)))

    async def _weather(self) -> None:
        """Clocks, crashes, a server that forgot its scripts."""
        while True:
            await self.hours.sleep(self.rng.expovariate(1 / 30) * MINUTE)
            match self.rng.randrange(4):
                case 0:
                    self.hours.jump_clock(round(self.rng.expovariate(1 / 3) * MINUTE))
                case 1:
                    self.hours.stop_clock(round(self.rng.expovariate(1 / 3) * MINUTE))
                case 2:
                    await self.service.crash()
                case 3:
                    await self.service.forget_scripts()

    async def _fleet(self) -> None:
        """A worker that reports, and at times does not; another that often does not."""
        while True:
            for worker, reports in (("w1", 0.95), ("w2", 0.4)):
                if self.rng.random() < reports:
                    await self._report(worker)
            await self.hours.sleep(28 * SECOND)
            if self.rng.random() < 0.01:
                await self.hours.sleep(self.rng.expovariate(1 / 3) * MINUTE)

    async def _report(self, worker: str) -> None:
        said = WorkerReport(ready=True, reason=None, models=("m",), slots=1)
        identity = {"url": "http://127.0.0.1:1", "kind": "static"}
        await self.service.call("report_worker", worker=worker, report=said, identity=identity)

    async def _drain(self) -> None:
        """Nobody acts any more: deadlines alone end everything, and nothing is left."""
        await self.service.surely("configure", changes={"needs_worker": False})
        await self.service.surely("pause", paused=False)
        await self.service.surely("set_capacity", capacity=3)
        for _ in range(DRAINS_MAX):
            next_ms = await self.service.surely("expire")
            if next_ms is None:
                break
            self.clock.advance_ms(max(1, next_ms))
        hold(next_ms is None, "deadlines alone do not empty the pool")
        self.clock.advance_ms(24 * HOUR)  # workers, ended tickets and old promises are forgotten
        await self.service.surely("expire")
        await self.service.surely("expire_workers")
        for _ in range(PASSES):
            await self.service.surely("announce")
        await self.witness.check_empty()


def described(policy: PoolPolicy) -> str:
    """The settings that differ from the usual ones."""
    usual = asdict(PoolPolicy())
    return " ".join(f"{k}={v}" for k, v in asdict(policy).items() if v != usual[k])
