"""Commands change what the table allows, once; what it does not allow is refused in the history."""

from typing import Any

import pytest
from msgspec.structs import replace

from admission.instance import Command, Kind, Order, State
from admission.store.fleet_store import NewerRecord
from scheduler.fleet import transitions as to
from tests.fleet.yard import ORDER, Yard

REST: dict[str, Any] = {"provider_id": "vm-1", "tried_ms": 1, "launched_ms": 1}


@pytest.fixture
def yard() -> Yard:
    return Yard()


async def at(yard: Yard, state: State, **record: Any) -> None:
    """An instance in that state, however it came there."""
    made, event = to.request("i-1", ORDER, yard.clock.now_ms())
    await yard.put((replace(made, state=state, **(REST | record)), event), 0)


async def test_a_provision_makes_its_instances_under_the_ids_it_chose(yard: Yard) -> None:
    await yard.ask(Kind.PROVISION, "i-1", "i-2", order=ORDER, reason="a course")
    assert [(it.id, it.state, it.order) for it in yard.store.kept.values()] == [
        ("i-1", "provisioning", ORDER),
        ("i-2", "provisioning", ORDER),
    ]
    [line] = yard.lines("i-2")
    assert (line.name, line.reason, line.detail["command"]) == ("request", "a course", "c-1")
    assert yard.it().asked_by == "ops"


@pytest.mark.parametrize(
    ("order", "why"),
    [(ORDER, "there is an instance i-1 already"), (Order("moon"), "there is no provider moon")],
)
async def test_a_provision_that_cannot_be_is_refused_and_the_others_are_made(
    yard: Yard, order: Order, why: str
) -> None:
    if order is ORDER:
        await yard.order("i-1")
    await yard.ask(Kind.PROVISION, "i-1", order=order)
    line = yard.lines()[-1]
    assert (line.name, line.ok, line.reason) == ("provision", False, why)
    assert yard.store.waiting == []


async def test_what_another_scheduler_offers_is_taken_for_it(yard: Yard) -> None:
    """As in a rollout, where only the new file has the provider."""
    await yard.store.offer(yard.store.lease("offers"), "moon", [])
    await yard.ask(Kind.PROVISION, "i-1", order=Order("moon"))
    assert yard.it().state == "provisioning"


