"""What chats live through at the gate, against the real admission service with one slot."""

import asyncio
import sys
import types
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web
from redis.asyncio import Redis

from admission.app import create_app
from admission.clock import ManualClock
from admission.domain import DEFAULT_POOL, Ticket
from admission.store import names
from admission.store.redis_store import RedisStore
from tests.conftest import service_settings
from tests.owui.conftest import Pages, WebUI, answers_are_told, until
from tests.owui.wire import Wire

FIRST = "You are 1st in line"
SECOND = "You are 2nd in line"
AWAY = "http://127.0.0.1:1"
FINISHING = names.pool_key(DEFAULT_POOL, "finishing")


async def test_who_need_not_wait_sees_nothing(webui: WebUI) -> None:
    chat = webui.chat("ann")
    await chat.is_answered()
    assert (await webui.ticket("ann"))["status"] == "active"
    assert await chat.ends() is chat.body
    assert chat.events == []


async def test_the_place_moves_and_the_freed_slot_is_taken_without_doing_anything(
    webui: WebUI,
) -> None:
    ann = webui.chat("ann")
    await ann.is_answered()
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    cid = webui.chat("cid")
    await cid.sees(SECOND)
    await webui.session_ends(ann, "ann")
    await bob.is_answered()
    assert len(bob.statuses) == 2
    assert bob.last["description"].startswith("Your turn. Waited ")
    assert bob.last["done"] is True
    await webui.service.tick()
    await cid.sees(FIRST)
    assert not cid.answering.is_set()


async def test_a_session_that_runs_out_makes_room(webui: WebUI) -> None:
    await webui.sessions_last(30)
    ann = webui.chat("ann")
    await ann.is_answered()
    await ann.ends()
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    webui.service.clock.advance_ms(30_001)
    await webui.service.tick()
    await bob.is_answered()


async def test_the_estimate_is_told_as_people_say_it_and_follows_the_clock(webui: WebUI) -> None:
    await webui.sessions_last(300)
    await webui.chat("ann").is_answered()
    bob = webui.chat("bob")
    await bob.sees(f"{FIRST}, about 5 minutes")
    cid = webui.chat("cid")
    await cid.sees(f"{SECOND}, about 10 minutes")
    webui.service.clock.advance_ms(50_000)
    await bob.stop()
    await webui.service.tick()
    await cid.sees(f"{FIRST}, about 4 minutes")


async def test_an_estimate_that_nobody_can_make_is_not_shown(webui: WebUI) -> None:
    await webui.service.capacity(0)
    ann = webui.chat("ann")
    await ann.sees(FIRST)
    assert ann.last["description"] == FIRST


