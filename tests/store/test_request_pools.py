"""Request pools: a slot for one request, fair between users, and never held by nobody."""

import asyncio
import random

import pytest

from admission.clock import ManualClock
from admission.domain import Priority, Status, Ticket
from admission.outcomes import Alive, Joined, Left, NoSession, Occupied, Passed, Refused, Unknown
from admission.store.names import pool_key
from admission.store.redis_store import RedisStore
from tests.store.conftest import RoomOf, StoresOf
from tests.store.room import POOL, Room, name_of, new_id


@pytest.fixture
def one(room_of: RoomOf) -> Room:
    """One slot for requests."""
    return room_of(kind="request", capacity=1)


async def ask(room: Room, user: str, request: str, **flags: object) -> Ticket:
    """A request that waits in its connection: present, and admitted without a draft."""
    flags = {"auto_confirm": True, **flags}
    return await room.join(user, request=request, **flags)


async def queue(room: Room) -> list[str]:
    """Ids of the requests in the order in which the shared list shows them."""
    listed = await room.store.waiting(POOL, offset=0, limit=100)
    return [item.ticket_id for item in listed]


async def served(room: Room, tickets: dict[str, Ticket], rounds: int) -> list[str]:
    """Names of the requests as they get the one slot, each giving it back at once."""
    order = []
    for _ in range(rounds):
        active = [
            name
            for name, ticket in tickets.items()
            if name not in order and (await look(room, ticket)).status is Status.ACTIVE
        ]
        assert len(active) == 1, active
        order += active
        ticket = tickets[active[0]]
        await room.store.leave(POOL, ticket.user_id, ticket=ticket.ticket_id)
    return order


async def look(room: Room, ticket: Ticket) -> Ticket:
    seen = await room.store.status(POOL, ticket.user_id, ticket=ticket.ticket_id)
    assert isinstance(seen, Ticket)
    return seen


async def test_a_request_is_named(one: Room) -> None:
    assert await one.store.join(POOL, "a", ticket="t") == Refused("request_needed")
    assert await one.dump() == {}


async def test_each_request_is_a_claim_and_joining_it_again_is_the_same(one: Room) -> None:
    first, second = await ask(one, "a", "r1"), await ask(one, "a", "r2")
    assert first.ticket_id != second.ticket_id
    again = await one.store.join(POOL, "a", ticket=new_id("a"), request="r2", auto_confirm=True)
    assert isinstance(again, Joined)
    assert (again.ticket.ticket_id, again.new) == (second.ticket_id, False)


async def test_parallel_joins_of_one_request_make_one_ticket(
    clock: ManualClock, stores_of: StoresOf
) -> None:
    stores = stores_of(4, clock, kind="request", capacity=1)
    joined = await asyncio.gather(
        *(
            store.join(POOL, "a", ticket=f"t{i}-{j}", request="r")
            for i, store in enumerate(stores)
            for j in range(10)
        )
    )
    assert len({outcome.ticket.ticket_id for outcome in joined if isinstance(outcome, Joined)}) == 1


async def test_users_take_turns_however_many_requests_one_has(one: Room) -> None:
    tickets = {"x": await ask(one, "x", "x")}
    for name in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
        tickets[name] = await ask(one, name[0], name)
    assert await served(one, tickets, 8) == ["x", "a1", "b1", "c1", "a2", "b2", "a3", "a4"]


async def test_a_new_user_comes_before_the_rest_of_a_loud_one(one: Room) -> None:
    tickets = {f"a{i}": await ask(one, "a", f"a{i}") for i in range(4)}
    await served(one, tickets, 2)
    tickets["b1"] = await ask(one, "b", "b1")
    assert [tickets[name].position for name in ("b1",)] == [1]
    rest = {name: tickets[name] for name in ("a2", "a3", "b1")}
    assert await served(one, rest, 3) == ["a2", "b1", "a3"]


async def test_no_credit_is_banked_while_one_is_away(one: Room) -> None:
    tickets = {f"a{i}": await ask(one, "a", f"a{i}") for i in range(6)}
    await served(one, tickets, 4)
    late = {"a4": tickets["a4"], "a5": tickets["a5"]}
    late |= {f"b{i}": await ask(one, "b", f"b{i}") for i in range(2)}
    assert await served(one, late, 4) == ["a4", "b0", "a5", "b1"]


