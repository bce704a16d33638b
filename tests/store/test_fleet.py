"""The fleet's scripts: each change whole or not at all, once, and only by who may."""

import logging

import msgspec
import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.decided import Decided
from admission.instance import Offer, State
from admission.store import names
from admission.store.fence import Fence, Fenced
from admission.store.fleet_records import UnreadableRecord
from admission.store.fleet_store import FleetStore, NewerRecord
from admission.store.tick_store import LEASE_MS
from tests.fleet.words import DISK, NOW_MS, asked, happened, machine, names_of, taken

DECIDED = Decided(at_ms=NOW_MS, reason="as it is", numbers={"load": 1.5, "gpu_load": None})

# --- instances ---------------------------------------------------------------------------------


async def test_what_is_written_is_read_again_whole(fleet: FleetStore, fence: Fence) -> None:
    one = machine(volumes=(DISK,), address="10.0.0.1", launched_ms=NOW_MS)
    two = machine("i-2")
    assert await fleet.write(fence, two, 0, [happened(two)])
    assert await fleet.write(fence, one, 0, [happened(one, detail={"zone": "a", "try": 2})])
    assert await fleet.instances() == [one, two]
    assert await fleet.instance("i-1") == one
    assert await fleet.instance("i-3") is None


async def test_a_change_of_something_older_is_stale_and_changes_nothing(
    fleet: FleetStore, fence: Fence
) -> None:
    first = machine()
    second, other = machine(version=2, address="x"), machine(version=2, address="y")
    assert await fleet.write(fence, first, 0, [happened(first)])
    assert await fleet.write(fence, second, 1, [happened(second, "booted")])
    assert not await fleet.write(fence, other, 1, [happened(other, "never")])
    assert not await fleet.write(fence, machine(address="z"), 0, [happened(first, "never")])
    assert await fleet.instance("i-1") == second
    assert await names_of(fleet) == ["provision", "booted"]


async def test_a_write_whose_reply_was_lost_counts_once(fleet: FleetStore, fence: Fence) -> None:
    one = machine()
    for _ in range(3):
        assert await fleet.write(fence, one, 0, [happened(one)])
    assert await names_of(fleet) == ["provision"]


async def test_who_lost_the_lease_changes_nothing(
    fleet: FleetStore, fence: Fence, redis: Redis, clock: ManualClock
) -> None:
    one = machine()
    await fleet.write(fence, one, 0, [happened(one)])
    await fleet.ask(asked())
    [(entry, _)] = await fleet.commands()
    clock.advance_ms(LEASE_MS)
    new = await taken(redis, clock, "b")
    before = {key: await redis.dump(key) for key in await redis.keys("*")}
    two = machine(version=2)
    for call in (
        fleet.write(fence, two, 1, [happened(two)]),
        fleet.take(fence, entry, [(two, 1)], [happened(two)]),
        fleet.take(fence, entry, [], [happened("i-1", "refuse")]),
        fleet.note(fence, [happened("m-1", "orphan")]),
        fleet.remember(fence, "scaler", b"x"),
        fleet.decide(fence, "scaler", b"x", "default", DECIDED, happened("")),
        fleet.offer(fence, "aws", []),
    ):
        with pytest.raises(Fenced):
            await call
    assert {key: await redis.dump(key) for key in await redis.keys("*")} == before
    assert await fleet.write(new, two, 1, [happened(two)])


async def test_a_lease_that_ran_out_and_that_nobody_took_is_still_the_holders(
    fleet: FleetStore, fence: Fence, clock: ManualClock
) -> None:
    clock.advance_ms(10 * LEASE_MS)
    one = machine()
    assert await fleet.write(fence, one, 0, [happened(one)])


async def test_a_bad_record_is_refused_before_it_is_sent(fleet: FleetStore, fence: Fence) -> None:
    large = machine(volumes=(DISK,) * 2000)
    for bad, events, why in (
        (machine(version=3), [happened("i-1")], "does not follow"),
        (large, [happened("i-1")], "65536 bytes"),
        (machine(), [], "none of i-1"),
        (machine(), [happened("i-1")] * 101, "100 at most"),
    ):
        with pytest.raises(ValueError, match=why):
            await fleet.write(fence, bad, 0, events)
    assert await fleet.instances() == []


async def test_an_archived_instance_is_out_of_sight_and_found_by_its_id(
    fleet: FleetStore, fence: Fence
) -> None:
    one = machine(state=State.ARCHIVED)
    await fleet.write(fence, one, 0, [happened(one, "archive")])
    assert await fleet.instances() == []
    assert await fleet.instances(archived=True) == [one]
    assert await fleet.instance("i-1") == one


