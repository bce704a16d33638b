"""The registry of workers: whose id it is, who is ready until when, and what that lets in."""

from typing import Any

import pytest

from admission.domain import Status, Worker
from admission.outcomes import Foreign, Reported, Revoked, Unknown
from tests.store.conftest import RoomOf
from tests.store.room import POOL, Room, report

LEASE_MS = 30_000
HOUR_MS = 3_600_000
IDENTITY = {"url": "http://127.0.0.1:9001", "kind": "agent", "upstream_key": "k", "models": []}
STATIC = {"url": "http://127.0.0.1:9002", "kind": "static"}


async def register(
    room: Room, worker: str = "w", *, own: str = "own", presented: str = ""
) -> bool | Revoked:
    return await room.store.register_worker(
        POOL, worker, identity=IDENTITY, slots=2, token_hash=own, presented_hash=presented
    )


async def beat(room: Room, worker: str = "w", own: str = "own", **facts: Any) -> object:
    return await room.store.report_worker(POOL, worker, report(**facts), token_hash=own)


async def static(room: Room, **facts: Any) -> object:
    return await room.store.report_worker(POOL, "up", report(**facts), identity=STATIC)


async def seen(room: Room) -> Worker:
    [worker] = await room.store.workers(POOL)
    return worker


@pytest.fixture
async def ready(room: Room) -> Room:
    """A room with one worker of 2 slots that just reported."""
    await register(room)
    await beat(room, slots=2)
    return room


async def test_a_registered_worker_is_known_and_not_ready_yet(room: Room) -> None:
    assert await register(room)
    worker = await seen(room)
    assert (worker.worker_id, worker.url, worker.upstream_key) == ("w", IDENTITY["url"], "k")
    assert (worker.ready, worker.reason, worker.slots, worker.models) == (
        False,
        "registered",
        2,
        (),
    )


async def test_a_known_worker_registers_again_only_by_its_own_token(ready: Room) -> None:
    first = await seen(ready)
    ready.clock.advance_ms(5)
    assert not await register(ready, own="thief", presented="shared")
    assert await seen(ready) == first
    assert await register(ready, own="newer", presented="own")
    again = await seen(ready)
    assert (again.first_seen_ms, again.ready) == (first.first_seen_ms, False)
    assert await beat(ready, own="newer") == Reported(ready=True, reason=None, draining=False)
    assert await beat(ready) == Foreign()


async def test_new_secrets_hold_once_they_are_used_and_the_former_until_then(ready: Room) -> None:
    """Else a lost reply would lock a worker out, and gateways use a key it does not have yet."""
    newer = {**IDENTITY, "upstream_key": "k2"}
    assert await ready.store.rotate_worker(POOL, "w") is None
    assert await beat(ready, slots=2) == Reported(True, None, False, rotate=True)
    assert await ready.store.register_worker(
        POOL, "w", identity=newer, slots=2, token_hash="newer", presented_hash="own"
    )
    worker = await seen(ready)
    assert (worker.ready, worker.upstream_key) == (True, "k")
    assert worker.token_hashes == ("own", "newer")
    assert await beat(ready) == Reported(True, None, False, rotate=True)  # it never got the reply
    assert await beat(ready, own="newer") == Reported(True, None, False)
    assert (await seen(ready)).upstream_key == "k2"
    assert (await seen(ready)).token_hashes == ("newer",)
    assert await beat(ready) == Foreign()


async def test_only_agents_have_secrets_to_rotate(room: Room) -> None:
    assert await room.store.rotate_worker(POOL, "up") == Unknown()
    await static(room)
    assert await room.store.rotate_worker(POOL, "up") == Foreign()


async def test_a_registration_whose_reply_was_lost_does_not_hold_the_id(room: Room) -> None:
    await register(room)
    room.clock.advance_ms(LEASE_MS - 1)
    assert not await register(room, own="again", presented="shared")
    room.clock.advance_ms(1)
    assert not (await seen(room)).claimed
    assert await register(room, own="again", presented="shared")
    assert await beat(room) == Foreign()
    assert await beat(room, own="again") == Reported(True, None, False)
    room.clock.advance_ms(LEASE_MS)
    assert not await register(room, own="thief", presented="shared")