async def test_turns_follow_the_weights(room_of: RoomOf) -> None:
    one = room_of(kind="request", capacity=1, priorities={"pro": Priority(weight=2)})
    tickets = {"x": await ask(one, "x", "x")}
    for i in range(6):
        tickets[f"p{i}"] = await ask(one, "p", f"p{i}", priority="pro")
    for i in range(3):
        tickets[f"d{i}"] = await ask(one, "d", f"d{i}")
    order = await served(one, tickets, 10)
    assert [order[1:7].count(f"p{i}") for i in range(6)].count(1) == 4, order
    assert sum(name.startswith("d") for name in order[1:7]) == 2


async def test_a_request_that_left_unserved_costs_nothing(one: Room) -> None:
    tickets = {"x": await ask(one, "x", "x")}
    for name in ("a1", "a2", "b1"):
        tickets[name] = await ask(one, name[0], name)
    await one.store.leave(POOL, "a", ticket=tickets.pop("a1").ticket_id)
    assert await served(one, tickets, 3) == ["x", "a2", "b1"]


async def test_users_who_arrive_at_the_same_virtual_time_are_served_in_order(one: Room) -> None:
    tickets = {"x": await ask(one, "x", "x")}
    users = [f"u{i}" for i in range(20)]
    random.Random(1).shuffle(users)
    for user in users:
        tickets[user] = await ask(one, user, "r")
    assert await served(one, tickets, 21) == ["x", *users]


async def test_positions_are_the_order_in_which_equal_users_are_served(one: Room) -> None:
    tickets = {"x": await ask(one, "x", "x")}
    for round_ in range(3):
        for user in "abc":
            tickets[f"{user}{round_}"] = await ask(one, user, f"r{round_}")
    names = [f"{user}{round_}" for round_ in range(3) for user in "abc"]
    seen = [(await look(one, tickets[name])).position for name in names]
    assert seen == list(range(1, 10))
    assert (await one.metrics()).waiting == 9


@pytest.mark.parametrize("limit", [1, 2, 3, 9])
async def test_the_list_goes_on_from_first_requests_to_later_ones(one: Room, limit: int) -> None:
    await ask(one, "x", "x")
    for name in ("a1", "a2", "b1", "b2"):
        await ask(one, name[0], name)
    whole = await queue(one)
    assert len(set(whole)) == 4
    for offset in range(6):
        page = await one.store.waiting(POOL, offset=offset, limit=limit)
        assert [item.ticket_id for item in page] == whole[offset : offset + limit]


async def test_a_users_requests_at_once_are_limited(room_of: RoomOf) -> None:
    room = room_of(kind="request", capacity=4, user_concurrency=2)
    mine = [await ask(room, "a", f"r{i}") for i in range(4)]
    assert [t.status for t in mine] == ["active", "active", "waiting", "waiting"]
    other = await ask(room, "b", "r")
    assert other.status is Status.ACTIVE
    await room.store.leave(POOL, "a", ticket=mine[0].ticket_id)
    assert [(await look(room, t)).status for t in mine[1:]] == ["active", "active", "waiting"]


async def test_a_lease_is_kept_by_heartbeats_and_lost_without(one: Room) -> None:
    held, waiting = await ask(one, "a", "r"), await ask(one, "b", "r")
    for _ in range(5):
        one.clock.advance_ms(29_999)
        for ticket in (held, waiting):
            alive = await one.store.heartbeat(POOL, ticket.user_id, ticket=ticket.ticket_id)
            assert isinstance(alive, Alive)
    one.clock.advance_ms(29_999)
    assert (await look(one, held)).status is Status.ACTIVE
    one.clock.advance_ms(1)
    assert (await look(one, held)).reason == "idle"
    await one.tick()
    assert (await look(one, waiting)).status is Status.ACTIVE


