"""Limits of users, projects and keys, over several processes that share one Redis."""

import asyncio
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from admission.accounting.allowances import Allowances, Grant
from admission.accounting.limits import Limits
from admission.accounting.windows import DAY_MS, MINUTE_MS
from admission.auth import Caller, Kind
from admission.clock import ManualClock
from admission.errors import Busy, StoreUnavailable
from admission.store.usage_store import UsageStore

ADA = Caller(Kind.USER, "ada", project="bio", key="k1")
SERVICE = Caller(Kind.SERVICE, key="s1")
BEGIN_MS = 1_800_000_000_000 // DAY_MS * DAY_MS  # 2027-01-15, 00:00 UTC


class Time:
    """One clock for Redis and for all processes."""

    def __init__(self, clock: ManualClock) -> None:
        self.redis, self.s = clock, 1000.0

    def pass_s(self, seconds: float) -> None:
        self.s += seconds
        self.redis.advance_ms(round(seconds * 1000))

    def __call__(self) -> float:
        return self.s


Process = Callable[[], Allowances]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(BEGIN_MS)


@pytest.fixture
def time(clock: ManualClock) -> Time:
    return Time(clock)


@pytest.fixture
def table() -> dict[str, Limits]:
    return {}


@pytest.fixture
def process(redis: Redis, clock: ManualClock, time: Time, table: dict[str, Limits]) -> Process:
    return lambda: Allowances(UsageStore(redis, clock), lambda: table, time)


async def spend(process: Allowances, tokens: int = 0, who: Caller = ADA, user: str = "ada") -> None:
    with await process.take(who, user) as grant:
        grant.spend(tokens)


async def refused(process: Allowances, who: Caller = ADA, user: str = "ada") -> Busy:
    with pytest.raises(Busy) as caught:
        await process.take(who, user)
    return caught.value


async def test_without_limits_redis_is_not_asked(redis: Redis, process: Process) -> None:
    allowances = process()
    await redis.aclose()
    for _ in range(10):
        await spend(allowances, 1_000_000)
    assert not allowances.concern(ADA, "ada")


async def test_requests_a_minute(process: Process, time: Time, table: dict[str, Limits]) -> None:
    table["user"] = Limits(requests_per_minute=3)
    allowances = process()
    for _ in range(3):
        await spend(allowances)
    error = await refused(allowances)
    assert (error.status, error.code) == (429, "rate_limit_exceeded")
    assert error.extra == {"limit": "requests_per_minute", "of": "user"}
    assert "3 requests a minute" in error.detail
    await spend(allowances, user="bob")  # each user alone
    assert error.retry_after_s is not None
    time.pass_s(error.retry_after_s - 2)
    await refused(allowances)
    time.pass_s(2)
    await spend(allowances)
    await refused(allowances)


async def test_tokens_a_minute_stop_the_next_request(
    process: Process, time: Time, table: dict[str, Limits]
) -> None:
    table["project:bio"] = Limits(tokens_per_minute=100)
    allowances = process()
    await spend(allowances, 60)
    await spend(allowances, 60)
    error = await refused(allowances)
    assert (error.code, error.extra["of"]) == ("rate_limit_exceeded", "project")
    time.pass_s(error.retry_after_s or 0)
    await spend(allowances)


@pytest.mark.parametrize(
    ("limits", "until_s"),
    [
        (Limits(tokens_per_day=100), 86_400),
        (Limits(tokens_per_month=100), 17 * 86_400),  # to the first of February
    ],
)
async def test_budgets_begin_anew_with_the_day_and_the_month(
    process: Process, time: Time, table: dict[str, Limits], limits: Limits, until_s: int
) -> None:
    table["key:k1"] = limits
    allowances = process()
    await spend(allowances, 100)
    error = await refused(allowances)
    assert (error.code, error.retry_after_s) == ("insufficient_quota", until_s)
    time.pass_s(until_s - 1)
    assert (await refused(allowances)).retry_after_s == 1
    time.pass_s(1)
    await spend(allowances, 100)
    await refused(allowances)


