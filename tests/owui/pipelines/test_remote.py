"""What the Pipelines filter asks and tells an Open WebUI that is slow, away, or crowded."""

import asyncio
import time

import pytest

from admission.domain import DEFAULT_POOL
from tests.owui.conftest import until
from tests.owui.pipelines.server import PipelinesServer

FIRST = "You are 1st in line"
NOWHERE = "http://127.0.0.1:1"
LONG_AGO_S = 3600


async def test_places_that_change_fast_are_told_every_few_seconds(
    server: PipelinesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.plugin, "STATUS_EVERY_S", 0.5)
    ids = {"chat_id": "chat", "message_id": "message", "user_id": "ann"}
    pipeline = server.pipeline
    screen = server.plugin.RemoteScreen(pipeline._webui, ids, pipeline._lobby.attendance)
    for place in range(9, 0, -1):
        await screen.show(f"{place}")
        await asyncio.sleep(0.02)
    await until(lambda: "1" in server.above.words)
    assert server.above.words == ["9", "8", "1"]
    await screen.show("2")
    await screen.close("Your turn.")
    await asyncio.sleep(0.6)  # nothing old comes after the last words
    assert server.above.words == ["9", "8", "1", "Your turn."]


async def test_a_task_that_nobody_ever_listed_is_not_taken_for_a_stopped_one(
    server: PipelinesServer,
) -> None:
    """Another replica of Open WebUI may answer, which does not know it."""
    await server.message("ann").is_answered()
    server.above.is_another_replica = True
    bob = server.message("bob")
    await bob.sees(FIRST)
    await asyncio.sleep(0.2)  # ten looks
    assert not bob.call.done()