async def test_a_lease_ends_at_its_hard_cap(room_of: RoomOf) -> None:
    one = room_of(kind="request", capacity=1, session_ms=60_000)
    held = await ask(one, "a", "r")
    for _ in range(3):
        one.clock.advance_ms(19_000)
        await one.store.heartbeat(POOL, "a", ticket=held.ticket_id)
    one.clock.advance_ms(3_000)
    assert (await look(one, held)).reason == "session_timeout"


async def test_only_the_request_that_holds_the_slot_passes_and_renews_it(one: Room) -> None:
    await ask(one, "a", "r1")
    await ask(one, "a", "r2")
    assert isinstance(await one.use("a", request="r1"), Passed)
    assert isinstance(await one.use("a", request="r2"), NoSession)
    assert isinstance(await one.use("a", request="r3"), NoSession)
    one.clock.advance_ms(29_000)
    await one.use("a", request="r1")
    one.clock.advance_ms(29_000)
    assert isinstance(await one.use("a", request="r1"), Passed)


async def test_a_request_whose_caller_is_gone_is_passed_over_and_then_abandoned(one: Room) -> None:
    held = await ask(one, "x", "x")
    gone, mine, other = (
        await ask(one, "a", "r1"),
        await ask(one, "a", "r2"),
        await ask(one, "b", "r"),
    )
    for _ in range(4):
        one.clock.advance_ms(20_000)
        for ticket in (held, mine, other):
            await one.store.heartbeat(POOL, ticket.user_id, ticket=ticket.ticket_id)
    await one.tick()
    assert await queue(one) == [mine.ticket_id, other.ticket_id]
    await one.store.heartbeat(POOL, "a", ticket=gone.ticket_id)  # it comes back
    assert (await look(one, gone)).position == 3
    one.clock.advance_ms(60_000)
    await one.tick()
    one.clock.advance_ms(600_000)
    await one.tick()
    assert (await look(one, gone)).reason == "abandoned"


async def test_a_leave_without_a_name_ends_all_of_the_users_requests(one: Room) -> None:
    mine = [await ask(one, "a", f"r{i}") for i in range(5)]
    other = await ask(one, "b", "r")
    assert await one.store.leave(POOL, "a") == Left(Status.WAITING, Status.DISCONNECTED)
    assert {(await look(one, t)).reason for t in mine} == {"left"}
    assert (await look(one, other)).status is Status.ACTIVE


async def test_an_admin_cancels_one_or_all(one: Room) -> None:
    mine = [await ask(one, "a", f"r{i}") for i in range(3)]
    await one.store.cancel(POOL, "a", ticket=mine[1].ticket_id)
    assert [(await look(one, t)).status for t in mine] == ["active", "disconnected", "waiting"]
    await one.store.cancel(POOL, "a")
    assert [(await look(one, t)).reason for t in mine] == ["removed"] * 3


async def test_nobody_sees_or_ends_anothers_request(one: Room) -> None:
    mine = await ask(one, "a", "r")
    assert await one.store.status(POOL, "b", ticket=mine.ticket_id) == Unknown()
    assert await one.store.leave(POOL, "b", ticket=mine.ticket_id) == Unknown()
    assert await one.store.cancel(POOL, "b", ticket=mine.ticket_id) == Unknown()
    assert await one.store.heartbeat(POOL, "b", ticket=mine.ticket_id) == Unknown()
    assert (await look(one, mine)).status is Status.ACTIVE


async def test_the_limit_counts_every_waiting_request(room_of: RoomOf) -> None:
    one = room_of(kind="request", capacity=1, queue_limit=3)
    for i in range(4):
        await ask(one, "a", f"r{i}")
    refused = await one.store.join(POOL, "b", ticket="t", request="r")
    assert refused == Refused("full")


async def test_a_request_that_waited_too_long_is_told_so(room_of: RoomOf) -> None:
    one = room_of(kind="request", capacity=1, queue_timeout_ms=5000)
    for request in ("r1", "r2", "r3"):
        last = await ask(one, "a", request)
    one.clock.advance_ms(5000)
    await one.tick()
    assert (await look(one, last)).reason == "queue_timeout"
    assert (await one.metrics()).waiting == 0


