"""Following a ticket inside the process, and what one listener holds for who reads slowly."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from admission import background
from admission import listener as listening
from admission.clock import ManualClock
from admission.domain import DEFAULT_POOL, Status, Ticket
from admission.listener import Listener
from admission.news import Newsroom
from admission.store.redis_store import RedisStore
from tests.conftest import DEADLINE_S

TICKET = Ticket(
    1_000_000, "t", "ada", DEFAULT_POOL, Status.WAITING, 9, 0, 1, position=5, wait_ms=600_000
)


def later(ms: int, **changes: object) -> Ticket:
    return replace(TICKET, now_ms=TICKET.now_ms + ms, **changes)  # type: ignore[arg-type]


@pytest.fixture
async def newsroom(store: RedisStore) -> AsyncIterator[Newsroom]:
    room = Newsroom(store)
    async with (
        background.running("news", room.hear),
        background.running("places", room.keep_places),
        background.running("presence", room.keep_presence),
    ):
        yield room


async def test_a_ticket_is_followed_to_its_end(newsroom: Newsroom, store: RedisStore) -> None:
    for user in ("a", "b", "c", "d"):
        await store.join(DEFAULT_POOL, user, ticket=f"t-{user}")
    seen = []
    async with asyncio.timeout(DEADLINE_S), aclosing(newsroom.follow(DEFAULT_POOL, "d")) as told:
        async for ticket in told:
            seen.append((ticket.status.value, ticket.position))
            match len(seen):
                case 1:
                    await store.leave(DEFAULT_POOL, "c")
                case 2:
                    await store.leave(DEFAULT_POOL, "a")
                case 3:
                    await store.leave(DEFAULT_POOL, "d")
    assert seen == [("waiting", 2), ("waiting", 1), ("draft", None), ("disconnected", None)]


async def test_nobody_is_followed_without_a_ticket(newsroom: Newsroom) -> None:
    assert [ticket async for ticket in newsroom.follow(DEFAULT_POOL, "a")] == []


async def test_one_request_of_several_is_followed(
    newsroom: Newsroom, store: RedisStore, clock: ManualClock
) -> None:
    await store.configure(DEFAULT_POOL, {"kind": "request", "capacity": 0})
    ids = []
    for request in ("r1", "r2", "r3"):
        joined = await store.join(DEFAULT_POOL, "a", ticket=f"t-{request}", request=request)
        ids.append(joined.ticket.ticket_id)  # type: ignore[union-attr]
    followed = newsroom.follow(DEFAULT_POOL, "a", ids[2])
    async with asyncio.timeout(DEADLINE_S), aclosing(followed) as told:
        assert (await anext(told)).position == 3
        await store.leave(DEFAULT_POOL, "a", ticket=ids[0])
        ticket = await anext(told)
    assert (ticket.ticket_id, ticket.position) == (ids[2], 2)


async def test_who_is_followed_is_let_go_when_the_service_stops(
    newsroom: Newsroom, store: RedisStore
) -> None:
    await store.configure(DEFAULT_POOL, {"capacity": 0})
    await store.join(DEFAULT_POOL, "a", ticket="t-a")
    async with asyncio.timeout(DEADLINE_S), aclosing(newsroom.follow(DEFAULT_POOL, "a")) as told:
        assert (await anext(told)).position == 1
        newsroom.close()
        assert [ticket async for ticket in told] == []
    async with asyncio.timeout(DEADLINE_S), aclosing(newsroom.follow(DEFAULT_POOL, "a")) as told:
        assert len([ticket async for ticket in told]) == 1  # the snapshot, and no waiting


async def test_who_reads_slowly_gets_the_newest_place_only() -> None:
    listener = Listener(DEFAULT_POOL, "ada", "")
    assert listener.show(TICKET)
    for position in (4, 3, 2):
        listener.place(later(1, position=position), slots_changed=False)
    taken = listener.take_place()
    assert taken is not None
    assert taken.position == 2
    assert listener.take_place() is None


async def test_who_is_told_seldom_is_told_a_place_with_its_forecast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A place moves at once; what that means for the wait is known a moment later."""
    monkeypatch.setattr(listening, "SETTLE_S", 0.05)
    listener = Listener(DEFAULT_POOL, "ada", "", pace_s=0.01)
    listener.show(TICKET)
    listener.place(later(1, position=4), slots_changed=False)
    assert listener.take_place() is None
    listener.place(later(2, position=4, wait_ms=300_000), slots_changed=False)
    async with asyncio.timeout(DEADLINE_S):
        await listener.woken()
    assert listener.take_place() == later(2, position=4, wait_ms=300_000)