async def test_a_refused_request_counts_nowhere(
    process: Process, time: Time, table: dict[str, Limits]
) -> None:
    """Neither ours nor the model server's refusal, before or after the exchange of its count."""
    table.update(user=Limits(requests_per_minute=2), project=Limits(tokens_per_day=10))
    allowances, other = process(), process()
    for _ in range(5):
        with await allowances.take(ADA, "ada"):
            await allowances.exchange()
    with pytest.raises(ZeroDivisionError), await allowances.take(ADA, "ada"):
        raise ZeroDivisionError
    await spend(allowances, 10)
    for _ in range(5):
        await refused(allowances)  # of the project: it does not count for the user
    await allowances.exchange()
    table["project"] = Limits(tokens_per_day=1000)
    await spend(other)
    await refused(other)


async def test_processes_share_one_count_within_a_second(
    process: Process, time: Time, table: dict[str, Limits]
) -> None:
    table["user"] = Limits(tokens_per_day=100, requests_per_minute=1000)
    first, second = process(), process()
    await spend(second)
    await spend(first, 100)
    await spend(second)  # nobody has told it
    time.pass_s(1)
    await first.exchange()
    await second.exchange()
    await refused(second)
    await refused(process())  # one that just began asks before it lets anybody in


async def test_who_was_not_heard_of_for_a_while_is_asked_about_first(
    process: Process, time: Time, table: dict[str, Limits]
) -> None:
    table["user"] = Limits(tokens_per_month=100)
    first, second = process(), process()
    await spend(second)
    await spend(first, 100)
    await first.exchange()
    time.pass_s(3)
    await refused(second)


class Lossy(UsageStore):
    """Loses replies, or the calls themselves."""

    replies = calls = 0

    async def exchange(self, *given: object) -> tuple[int, dict[str, dict[str, int]]]:
        if self.calls:
            self.calls -= 1
            raise StoreUnavailable
        found = await super().exchange(*given)  # type: ignore[arg-type]
        if self.replies:
            self.replies -= 1
            raise StoreUnavailable
        return found


@pytest.mark.parametrize("lost", ["replies", "calls"])
async def test_a_lost_exchange_counts_once(
    redis: Redis, time: Time, table: dict[str, Limits], process: Process, lost: str
) -> None:
    table["user"] = Limits(tokens_per_day=1000)
    store = Lossy(redis, time.redis)
    allowances = Allowances(store, lambda: table, time)
    await spend(allowances, 100)
    setattr(store, lost, 1)
    with pytest.raises(StoreUnavailable):
        await allowances.exchange()
    await spend(allowances, 50)
    await allowances.flush()
    found = {k.decode(): await redis.hgetall(k) async for k in redis.scan_iter("*spent:day*")}
    assert list(found.values()) == [{b"t:user:ada": b"150"}]


async def test_while_redis_is_away_each_process_goes_on_with_what_it_knows(
    redis: Redis, time: Time, table: dict[str, Limits]
) -> None:
    table["user"] = Limits(requests_per_minute=3)
    store = Lossy(redis, time.redis)
    allowances = Allowances(store, lambda: table, time)
    await spend(allowances)
    store.calls = 1000
    time.pass_s(3)
    for _ in range(2):
        await spend(allowances)
    await refused(allowances)
    assert store.calls == 999  # asked once, and not again for a while
    store.calls = 0
    await allowances.exchange()
    other = Allowances(UsageStore(redis, time.redis), lambda: table, time)
    await refused(other)  # nothing of it was lost


