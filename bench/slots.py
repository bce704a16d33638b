"""Slot use: which share of a full pool's time is sessions, beside the plain rule.

The real engine on simulated time, looked at by the simulation's witness: no invariant may break.
50 slots, 40 people always waiting (8 to 10 minutes each), sessions of 1 to 20 minutes (exponential,
mean 15, cut at the cap), drafts of 5 minutes, 20 % of the people do not come when it is their turn.

The people, the same under both rules:
- 60 % wait in an Open WebUI chat, which is attached and needs no click. Of those who do not come,
  half closed the chat while they waited; a quarter left it open and nothing is sent; for a quarter
  the waiting message is answered, and nobody reads it.
- 30 % wait on a page, attached, and click within seconds of the offer (3 s and 17 s more on
  average). Of those who do not come two thirds closed the page while they waited.
- 10 % do not watch ("I will return"), and click a minute after the offer on average.
Who means to close it, but gets the offer before, does not come either.

The plain rule: nobody is admitted without a click, nobody's presence is watched, and each draft
holds its slot until its click or for its full 5 minutes. A session of somebody who did not come
counts as idle, not as a session. The clocks' ticks come at the deadlines, so no slot is free for
want of one; what a real network adds is measured in ``bench.handover``.

What it takes to go further, by what is left: ask those who watch to answer within a minute, not
five (a shorter draft for who is present); carry presence into the draft, so that closing the page
ends it within the grace; tell those who come next before the slot is free, and offer it to the
first who says yes (predictive drafts, DESIGN 12); and end an auto-confirmed session whose first
answer nobody reads, which needs the chat to say that it is seen.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.domain import PoolPolicy
from admission.outcomes import Confirmed
from tests.simulation.hours import Hours
from tests.simulation.invariants import Step, Witness
from tests.simulation.service import POOL, Service
from tests.simulation.soak import server

SLOTS, WAITING = 50, 40
MINUTE = 60_000
WARM_MS, MEASURED_MS = 40 * MINUTE, 60 * MINUTE
STAY_MEAN_MS, STAY_MAX_MS = 15 * MINUTE, 20 * MINUTE
CLOSES_WITHIN_MS = 9 * MINUTE  # about the wait
NO_SHOWS = 0.2
ATTEND_MS = 20_000  # how often a process tells who is attached
TICK_MAX_MS = 10_000
MESSAGE_MS = 4 * MINUTE  # between two messages of a session
CAUSES = ("confirmed late", "never confirmed", "unused sessions", "free or finishing")
VIEWS_EVERY = 150  # looks of the witness between two rounds of asking everybody
Mix = tuple[tuple[str, float], ...]
MIXES: dict[str, tuple[Mix, tuple[int, ...]]] = {  # and the seeds
    "chats, pages, absent": ((("chat", 0.6), ("page", 0.3), ("return", 0.1)), (1, 2, 3)),
    "pages only": ((("page", 1.0),), (1,)),
}


@dataclass(frozen=True)
class Person:
    """Somebody in the queue; the same for the same seed, mix and number."""

    user: str
    kind: str
    shows: bool
    closes_ms: int | None  # the tab, while waiting
    answered: bool  # a message is sent and answered, though nobody is there
    reacts_ms: int
    stay_ms: int

    @classmethod
    def drawn(cls, seed: int, number: int, mix: Mix) -> "Person":
        rng = random.Random(f"{seed} {number}")
        kinds, shares = zip(*mix, strict=True)
        kind = rng.choices(kinds, shares)[0]
        shows, luck = rng.random() >= NO_SHOWS, rng.random()
        closes = not shows and luck < {"chat": 1 / 2, "page": 2 / 3, "return": 0}[kind]
        least_s, mean_s = (10, 50) if kind == "return" else (3, 17)
        return cls(
            user=f"p{number}",
            kind=kind,
            shows=shows,
            closes_ms=rng.randrange(CLOSES_WITHIN_MS) if closes else None,
            answered=kind == "chat" and luck >= 3 / 4,
            reacts_ms=round((least_s + rng.expovariate(1 / mean_s)) * 1000),
            stay_ms=round(min(rng.expovariate(1 / STAY_MEAN_MS), STAY_MAX_MS)),
        )


@dataclass
class Held:
    """How long slots were held, by cause, in ms inside the measured time."""

    begins_ms: int
    ms: Counter[str] = field(default_factory=Counter)

    def add(self, cause: str, since_ms: int, until_ms: int) -> None:
        ends_ms = self.begins_ms + MEASURED_MS
        inside = min(until_ms, ends_ms) - max(since_ms, self.begins_ms)
        self.ms[cause] += max(0, inside)

    def share(self, cause: str) -> float:
        """Of all slots' time."""
        if cause == CAUSES[-1]:
            return 1 - sum(self.ms.values()) / (SLOTS * MEASURED_MS)
        return self.ms[cause] / (SLOTS * MEASURED_MS)


