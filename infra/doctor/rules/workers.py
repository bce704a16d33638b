"""What a worker's agent calls: register, heartbeat, drain; and what an admin sees."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from infra.doctor.deployment import Caller
from infra.doctor.room import Room
from infra.doctor.rule import Broken, Rules, Skipped, expect, own

rules = Rules()
AGENT = {"version": "1.0.0", "build_date": "2026-01-01", "checksum": "0" * 64}
NOWHERE = "http://192.0.2.1:9001"  # of the addresses for documentation (RFC 5737)
NO_AGENT = "http://127.0.0.1:1"
WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"worker_id": "a/b"}, "worker_id"),
    ({"url": "ftp://127.0.0.1"}, "url"),
    ({"url": "http://127.0.0.1/path"}, "url"),
    ({"url": "http://me:secret@127.0.0.1:9"}, "url"),
    ({"url": NOWHERE}, "url"),
    ({"url": NO_AGENT}, "url"),
    ({"slots": 0}, "slots"),
    ({"models": [""]}, "models.0"),
    ({"pool": "A"}, "pool"),
    ({"agent_info": {**AGENT, "checksum": "abc"}}, "agent_info.checksum"),
    ({"colour": "red"}, "colour"),
)


def _body(room: Room, url: str, **changes: Any) -> dict[str, Any]:
    """Of a registration."""
    facts = {"worker_id": room.user("worker"), "url": url, "pool": room.pool, "slots": 2}
    return {**facts, "models": [room.user("model")], "agent_info": AGENT, **changes}


def _report(room: Room, **changes: Any) -> dict[str, Any]:
    """Of a heartbeat."""
    facts = {name: value for name, value in _body(room, "").items() if name != "url"}
    return {**facts, "ready": True, "in_flight": 1, **changes}


@asynccontextmanager
async def _agent() -> AsyncIterator[str]:
    """The URL of something on this machine whose ``/info`` answers as an agent's does."""

    async def info(_: web.Request) -> web.Response:
        return web.json_response({"agent_checksum": AGENT["checksum"]})

    app = web.Application()
    app.router.add_get("/info", info)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _registered(room: Room, shared: Caller, url: str) -> Caller:
    """A worker that registered, by its own token; it serves this pool until the room is left."""
    worker = room.user("worker")
    room.take_away(room.in_pool(f"/admin/workers/{worker}/release"), "POST")
    reply = await shared("POST", "/workers/register", _body(room, url))
    if reply.status == 422 and reply.fields == {"url"}:
        raise Skipped(f"a worker on this machine may not register there: {reply.json['detail']}")
    told = reply.good()
    if not {"worker_id", "token", "upstream_key", "heartbeat_interval"} <= set(told):
        raise Broken(reply.call, "worker_id, token, upstream_key, heartbeat_interval", set(told))
    if not 0 < told["heartbeat_interval"] <= 10:
        raise Broken(reply.call, "heartbeats every 10 s or oftener", told["heartbeat_interval"])
    return room.nobody.with_key(told["token"])


@rules("A new worker's address must lie in VESTIBULE_WORKER_NETWORKS and answer /info.", own())
async def a_wrong_registration_is_named(room: Room) -> None:
    shared, _ = await room.key("worker")
    for changes, field in WRONG:
        reply = await shared("POST", "/workers/register", {**_body(room, NO_AGENT), **changes})
        reply.refused(422, "bad_input", field)
    nowhere = _body(room, NO_AGENT, pool=room.user().lower())
    (await shared("POST", "/workers/register", nowhere)).refused(404, "pool_unknown", "pool")


@rules("A heartbeat of a worker nobody knows is 404, a wrong field of it 422.", own())
async def a_heartbeat_of_a_stranger_is_refused(room: Room) -> None:
    stranger = room.nobody.with_key("a-worker-that-never-registered")
    beat = await stranger("POST", "/workers/heartbeat", _report(room))
    beat.refused(404, "not_found", "worker_id")
    for changes, field in (
        ({"ready": "yes"}, "ready"),
        ({"in_flight": -1}, "in_flight"),
        ({"load": {"fans": 3}}, "load.fans"),
        ({"agent_info": None}, "agent_info"),
    ):
        reply = await stranger("POST", "/workers/heartbeat", _report(room, **changes))
        reply.refused(422, "bad_input", field)


@rules("Heartbeat and drain need that worker's own token; a known worker_id re-registers only with"
       " its own token.", own(capacity="auto", needs_worker=True))  # fmt: skip
async def a_worker_registers_beats_and_drains(room: Room) -> None:
    shared, _ = await room.key("worker")
    worker = room.user("worker")
    async with _agent() as url:
        mine = await _registered(room, shared, url)
        beat = (await mine("POST", "/workers/heartbeat", _report(room))).good()
        expect("ready, draining", (beat["ready"], beat["draining"]), (True, False))
        taken = await shared("POST", "/workers/register", _body(room, url))
        taken.refused(409, "worker_taken", "worker_id")
        for other in (shared, room.service, room.admin):
            (await other("POST", "/workers/heartbeat", _report(room))).refused(403)
        capacity = (await room.metrics())["capacity"]
        if capacity < 2:
            raise Broken("capacity auto with a worker of 2 slots", "2 or more", capacity)
        expect("the state of a join", (await room.join(room.user()))["status"], "draft")
        listed = await room.admin("GET", "/admin/workers")
        (row,) = [each for each in listed.good()["workers"] if each["worker_id"] == worker]
        seen = {name: row[name] for name in ("url", "kind", "pool", "slots", "in_flight", "ready")}
        whole = {"url": url, "kind": "agent", "pool": room.pool, "slots": 2, "in_flight": 1}
        expect("the worker as an admin sees it", seen, {**whole, "ready": True})
        drained = await mine("POST", room.in_pool(f"/workers/{worker}/drain"))
        expect("the answer to drain", drained.good(), {"worker_id": worker, "draining": True})
        beat = (await mine("POST", "/workers/heartbeat", _report(room))).good()
        expect("ready, draining", (beat["ready"], beat["draining"]), (False, True))


@rules("A model chooses the pool.", own(capacity=3))
async def a_model_chooses_the_pool(room: Room) -> None:
    shared, _ = await room.key("worker")
    async with _agent() as url:
        mine = await _registered(room, shared, url)
        await mine("POST", "/workers/heartbeat", _report(room))
        await room.put(paused=None)  # at least this process looks again
        user, model = room.user(), room.user("model")
        for _ in range(20):
            await asyncio.sleep(0.1)
            reply = await room.service("POST", f"/queue/join/{user}", {"model": model})
            if reply.status == 200:
                break
            reply.refused(404, "model_not_served")
        expect("the pool of the ticket", reply.good()["pool"], room.pool)
