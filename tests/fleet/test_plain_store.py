"""Whatever is asked of it, the plain store answers like the real one on a real Valkey."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.errors import AdmissionError
from admission.instance import Command, Event, Instance, Kind, Offer, Order, State
from admission.store import fleet_store
from admission.store.fence import Fence, Fenced
from admission.store.fleet_records import Recorded
from admission.store.fleet_store import FleetStore, OtherWords
from admission.store.tick_store import LEASE_MS
from tests.fleet.plain_store import PlainFleetStore
from tests.fleet.words import TICK, taken

IDS = st.sampled_from(["i-1", "i-2", "i-3"])
STATES = st.sampled_from([State.PROVISIONING, State.READY, State.ARCHIVED, State.ARCHIVED])
ADDRESSES = st.sampled_from(["", "x"])
VERSIONS = st.integers(-1, 1)  # off the one that is there
NAMES = st.sampled_from(["launch", "drain"])
COMMANDS = st.sampled_from(["c-1", "c-2", "c-3", "c-4"])
SPANS_MS = st.sampled_from([1, 1000, fleet_store.KNOWN_MS // 2, fleet_store.KNOWN_MS])
ORDER = Order("local")
KEPT, MOST = 4, 7


@dataclass(frozen=True)
class Engine:
    """The real store; it outlives a run."""

    runner: asyncio.Runner
    redis: Redis
    clock: ManualClock
    store: FleetStore


@contextmanager
def engine_on(url: str) -> Iterator[Engine]:
    async def opened() -> Redis:
        return Redis.from_url(url)

    async def closed() -> None:
        await redis.aclose()

    with asyncio.Runner() as runner:
        redis, clock = runner.run(opened()), ManualClock()
        store = FleetStore(redis, clock, history_kept=KEPT, history_max=MOST)
        try:
            yield Engine(runner, redis, clock, store)
        finally:
            runner.run(closed())


class Machine(RuleBasedStateMachine):
    """One run. Fences come in pairs: of the last lease, and of the one before."""

    engine: Engine

    def __init__(self) -> None:
        super().__init__()
        self.clock = self.engine.clock
        self.plain = PlainFleetStore(self.clock.now_ms(), history_kept=KEPT, history_max=MOST)
        self.run(self.emptied())
        self.fences: list[tuple[Fence, Fence]] = []
        self.again: Callable[[], None] = lambda: None
        self.leases = 0
        self.take_lease()

    def run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return self.engine.runner.run(doing)

    async def emptied(self) -> None:
        await self.engine.redis.flushall()

    def both(self, call: Callable[[Any, bool], Coroutine[Any, Any, Any]]) -> None:
        """Ask both, and again when the machine says so: as after a lost reply."""

        async def answer(store: FleetStore | PlainFleetStore) -> Any:
            try:
                return await call(store, store is self.plain)
            except (Fenced, OtherWords, ValueError, AdmissionError) as error:
                return type(error)

        def ask() -> None:
            assert self.run(answer(self.engine.store)) == self.run(answer(self.plain))

        self.again = ask
        ask()

    # --- what may be asked -----------------------------------------------------------------------

    @rule()
    def take_lease(self) -> None:
        self.clock.advance_ms(LEASE_MS)
        self.plain.ms = self.clock.now_ms()
        self.leases += 1
        real = self.run(taken(self.engine.redis, self.clock, f"o{self.leases}"))
        self.fences.append((real, self.plain.lease(TICK)))

    @rule(ms=SPANS_MS)
    def wait(self, ms: int) -> None:
        self.clock.advance_ms(ms)
        self.plain.ms = self.clock.now_ms()

    @rule()
    def say_again(self) -> None:
        self.again()

    def fence(self, old: bool) -> tuple[Fence, Fence]:
        return self.fences[-2] if old and len(self.fences) > 1 else self.fences[-1]

    def next(self, about: str, off: int, **facts: Any) -> tuple[Instance, int]:
        known = self.plain.kept.get(about)
        read = max(0, (known.version if known else 0) + off)
        state = facts.pop("state", State.READY)
        return Instance(about, ORDER, state, read + 1, 5, 1, 2, 3, **facts), read

    def event(self, about: str, name: str) -> Event:
        return Event(about, self.clock.now_ms(), 1, name, detail={"leases": self.leases})

    @rule(about=IDS, off=VERSIONS, state=STATES, address=ADDRESSES, name=NAMES, old=st.booleans())
    def write(self, about: str, off: int, state: State, address: str, name: str, old: bool) -> None:
        fences = self.fence(old and off == 0)
        one, read = self.next(about, off, state=state, address=address)
        events = [self.event(about, "before"), self.event("m-1", "other"), self.event(about, name)]
        self.both(lambda store, plain: store.write(fences[plain], one, read, events))

    @rule(about=IDS, name=NAMES, count=st.integers(0, 2), old=st.booleans())
    def note(self, about: str, name: str, count: int, old: bool) -> None:
        fences, events = self.fence(old), [self.event(about, name)] * count
        self.both(lambda store, plain: store.note(fences[plain], events))
        self.say_again()

    @rule(
        name=COMMANDS,
        about=IDS,
        drain_s=st.sampled_from([None, 5]),
        said=st.sampled_from([None, None, b"x"]),
    )
    def ask(self, name: str, about: str, drain_s: int | None, said: bytes | None) -> None:
        at_ms = self.clock.now_ms()
        command = Command(name, Kind.DRAIN, at_ms, "ops", (about,), drain_s=drain_s)
        self.both(lambda store, plain: store.ask(command, said))

    @rule(name=COMMANDS, said=st.sampled_from([b"x", b"y"]))
    def knows(self, name: str, said: bytes) -> None:
        self.both(lambda store, plain: store.knows(name, said))

    @rule(
        which=st.integers(0, 2),
        abouts=st.lists(IDS, unique=True, max_size=2),
        off=st.sampled_from([0, 0, 0, -1, 1]),
        state=STATES,
        old=st.booleans(),
    )
    def take(self, which: int, abouts: list[str], off: int, state: State, old: bool) -> None:
        waiting = [self.run(self.engine.store.commands()), self.plain.waiting]
        if which < len(self.plain.waiting):
            entries = [each[which][0] for each in waiting]
        else:
            entries = ["0-1", "0-1"]
        fences = self.fence(old and off == 0)
        changes = [self.next(about, off, state=state) for about in abouts]
        events = [self.event(about, "taken") for about in [*abouts, "m-2"]]
        self.both(lambda store, plain: store.take(fences[plain], entries[plain], changes, events))

    @rule(back=st.integers(0, 5))
    def drain(self, back: int) -> None:
        streams = [self.run(self.engine.store.history()), self.plain.stream]
        if back < len(self.plain.stream):
            entries = [stream[-1 - back].entry for stream in streams]
            self.both(lambda store, plain: store.drain(entries[plain]))

    @rule(name=NAMES, value=st.binary(max_size=4), old=st.booleans())
    def remember(self, name: str, value: bytes, old: bool) -> None:
        fences = self.fence(old)
        self.both(lambda store, plain: store.remember(fences[plain], name, value))

    @rule(name=NAMES, price=st.sampled_from([None, 1.5]), gone=st.booleans())
    def offer(self, name: str, price: float | None, gone: bool) -> None:
        fences, offers = self.fence(old=False), None if gone else [Offer("t", "z", "spot", price)]
        self.both(lambda store, plain: store.offer(fences[plain], name, offers))

    # --- what must agree -------------------------------------------------------------------------

    @invariant()
    def both_show_the_same(self) -> None:
        assert self.run(shown(self.engine.store)) == self.run(shown(self.plain))


async def shown(store: FleetStore | PlainFleetStore) -> dict[str, Any]:
    """All that a store tells, entries as their places in the stream."""
    history, drained = await store.history(), await store.drained()
    first, last = await store.ends()
    entries = [entry.entry for entry in history]
    return {
        "instances": await store.instances(),
        "archived": await store.instances(archived=True),
        "one": await store.instance("i-1"),
        "lines": [await store.lines(about) for about in ("i-1", "i-2", "i-3", "m-1")],
        "history": [entry._replace(entry="") for entry in history],
        "page": [each._replace(entry="") for each in await _page(store, history)],
        "ends": [entries.index(end) if end in entries else end for end in (first, last)],
        "drained": sum(_order(entry) <= _order(drained) for entry in entries),
        "lost": await store.lost(),
        "commands": [command for _, command in await store.commands()],
        "first": [command for _, command in await store.commands(1)],
        "memory": [await store.memory(name) for name in ("launch", "drain", "else")],
        "offers": await store.offers(),
        "now_ms": await store.now_ms(),
    }


async def _page(store: FleetStore | PlainFleetStore, history: list[Recorded]) -> list[Recorded]:
    return await store.history(history[0].entry, 2) if history else []


def _order(entry: str) -> tuple[int, ...]:
    return tuple(map(int, entry.split("-")))


def drive(valkey: str, runs: int, calls: int, *, shorten: bool) -> None:
    effort = settings(
        max_examples=runs,
        stateful_step_count=calls,
        deadline=None,
        database=None,
        print_blob=True,
        phases=[Phase.generate, *([Phase.shrink] if shorten else [])],
        suppress_health_check=list(HealthCheck),
    )
    with engine_on(valkey) as engine:
        machine = type("OnEngine", (Machine,), {"engine": engine})
        run_state_machine_as_test(machine, settings=effort)


@pytest.mark.timeout(120)
def test_the_plain_store_answers_like_the_real_one(valkey: str) -> None:
    drive(valkey, runs=5, calls=30, shorten=False)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_plain_store_answers_like_the_real_one_for_long(valkey: str) -> None:
    drive(valkey, runs=300, calls=80, shorten=True)