class Hall:
    """A full pool under one of the two rules."""

    def __init__(self, url: str, redis: Redis, seed: int, mix: Mix, plain: bool) -> None:
        clock, policy = ManualClock(), PoolPolicy(capacity=SLOTS)
        self._clock, self._redis = clock, redis
        self._seed, self._mix, self._plain = seed, mix, plain
        self._hours = Hours(clock)
        witness = Witness(redis, clock, policy, POOL, {}, views_every=VIEWS_EVERY)
        self._service = Service(url, clock, policy, random.Random(seed), witness, self._heard)
        self._people: dict[str, Person] = {}
        self._attached: dict[str, str] = {}  # user -> ticket
        self._since: dict[str, tuple[int, bool]] = {}  # user -> since when they hold; a draft?
        self.held = Held(clock.now_ms() + WARM_MS)

    async def live(self) -> Held:
        """Both the warm and the measured time."""
        await self._redis.flushall()
        with self._service.listening():
            for number in range(SLOTS + WAITING):
                self._next(in_ms=number * 1000)
            for life in (self._tick(), self._attend()):
                self._hours.begin(life)
            await self._hours.run(WARM_MS + MEASURED_MS)
        for user in list(self._since):
            self._count(self._people[user])
        await self._service.close()
        return self.held

    def _next(self, in_ms: int = 0) -> None:
        """Somebody new comes."""
        person = Person.drawn(self._seed, len(self._people), self._mix)
        self._people[person.user] = person
        self._hours.begin(self._come(person), in_ms)

    async def _come(self, person: Person) -> None:
        chat = person.kind == "chat" and not self._plain
        watched = person.kind != "return" and not self._plain
        joined = await self._service.surely(
            "join",
            user=person.user,
            ticket=f"{person.user}-t",
            auto_confirm=chat,
            will_return=person.kind == "return" and not self._plain,
            client="m",
        )
        if not watched or person.user in self._since:
            return
        self._attached[person.user] = joined.ticket.ticket_id
        await self._service.surely("attend", tickets=[joined.ticket.ticket_id])
        if person.closes_ms is not None:
            await self._hours.sleep(person.closes_ms)
            self._attached.pop(person.user, None)

    def _heard(self, step: Step) -> None:
        """What the engine moved: who is told, and what a slot was held for."""
        for move in step.moves:
            person = self._people[move.user_id]
            arrow = (move.source, move.target)
            if arrow == ("waiting", "draft"):
                self._since[person.user] = (self._clock.now_ms(), True)
                self._hours.begin(self._take_draft(person))
            elif arrow == ("waiting", "active"):
                self._since[person.user] = (self._clock.now_ms(), False)
                self._hours.begin(self._talk(person))
            elif arrow == ("draft", "active"):
                self._count(person)
                self._since[person.user] = (self._clock.now_ms(), False)
            elif move.target == "disconnected" and person.user in self._since:
                self._count(person)
            if move.source == "waiting":
                self._attached.pop(person.user, None)
                if move.target in ("draft", "active", "skipped"):
                    self._next()  # the queue stays full

    def _count(self, person: Person) -> None:
        since_ms, draft = self._since.pop(person.user)
        causes = ("confirmed late", "never confirmed") if draft else ("sessions", "unused sessions")
        self.held.add(causes[not person.shows], since_ms, self._clock.now_ms())

    async def _take_draft(self, person: Person) -> None:
        if not person.shows:
            return
        await self._hours.sleep(person.reacts_ms)
        confirmed = await self._service.surely("confirm", user=person.user)
        if isinstance(confirmed, Confirmed):
            await self._talk(person)

    async def _talk(self, person: Person) -> None:
        """Messages until the stay is over; the cap ends those who stay for longer."""
        if not person.shows:
            if person.answered:
                await self._service.surely("heartbeat", user=person.user, client="m")
            return
        ends_ms = self._hours.now_ms + person.stay_ms
        while (left_ms := ends_ms - self._hours.now_ms) > 0:
            await self._service.surely("heartbeat", user=person.user, client="m")
            await self._hours.sleep(min(left_ms, MESSAGE_MS))
        await self._service.surely("leave", user=person.user, client="m")  # the answer is over
        if person.stay_ms < STAY_MAX_MS:
            await self._service.surely("leave", user=person.user)

    async def _tick(self) -> None:
        while True:
            next_ms = await self._service.surely("expire")
            await self._hours.sleep(min(next_ms or TICK_MAX_MS, TICK_MAX_MS))

    async def _attend(self) -> None:
        while True:
            await self._hours.sleep(ATTEND_MS)
            if self._attached:
                await self._service.surely("attend", tickets=list(self._attached.values()))


async def main() -> None:
    """Print, for each mix of people, what slots are held for under both rules, and the ratio."""
    hours = MEASURED_MS / 60 / MINUTE
    print(f"slots: {SLOTS} slots, a full queue, {NO_SHOWS:.0%} no-shows, {hours:g} h a seed;")
    print("  share of all slots' time that is sessions, and the rest by cause")
    with server() as url:
        redis = Redis.from_url(url)
        for name, (mix, seeds) in MIXES.items():
            rows = [
                [await Hall(url, redis, s, mix, p).live() for s in seeds] for p in (False, True)
            ]
            for rule, row in zip(("Vestibule", "plain rule"), rows, strict=True):
                print(f"  {name:<21} {rule:<10} " + "  ".join(_shown(row)))
            ours, plain = (1 - _mean(row, "sessions") for row in rows)
            gone = [
                1 - (1 - a.share("sessions")) / (1 - b.share("sessions"))
                for a, b in zip(*rows, strict=True)
            ]
            each = ", ".join(f"{part:.0%}" for part in gone)
            print(f"  {name:<21} idle time gone: {1 - ours / plain:.0%} (each seed {each})")
            held, plain_held = (_mean(row, "unused sessions") for row in rows)
            gone_held = 1 - (ours - held) / (plain - plain_held)
            print(f"  {name:<21} the same, were an unused session not idle: {gone_held:.0%}")
        await redis.aclose()


def _mean(row: list[Held], cause: str) -> float:
    return sum(held.share(cause) for held in row) / len(row)


def _shown(row: list[Held]) -> Iterator[str]:
    for cause in ("sessions", *CAUSES):
        yield f"{cause} {_mean(row, cause):.1%}"
