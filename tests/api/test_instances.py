"""The fleet's instances over REST: what there is, what may be had, and each wish exactly once."""

from collections.abc import Iterator

import msgspec
import pytest
from redis.asyncio import Redis

from admission.accounting import instances as past
from admission.accounting.ledger import Ledger
from admission.clock import ManualClock
from admission.instance import INSTANCE_ID, Command, Instance, Offer, State
from admission.store.fence import Fence
from admission.store.fleet_records import Recorded
from admission.store.fleet_store import FleetStore
from scheduler.fleet.commands import Commands
from tests.api.calls import Caller, Reply, contents
from tests.conftest import Service
from tests.fleet.words import DISK, NOW_MS, happened, machine, taken

OFFERS = [
    Offer("g5", "a", "on-demand", 1.2, slots=8, source="2026-11-01"),
    Offer("g5", "b", "on-demand", 1.1),
    Offer("g5", "b", "spot", 0.4),
    Offer("p5", "a", "on-demand", 9.0),
]
AWS = {"provider": "aws"}


@pytest.fixture
def fleet(service: Service) -> FleetStore:
    return service.store.fleet


@pytest.fixture
async def fence(redis: Redis, clock: ManualClock, fleet: FleetStore) -> Fence:
    """Of a scheduler that has published offers of "aws", and none of "shed"."""
    fence = await taken(redis, clock, "a")
    await fleet.offer(fence, "aws", OFFERS)
    await fleet.offer(fence, "shed", [])
    return fence


@pytest.fixture
def ledger(service: Service) -> Iterator[Ledger]:
    """The database that the service reads."""
    ledger = Ledger(service.settings.ledger_url())
    yield ledger
    ledger.close()


async def keep(fleet: FleetStore, fence: Fence, *made: Instance) -> None:
    for one in made:
        assert await fleet.write(fence, one, one.version - 1, [happened(one)])


async def asked(fleet: FleetStore) -> list[Command]:
    return [command for _, command in await fleet.commands()]


def ids(reply: Reply) -> list[str]:
    assert reply.status == 200, reply.text
    return [one["instance_id"] for one in reply.json["instances"]]


# --- provision ----------------------------------------------------------------------------------


async def test_a_wish_for_machines_waits_for_a_scheduler_and_is_seen_at_once(
    admin: Caller, fleet: FleetStore, fence: Fence
) -> None:
    wish = {**AWS, "type": "p5", "model": "m", "count": 2, "options": {"ami": "x"}, "reason": "r"}
    reply = await admin("POST", "/admin/instances", wish)
    assert (reply.status, reply.json["kind"]) == (202, "provision")
    made = reply.json["instances"]
    assert len(set(made)) == 2
    assert all(INSTANCE_ID.fullmatch(one) and one.startswith("aws-") for one in made)
    [command] = await asked(fleet)
    assert (command.id, command.at_ms) == (reply.json["command_id"], NOW_MS)
    assert (command.asked_by, command.reason) == ("admin", "r")
    assert command.instances == tuple(made)
    assert command.order is not None
    assert (command.order.type, command.order.zone) == ("p5", "a")
    assert (command.order.price_per_hour, command.order.options) == (9.0, {"ami": "x"})
    assert sorted(ids(await admin("GET", "/admin/instances"))) == sorted(made)
    seen = (await admin("GET", f"/admin/instances/{made[0]}")).json
    assert (seen["state"], seen["pending"], seen["progress"]) == ("provisioning", True, 0)
    ended = await admin("DELETE", f"/admin/instances/{made[0]}")
    assert ended.status == 202, "it is taken after the wish"
    resumed = await admin("POST", f"/admin/instances/{made[0]}/resume")
    assert (resumed.status, resumed.json["state"]) == (409, "provisioning")
    assert [command.kind for command in await asked(fleet)] == ["provision", "terminate"]
    assert (seen["requested_at"], seen["history"]) == ("2027-01-15T08:00:00.000Z", [])


async def test_what_is_left_out_is_that_of_the_cheapest_offer(
    admin: Caller, fleet: FleetStore, fence: Fence
) -> None:
    wishes = [{}, {"zone": "a"}, {"market": "spot"}, {"type": "p5"}]
    for wish in wishes:
        assert (await admin("POST", "/admin/instances", {**AWS, **wish})).status == 202
    orders = [command.order for command in await asked(fleet) if command.order is not None]
    assert [(order.type, order.zone, order.market) for order in orders] == [
        ("g5", "b", "on-demand"),
        ("g5", "a", "on-demand"),
        ("g5", "b", "spot"),
        ("p5", "a", "on-demand"),
    ]