async def test_what_ends_unheard_leaves_no_worker(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that registered after the tick had read who is there, and is archived before the next."""
    await yard.up("i-1")
    await yard.ask(Kind.TERMINATE, "i-1", drain_s=0)
    monkeypatch.setattr(yard.workers, "workers", lambda pool: _none())
    await yard.run(300, lambda: yard.it().state == "terminated")
    await yard.ask(Kind.ARCHIVE, "i-1")
    assert yard.it().state == "archived"
    assert not yard.workers.all


async def _none() -> list[Any]:
    return []


@pytest.mark.parametrize(
    ("kind", "state", "drain_s", "arrow"),
    [
        (Kind.DRAIN, State.READY, 30, "drain"),
        (Kind.DRAIN, State.DRAINING, 30, "redate"),
        (Kind.RESUME, State.DRAINING, None, "resume"),
        (Kind.TERMINATE, State.READY, None, "drain"),
        (Kind.TERMINATE, State.READY, 0, "terminate"),
        (Kind.TERMINATE, State.DRAINING, 30, "redate"),
        (Kind.TERMINATE, State.DRAINING, None, "terminate"),
        (Kind.TERMINATE, State.BOOTING, None, "terminate"),
        (Kind.TERMINATE, State.PROVISIONING, 30, "terminate"),
        (Kind.TERMINATE, State.STARTUP_FAILED, None, "terminate"),
        (Kind.ARCHIVE, State.TERMINATED, None, "archive"),
    ],
)
async def test_each_command_is_an_arrow(
    yard: Yard, kind: Kind, state: State, drain_s: int | None, arrow: str
) -> None:
    await at(yard, state, drain_by_ms=yard.clock.now_ms() + 1)
    await yard.ask(kind, "i-1", drain_s=drain_s)
    assert yard.names()[-1] == arrow


@pytest.mark.parametrize(("drain_s", "given_ms"), [(None, 120_000), (7, 7_000)])
async def test_a_drain_has_its_time_from_now_on(
    yard: Yard, drain_s: int | None, given_ms: int
) -> None:
    await at(yard, State.READY)
    await yard.ask(Kind.DRAIN, "i-1", drain_s=drain_s)
    assert yard.it().drain_by_ms == yard.clock.now_ms() + given_ms


async def test_nobody_moves_the_deadline_that_a_provider_set(yard: Yard) -> None:
    ends_ms = yard.clock.now_ms() + 60_000
    await at(yard, State.DRAINING, drain_by_ms=ends_ms, error_code="SPOT_INTERRUPTED")
    await yard.ask(Kind.DRAIN, "i-1", drain_s=600)
    assert (yard.it().drain_by_ms, yard.lines()[-1].ok) == (ends_ms, False)
    await yard.ask(Kind.RESUME, "i-1")
    assert (yard.it().state, yard.lines()[-1].ok) == ("draining", False)
    await yard.ask(Kind.DRAIN, "i-1", drain_s=10)
    assert yard.it().drain_by_ms == yard.clock.now_ms() + 10_000


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (Kind.DRAIN, State.BOOTING),
        (Kind.RESUME, State.READY),
        (Kind.TERMINATE, State.TERMINATED),
        (Kind.TERMINATE, State.TERMINATING),
        (Kind.ARCHIVE, State.READY),
    ],
)
async def test_what_the_table_does_not_allow_is_refused_and_says_why(
    yard: Yard, kind: Kind, state: State
) -> None:
    await at(yard, state)
    before = yard.it()
    await yard.ask(kind, "i-1")
    line = yard.lines()[-1]
    assert yard.it() == before
    assert (line.name, line.ok, line.version) == (kind, False, before.version)
    assert line.reason.endswith(f"the instance i-1 is {state}")
    assert line.detail == {"command": "c-1"}


async def test_a_command_about_nobody_is_refused(yard: Yard) -> None:
    await yard.ask(Kind.DRAIN, "i-9")
    [line] = yard.lines("i-9")
    assert (line.ok, line.reason) == (False, "there is no instance i-9")


async def test_one_that_is_named_twice_is_changed_once(yard: Yard) -> None:
    await at(yard, State.READY)
    await yard.ask(Kind.DRAIN, "i-1", "i-1")
    assert yard.names()[1:] == ["drain"]


async def test_a_change_that_comes_in_between_is_read_again(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    await at(yard, State.READY)
    take, between = yard.store.take, [1, 2]

    async def slow(*given: Any) -> str:
        if between and between.pop():
            it = yard.it()
            await yard.put((replace(it, version=it.version + 1), yard.lines()[-1]), it.version)
        return await take(*given)

    monkeypatch.setattr(yard.store, "take", slow)
    await yard.ask(Kind.DRAIN, "i-1")
    assert yard.it().state == "draining"
    assert yard.store.waiting == []


async def test_a_command_about_a_record_of_a_newer_service_holds_up_no_other(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    await at(yard, State.READY)
    take = yard.store.take

    async def newer(fence: Any, entry: str, changes: Any, events: Any) -> str:
        if events[0].instance_id == "i-1":
            raise NewerRecord("i-1")
        return await take(fence, entry, changes, events)

    monkeypatch.setattr(yard.store, "take", newer)
    await yard.store.ask(Command("c-0", Kind.DRAIN, 0, "ops", ("i-1",)))
    await yard.ask(Kind.PROVISION, "i-2", order=ORDER)
    assert [command.id for _, command in yard.store.waiting] == ["c-0"]
    assert yard.it("i-2").state == "provisioning"
