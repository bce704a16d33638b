"""What is asked of the fleet: kept, bounded, and taken once together with its effect."""

from typing import Any

import pytest
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.instance import Kind
from admission.store import names
from admission.store.fence import Fence
from admission.store.fleet_store import CommandsFull, FleetStore, OtherWords
from tests.fleet.words import HOUR_MS, NOW_MS, ORDER, asked, happened, machine, names_of


async def test_a_command_waits_until_it_is_taken_with_its_effect(
    fleet: FleetStore, fence: Fence
) -> None:
    provision = asked("c-1", "i-1", "i-2", kind=Kind.PROVISION, order=ORDER)
    assert await fleet.ask(provision)
    assert await fleet.ask(asked("c-2"))
    [(entry, found), (other, _)] = await fleet.commands()
    assert found == provision
    assert [entry for entry, _ in await fleet.commands(1)] == [entry]
    made = [machine(), machine("i-2")]
    changes, events = [(each, 0) for each in made], [happened(each) for each in made]
    assert await fleet.take(fence, entry, changes, events) == "taken"
    assert await fleet.take(fence, entry, changes, events) == "taken", "its reply was lost"
    assert await fleet.instances() == made
    assert await names_of(fleet) == ["provision", "provision"]
    assert [entry for entry, _ in await fleet.commands()] == [other]


async def test_of_two_who_take_a_command_one_does(fleet: FleetStore, fence: Fence) -> None:
    await fleet.ask(asked())
    [(entry, _)] = await fleet.commands()
    one, other = machine(address="x"), machine(address="y")
    assert await fleet.take(fence, entry, [(one, 0)], [happened(one)]) == "taken"
    assert await fleet.take(fence, entry, [(other, 0)], [happened(other)]) == "gone"
    assert await fleet.instances() == [one]


async def test_a_command_over_something_older_stays_to_be_taken_again(
    fleet: FleetStore, fence: Fence
) -> None:
    one, two, three = machine(), machine(version=2), machine(version=3)
    fresh = machine("i-2")
    await fleet.write(fence, one, 0, [happened(one)])
    await fleet.write(fence, two, 1, [happened(two)])
    await fleet.ask(asked())
    [(entry, _)] = await fleet.commands()
    both = [(fresh, 0), (machine(version=2, address="old"), 1)]
    events = [happened(fresh), happened(two)]
    assert await fleet.take(fence, entry, both, events) == "stale"
    assert await fleet.instances() == [two], "not one of the two"
    assert len(await fleet.commands()) == 1
    assert await fleet.take(fence, entry, [(three, 2)], [happened(three)]) == "taken"


async def test_a_refused_command_goes_and_says_why(fleet: FleetStore, fence: Fence) -> None:
    await fleet.ask(asked())
    [(entry, _)] = await fleet.commands()
    refusal = happened("i-1", "refuse", ok=False, reason="there is no such instance")
    assert await fleet.take(fence, entry, [], [refusal]) == "taken"
    assert await fleet.take(fence, entry, [], [refusal]) == "gone"
    assert [each.event for each in await fleet.history()] == [refusal]
    assert await fleet.commands() == []


async def test_a_command_said_twice_within_a_day_is_one(
    fleet: FleetStore, fence: Fence, clock: ManualClock, redis: Redis
) -> None:
    assert await fleet.ask(asked())
    assert not await fleet.ask(asked(at_ms=NOW_MS + 5))
    [(entry, _)] = await fleet.commands()
    await fleet.take(fence, entry, [], [happened("i-1")])
    clock.advance_ms(24 * HOUR_MS - 1)
    assert not await fleet.ask(asked()), "also when it was taken"
    clock.advance_ms(1)
    assert await fleet.ask(asked())
    assert await redis.zcard(names.fleet_key("asked")) == 1
    assert await redis.hlen(names.fleet_key("words")) == 1


async def test_one_id_is_not_for_two_commands(fleet: FleetStore) -> None:
    await fleet.ask(asked())
    with pytest.raises(OtherWords):
        await fleet.ask(asked(drain_s=5))
    assert len(await fleet.commands()) == 1


async def test_commands_are_bounded(fleet: FleetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("admission.store.fleet_store.WAITING_MAX", 2)
    await fleet.ask(asked("c-1"))
    await fleet.ask(asked("c-2"))
    with pytest.raises(CommandsFull):
        await fleet.ask(asked("c-3"))
    assert not await fleet.ask(asked("c-2")), "what is known is no more of it"
    assert len(await fleet.commands()) == 2
    monkeypatch.setattr("admission.store.fleet_store.WAITING_MAX", 9)
    monkeypatch.setattr("admission.store.fleet_store.KNOWN_MAX", 2)
    with pytest.raises(CommandsFull):
        await fleet.ask(asked("c-3"))


@pytest.mark.parametrize(
    "bad",
    [
        {"instances": ()},
        {"instances": tuple(f"i-{n}" for n in range(51))},
        {"kind": Kind.PROVISION},
        {"order": ORDER},
    ],
)
async def test_a_command_that_means_nothing_is_refused(
    fleet: FleetStore, bad: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"^(instances|order):"):
        await fleet.ask(asked(**bad))
    assert await fleet.commands() == []


async def test_a_command_of_a_newer_service_holds_up_no_other(
    fleet: FleetStore, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("admission.store.fleet_store.PAGE", 2)
    for _ in range(3):
        await redis.xadd(names.fleet_key("commands"), {"c": '{"id":"x","kind":"hibernate"}'})
    await fleet.ask(asked("c-1"))
    await fleet.ask(asked("c-2"))
    assert [command.id for _, command in await fleet.commands(2)] == ["c-1", "c-2"]
    assert [command.id for _, command in await fleet.commands(1)] == ["c-1"]


async def test_what_was_looked_up_for_a_command_makes_it_no_other(
    fleet: FleetStore, clock: ManualClock
) -> None:
    assert not await fleet.knows("c-1", b"a machine")
    assert await fleet.ask(asked(reason="at 1.20"), b"a machine")
    assert not await fleet.ask(asked(reason="at 1.30"), b"a machine")
    assert await fleet.knows("c-1", b"a machine")
    for doing in (fleet.knows("c-1", b"two"), fleet.ask(asked(), b"two")):
        with pytest.raises(OtherWords):
            await doing
    [(_, command)] = await fleet.commands()
    assert command.reason == "at 1.20"
    clock.advance_ms(24 * HOUR_MS - 1)
    assert await fleet.knows("c-1", b"a machine")
    clock.advance_ms(1)
    assert not await fleet.knows("c-1", b"another")