async def test_a_kept_place_that_moves_is_told_rarely(
    server: PipelinesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await server.set(max_wait_s=1)
    await server.message("ann").is_answered()
    monkeypatch.setattr(server.plugin, "KEPT_EVERY_S", 60.0)
    server.message("bob")
    await server.admission.has_in_line("bob")
    server.message("cid")
    await server.admission.has_in_line("cid")
    dan = server.message("dan")
    await dan.refusal()
    for name in ("bob", "cid"):
        await server.admission.elsewhere.leave(name)
        await server.admission.service.tick()
    await asyncio.sleep(0.1)
    assert len([status for status in dan.statuses if status["done"]]) <= 2


async def test_of_who_closed_the_page_the_model_is_not_asked(server: PipelinesServer) -> None:
    ann = server.message("ann")
    await ann.is_answered()
    bob = server.message("bob")
    await bob.sees(FIRST)
    await until(lambda: server.above.looked_for["bob"] > 1)  # the first answer was heard
    server.above.last_active["bob"] = time.time() - LONG_AGO_S
    await server.is_taken_for_absent("bob")
    await server.session_ends(ann)  # within admission's grace: the slot is bob's
    await server.admission.becomes("bob", "active")
    assert not bob.call.done()
    del server.above.last_active["bob"]
    await bob.is_answered()


async def test_without_a_key_all_that_streams_is_the_gateways_to_hold(
    server: PipelinesServer,
) -> None:
    await server.set(open_webui_key="")
    await server.message("ann").is_answered()
    assert (await server.admission.metrics())["active"] == 0


@pytest.mark.parametrize("how", ["broken", "absent", "wrong key"])
async def test_an_open_webui_that_does_not_help_costs_no_turn(
    server: PipelinesServer, how: str
) -> None:
    match how:
        case "broken":
            server.above.is_broken = True
        case "absent":
            await server.set(open_webui_url=NOWHERE)
        case "wrong key":
            await server.set(open_webui_key="sk-other")
    ann = server.message("ann")
    await ann.is_answered()
    bob = server.message("bob")
    await server.admission.has_in_line("bob")
    await server.session_ends(ann)
    await bob.is_answered()
    assert server.above.events == []


@pytest.mark.parametrize("path", ["/api/v1/chats", "/api/v1/users", "/api/tasks"])
async def test_an_open_webui_that_hangs_delays_no_turn(server: PipelinesServer, path: str) -> None:
    server.above.hangs_at = path
    ann = server.message("ann")
    await ann.is_answered()
    bob = server.message("bob")
    await server.admission.has_in_line("bob")
    server.message("cid")
    await server.admission.has_in_line("cid")
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await server.session_ends(ann)
    await bob.is_answered()
    assert loop.time() - began_s < server.plugin.WEBUI_CALL_S / 2


async def test_it_answers_before_open_webui_goes_on_without_it(
    server: PipelinesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = server.plugin
    # A call to admission under way, then one leave for each of two names.
    left_s = module.GIVE_UP_S + 3 * module.STOP_WITHIN_S
    told_s = left_s + module.DELIVERED_WITHIN_S + module.WEBUI_CALL_S  # and Stop
    assert module.MAX_WAIT_S < module.GIVE_UP_S
    assert told_s <= module.OPEN_AFTER_S - 5  # Open WebUI's clock began before ours
    short = {"GIVE_UP_S": 1.0, "DELIVERED_WITHIN_S": 0.2, "WEBUI_CALL_S": 0.6}
    for name, time_s in short.items():
        monkeypatch.setattr(module, name, time_s)
    await server.set(away_grace_s=1000)
    await server.message("ann").is_answered()
    server.above.hangs_at = "/api/v1/chats"
    began_s = asyncio.get_running_loop().time()
    bob = server.message("bob")
    await bob.refusal()
    assert asyncio.get_running_loop().time() - began_s < sum(short.values()) + 0.5
    assert (await server.admission.ticket("bob"))["status"] == "disconnected"


async def test_a_chat_that_cannot_be_told_is_not_stopped(server: PipelinesServer) -> None:
    """Open WebUI's own error says little, but no word at all says less."""
    server.above.refuses_events = True
    await server.admission.service.store.configure(DEFAULT_POOL, {"paused": True})
    ann = server.message("ann")
    assert "is not taking new chats" in await ann.refusal()
    assert not ann.is_stopped


@pytest.mark.parametrize(
    "nonsense",
    [[], "hello", 7, {"tasks": 7, "last_active_at": "now", "groups": 7}, {"groups": [7]}],
)
async def test_another_program_in_the_place_of_open_webui_costs_no_turn(
    server: PipelinesServer, nonsense: object
) -> None:
    server.above.nonsense = nonsense
    await server.set(priorities="group:Teachers=staff")
    ann = server.message("ann")
    await ann.is_answered()
    bob = server.message("bob", model={})
    await server.admission.has_in_line("bob")
    await server.session_ends(ann)
    await bob.is_answered()


async def test_many_who_wait_are_told_by_turns(
    server: PipelinesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each status costs Open WebUI the rewriting of a chat."""
    monkeypatch.setattr(server.plugin, "PLACES_A_S", 20)
    pipeline = server.pipeline
    screens = [
        server.plugin.RemoteScreen(
            pipeline._webui,
            {"chat_id": f"chat{number}", "message_id": "message", "user_id": f"user{number}"},
            pipeline._lobby.attendance,
        )
        for number in range(10)
    ]
    for screen in screens:
        await screen.show("in line")
    await until(lambda: len(server.above.events) == 10)  # the first words come at once
    began_s = asyncio.get_running_loop().time()
    for place in range(100, 0, -1):
        for screen in screens:
            await screen.show(f"{place}")
        await asyncio.sleep(0.01)
    await until(lambda: server.above.words.count("1") == 10)
    took_s = asyncio.get_running_loop().time() - began_s
    assert len(server.above.events) - 10 <= took_s * 20 + 1


async def test_who_reads_another_chat_is_told_there(server: PipelinesServer) -> None:
    """Told of no message, so that the page which shows the chat passes over it."""
    await server.set(max_wait_s=1)
    ann = server.message("ann")
    await ann.is_answered()
    bob = server.message("bob")
    await bob.refusal()
    await server.session_ends(ann)
    await bob.sees("It is your turn")
    of_his_chat = bob.metadata["chat_id"]

    def elsewhere() -> list[dict[str, object]]:
        told = [event for chat, _, event in server.above.events if chat == of_his_chat]
        return [event["data"] for event in told if event["type"] == "chat:completion"]

    await until(lambda: bool(elsewhere()))
    [told] = elsewhere()
    title, words = bob.words[-1].split(". ")
    assert told == {"done": True, "content": words, "title": title}
    assert "chat:completion" not in {event["type"] for event in bob.told}