BAD_WISHES: list[tuple[dict[str, object], int, str]] = [
    ({}, 422, "provider"),
    ({"provider": "azure"}, 422, "provider"),
    ({**AWS, "type": "h100"}, 422, "type"),
    ({**AWS, "type": "p5", "zone": "b"}, 422, "zone"),
    ({**AWS, "type": "p5", "market": "spot"}, 422, "market"),
    ({**AWS, "market": "futures"}, 422, "market"),
    ({**AWS, "count": 0}, 422, "count"),
    ({**AWS, "count": 51}, 422, "count"),
    ({**AWS, "count": True}, 422, "count"),
    ({**AWS, "pool": "nowhere"}, 404, "pool"),
    ({**AWS, "pool": "No Pool"}, 422, "pool"),
    ({**AWS, "options": {"a b": "x"}}, 422, "options.a b.[key]"),
    ({**AWS, "options": {"a": 1}}, 422, "options.a"),
    ({**AWS, "colour": "red"}, 422, "colour"),
]


async def test_a_wish_nobody_can_fulfil_names_the_field_and_changes_nothing(
    admin: Caller, redis: Redis, fence: Fence
) -> None:
    before = await contents(redis)
    for wish, status, field in BAD_WISHES:
        reply = await admin("POST", "/admin/instances", wish)
        assert (reply.status, reply.kind) == (status, "application/problem+json"), wish
        assert reply.fields == {field}
    assert await contents(redis) == before


async def test_a_provider_without_offers_and_a_fleet_without_scheduler(
    admin: Caller, fence: Fence, fleet: FleetStore
) -> None:
    sold_out = await admin("POST", "/admin/instances", {"provider": "shed"})
    assert (sold_out.status, sold_out.json["code"]) == (409, "nothing_offered")
    for name in ("aws", "shed"):
        await fleet.offer(fence, name, None)
    nobody = await admin("POST", "/admin/instances", AWS)
    assert (nobody.status, nobody.fields) == (422, {"provider"})
    assert "no scheduler" in nobody.json["detail"]


async def test_a_repeated_call_is_the_same_command_also_when_it_could_no_longer_be(
    admin: Caller, fleet: FleetStore, fence: Fence
) -> None:
    once = {"Idempotency-Key": "surge-1"}
    first = await admin("POST", "/admin/instances", AWS, headers=once)
    assert first.status == 202
    await fleet.offer(fence, "aws", None)
    again = await admin("POST", "/admin/instances", AWS, headers=once)
    assert (again.status, again.json) == (202, first.json)
    assert len(await asked(fleet)) == 1
    other = await admin("POST", "/admin/instances", {**AWS, "count": 2}, headers=once)
    assert (other.status, other.json["code"]) == (422, "idempotency_key_reused")
    assert other.fields == {"Idempotency-Key"}
    for bad in ("", "x" * 129, "a b"):
        refused = await admin("POST", "/admin/instances", AWS, headers={"Idempotency-Key": bad})
        assert (refused.status, refused.fields) == (422, {"Idempotency-Key"})
    assert len(await asked(fleet)) == 1


async def test_two_calls_without_a_key_are_two_wishes_of_other_machines(
    admin: Caller, fleet: FleetStore, fence: Fence
) -> None:
    made = [(await admin("POST", "/admin/instances", AWS)).json["instances"][0] for _ in range(2)]
    assert len(set(made)) == len(await asked(fleet)) == 2


async def test_a_wish_is_taken_once_by_the_scheduler_and_its_refusals_are_history(
    admin: Caller, fleet: FleetStore, fence: Fence
) -> None:
    scheduler = Commands(fleet, ["aws"])
    wish = {**AWS, "count": 2}
    made = (await admin("POST", "/admin/instances", wish)).json
    for _ in range(2):
        await scheduler.tick(fence)
    for one in made["instances"]:
        seen = (await admin("GET", f"/admin/instances/{one}")).json
        assert (seen["state"], seen["pending"], seen["asked_by"]) == (
            "provisioning",
            False,
            "admin",
        )
        [line] = seen["history"]
        assert (line["ok"], line["detail"]["command"]) == (True, made["command_id"])
    ended = [made["instances"][0]] * 2
    calls = [(await admin("DELETE", f"/admin/instances/{one}")).json for one in ended]
    await scheduler.tick(fence)
    seen = (await admin("GET", f"/admin/instances/{ended[0]}")).json
    assert seen["state"] == "terminating"
    assert [(line["ok"], line["detail"]["command"]) for line in seen["history"][1:]] == [
        (True, calls[0]["command_id"]),
        (False, calls[1]["command_id"]),
    ]


# --- change -------------------------------------------------------------------------------------


