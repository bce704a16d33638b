"""Chats of Open WebUI over two instances of the service, one of which is killed: nobody notices."""

import types
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.store.redis_store import RedisStore
from tests.conftest import Service, service_settings
from tests.owui.conftest import WebUI, until
from tests.owui.test_waiting import FIRST, SECOND
from tests.scale import servers
from tests.scale.pair import Pair, pair

GRACE_S = 20  # the valve's own


@pytest.fixture
async def two(valkey: str, redis: Redis) -> AsyncIterator[Pair]:
    async with pair(valkey, capacity=1) as made:
        yield made


@pytest.fixture
async def webui(two: Pair, plugin: types.ModuleType, store: RedisStore) -> AsyncIterator[WebUI]:
    """Open WebUI in front of both."""
    async with ClientSession(two.url) as http:
        made = WebUI(plugin, Service(two.url, service_settings(), store, ManualClock(), http))
        made.set(away_grace_s=GRACE_S)
        yield made
        await made.close()


def places(statuses: list[str]) -> list[str]:
    """Each place once, as it was told; the estimate may change meanwhile."""
    known = [status.split(",")[0] for status in statuses]
    return [place for n, place in enumerate(known) if place not in known[:n]]


@pytest.mark.long
async def test_one_of_two_is_killed_and_chats_go_on(two: Pair, webui: WebUI) -> None:
    ann = webui.chat("ann")
    await ann.is_answered()
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    cid = webui.chat("cid")
    await cid.sees(SECOND)
    before = {user: (await two.view(user))["ticket_id"] for user in ("ann", "bob", "cid")}
    await until(lambda: two.each_answered("POST /queue/heartbeat/ann") == ["survivor", "victim"])
    await until(lambda: len(two.balancer.answered("GET /queue/events/")) == 2)
    assert two.each_answered("GET /queue/events/") == ["victim"]

    await two.kill_one()

    await until(lambda: "survivor" in two.each_answered("GET /queue/events/bob"))
    more = webui.chat("ann")
    await more.is_answered()
    await more.ends()
    assert more.events == []
    assert (await two.counts(1))["active"] == 1
    await webui.session_ends(ann, "ann")
    await bob.is_answered()
    await cid.sees(FIRST)
    await webui.session_ends(bob, "bob")
    await cid.is_answered()
    assert ann.events == []
    assert (places(bob.statuses)[0], len(places(bob.statuses))) == (FIRST, 2)
    assert places(cid.statuses)[:2] == [SECOND, FIRST]
    assert bob.toasts == cid.toasts == []
    assert {user: (await two.view(user))["ticket_id"] for user in before} == before
    assert (await two.counts(1))["admitted_total"] == 3
    await webui.session_ends(cid, "cid")

    async def free() -> bool:
        return (await two.counts(1))["free"] == 1

    await servers.until(free, "the slot is not free again")