async def test_an_instance_of_a_newer_service_is_left_alone(
    fleet: FleetStore, fence: Fence, redis: Redis
) -> None:
    one = machine()
    newer = f"2 1 provisioning {msgspec.json.encode(one).decode()}"
    await redis.hset(names.fleet_key("instances"), "i-1", newer)
    await fleet.ask(asked())
    [(entry, _)] = await fleet.commands()
    two = machine(version=2)
    with pytest.raises(NewerRecord, match="i-1"):
        await fleet.write(fence, two, 1, [happened(two)])
    with pytest.raises(NewerRecord, match="i-1"):
        await fleet.take(fence, entry, [(two, 1)], [happened(two)])
    assert await redis.hget(names.fleet_key("instances"), "i-1") == newer.encode()
    assert await fleet.instances() == [one], "what is known of it may be read"


@pytest.mark.parametrize("raw", ["", "nonsense", "1 1 ready {}", "1 1 ready {"])
async def test_a_record_that_cannot_be_read_hides_no_machine(
    fleet: FleetStore, fence: Fence, redis: Redis, raw: str
) -> None:
    one = machine()
    await fleet.write(fence, one, 0, [happened(one)])
    await redis.hset(names.fleet_key("instances"), "i-2", raw)
    with pytest.raises(UnreadableRecord):
        await fleet.instances()
    assert await fleet.instance("i-1") == one


# --- the history -------------------------------------------------------------------------------


async def test_an_entry_tells_what_happened_and_the_record_after_it(
    fleet: FleetStore, fence: Fence
) -> None:
    one = machine()
    first = happened(one, "provision", target="provisioning", reason="a surge")
    action = happened(one, "launch", ok=False, detail={"code": "OUT", "n": 1.5})
    await fleet.write(fence, one, 0, [first, action])
    entries = await fleet.history()
    assert [(each.event, each.instance) for each in entries] == [(first, None), (action, one)]
    assert await fleet.history(entries[0].entry) == entries[1:]
    assert await fleet.history(count=1) == entries[:1]
    assert await fleet.ends() == (entries[0].entry, entries[1].entry)
    assert await fleet.lines("i-1") == [first, action]


async def test_an_empty_history_has_no_ends(fleet: FleetStore) -> None:
    assert await fleet.ends() == ("0-0", "0-0")
    assert await fleet.history() == []
    assert await fleet.drained() == "0-0"
    assert await fleet.lines("i-1") == []


async def test_notes_tell_of_machines_that_are_nobodys_once(
    fleet: FleetStore, fence: Fence
) -> None:
    orphans = [happened("m-1", "orphan"), happened("m-2", "orphan")]
    for _ in range(2):
        await fleet.note(fence, orphans)
    await fleet.note(fence, [])
    assert [each.event for each in await fleet.history()] == orphans
    later = msgspec.structs.replace(orphans[1], at_ms=NOW_MS + 1)
    await fleet.note(fence, [later])
    assert len(await fleet.history()) == 3
    assert await fleet.lines("m-1") == [], "no instance of ours"


async def test_the_newest_lines_of_an_instance_stay_beside_it(
    fleet: FleetStore, fence: Fence
) -> None:
    one = machine()
    await fleet.write(fence, one, 0, [happened(one)])
    for number in range(80):
        await fleet.note(fence, [happened(one, f"action-{number}", reason="r" * 200)])
    found = [event.name for event in await fleet.lines("i-1")]
    assert found[-1] == "action-79"
    assert 40 < len(found) < 80
    assert found == [f"action-{number}" for number in range(80 - len(found), 80)]


async def test_a_line_that_is_too_long_is_cut(fleet: FleetStore, fence: Fence) -> None:
    one = machine()
    await fleet.write(fence, one, 0, [happened(one, reason="é" * 9000, detail={"x": "y" * 9000})])
    [event] = await fleet.lines("i-1")
    assert (event.reason, event.detail) == ("é" * 500, {"cut": True})


async def test_what_is_in_sql_goes_when_the_history_is_long(
    fleet: FleetStore, fence: Fence
) -> None:
    one = machine()
    await fleet.write(fence, one, 0, [happened(one)])
    for number in range(3):
        await fleet.note(fence, [happened("m", f"n{number}")])
    assert len(await names_of(fleet)) == 4, "longer than is kept, but nobody drained it"
    entries = await fleet.history()
    await fleet.drain(entries[2].entry)
    await fleet.drain(entries[0].entry)  # a scheduler that was slow
    assert await fleet.drained() == entries[2].entry
    await fleet.note(fence, [happened("m", "n3"), happened("m", "n4")])
    assert await names_of(fleet) == ["n2", "n3", "n4"]
    assert await fleet.lost() == 0