async def test_a_revoked_worker_may_not_report_register_or_drain(ready: Room) -> None:
    assert await ready.store.revoke_worker(POOL, "w")
    assert not await ready.store.revoke_worker(POOL, "nobody")
    worker = await seen(ready)
    assert (worker.ready, worker.revoked, worker.reason) == (False, True, "revoked by an admin")
    assert worker.token_hashes == ()
    assert (await ready.metrics()).ready_workers == 0
    assert await beat(ready) == Revoked()
    for presented in ("own", "shared"):
        assert await register(ready, own="again", presented=presented) == Revoked()
    assert await ready.store.drain_worker(POOL, "w", token_hash="own") == Foreign()
    assert await ready.store.rotate_worker(POOL, "w") == Unknown()
    ready.clock.advance_ms(24 * HOUR_MS)
    await ready.store.expire_workers(POOL)
    assert (await seen(ready)).revoked
    assert await ready.store.close_pool(POOL) is None  # it serves nothing


async def test_a_verdict_stands_whatever_the_worker_reports(ready: Room) -> None:
    assert await ready.store.judge_worker(POOL, "w", "another file")
    assert not await ready.store.judge_worker(POOL, "w", "another file")
    assert not await ready.store.judge_worker(POOL, "nobody", "another file")
    assert (await ready.metrics()).ready_workers == 0
    assert (await seen(ready)).reason == "another file"
    assert await beat(ready) == Reported(False, "another file", False)
    assert await ready.store.judge_worker(POOL, "w", "")
    assert await beat(ready) == Reported(True, None, False)


async def test_a_released_id_is_free_again(ready: Room) -> None:
    assert await ready.store.release_worker(POOL, "w")
    assert not await ready.store.release_worker(POOL, "w")
    assert (await ready.metrics()).ready_workers == 0
    assert await beat(ready) == Unknown()
    assert await register(ready, own="another")


async def test_a_report_says_how_it_is_seen(ready: Room) -> None:
    assert await beat(ready, "nobody") == Unknown()
    assert await beat(ready, own="thief") == Foreign()
    assert await beat(ready, ready=False, reason="loading") == Reported(False, "loading", False)
    worker = await seen(ready)
    assert (worker.ready, worker.reason, worker.models) == (False, "loading", ("m",))
    assert await beat(ready) == Reported(True, None, False)
    assert (await seen(ready)).reason is None


async def test_a_static_upstream_is_known_by_its_report(room: Room) -> None:
    assert await static(room) == Reported(True, None, False)
    worker = await seen(room)
    assert (worker.worker_id, worker.kind, worker.ready) == ("up", "static", True)
    assert not await register(room, "up", presented="shared")
    assert await beat(room, "up") == Foreign()
    await static(room, ready=False, reason="away")
    assert not (await seen(room)).ready


async def test_an_agent_is_not_overwritten_by_a_static_report(ready: Room) -> None:
    outcome = await ready.store.report_worker(POOL, "w", report(), identity=STATIC)
    assert outcome == Foreign()
    assert (await seen(ready)).kind == "agent"


@pytest.mark.parametrize(("token", "outcome"), [("", None), ("own", None), ("thief", Foreign())])
async def test_drain_is_for_the_worker_itself_and_for_admins(
    ready: Room, token: str, outcome: object
) -> None:
    assert await ready.store.drain_worker(POOL, "w", token_hash=token) == outcome
    drained = outcome is None
    assert (await seen(ready)).draining == drained
    assert (await ready.metrics()).ready_workers == int(not drained)
    assert await beat(ready) == Reported(not drained, None, drained)


@pytest.mark.parametrize("by", ["own", ""])
async def test_a_worker_that_stopped_while_secrets_were_renewed_is_ready_again(
    ready: Room, by: str
) -> None:
    await ready.store.rotate_worker(POOL, "w")
    await ready.store.drain_worker(POOL, "w", token_hash=by)
    await register(ready, own="next", presented="own")
    await beat(ready, own="next")
    assert (await seen(ready)).draining == (by == "")  # an admin's wish outlives new secrets


async def test_nobody_drains_a_worker_that_is_not_there(room: Room) -> None:
    assert await room.store.drain_worker(POOL, "w") == Unknown()


