"""Which worker a request gets, and the next when that one does not answer: over the real registry
of one process, and what the processes tell each other."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from admission.clock import ManualClock
from admission.directory import Directory
from admission.domain import DEFAULT_POOL, PoolPolicy, Worker, WorkerReport
from admission.errors import StoreUnavailable
from admission.gateway import pick
from admission.gateway.pick import Saturated, Unreachable
from admission.gateway.trouble import FULL_S, REST_S
from admission.store import names
from admission.store.redis_store import RedisStore
from admission.store.traffic_store import LEASE_MS

StoreOf = Callable[[], RedisStore]


async def report(store: RedisStore, *names: str, slots: int = 8, **facts: Any) -> None:
    """These workers say that they are ready."""
    for name in names:
        said = {"ready": True, "reason": None, "models": ("tiny",), "slots": slots, **facts}
        identity = {"url": f"http://{name}", "kind": "static"}
        await store.report_worker(DEFAULT_POOL, name, WorkerReport(**said), identity=identity)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of this process, in its only item."""
    time = [1000.0]
    monkeypatch.setattr(pick, "_now_s", lambda: time[0])
    return time


@pytest.fixture
def chances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equals are chosen in the order of their ids."""
    monkeypatch.setattr("random.random", lambda: 0.0)


@pytest.fixture
async def directory(store: RedisStore, now: list[float], chances: None) -> Directory:
    """Of a process that sees the workers a, b and c."""
    await report(store, "a", "b", "c")
    found = Directory(store)
    await found.refresh()
    return found


def tried(
    directory: Directory,
    *failures: Exception | None,
    conversation: str = "",
    model: str = "tiny",
) -> list[str]:
    """The workers a request tries, where each fails in this way; None: it answers."""
    asked = []
    coming = iter(failures)
    for attempt in pick.attempts(directory, model, conversation):
        with attempt as worker:
            asked.append(worker.worker_id)
            if failure := next(coming):
                raise failure
            pick.answers(directory, worker)
            break
    assert not any(directory.outstanding.values())
    return asked


def begun(directory: Directory, conversation: str = "") -> Worker:
    """A request that goes on running."""
    attempt = next(iter(pick.attempts(directory, "tiny", conversation)))
    return attempt.__enter__()


FULL = Saturated(503, {"Retry-After": "3"}, b"full")


# --- one request after the other -------------------------------------------------------------


def test_requests_go_where_the_fewest_run(directory: Directory) -> None:
    assert [begun(directory).worker_id for _ in range(7)] == ["a", "b", "c", "a", "b", "c", "a"]
    assert directory.outstanding == {"a": 3, "b": 2, "c": 2}


def test_a_model_nobody_serves_is_tried_nowhere(directory: Directory) -> None:
    assert tried(directory, model="other") == []


def test_equals_are_chosen_by_chance(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    taken = {tried(directory, None)[0] for _ in range(60)}
    assert taken == {"a", "b", "c"}


async def test_a_conversation_stays_where_it_is(directory: Directory) -> None:
    first = tried(directory, None, conversation="ada 1")
    for _ in range(3):
        begun(directory)  # others run meanwhile
        assert tried_again(directory, "ada 1") == first


def tried_again(directory: Directory, conversation: str) -> list[str]:
    """As ``tried``, while other requests run."""
    attempt = next(iter(pick.attempts(directory, "tiny", conversation)))
    with attempt as worker:
        return [worker.worker_id]


# --- failures --------------------------------------------------------------------------------


def test_an_unreachable_worker_is_followed_by_the_next(directory: Directory) -> None:
    assert tried(directory, Unreachable(), Unreachable(), None) == ["a", "b", "c"]


def test_nobody_is_left_when_all_are_unreachable(directory: Directory) -> None:
    assert tried(directory, *[Unreachable()] * 3) == ["a", "b", "c"]


def test_the_next_requests_pass_over_it_until_it_was_tried_again(
    directory: Directory, now: list[float]
) -> None:
    tried(directory, Unreachable(), None)
    assert tried(directory, None) == ["b"]
    now[0] += REST_S
    trying = begun(directory)
    assert trying.worker_id == "a"
    assert [begun(directory).worker_id for _ in range(4)] == ["b", "c", "b", "c"]
    pick.answers(directory, trying)
    assert begun(directory).worker_id == "a"


def test_a_conversation_goes_to_its_next_worker_and_comes_back(
    directory: Directory, now: list[float]
) -> None:
    order = tried(directory, *[Unreachable()] * 3, conversation="ada 1")
    assert sorted(order) == ["a", "b", "c"]
    now[0] += REST_S
    assert tried(directory, Unreachable(), None, conversation="ada 1") == order[:2]
    assert tried(directory, None, conversation="ada 1") == order[1:2]
    now[0] += 2 * REST_S
    assert tried(directory, None, conversation="ada 1") == order[:1]


def test_a_request_that_went_out_is_sent_once_more_and_not_again(directory: Directory) -> None:
    """It may be what kills them."""
    assert tried(directory, *[Unreachable(sent=True)] * 2) == ["a", "b"]
    assert tried(directory, None) == ["c"]


async def test_a_single_worker_gets_it_once_more(store: RedisStore, now: list[float]) -> None:
    await report(store, "a")
    directory = Directory(store)
    await directory.refresh()
    assert tried(directory, Unreachable(sent=True), None) == ["a", "a"]


def test_a_full_worker_is_followed_by_the_next_and_asked_last_for_a_moment(
    directory: Directory, now: list[float]
) -> None:
    assert tried(directory, FULL, None) == ["a", "b"]
    assert [begun(directory).worker_id for _ in range(4)] == ["b", "c", "b", "c"]
    now[0] += FULL_S
    assert begun(directory).worker_id == "a"


def test_when_all_are_full_the_last_ones_answer_is_given_on(directory: Directory) -> None:
    last = Saturated(503, {}, b"last")
    with pytest.raises(Saturated) as raised:
        tried(directory, FULL, Unreachable(), last)
    assert raised.value is last
    assert tried(directory, None) in (["a"], ["c"])  # full, but not dead; b is


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_any_other_error_is_the_callers_and_says_nothing_of_the_worker(
    directory: Directory, error: type[BaseException]
) -> None:
    with pytest.raises(error), next(iter(pick.attempts(directory, "tiny"))):
        raise error
    assert not directory.trouble
    assert not any(directory.outstanding.values())


def test_a_try_that_ends_unanswered_leaves_it_to_the_next(
    directory: Directory, now: list[float]
) -> None:
    tried(directory, Unreachable(), None)
    now[0] += REST_S
    with pytest.raises(ValueError, match="gone"), next(iter(pick.attempts(directory, "tiny"))):
        raise ValueError("gone")
    assert tried(directory, None) == ["a"]


# --- the registry ----------------------------------------------------------------------------


async def test_a_draining_worker_gets_nothing_new(directory: Directory, store: RedisStore) -> None:
    await store.drain_worker(DEFAULT_POOL, "a")
    await directory.refresh()
    assert [begun(directory).worker_id for _ in range(3)] == ["b", "c", "b"]
    assert [worker.worker_id for worker in directory.ready("tiny")] == ["b", "c"]


async def test_requests_are_weighed_by_the_slots(store: RedisStore, chances: None) -> None:
    await report(store, "a", slots=2)
    await report(store, "b", slots=6)
    directory = Directory(store)
    await directory.refresh()
    assert [begun(directory).worker_id for _ in range(8)].count("b") == 6


async def test_a_worker_whose_cache_is_full_gets_half(
    directory: Directory, store: RedisStore
) -> None:
    await report(store, "a", load={"kv_cache_usage": 1.0})
    await directory.refresh()
    taken = [begun(directory).worker_id for _ in range(20)]
    assert {name: taken.count(name) for name in "abc"} == {"a": 4, "b": 8, "c": 8}


async def test_a_worker_that_left_the_registry_leaves_nothing_behind(
    directory: Directory, store: RedisStore
) -> None:
    tried(directory, Unreachable(), None)
    await store.release_worker(DEFAULT_POOL, "a")
    await directory.refresh()
    assert not directory.trouble
    assert not directory.outstanding


@pytest.mark.parametrize(("beside", "room"), [(0, True), (7, True), (8, False)])
async def test_room_counts_what_others_have_running(
    store: RedisStore, beside: int, room: bool
) -> None:
    await report(store, "a")
    others, directory = RedisStore(store._redis, ManualClock(), None), Directory(store)
    await others.traffic.exchange({"a": beside})
    await directory.refresh()
    assert pick.has_room(directory, "tiny") == room


# --- several processes -----------------------------------------------------------------------


@pytest.fixture
def process(redis: Redis, clock: ManualClock) -> StoreOf:
    """Makes stores that stand for a process each."""
    return lambda: RedisStore(redis, clock, PoolPolicy())


async def test_each_process_hears_what_all_others_have_running(process: StoreOf) -> None:
    one, two, three = process().traffic, process().traffic, process().traffic
    assert await one.exchange({"a": 2, "b": 1}) == {}
    assert await two.exchange({"a": 3}) == {"a": 2, "b": 1}
    assert await three.exchange({}) == {"a": 5, "b": 1}
    assert await one.exchange({"a": 1, "c": 0}) == {"a": 3}
    assert await three.exchange({}) == {"a": 4}
    assert await two.exchange({}) == {"a": 1}
    assert await one.exchange({}) == {}


async def test_who_dies_stops_to_count_at_a_deadline(process: StoreOf, clock: ManualClock) -> None:
    dead, alive = process().traffic, process().traffic
    await dead.exchange({"a": 4})
    clock.advance_ms(LEASE_MS - 1)
    assert await alive.exchange({"b": 1}) == {"a": 4}
    clock.advance_ms(1)
    assert await alive.exchange({"b": 1}) == {}
    assert await dead.exchange({"a": 4}) == {"b": 1}  # it was only slow
    assert await alive.exchange({}) == {"a": 4}


async def test_saying_the_same_again_keeps_it(process: StoreOf, clock: ManualClock) -> None:
    busy, other = process().traffic, process().traffic
    for _ in range(10):
        await busy.exchange({"a": 4})
        clock.advance_ms(LEASE_MS // 2)
    assert await other.exchange({}) == {"a": 4}


async def test_nothing_stays_in_redis_when_nothing_runs(process: StoreOf, redis: Redis) -> None:
    one = process().traffic
    await one.exchange({"a": 4, "b": 2})
    await one.exchange({})
    assert await redis.keys("*outstanding*") == []


def test_the_script_finds_all_its_keys_in_one_slot_of_a_cluster() -> None:
    assert len({key_slot(key.encode()) for key in names.TRAFFIC_KEYS}) == 1


async def test_many_processes_at_once_count_right(process: StoreOf) -> None:
    """Each goes on and off as it likes; at the end the sum is exact."""
    stores = [process().traffic for _ in range(12)]
    for turn in range(5):
        counts = [{"a": (turn * i) % 4, f"w{i % 3}": i + turn} for i in range(12)]
        await asyncio.gather(*(s.exchange(c) for s, c in zip(stores, counts, strict=True)))
    seen = await process().traffic.exchange({})
    assert seen.get("a", 0) == sum(c["a"] for c in counts)
    assert seen["w1"] == sum(c.get("w1", 0) for c in counts)


async def _see_each_other(directories: Sequence[Directory]) -> None:
    for _ in range(2):
        for directory in directories:
            await directory.refresh()


async def test_a_process_weighs_what_the_others_sent(process: StoreOf, chances: None) -> None:
    stores = [process(), process()]
    await report(stores[0], "a", "b")
    one, two = Directory(stores[0]), Directory(stores[1])
    await one.refresh()
    assert [begun(one).worker_id for _ in range(2)] == ["a", "b"]
    begun(one)  # on a
    await _see_each_other([one, two])
    assert [begun(two).worker_id for _ in range(2)] == ["b", "a"]


async def test_a_workers_report_does_not_count_the_same_requests_again(
    process: StoreOf, chances: None
) -> None:
    store = process()
    await report(store, "a", "b")
    directory = Directory(store)
    await directory.refresh()
    for _ in range(4):
        begun(directory)
    await report(store, "a", in_flight=2)
    await report(store, "b", in_flight=0)  # older than what we sent it
    await directory.refresh()
    assert [begun(directory).worker_id for _ in range(4)] == ["a", "b", "a", "b"]


async def test_while_redis_is_away_each_process_counts_its_own(
    process: StoreOf, chances: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = [process(), process()]
    await report(stores[0], "a", "b")
    await stores[1].traffic.exchange({"a": 5})
    directory = Directory(stores[0])
    await directory.refresh()
    assert begun(directory).worker_id == "b"

    async def away() -> None:
        raise StoreUnavailable

    waits = asyncio.Event()
    monkeypatch.setattr(stores[0], "pools", away)
    monkeypatch.setattr("asyncio.sleep", lambda _: waits.wait())
    keeping = asyncio.create_task(directory.keep_fresh())
    await asyncio.wait({keeping}, timeout=0.01)
    assert begun(directory).worker_id == "a"
    keeping.cancel()
    await asyncio.wait({keeping})