async def test_only_the_first_and_the_last_words_are_stored(
    webui: WebUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    live: list[dict[str, Any]] = []

    async def get_event_emitter(metadata: dict[str, Any], update_db: bool) -> Any:
        async def emit(event: dict[str, Any]) -> None:
            live.append({"chat": metadata["chat_id"], "stored": update_db, **event["data"]})

        return emit

    there = types.SimpleNamespace(get_event_emitter=get_event_emitter)
    for name in ("open_webui", "open_webui.socket"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "open_webui.socket.main", there)
    ann = webui.chat("ann")
    await ann.is_answered()
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    cid = webui.chat("cid")
    await cid.sees(SECOND)
    await bob.stop()
    await webui.service.tick()
    await until(lambda: bool(live))
    await webui.session_ends(ann, "ann")
    await cid.is_answered()
    first, last = cid.statuses
    assert first.startswith(SECOND)
    assert last.startswith("Your turn.")
    assert [(event["stored"], event["done"]) for event in live] == [(False, False)]
    assert live[0]["description"].startswith(FIRST)


async def test_the_last_words_can_be_hidden(webui: WebUI) -> None:
    webui.set(show_waited=False)
    ann = webui.chat("ann")
    await ann.is_answered()
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    await webui.session_ends(ann, "ann")
    await bob.is_answered()
    assert (bob.last["done"], bob.last["hidden"]) == (True, True)


async def test_stop_leaves_the_queue(webui: WebUI) -> None:
    await webui.chat("ann").is_answered()
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    async with asyncio.timeout(2):
        await bob.stop()
    assert bob.task.cancelled()
    assert bob.last == {"description": "You left the line.", "done": True, "hidden": False}
    ticket = await webui.ticket("bob")
    assert (ticket["status"], ticket["reason"]) == ("disconnected", "left")


def slow_joins(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """From now on Redis takes its time for a join; no caller who goes away stops one. Set when one
    is under way."""
    under_way, join = asyncio.Event(), RedisStore.join

    async def later(store: RedisStore, *args: Any, **named: Any) -> Any:
        under_way.set()
        await asyncio.sleep(0.2)
        return await join(store, *args, **named)

    async def joined(store: RedisStore, *args: Any, **named: Any) -> Any:
        return await asyncio.shield(asyncio.ensure_future(later(store, *args, **named)))

    monkeypatch.setattr(RedisStore, "join", joined)
    return under_way


async def test_stop_in_the_instant_of_the_join_leaves_nothing_behind(
    webui: WebUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    await webui.chat("ann").is_answered()
    under_way = slow_joins(monkeypatch)
    bob = webui.chat("bob")
    await asyncio.wait_for(under_way.wait(), 5)
    async with asyncio.timeout(1):
        await bob.stop()
    assert (await webui.ticket("bob")).get("reason") == "left"


async def test_stop_in_the_instant_in_which_the_place_is_kept_gives_it_up(
    webui: WebUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    webui.set(max_wait_s=1)
    await webui.chat("ann").is_answered()
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    under_way = slow_joins(monkeypatch)
    await asyncio.wait_for(under_way.wait(), 5)
    async with asyncio.timeout(1):
        await bob.stop()
    await asyncio.sleep(0.3)  # the join has reached Redis
    assert (await webui.ticket("bob")).get("reason") == "left"


async def test_stop_in_one_of_two_chats_keeps_the_place_of_the_other(webui: WebUI) -> None:
    ann = webui.chat("ann")
    await ann.is_answered()
    one, other = webui.chat("bob"), webui.chat("bob")
    await one.sees(FIRST)
    await other.sees(FIRST)
    await one.stop()
    assert (await webui.ticket("bob"))["status"] == "waiting"
    await webui.session_ends(ann, "ann")
    await other.is_answered()


async def test_stop_during_an_answer_does_not_end_the_session(webui: WebUI) -> None:
    ann = webui.chat("ann")
    await ann.is_answered()
    await ann.stop()
    await answers_are_told(webui.gate)
    assert (await webui.ticket("ann"))["status"] == "active"


async def test_an_answer_may_finish_after_its_session_and_frees_the_slot_at_its_end(
    webui: WebUI,
) -> None:
    await webui.sessions_last(20)
    ann = webui.chat("ann")
    await ann.is_answered()
    webui.service.clock.advance_ms(20_001)
    await webui.service.tick()
    assert (await webui.ticket("ann"))["reason"] == "session_timeout"
    assert (await webui.metrics())["finishing"] == 1
    await ann.ends()
    await answers_are_told(webui.gate)
    assert (await webui.metrics())["finishing"] == 0


async def test_heartbeats_keep_the_slot_of_an_answer_that_outlives_its_session(
    webui: WebUI, redis: Redis
) -> None:
    clock = webui.service.clock

    async def renewed() -> None:
        async with asyncio.timeout(5):
            while not await redis.zcount(FINISHING, clock.now_ms() + 30_000, "+inf"):
                pass

    await webui.sessions_last(20)
    await webui.chat("ann").is_answered()
    clock.advance_ms(20_001)
    await webui.service.tick()
    for _ in range(3):  # together longer than one lease of 30 s
        await renewed()
        clock.advance_ms(25_000)
    await renewed()
    assert (await webui.metrics())["finishing"] == 1


async def test_a_draft_of_another_frontend_is_confirmed(webui: WebUI) -> None:
    await webui.elsewhere.join("ann")
    assert (await webui.ticket("ann"))["status"] == "draft"
    await webui.chat("ann").is_answered()
    assert (await webui.ticket("ann"))["status"] == "active"


async def test_the_session_is_the_users_in_all_frontends(webui: WebUI) -> None:
    """Until the other one gives it back, as the last that used it."""
    async with webui.elsewhere.turn("ann") as turn:
        chat = webui.chat("ann")
        await chat.is_answered()
        assert (await webui.ticket("ann"))["ticket_id"] == turn.ticket.ticket_id
        bob = webui.chat("bob")
        await bob.sees(FIRST)
        await chat.ends()
    await bob.is_answered()


async def test_who_is_taken_out_of_the_line_is_told(webui: WebUI) -> None:
    await webui.chat("ann").is_answered()
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    await webui.service.store.cancel(DEFAULT_POOL, "bob")
    assert await bob.refusal() == "An administrator took you out of the line."
    assert (bob.last["done"], bob.last["hidden"]) == (True, True)


async def test_an_api_call_waits_without_statuses(webui: WebUI) -> None:
    ann = webui.chat("ann")
    await ann.is_answered()
    bob = webui.api_call("bob")
    await webui.has_in_line("bob")
    await webui.session_ends(ann, "ann")
    await bob.is_answered()
    assert bob.events == []


async def test_an_api_call_is_told_and_need_not_ask(webui: WebUI, wire: Wire) -> None:
    ann = webui.chat("ann")
    await ann.is_answered()
    bob = webui.api_call("bob")
    await wire.has(1, "events")
    await webui.session_ends(ann, "ann")
    await bob.is_answered()
    assert {} not in wire.bodies("heartbeat") + wire.bodies("status")


async def test_for_who_is_away_admission_is_asked_seldom(
    webui: WebUI, wire: Wire, pages: Pages
) -> None:
    pages.open("ann")
    await webui.chat("ann").is_answered()
    page = pages.open("bob")
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    pages.close(page)
    await wire.has(1, "status")
    began_s = asyncio.get_running_loop().time()
    await wire.has(2, "status")
    # Who stands in line and is there would be looked at after each pause.
    assert asyncio.get_running_loop().time() - began_s > 8 * webui.plugin.AGAIN_S[0]


async def test_an_api_call_waits_only_shortly(webui: WebUI) -> None:
    webui.set(api_max_wait_s=1)
    await webui.chat("ann").is_answered()
    refusal = await webui.api_call("bob").refusal()
    assert refusal == "Your turn did not come within 1 s. Please try again later."


async def test_an_api_caller_that_hangs_up_leaves_the_queue(webui: WebUI) -> None:
    await webui.chat("ann").is_answered()
    bob = webui.api_call("bob")
    await webui.has_in_line("bob")
    assert bob.request
    bob.request.gone = True
    assert "hung up" in await bob.refusal()
    assert (await webui.ticket("bob"))["status"] == "disconnected"


async def test_a_proxy_that_holds_events_back_only_slows_the_news(
    webui: WebUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webui.plugin, "SNAPSHOT_WITHIN_S", 0.0)  # nothing is ever in time
    ann = webui.chat("ann")
    await ann.is_answered()
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    await webui.session_ends(ann, "ann")
    await bob.is_answered()


async def test_a_model_that_is_not_served_passes_also_while_admission_is_away(
    webui: WebUI,
) -> None:
    for url in (webui.service.url, AWAY):
        webui.set(admission_url=url)
        chat = webui.chat("ann", model="elsewhere")
        await chat.is_answered()
        assert [event for event in chat.events if not event["data"].get("hidden")] == []


async def test_a_full_queue_says_so(webui: WebUI) -> None:
    await webui.service.store.configure(DEFAULT_POOL, {"queue_limit": 0})
    await webui.chat("ann").is_answered()
    bob = webui.chat("bob")
    assert await bob.refusal() == "The line is full. Please try again in a minute."
    assert bob.events == []


async def test_a_paused_pool_says_so(webui: WebUI) -> None:
    await webui.service.store.configure(DEFAULT_POOL, {"paused": True})
    assert "is not taking new chats" in await webui.chat("ann").refusal()


@pytest.mark.parametrize("key", ["", "nonsense"])
async def test_a_wrong_key_is_the_administrators_to_mend(webui: WebUI, key: str) -> None:
    webui.set(service_key=key, when_admission_is_away="pass")
    assert "tell your administrator" in await webui.chat("ann").refusal()


async def test_admission_away_refuses_or_passes_as_the_administrator_chose(webui: WebUI) -> None:
    webui.set(admission_url=AWAY)
    assert "cannot be reached" in await webui.chat("ann").refusal()
    webui.set(when_admission_is_away="pass")
    await webui.chat("ann").is_answered()


async def _nonsense(request: web.Request) -> web.Response:
    return web.Response(text="<html>It works!</html>")


async def test_something_else_at_the_address_counts_as_away(webui: WebUI) -> None:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", _nonsense)
    runner, url = await _listen(app)
    webui.set(admission_url=url)
    assert "cannot be reached" in await webui.chat("ann").refusal()
    await runner.cleanup()


async def test_who_waits_keeps_the_place_over_a_restart_of_admission(
    webui: WebUI, redis: Redis, clock: ManualClock
) -> None:
    async def start(port: int = 0) -> tuple[web.AppRunner, str]:
        settings = service_settings()
        store = RedisStore(redis, clock, settings.pool_policy(needs_worker=False))
        runner, url = await _listen(await create_app(settings, store), port)
        stack.push_async_callback(runner.cleanup)
        return runner, url

    async with AsyncExitStack() as stack:
        first, url = await start()
        webui.set(admission_url=url, away_grace_s=10)
        ann = webui.chat("ann")
        await ann.is_answered()
        bob = webui.chat("bob")
        await bob.sees(FIRST)
        ticket = (await webui.ticket("bob"))["ticket_id"]
        await first.cleanup()
        await bob.sees("The waiting line is not responding. Trying again.")
        await start(int(url.rpartition(":")[2]))
        await bob.sees(FIRST)
        assert (await webui.ticket("bob"))["ticket_id"] == ticket
        await webui.session_ends(ann, "ann")
        await bob.is_answered()
        await webui.close()


async def test_a_lost_ticket_is_taken_again(webui: WebUI, redis: Redis) -> None:
    await webui.chat("ann").is_answered()
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    lost = await webui.service.store.status(DEFAULT_POOL, "bob")  # as a failover may lose it
    assert isinstance(lost, Ticket)
    await redis.zrem(names.pool_key(DEFAULT_POOL, "queue"), lost.ticket_id)
    await redis.hdel(names.pool_key(DEFAULT_POOL, "tickets"), lost.ticket_id)
    await redis.hdel(names.pool_key(DEFAULT_POOL, "users"), "bob")
    cem = webui.chat("cem")
    await webui.has_in_line("cem")
    await webui.has_in_line("bob")
    assert not cem.task.done()
    assert not bob.task.done()


async def _listen(app: web.Application, port: int = 0) -> tuple[web.AppRunner, str]:
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"