async def test_a_place_that_moved_and_came_back_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "SETTLE_S", 0.01)
    listener = Listener(DEFAULT_POOL, "ada", "", pace_s=0.01)
    listener.show(TICKET)
    listener.place(later(1, position=4), slots_changed=False)
    listener.place(later(2), slots_changed=False)
    async with asyncio.timeout(DEADLINE_S):
        await listener.woken()
    assert listener.take_place() is None


async def test_who_just_moved_up_is_not_told_that_it_takes_longer() -> None:
    """The forecast that follows the move is another; nothing that was expected failed to come."""
    listener = Listener(DEFAULT_POOL, "ada", "")
    listener.show(TICKET)
    assert listener.show(later(1, position=4)) == (later(1, position=4), None)
    revised = later(900, position=4, wait_ms=900_000)
    assert listener.show(revised) == (revised, None)
    late = later(60_000, position=4, wait_ms=1_000_000)
    assert listener.show(late) == (late, "overdue")


async def test_an_old_or_foreign_place_is_not_shown() -> None:
    listener = Listener(DEFAULT_POOL, "ada", "")
    listener.show(TICKET)
    for place in (later(-1, position=9), later(1, position=9, ticket_id="other")):
        listener.place(place, slots_changed=False)
        assert listener.take_place() is None
    listener.show(later(2, position=None, status=Status.DRAFT))
    listener.place(later(3, position=4), slots_changed=False)
    assert listener.take_place() is None


@pytest.mark.parametrize(
    ("now", "shown"),
    [
        (later(14_999, wait_ms=585_001), False),  # counts down as it was told
        (later(54_000, wait_ms=546_000), False),
        (later(61_000, wait_ms=539_000), True),  # a tenth less: not all clients count
        (later(1, position=4), True),
        (later(1, wait_ms=None), True),
        (later(1, expires_ms=5), True),
        (later(1, queue_length=10), False),
    ],
)
async def test_only_news_is_shown(now: Ticket, shown: bool) -> None:
    listener = Listener(DEFAULT_POOL, "ada", "")
    listener.show(TICKET)
    assert (listener.show(now) is not None) is shown


@pytest.mark.parametrize(
    ("now", "slots_changed", "because"),
    [
        (later(1, position=6), True, "passed"),
        (later(1, position=4), True, None),
        (later(1, wait_ms=900_000), True, "capacity"),
        (later(1, wait_ms=300_000), True, "capacity"),
        (later(1, wait_ms=900_000), False, "overdue"),
        (later(200_000, wait_ms=700_000), False, "overdue"),
        (later(200_000, position=4, wait_ms=600_000), False, None),
        (later(1, wait_ms=None), False, "overdue"),
        (later(1, wait_ms=300_000), False, None),
        (later(1, position=None, status=Status.DRAFT), True, None),
        (later(1, position=6, ticket_id="next"), False, None),
    ],
)
async def test_the_cause_is_said_when_news_is_bad(
    now: Ticket, slots_changed: bool, because: str | None
) -> None:
    listener = Listener(DEFAULT_POOL, "ada", "")
    listener.show(TICKET)
    listener.place(now, slots_changed=slots_changed)
    news = listener.show(now)
    assert news is not None
    assert news.because == because
