"""The machine that asks the engine and the plain model the same, and compares all they show.

Knows what may be asked and what must agree; not the rules, which are in ``plain`` and ``calls``.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from admission.clock import ManualClock
from admission.domain import PoolMetrics, PoolPolicy, Ticket
from admission.outcomes import (
    Alive,
    Confirmed,
    Ended,
    Joined,
    Left,
    NoSession,
    NotConfirmed,
    Passed,
    Refused,
    SessionBusy,
    Unknown,
)
from admission.store.redis_store import RedisStore
from tests.model.calls import Answer, PlainCalls
from tests.model.plain import PlainPool, Said, Turn

POOL = "model"
NAMES = "abcd"
USERS = st.sampled_from(NAMES)
CHATS = st.sampled_from(["", "c1", "c2"])
REQUESTS = st.sampled_from(["r1", "r2", "r3"])
SPANS_MS = st.one_of(
    st.sampled_from([1, 1000, 3000, 20_000, 30_000, 60_000, 300_000]), st.integers(1, 700_000)
)
CHANGES: list[dict[str, Any]] = [
    {"queue_limit": 1},
    {"queue_limit": None},
    {"grace_ms": 5_000, "draft_ms": 10_000},
    {"grace_ms": None, "draft_ms": None},
    {"session_ms": 40_000, "idle_ms": 15_000},
    {"session_ms": None, "idle_ms": None},
    {"queue_timeout_ms": 70_000},
    {"queue_timeout_ms": None},
]


@dataclass(frozen=True)
class Engine:
    """The real store on a real server, and an ear; it outlives a run, so its time only goes on."""

    runner: asyncio.Runner
    redis: Redis
    pubsub: PubSub
    store: RedisStore
    clock: ManualClock

    async def empty(self) -> None:
        """Begin again; what was heard of the last run is forgotten."""
        await self.redis.flushall()
        await self.heard()

    async def heard(self) -> list[dict[str, Any]]:
        """All messages to users since the last call; a marker of our own comes after them."""
        await self.redis.publish("queue_status:marker", "{}")
        messages: list[dict[str, Any]] = []
        while True:
            event = await self.pubsub.get_message(timeout=5.0)
            assert event is not None, "the marker did not come"
            if event["channel"] == b"queue_status:marker":
                return messages
            if event["type"] == "pmessage":
                messages.append(json.loads(event["data"]))


@contextmanager
def engine_on(url: str, policy: PoolPolicy) -> Iterator[Engine]:
    """An engine with a clock of its own and everything that it announces."""

    async def opened() -> tuple[Redis, PubSub]:
        redis = Redis.from_url(url)
        pubsub = redis.pubsub()
        await pubsub.psubscribe("queue_status:*")
        return redis, pubsub

    async def closed() -> None:
        await pubsub.aclose()  # type: ignore[no-untyped-call]
        await redis.aclose()

    with asyncio.Runner() as runner:
        redis, pubsub = runner.run(opened())
        clock = ManualClock()
        try:
            yield Engine(runner, redis, pubsub, RedisStore(redis, clock, policy), clock)
        finally:
            runner.run(closed())


def tell(outcome: Any) -> tuple[str, Any, Any]:  # noqa: C901
    """An outcome as (tag, ticket or its id, details), as the plain calls name them."""
    match outcome:
        case Joined(ticket, new):
            return "joined" if new else "known", ticket, None
        case Refused(reason):
            return reason, None, None
        case Confirmed(ticket):
            return "confirmed", ticket, None
        case NotConfirmed(reason, ticket):
            return reason, ticket, None
        case Left(previous, status):
            return "left", None, (previous, status)
        case Alive(ticket):
            return "alive", ticket, None
        case Ended(ticket):
            return "ended", ticket, None
        case Passed(ticket_id, deadline_ms):
            return "pass", ticket_id, deadline_ms
        case SessionBusy(ticket_id):
            return "busy", ticket_id, None
        case NoSession(ticket):
            return "refused", ticket, None
        case Unknown():
            return "unknown", None, None
    raise AssertionError(outcome)


class Machine(RuleBasedStateMachine):
    """One run. A subclass says on which engine, and the policy of its pool."""

    engine: Engine
    policy: PoolPolicy

    def __init__(self) -> None:
        super().__init__()
        self.plain = PlainPool(self.policy, self.engine.clock.now_ms())
        self.calls = PlainCalls(self.plain)
        self.joins = 0
        self.named: set[str] = set()  # ids of tickets, to be named also when they are over
        self.run(self.engine.empty())

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self.engine.runner.run(call)

    # --- comparing -------------------------------------------------------------------------------

    def ask(self, call: Any, expected: Answer | None) -> Any:
        """Run the engine's call; its answer must be the plain one."""
        outcome = self.run(call)
        if expected is not None:
            tag, shown, details = tell(outcome)
            wanted = "confirmed" if (expected.tag, tag) == ("active", "confirmed") else expected.tag
            assert (tag, details) == (wanted, expected.details), (outcome, expected)
            if isinstance(shown, Ticket):
                assert expected.turn is not None, outcome
                self.same_ticket(shown, expected.turn)
            elif shown is not None:
                assert expected.turn is not None
                assert shown == expected.turn.ticket_id
        self.compare()
        return outcome

    def same_ticket(self, shown: Ticket, turn: Turn) -> None:
        """A view beside the plain ticket; the id of a new one is learnt here."""
        if not turn.ticket_id:
            assert shown.ticket_id not in self.named
            turn.place.ticket_id = shown.ticket_id
            self.named.add(shown.ticket_id)
        status, expires_ms, reason = turn.seen(self.plain.now)
        waits = status == "waiting"
        wanted = {
            "ticket_id": turn.ticket_id,
            "user_id": turn.user,
            "now_ms": self.plain.now,
            "status": status,
            "expires_ms": expires_ms,
            "reason": reason,
            "joined_ms": turn.place.joined_ms,
            "queue_length": len(self.plain.waiting()),
            "session_ms": self.plain.policy.session_ms,
            "priority": turn.priority,
            "may_be_passed": waits and self.plain.may_be_passed(turn),
        }
        assert {name: getattr(shown, name) for name in wanted} == wanted
        if waits:
            places = self.plain.line.places(turn.place)
            assert shown.position in places, (shown.position, places)
        else:
            assert shown.position is None
        self.fair_estimate(shown.wait_ms, shown.wait_high_ms, waits=waits)

    def fair_estimate(self, value: float | None, high: float | None, *, waits: bool) -> None:
        """The estimate is not modelled, only bounded; none where nothing can be granted."""
        assert (value is None) == (high is None)
        if value is not None and high is not None:
            assert waits
            assert 0 <= value <= high
            assert not self.plain.policy.paused
            assert self.plain.capacity() > 0

    def compare(self) -> None:
        """Everything that may be read, and what was said since the last comparison."""
        self.run(self._compare())

    async def _compare(self) -> None:
        """All reads at once, which the store sends together."""
        store, plain = self.engine.store, self.plain
        named = [t for t in plain.turns if t.ticket_id] if plain.requests else []
        shown, metrics, listed = await asyncio.gather(
            asyncio.gather(
                *(store.status(POOL, user) for user in NAMES),
                *(store.status(POOL, t.user, ticket=t.ticket_id) for t in named),
            ),
            store.metrics(POOL),
            store.waiting(POOL, offset=0, limit=100),
        )
        for user, one in zip(NAMES, shown, strict=False):
            if not plain.forgot_newest(user):
                self.same_or_unknown(one, plain.latest(user))
        for turn, one in zip(named, shown[len(NAMES) :], strict=False):
            self.same_or_unknown(one, turn if turn.readable(plain.now) else None)
        self.same_counts(metrics)
        assert [item.ticket_id for item in listed] == [p.ticket_id for p in plain.line.order()]
        await self._compare_news()

    def same_or_unknown(self, shown: Ticket | Unknown, turn: Turn | None) -> None:
        assert isinstance(shown, Ticket) == (turn is not None), (shown, turn)
        if turn is not None and isinstance(shown, Ticket):
            self.same_ticket(shown, turn)

    def same_counts(self, shown: PoolMetrics) -> None:
        plain, now = self.plain, self.plain.now
        wanted = {
            "capacity": plain.capacity(),
            "active": plain.counted(lambda t: t.state == "active" and t.holds_slot(now)),
            "draft": plain.counted(lambda t: t.state == "draft" and t.holds_slot(now)),
            "finishing": plain.counted(lambda t: t.finishes(now)),
            "waiting": len(plain.waiting()),
            "free": plain.free(),
            "paused": plain.policy.paused,
            "granting": not plain.policy.paused,
            "admitted_total": plain.admitted,
            "expired_total": plain.expired,
            "abandoned_total": plain.abandoned,
        }
        assert {name: getattr(shown, name) for name in wanted} == wanted
        self.fair_estimate(shown.wait_ms, shown.wait_high_ms, waits=True)

    async def _compare_news(self) -> None:
        said = Counter(self.plain.said)
        self.plain.said.clear()
        assert Counter(map(heard_as, await self.engine.heard())) == said

    # --- what may happen -------------------------------------------------------------------------

    def _ticket(self, data: st.DataObject, user: str) -> str:
        """ "", or any ticket ever seen, mostly of this user's."""
        mine = [t.ticket_id for t in self.plain.turns if t.user == user]
        every = ["", *mine, *mine, *sorted(self.named)]
        if self.plain.forgot_newest(user):
            every.remove("")  # which of the others is meant then is left open
        return data.draw(st.sampled_from(every or ["none"]), "ticket")

    @rule(
        user=USERS,
        request=REQUESTS,
        auto=st.booleans(),
        back=st.sampled_from([False, False, True]),
        client=CHATS,
        data=st.data(),
    )
    def join(
        self, user: str, request: str, auto: bool, back: bool, client: str, data: st.DataObject
    ) -> None:
        classes = ["default", "default", *self.policy.priorities, "unknown"]
        priority = data.draw(st.sampled_from(classes), "priority")
        if self.plain.requests and data.draw(st.integers(0, 19)) == 0:
            request = ""
        self.joins += 1
        ticket, last = f"{user}-{self.joins}", self.plain.latest(user)
        if last and not self.plain.requests and data.draw(st.integers(0, 5), "again") == 0:
            ticket = last.ticket_id  # the same call once more: its reply was lost
        expected = self.calls.join(
            user, ticket, request, priority, auto=auto, will_return=back, client=client
        )
        call = self.engine.store.join(
            POOL,
            user,
            ticket=ticket,
            request=request,
            auto_confirm=auto,
            will_return=back,
            client=client,
            priority=priority,
        )
        self.ask(call, expected)

    @rule(user=USERS, data=st.data())
    def confirm(self, user: str, data: st.DataObject) -> None:
        named = self._ticket(data, user)
        expected = self.calls.confirm(user, named)
        self.ask(self.engine.store.confirm(POOL, user, ticket=named), expected)

    @rule(user=USERS, client=CHATS, data=st.data())
    def leave(self, user: str, client: str, data: st.DataObject) -> None:
        named = self._ticket(data, user)
        expected = self.calls.leave(user, client, named)
        self.ask(self.engine.store.leave(POOL, user, client=client, ticket=named), expected)

    @rule(user=USERS, data=st.data())
    def cancel(self, user: str, data: st.DataObject) -> None:
        named = self._ticket(data, user)
        expected = self.calls.cancel(user, named)
        self.ask(self.engine.store.cancel(POOL, user, ticket=named), expected)

    @rule(user=USERS, client=CHATS, data=st.data())
    def heartbeat(self, user: str, client: str, data: st.DataObject) -> None:
        named = self._ticket(data, user)
        expected = self.calls.heartbeat(user, client, named)
        self.ask(self.engine.store.heartbeat(POOL, user, client=client, ticket=named), expected)

    @rule(user=USERS, request=REQUESTS, message=CHATS, most=st.integers(1, 2))
    def use(self, user: str, request: str, message: str, most: int) -> None:
        expected = self.calls.use(user, request, message, most)
        call = self.engine.store.use(POOL, user, request=request, message=message, concurrency=most)
        self.ask(call, expected)

    @rule(user=USERS, request=REQUESTS, data=st.data())
    def done(self, user: str, request: str, data: st.DataObject) -> None:
        if named := self._ticket(data, user):
            self.calls.done(named, request)
            self.ask(self.engine.store.done(POOL, ticket=named, request=request), None)

    @rule()
    def tick(self) -> None:
        expected = self.calls.tick()
        assert self.ask(self.engine.store.expire(POOL), None) == expected

    @rule()
    def announce(self) -> None:
        """After a tick everybody is told the truth."""
        self.tick()
        self.run(self._announce())

    async def _announce(self) -> None:
        plain = self.plain
        await self.engine.store.announce(POOL)
        current = {user: plain.latest(user) for user in NAMES}
        for message in await self.engine.heard():
            user, status = message["user_id"], message["status"]
            mine = [t for t in plain.turns if t.user == user]
            if status == "waiting":
                places = [plain.line.places(t.place) for t in mine if t in plain.waiting()]
                assert any(message["position"] in each for each in places), message
            elif status == "slot_available":
                assert any(t.state == "draft" for t in mine), (message, current)
            else:
                assert status == "expiring_soon", message
                assert 0 < message["remaining_time"] <= 60
                ends = [t.end() for t in mine if t.state == message["session_type"]]
                assert any(end and end.ms - plain.now <= 60_000 for end in ends), message

    @rule(paused=st.sampled_from([True, False, False, None]))
    def pause(self, paused: bool | None) -> None:
        self.calls.configure({"paused": paused})
        self.ask(self.engine.store.pause(POOL, paused), None)

    @rule(slots=st.sampled_from([0, 1, 1, 2, 3, None]))
    def set_capacity(self, slots: int | None) -> None:
        self.calls.configure({"capacity": slots})
        assert self.ask(self.engine.store.set_capacity(POOL, slots), None) == self.plain.capacity()

    @rule(changes=st.sampled_from(CHANGES))
    def configure(self, changes: dict[str, Any]) -> None:
        self.calls.configure(changes)
        self.ask(self.engine.store.configure(POOL, changes), None)

    @rule(sure=st.integers(0, 9))
    def close_pool(self, sure: int) -> None:
        if sure == 0:
            self.plain.forget_all()
            self.ask(self.engine.store.close_pool(POOL), None)

    @rule(ms=SPANS_MS)
    def pass_time(self, ms: int) -> None:
        self.plain.now += ms
        self.engine.clock.advance_ms(ms)
        self.compare()

    @rule(which=st.integers(0, 3), offset_ms=st.sampled_from([-1, 0, 0, 1]))
    def jump(self, which: int, offset_ms: int) -> None:
        """To one of the next deadlines exactly, or the ms before or after it."""
        instants = self.plain.deadlines()
        if instants:
            edge = instants[min(which, len(instants) - 1)] + offset_ms
            self.pass_time(max(0, edge - self.plain.now))

    @invariant()
    def slots_hold(self) -> None:
        """Invariants 1, 2 and 5 on the model itself, with which the engine agrees."""
        plain = self.plain
        if plain.requests:
            return
        live = Counter(t.user for t in plain.turns if t.seen(plain.now)[0] != "disconnected")
        assert all(number == 1 for number in live.values()), live


def heard_as(message: dict[str, Any]) -> Said:
    """A message without its times, as the plain pool says it."""
    status, detail = message["status"], None
    if status == "expired":
        detail = message["reason"]
    elif status == "disconnected":
        again = message["requeue_position"]
        detail = message["reason"] if again is None else "requeued"
        assert again is None or again >= 1
    elif status == "expiring_soon":
        detail = message["session_type"]
    return Said(message["user_id"], status, detail)
