"""Two chats of one user who waits: one place for both, whatever becomes of either."""

import asyncio

import pytest
from redis.asyncio import Redis

from admission.domain import DEFAULT_POOL
from admission.store import names
from tests.owui.conftest import Pages, WebUI, until
from tests.owui.wire import Wire

FIRST = "You are 1st in line"


async def lose(webui: WebUI, redis: Redis, user: str) -> None:
    """Forget the user's ticket without a word, as a failover of Redis may."""
    ticket_id = (await webui.ticket(user))["ticket_id"]
    await redis.zrem(names.pool_key(DEFAULT_POOL, "queue"), ticket_id)
    await redis.hdel(names.pool_key(DEFAULT_POOL, "tickets"), ticket_id)
    await redis.hdel(names.pool_key(DEFAULT_POOL, "users"), user)


async def test_a_place_that_one_chat_took_anew_is_the_others_too(
    webui: WebUI, redis: Redis
) -> None:
    ann = webui.chat("ann")
    await ann.is_answered()
    one = webui.chat("bob")
    await one.sees(FIRST)
    await lose(webui, redis, "bob")
    other = webui.chat("bob")
    await other.sees(FIRST)
    place = (await webui.ticket("bob"))["ticket_id"]
    cid = webui.chat("cid")  # now the first chat hears of the line
    await cid.sees("You are 2nd in line")
    await other.stop()
    assert (await webui.ticket("bob"))["ticket_id"] == place
    await webui.session_ends(ann, "ann")
    await one.is_answered()
    assert not cid.answering.is_set()


async def test_a_place_that_another_frontend_took_anew_is_kept_once(
    webui: WebUI,
    pages: Pages,
    redis: Redis,
    wire: Wire,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"LOOKS": 1, "LOOK_S": 5.0, "ABSENT_S": 60.0}.items():
        monkeypatch.setattr(webui.plugin, name, value)
    pages.open("ann")
    await webui.chat("ann").is_answered()
    page = pages.open("bob")
    bob = webui.chat("bob", facts=webui.user_valves(keep_place=True))
    await bob.sees(FIRST)
    pages.close(page)
    await asyncio.sleep(0.1)  # pages are looked for again
    await lose(webui, redis, "bob")
    await webui.elsewhere.join("bob")  # of which the chat hears now
    await until(lambda: kept(wire) > 0)
    await asyncio.sleep(0.5)  # some looks more
    assert kept(wire) == 1
    assert (await webui.ticket("bob"))["status"] == "waiting"


async def test_of_a_session_that_another_frontend_began_no_place_is_kept(
    webui: WebUI, pages: Pages, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"LOOKS": 1, "ABSENT_S": 0.5}.items():
        monkeypatch.setattr(webui.plugin, name, value)
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    page = pages.open("bob")
    bob = webui.chat("bob", facts=webui.user_valves(keep_place=True))
    await bob.sees(FIRST)
    pages.close(page)
    await until(lambda: kept(wire) == 1)
    await webui.session_ends(ann, "ann")
    await webui.becomes("bob", "draft")
    await webui.elsewhere.confirm("bob")
    await asyncio.sleep(1.0)  # absent for long, and some looks more
    assert kept(wire) == 1
    pages.open("bob")
    await bob.is_answered()


def kept(wire: Wire) -> int:
    """How often a place was asked to be kept."""
    return sum("will_return" in body for body in wire.bodies("join"))
