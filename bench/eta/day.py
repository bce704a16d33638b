"""One phase played on the real engine, on a clock of its own: what was foretold, what followed.

Knows the scripts by name and what they move; not how an estimate is made.
"""

import heapq
import itertools
import json
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.domain import DEFAULT_POOL
from admission.instance import State
from admission.store.calls import Calls
from admission.store.scripts import Reply, Transition
from bench.eta.phases import BOOT, Phase, Visitor
from scheduler.autoscale import Decision, Fleet, FleetSpec, Member, Memory
from scheduler.autoscale.coming import coming

SAMPLE_MS = 12_000
TELL_MS = 5_000  # the scheduler's tick
WINDOW_MS = 600_000


@dataclass
class Seen:
    """What the predictors may know at one moment, beside the engine."""

    served: deque[int] = field(default_factory=deque)  # moments of the last WINDOW_MS
    last_wait: int | None = None  # of the last one to get a slot
    slots: int = 0
    ended: int = 0  # sessions
    rate: int = 0  # served per WINDOW_MS; while nobody is, the last one known


@dataclass
class Sample:
    """Who waits at one moment, in order, what each was told, and what the rivals would say."""

    now: int
    users: list[int]
    waited: list[int]
    told: list[tuple[float, float]]  # (value, high value) in ms
    rate: int
    last_wait: int | None
    slots: int
    ended: int