async def test_an_instance_is_drained_resumed_ended_and_archived_by_commands(
    admin: Caller, fleet: FleetStore, fence: Fence
) -> None:
    await keep(
        fleet,
        fence,
        machine("i-1", state=State.READY),
        machine("i-2", state=State.DRAINING),
        machine("i-3", state=State.TERMINATED),
    )
    calls: list[tuple[str, str, object]] = [
        ("POST", "/admin/instances/i-1/drain", {"drain": 60, "reason": "new image"}),
        ("POST", "/admin/instances/i-2/resume", None),
        ("DELETE", "/admin/instances/i-1", None),
        ("DELETE", "/admin/instances/i-1?drain=5&reason=dear", None),
        ("DELETE", "/admin/instances/i-1?force=true", None),
        ("POST", "/admin/instances/i-3/archive", None),
    ]
    for method, path, body in calls:
        reply = await admin(method, path, body)
        assert (reply.status, reply.json["instances"]) == (202, [path[17:20]])
    assert [(c.kind, c.instances[0], c.drain_s, c.reason) for c in await asked(fleet)] == [
        ("drain", "i-1", 60, "new image"),
        ("resume", "i-2", None, ""),
        ("terminate", "i-1", None, ""),
        ("terminate", "i-1", 5, "dear"),
        ("terminate", "i-1", 0, ""),
        ("archive", "i-3", None, ""),
    ]


BAD_CALLS = [
    ("POST", "/admin/instances/i-9/drain", 404, "instance_id"),
    ("POST", "/admin/instances/I_1/drain", 422, "instance_id"),
    ("POST", "/admin/instances/i-1/resume", 409, "instance_id"),
    ("POST", "/admin/instances/i-1/archive", 409, "instance_id"),
    ("DELETE", "/admin/instances/i-2", 409, "instance_id"),
    ("DELETE", "/admin/instances/i-1?drain=1.5", 422, "drain"),
    ("DELETE", "/admin/instances/i-1?drain=86401", 422, "drain"),
    ("DELETE", "/admin/instances/i-1?drain=5&force=true", 422, "drain"),
    ("DELETE", "/admin/instances/i-1?force=yes", 422, "force"),
    ("DELETE", f"/admin/instances/i-1?reason={'x' * 1025}", 422, "reason"),
    ("GET", "/admin/instances/i-9", 404, "instance_id"),
    ("GET", "/admin/instances?state=lost", 422, "state"),
    ("GET", "/admin/instances?pool=No!", 422, "pool"),
    ("GET", "/admin/instances?limit=1001", 422, "limit"),
]


async def test_what_cannot_be_done_says_why(admin: Caller, fleet: FleetStore, fence: Fence) -> None:
    await keep(
        fleet, fence, machine("i-1", state=State.READY), machine("i-2", state=State.TERMINATED)
    )
    for method, path, status, field in BAD_CALLS:
        reply = await admin(method, path)
        assert (reply.status, reply.fields) == (status, {field}), path
        if status == 409:
            assert reply.json["state"] in ("ready", "terminated")
    assert await asked(fleet) == []


async def test_a_repeated_drain_is_one_also_when_the_instance_has_gone_on(
    admin: Caller, fleet: FleetStore, fence: Fence
) -> None:
    await keep(fleet, fence, machine("i-1", state=State.READY))
    once = {"Idempotency-Key": "k"}
    first = await admin("DELETE", "/admin/instances/i-1", headers=once)
    await keep(fleet, fence, machine("i-1", version=2, state=State.TERMINATED))
    again = await admin("DELETE", "/admin/instances/i-1", headers=once)
    assert (again.status, again.json) == (202, first.json)
    reused = await admin("POST", "/admin/instances/i-1/drain", headers=once)
    assert (reused.status, reused.json["code"]) == (422, "idempotency_key_reused")


# --- read ---------------------------------------------------------------------------------------


async def test_an_instance_is_shown_with_its_disks_and_its_history(
    admin: Caller, fleet: FleetStore, fence: Fence
) -> None:
    one = machine(volumes=(DISK,), launched_ms=NOW_MS, error_code="X", error="in words")
    await fleet.write(fence, one, 0, [happened(one, target="provisioning", detail={"n": 1})])
    await fleet.note(fence, [happened(one, "launch", ok=False, reason="throttled")])
    seen = (await admin("GET", "/admin/instances/i-1")).json
    assert (seen["pending"], seen["error_code"], seen["error"]) == (False, "X", "in words")
    assert (seen["launched_at"], seen["ready_at"]) == ("2027-01-15T08:00:00.000Z", None)
    assert seen["volumes"] == [
        {
            "provider_volume_id": "vol-1",
            "volume_type": "gp3",
            "size_gb": 100,
            "is_boot": True,
            "delete_on_terminate": True,
            "state": "attached",
            "deleted_at": None,
        }
    ]
    assert [(line["name"], line["ok"], line["target"]) for line in seen["history"]] == [
        ("provision", True, "provisioning"),
        ("launch", False, None),
    ]
    assert seen["history"][0]["detail"] == {"n": 1}