async def test_nothing_of_a_user_stays_behind(one: Room) -> None:
    for user in "abc":
        for request in range(4):
            await ask(one, user, f"r{request}")
    for user in "abc":
        await one.store.leave(POOL, user)
    for _ in range(2):
        one.clock.advance_ms(10_000_000)
        await one.tick()
    left = {name_of(key) for key in await one.redis.keys("vestibule:*")}
    assert left <= {"pool", "waits", "lives", "forecast"}


@pytest.mark.parametrize("seed", range(3))
async def test_under_any_load_slots_hold_and_every_request_ends(room_of: RoomOf, seed: int) -> None:
    room, rng = room_of(kind="request", capacity=3, user_concurrency=2), random.Random(seed)
    open_: list[Ticket] = []
    for step in range(120):
        room.clock.advance_ms(rng.randrange(2000))
        if rng.random() < 0.5:
            open_.append(await ask(room, rng.choice("abcd"), f"r{step}"))
        elif open_:
            ticket = open_.pop(rng.randrange(len(open_)))
            await room.store.leave(POOL, ticket.user_id, ticket=ticket.ticket_id)
        for ticket in open_:
            await room.store.heartbeat(POOL, ticket.user_id, ticket=ticket.ticket_id)
        states = [(await look(room, ticket)) for ticket in open_]
        running = [ticket.user_id for ticket in states if ticket.status is Status.ACTIVE]
        assert len(running) <= 3, (seed, step)
        assert all(running.count(user) <= 2 for user in "abcd"), (seed, step)
        waiting = {ticket.user_id for ticket in states if ticket.status is Status.WAITING}
        could_run = [user for user in waiting if running.count(user) < 2]
        assert len(running) == 3 or not could_run, (seed, step)  # no slot idles


async def test_the_kind_of_an_occupied_pool_stays(one: Room, store: RedisStore) -> None:
    await ask(one, "a", "r")
    assert await one.store.configure(POOL, {"kind": "session"}) == Occupied()
    await one.store.leave(POOL, "a")
    assert await one.store.configure(POOL, {"kind": "session"}) is None
    assert (await one.join("a")).status is Status.DRAFT


async def test_a_raised_limit_lets_the_next_requests_in_at_once(room_of: RoomOf) -> None:
    room = room_of(kind="request", capacity=4, user_concurrency=1)
    mine = [await ask(room, "a", f"r{i}") for i in range(3)]
    assert [t.status for t in mine] == ["active", "waiting", "waiting"]
    await room.configure(user_concurrency=2)
    assert [(await look(room, t)).status for t in mine] == ["active", "active", "waiting"]
    await room.configure(user_concurrency=9)
    assert [(await look(room, t)).status for t in mine] == ["active"] * 3


async def test_a_lowered_limit_holds_for_who_stands_first(room_of: RoomOf) -> None:
    room = room_of(kind="request", capacity=2, user_concurrency=3)
    mine = [await ask(room, "a", f"r{i}") for i in range(4)]
    other = await ask(room, "b", "r")
    await room.configure(user_concurrency=2)
    assert await queue(room) == [other.ticket_id, mine[2].ticket_id, mine[3].ticket_id]
    await room.configure(capacity=4)
    states = [(await look(room, t)).status for t in (*mine, other)]
    assert states == ["active", "active", "waiting", "waiting", "active"]
    await room.store.leave(POOL, "a", ticket=mine[0].ticket_id)
    assert (await look(room, mine[2])).status is Status.ACTIVE


async def test_a_loud_users_lapsed_requests_are_in_no_record_that_scripts_read(one: Room) -> None:
    await ask(one, "x", "x", will_return=True)
    mine = [await ask(one, "a", f"r{i}") for i in range(250)]
    one.clock.advance_ms(60_000)
    while (await one.metrics()).waiting:
        await one.tick()
    assert await one.redis.hstrlen(pool_key(POOL, "lanes"), "a") < 200
    await one.store.heartbeat(POOL, "a", ticket=mine[7].ticket_id)  # one comes back
    assert await queue(one) == [mine[7].ticket_id]
    await one.store.leave(POOL, "a")
    assert {(await look(one, ticket)).reason for ticket in mine} == {"left"}