async def test_the_fleet_drains_a_worker_and_takes_it_back(ready: Room) -> None:
    assert (await seen(ready)).steered is None
    assert await ready.store.steer_worker(POOL, "w", draining=True, word=5)
    drained = await seen(ready)
    assert (drained.draining, drained.steered, drained.ready) == (True, True, False)
    assert (await ready.metrics()).ready_workers == 0
    assert await beat(ready) == Reported(ready=False, reason=None, draining=True)
    assert await ready.store.steer_worker(POOL, "w", draining=False, word=6)
    assert await beat(ready) == Reported(ready=True, reason=None, draining=False)
    assert ((await seen(ready)).draining, (await seen(ready)).steered) == (False, False)


async def test_of_the_fleets_words_the_last_counts_however_late_an_earlier_one_comes(
    ready: Room,
) -> None:
    await ready.store.steer_worker(POOL, "w", draining=True, word=5)
    await ready.store.steer_worker(POOL, "w", draining=False, word=6)
    assert await ready.store.steer_worker(POOL, "w", draining=True, word=5)
    assert not (await seen(ready)).draining
    assert await ready.store.steer_worker(POOL, "w", draining=True, word=6)  # the same word again
    assert (await seen(ready)).draining
    assert not await ready.store.steer_worker(POOL, "nobody", draining=True, word=7)


@pytest.mark.parametrize(("by", "still"), [("own", True), ("", False)])
async def test_the_fleet_takes_an_admins_drain_back_and_not_the_workers_own(
    ready: Room, by: str, still: bool
) -> None:
    await ready.store.drain_worker(POOL, "w", token_hash=by)
    await ready.store.steer_worker(POOL, "w", draining=False, word=5)
    assert (await seen(ready)).draining == still


@pytest.mark.parametrize("offset_ms", [-1, 0, 1])
async def test_a_report_is_good_for_30_s(ready: Room, offset_ms: int) -> None:
    ready.clock.advance_ms(LEASE_MS + offset_ms)
    alive = offset_ms < 0
    worker = await seen(ready)
    assert (worker.ready, worker.reason) == (alive, None if alive else "no heartbeat")
    assert (await ready.metrics()).ready_workers == int(alive)
    assert await ready.store.expire_workers(POOL) == ([] if alive else ["w"])
    assert await ready.store.expire_workers(POOL) == []


@pytest.mark.parametrize("offset_ms", [-1, 0, 1])
async def test_a_silent_worker_is_forgotten_after_an_hour(ready: Room, offset_ms: int) -> None:
    ready.clock.advance_ms(HOUR_MS + offset_ms)
    await ready.store.expire_workers(POOL)
    assert len(await ready.store.workers(POOL)) == int(offset_ms < 0)


async def test_a_pool_that_needs_a_worker_grants_only_while_one_is_ready(room_of: RoomOf) -> None:
    room = room_of(needs_worker=True)
    assert (await room.join("a", will_return=True)).status == Status.WAITING
    await register(room)
    assert (await room.metrics()).granting is False
    await beat(room)
    assert await room.standing("a") == "draft"
    room.clock.advance_ms(LEASE_MS)
    assert (await room.join("b", will_return=True)).status == Status.WAITING
    assert await room.standing("a") == "draft"  # nobody is evicted
    await beat(room, ready=False)
    assert await room.standing("b") == "waiting"
    await beat(room)
    assert await room.standing("b") == "draft"


async def test_auto_capacity_is_the_slots_of_ready_workers(room_of: RoomOf) -> None:
    room = room_of(capacity="auto", sessions_per_slot=4, max_active=20)
    assert (await room.metrics()).capacity == 0
    await register(room)
    await beat(room, slots=2)
    assert (await room.metrics()).capacity == 8
    await static(room, slots=1)
    assert (await room.metrics()).capacity == 12
    await static(room, slots=100)
    assert (await room.metrics()).capacity == 20
    await static(room, ready=False)
    room.clock.advance_ms(LEASE_MS - 1)
    assert (await room.metrics()).capacity == 8
    room.clock.advance_ms(1)
    assert (await room.metrics()).capacity == 0


async def test_a_worker_that_brings_slots_moves_the_queue_at_once(room_of: RoomOf) -> None:
    room = room_of(capacity="auto", sessions_per_slot=1)
    for user in "abc":
        await room.join(user)
    await static(room, slots=2)
    assert await room.standings("a", "b", "c") == ["draft", "draft", "waiting"]