async def test_instances_are_listed_by_what_they_are_and_by_pages(
    admin: Caller, fleet: FleetStore, fence: Fence
) -> None:
    gpu = msgspec.structs.replace(machine().order, pool="gpu", provider="aws")
    await keep(
        fleet,
        fence,
        machine("i-3", requested_ms=NOW_MS - 1),
        machine("i-1", state=State.READY),
        machine("i-2", order=gpu),
        machine("i-4", state=State.ARCHIVED),
    )
    for query, expected in (
        ("", ["i-3", "i-1", "i-2"]),
        ("?pool=gpu", ["i-2"]),
        ("?provider=local", ["i-3", "i-1"]),
        ("?state=ready", ["i-1"]),
        ("?pool=default&state=provisioning", ["i-3"]),
        ("?limit=2", ["i-3", "i-1"]),
        ("?limit=2&offset=2", ["i-2"]),
    ):
        assert ids(await admin("GET", f"/admin/instances{query}")) == expected, query


async def test_those_that_were_are_told_from_sql(
    admin: Caller, ledger: Ledger, fence: Fence
) -> None:
    one = machine(state=State.ARCHIVED, volumes=(DISK,))
    lost = happened("m-1", "orphan")
    past.add(ledger, [Recorded("1-0", happened(one, "archive"), one), Recorded("2-0", lost, None)])
    assert ids(await admin("GET", "/admin/instances")) == []
    assert ids(await admin("GET", "/admin/instances?state=archived")) == ["i-1"]
    assert ids(await admin("GET", "/admin/instances?state=archived&pool=gpu")) == []
    seen = (await admin("GET", "/admin/instances/i-1")).json
    assert (seen["state"], len(seen["volumes"])) == ("archived", 1)
    assert [line["name"] for line in seen["history"]] == ["archive"]
    orphan = await admin("GET", "/admin/instances/m-1")
    assert (orphan.status, orphan.json["history"][0]["name"]) == (404, "orphan")


async def test_without_its_past_the_fleet_is_shown_as_it_is(
    admin: Caller, fleet: FleetStore, fence: Fence
) -> None:
    await keep(fleet, fence, machine("i-1"))
    assert ids(await admin("GET", "/admin/instances")) == ["i-1"]
    assert (await admin("GET", "/admin/instances/i-1")).status == 200
    reply = await admin("GET", "/admin/instances?state=archived")
    assert (reply.status, reply.json["code"]) == (503, "ledger_unavailable")
    unknown = await admin("GET", "/admin/instances/i-9")
    assert (unknown.status, "cannot be read" in unknown.json["detail"]) == (404, True)


async def test_offers_are_told_with_their_age(admin: Caller, fence: Fence) -> None:
    told = (await admin("GET", "/admin/instances/offers")).json["providers"]
    assert [(each["provider"], len(each["offers"])) for each in told] == [("aws", 4), ("shed", 0)]
    assert told[0]["asked_at"] == "2027-01-15T08:00:00.000Z"
    assert told[0]["offers"][0] == {
        "type": "g5",
        "zone": "a",
        "market": "on-demand",
        "price_per_hour": 1.2,
        "currency": "USD",
        "slots": 8,
        "source": "2026-11-01",
        "billed_least_s": 0,
        "ending": "",
    }


OPERATIONS = [
    ("GET", "/admin/instances"),
    ("GET", "/admin/instances/offers"),
    ("GET", "/admin/instances/i-1"),
    ("POST", "/admin/instances"),
    ("POST", "/admin/instances/i-1/drain"),
    ("POST", "/admin/instances/i-1/resume"),
    ("POST", "/admin/instances/i-1/archive"),
    ("DELETE", "/admin/instances/i-1"),
    ("GET", "/admin/events"),
]


async def test_the_fleet_is_the_admins(call: Caller) -> None:
    for method, path in OPERATIONS:
        assert (await call(method, path)).status == 403
        assert (await call.with_key(None)(method, path)).status == 401


async def test_who_asked_is_named_by_the_key(
    admin: Caller, fleet: FleetStore, fence: Fence
) -> None:
    made = (await admin("POST", "/admin/keys", {"kind": "admin", "label": "ops"})).json
    ops, once = admin.with_key(made["key"]), {"Idempotency-Key": "k"}
    for caller in (ops, admin):
        assert (await caller("POST", "/admin/instances", AWS, headers=once)).status == 202
    commands = await asked(fleet)
    assert [command.asked_by for command in commands] == [made["id"], "admin"]
    assert commands[0].id != commands[1].id, "a key of one admin is none of another's"