async def test_a_redis_that_hangs_holds_nobody_up_for_long(
    redis: Redis, time: Time, table: dict[str, Limits], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("admission.accounting.allowances.LOOK_S", 0.1)
    table["user"] = Limits(requests_per_minute=1)

    class Hanging(UsageStore):
        async def exchange(self, *_: object) -> tuple[int, dict[str, dict[str, int]]]:
            await asyncio.sleep(60)
            raise AssertionError

    allowances = Allowances(Hanging(redis, time.redis), lambda: table, time)
    async with asyncio.timeout(5):
        grants: list[Grant] = [await allowances.take(ADA, str(n)) for n in range(100)]
    assert len(grants) == 100


async def test_many_new_callers_are_asked_about_together(
    redis: Redis, time: Time, table: dict[str, Limits]
) -> None:
    table["user"] = Limits(tokens_per_month=1)

    class Counting(UsageStore):
        exchanges = 0

        async def exchange(self, *given: object) -> tuple[int, dict[str, dict[str, int]]]:
            self.exchanges += 1
            return await super().exchange(*given)  # type: ignore[arg-type]

    store = Counting(redis, time.redis)
    allowances = Allowances(store, lambda: table, time)
    await asyncio.gather(*(spend(allowances, 1, user=str(n)) for n in range(900)))
    assert store.exchanges < 10
    await allowances.flush()
    for n in range(0, 900, 100):
        await refused(Allowances(store, lambda: table, time), user=str(n))


async def test_whose_limits_hold(process: Process, table: dict[str, Limits]) -> None:
    nothing = Limits(tokens_per_month=0)
    allowances = process()

    async def stopped(who: Caller, user: str = "ada") -> object:
        try:
            with await allowances.take(who, user):
                return None
        except Busy as error:
            return error.extra["of"]

    table["key"] = nothing  # of users' keys; a service key only has its own
    assert (await stopped(ADA), await stopped(SERVICE)) == ("key", None)
    table["key:k1"] = Limits()  # an own row stands instead of the common one
    assert await stopped(ADA) is None
    table["key:s1"] = nothing
    assert await stopped(SERVICE) == "key"
    del table["key:s1"]
    table["user:ada"] = nothing  # who acts for a user is bound by the user's limits
    assert (await stopped(SERVICE), await stopped(SERVICE, "bob")) == ("user", None)
    del table["user:ada"]
    table["project"] = nothing
    assert (await stopped(ADA), await stopped(SERVICE)) == ("project", None)


async def test_memory_is_given_back(process: Process, time: Time, table: dict[str, Limits]) -> None:
    table["user"] = Limits(1000, 1000, 1000, 1000)
    allowances = process()
    for number in range(200):
        await spend(allowances, 1, user=str(number))
        time.pass_s(1)
        await allowances.exchange()
    counts = allowances._counts
    assert len(counts._told) < 50
    assert len(counts._ends_ms) < 20
    assert not counts._unsent
    assert not counts._sending


async def test_counts_in_redis_expire(
    redis: Redis, process: Process, table: dict[str, Limits]
) -> None:
    table["user"] = Limits(1000, 1000, 1000, 1000)
    allowances = process()
    await spend(allowances, 1)
    await allowances.flush()
    lives = {k.decode(): await redis.ttl(k) async for k in redis.scan_iter("*:spent*")}
    assert len(lives) == 4
    assert all(60 < life <= 33 * 86_400 for life in lives.values())


async def test_a_minute_seen_by_a_moving_window(
    process: Process, time: Time, table: dict[str, Limits]
) -> None:
    """At the turn of the minute not twice as many pass: in no 60 s more than about the limit."""
    table["user"] = Limits(requests_per_minute=60)
    allowances, passed = process(), list[float]()
    for _ in range(600):
        try:
            await spend(allowances)
            passed.append(time())
        except Busy:
            pass
        time.pass_s(0.5)
        await allowances.exchange()
    most = max(sum(s <= t < s + MINUTE_MS / 1000 for t in passed) for s in passed)
    assert most <= 90
    assert len(passed) >= 240  # of 300 in five minutes