async def test_what_nobody_drains_goes_with_an_alarm(
    fleet: FleetStore, fence: Fence, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(6):
        await fleet.note(fence, [happened("m", f"n{number}")])
    assert "fleet_history_lost" not in caplog.text
    with caplog.at_level(logging.WARNING):
        await fleet.note(fence, [happened("m", "n6"), happened("m", "n7")])
    assert await names_of(fleet) == [f"n{number}" for number in range(2, 8)]
    assert await fleet.lost() == 2
    assert "fleet_history_lost entries=2" in caplog.text


async def test_an_archived_instance_goes_with_its_last_line(
    fleet: FleetStore, fence: Fence
) -> None:
    one, two = machine(), machine(version=2, state=State.ARCHIVED)
    alive = machine("i-2")
    await fleet.write(fence, one, 0, [happened(one)])
    await fleet.write(fence, two, 1, [happened(two, "archive")])
    await fleet.write(fence, alive, 0, [happened(alive)])
    await fleet.drain((await fleet.history())[-1].entry)
    await fleet.note(fence, [happened("m", "n0")])
    assert await fleet.instance("i-1") == two, "its last line is still there"
    await fleet.note(fence, [happened("m", "n1")])
    assert await fleet.instances(archived=True) == [alive]
    assert await fleet.lines("i-1") == []
    await fleet.note(fence, [happened("m", "n2")])
    assert await fleet.instances() == [alive], "who lives outlives its lines"


async def test_an_entry_that_cannot_be_read_stands_where_it_was(
    fleet: FleetStore, redis: Redis
) -> None:
    await redis.xadd(names.fleet_key("history"), {"n": "i-1", "e": "{", "r": "x"}, id="7-0")
    [entry] = await fleet.history()
    assert (entry.event.name, entry.event.instance_id) == ("unreadable", "i-1")
    assert (entry.event.at_ms, entry.instance) == (7, None)


# --- what is left for others -------------------------------------------------------------------


async def test_a_tick_remembers_any_bytes(fleet: FleetStore, fence: Fence) -> None:
    assert await fleet.memory("scaler") is None
    every = bytes(range(256))
    await fleet.remember(fence, "scaler", every)
    assert await fleet.memory("scaler") == every
    with pytest.raises(ValueError, match="scaler"):
        await fleet.remember(fence, "scaler", bytes(300_000))


async def test_a_decision_is_kept_with_what_is_remembered_and_with_its_news(
    fleet: FleetStore, fence: Fence, redis: Redis
) -> None:
    assert await fleet.decision("default") is None
    await fleet.decide(fence, "scaler", b"\xff", "default", DECIDED, happened("", "scale"))
    other = replace(DECIDED, reason="hold: paused")
    await fleet.decide(fence, "scaler", b"", "a", other)
    assert await fleet.memory("scaler") == b""
    assert await names_of(fleet) == ["scale"]
    assert await fleet.decisions() == {"a": other, "default": DECIDED}
    assert await fleet.decision("default") == DECIDED
    with pytest.raises(ValueError, match="scaler"):
        await fleet.decide(fence, "scaler", bytes(300_000), "a", other)
    await redis.hset(names.fleet_key("decided"), "a", b"{")
    assert await fleet.decisions() == {"default": DECIDED}, "one that a newer service wrote"
    await fleet.forget_decision("default")
    assert await fleet.decision("default") is None


async def test_offers_are_told_with_their_age_until_the_provider_is_no_more(
    fleet: FleetStore, fence: Fence, clock: ManualClock
) -> None:
    a10 = Offer("g5.xlarge", "a", "spot", 0.5, slots=8, source="2026-11-01")
    await fleet.offer(fence, "aws", [a10])
    clock.advance_ms(5)
    await fleet.offer(fence, "local", [])
    found = await fleet.offers()
    assert {name: tuple(each) for name, each in found.items()} == {
        "aws": (NOW_MS, (a10,)),
        "local": (NOW_MS + 5, ()),
    }
    await fleet.offer(fence, "local", None)
    assert set(await fleet.offers()) == {"aws"}
    with pytest.raises(ValueError, match="aws"):
        await fleet.offer(fence, "aws", [a10] * 20_000)


async def test_the_time_is_the_clocks(fleet: FleetStore, clock: ManualClock) -> None:
    clock.advance_ms(42)
    assert await fleet.now_ms() == NOW_MS + 42