@dataclass
class Day:
    """Plays a phase; ``samples`` and ``served`` (user -> ms) are what comes of it."""

    phase: Phase
    redis: Redis
    samples: list[Sample] = field(default_factory=list)
    served: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._clock = ManualClock()
        self._start = self._clock.now_ms()
        self._calls = Calls(self.redis, self._clock, self.phase.policy)
        self._events: list[tuple[int, int, str, Any]] = []
        self._number = itertools.count()
        self._waiting: dict[int, None] = {}  # users in order
        self._tickets: dict[int, str] = {}
        capacity = self.phase.policy.capacity
        self._seen = Seen(slots=0 if capacity == "auto" else int(capacity))
        self._memory = Memory()

    @property
    def _now(self) -> int:
        return self._clock.now_ms() - self._start

    def _at(self, moment: float, act: str, what: Any = None) -> None:
        if moment < math.inf:
            heapq.heappush(self._events, (int(moment), next(self._number), act, what))

    async def play(self) -> None:
        """Play the phase to its end."""
        await self.redis.flushall()
        await self._calls.load()
        acts: dict[str, Callable[[Any], Awaitable[None]]] = {
            "come": self._come,
            "confirm": self._confirm,
            "leave": self._leave,
            "tick": self._tick,
            "sample": self._sample,
            "scale": self._scale,
            "ready": self._ready,
            "tell": self._tell,
        }
        for user, visitor in enumerate(self.phase.visitors):
            self._at(visitor.comes, "come", user)
        for moment, slots in self.phase.capacities.items():
            self._at(moment, "scale", slots)
        for number, machine in enumerate(self.phase.machines):
            if machine.ready is not None:
                self._at(machine.ready, "ready", number)
        if self.phase.machines and self.phase.told:
            for moment in range(0, self.phase.ends, TELL_MS):
                self._at(moment, "tell")
        for moment in range(0, self.phase.ends, SAMPLE_MS):
            self._at(moment, "sample")
        while self._events and self._events[0][0] < self.phase.ends:
            moment, _, act, what = heapq.heappop(self._events)
            self._clock.advance_ms(moment - self._now)
            await acts[act](what)

    async def _run(self, name: str, **given: str | int) -> Reply:
        reply = await self._calls.run(name, DEFAULT_POOL, **given)
        for move in reply.transitions:
            self._follow(int(move.user_id), move)
        return reply

    def _follow(self, user: int, move: Transition) -> None:
        """What a transition means to the user's plan, and to who watches the queue."""
        plan, source, target = self.phase.visitors[user], move.source, move.target
        if source == "waiting":
            self._waiting.pop(user, None)
        if target == "waiting":
            self._waiting[user] = None
            self._tickets[user] = move.ticket_id
        elif target == "draft":
            self._serve(user, plan)
            self._at(self._now + self.phase.policy.draft_ms, "tick")
            if plan.confirms is not None:
                self._at(self._now + plan.confirms, "confirm", user)
        elif target == "active":
            if source == "waiting":
                self._serve(user, plan)
            self._at(self._now + self.phase.policy.session_ms, "tick")
            self._at(self._now + plan.stays, "leave", user)
        if source == "active":
            self._seen.ended += 1

    def _serve(self, user: int, plan: Visitor) -> None:
        self.served[user] = self._now
        self._seen.served.append(self._now)
        self._seen.last_wait = self._now - plan.comes

    async def _come(self, user: int) -> None:
        plan, auto = self.phase.visitors[user], not self.phase.drafts
        await self._run(
            "join",
            user=str(user),
            ticket=f"t{user}",
            auto_confirm=int(auto),
            will_return=int(not auto),
            client="",
            request="" if self.phase.drafts else "r",
            priority="default",
        )
        if user in self._waiting:
            self._at(self._now + plan.patience, "leave", user)

    async def _confirm(self, user: int) -> None:
        await self._run("confirm", user=str(user), ticket="")

    async def _leave(self, user: int) -> None:
        patience_over = self._now == self.phase.visitors[user].comes + int(
            min(self.phase.visitors[user].patience, 1e15)
        )
        if patience_over and user not in self._waiting:
            return
        await self._run("leave", user=str(user), client="", ticket="")

    async def _tick(self, _: None) -> None:
        await self._run("expire")

    async def _scale(self, slots: int) -> None:
        self._seen.slots = slots
        await self._run("configure", changes=f'{{"capacity": {slots}}}')

    async def _ready(self, number: int) -> None:
        slots = self.phase.machines[number].slots
        self._seen.slots += slots
        said = {"ready": True, "slots": slots, "report": "{}", "identity": "{}"}
        await self._run(
            "report_worker",
            worker=f"m{number}",
            report=json.dumps(said),
            token_hash="",
            lease_ms=self.phase.ends,
        )

    async def _tell(self, _: None) -> None:
        """As the scheduler does, from the boots it saw."""
        members, now = tuple(self._members()), self._clock.now_ms()
        self._memory = replace(self._memory, boot=self._memory.boot.after(members))
        fleet = Fleet(at_ms=now, members=members)
        spec = FleetSpec(boot_ms=BOOT)
        machines = coming(fleet, Decision(reason=""), self._memory, spec, now) or []
        said = [[one.worker_id, one.slots, one.in_ms, one.spread_ms] for one in machines]
        await self._run("expect_slots", machines=json.dumps(said))

    def _members(self) -> Iterator[Member]:
        for number, machine in enumerate(self.phase.machines):
            if machine.ordered > self._now or (machine.ready is None and machine.over <= self._now):
                continue
            is_ready = machine.ready is not None and machine.ready <= self._now
            yield Member(
                id=f"m{number}",
                state=State.READY if is_ready else State.BOOTING,
                slots=machine.slots,
                requested_ms=self._start + machine.ordered,
                ready_ms=self._start + (machine.ready or 0) if is_ready else None,
            )

    async def _sample(self, _: None) -> None:
        await self._run("expire")
        seen = self._seen
        while seen.served and seen.served[0] <= self._now - WINDOW_MS:
            seen.served.popleft()
        seen.rate = len(seen.served) or seen.rate
        if not self._waiting:
            return
        users = list(self._waiting)
        told = await self._foretold(users)
        waited = [self._now - self.phase.visitors[user].comes for user in users]
        self.samples.append(
            Sample(
                self._now,
                users,
                waited,
                told,
                seen.rate,
                seen.last_wait,
                seen.slots,
                seen.ended,
            )
        )

    async def _foretold(self, users: list[int]) -> list[tuple[float, float]]:
        """(value, high value) of each in ms, as the engine tells them now."""
        tickets = json.dumps([self._tickets[user] for user in users])
        places = (await self._run("positions", tickets=tickets)).payload
        assert places["positions"] == list(range(1, len(users) + 1)), "the plan lost the order"
        return list(zip(places["waits_ms"], places["highs_ms"], strict=True))
