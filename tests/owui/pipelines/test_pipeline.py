"""What chats live through at the Pipelines filter, against the real admission service.

The filter is loaded and called as the Pipelines server does; what it asks of Open WebUI is answered
by a small server that keeps what it was told (``Above``). The real ones: tests/e2e.
"""

import asyncio
import json
import types
from typing import Any

import pytest
from pydantic import ValidationError

from admission.domain import DEFAULT_POOL
from tests.owui.conftest import MODEL, until
from tests.owui.pipelines.server import PipelinesServer

FIRST = "You are 1st in line"
SECOND = "You are 2nd in line"
NOWHERE = "http://127.0.0.1:1"


async def test_who_need_not_wait_sees_nothing(server: PipelinesServer) -> None:
    ann = server.message("ann")
    await ann.is_answered()
    assert (await server.admission.ticket("ann"))["status"] == "active"
    assert ann.told == []


async def test_who_waits_is_told_the_place_and_answered_when_the_slot_is_free(
    server: PipelinesServer,
) -> None:
    ann = server.message("ann")
    await ann.is_answered()
    bob = server.message("bob")
    await bob.sees(FIRST)
    cid = server.message("cid")
    await cid.sees(SECOND)
    await server.session_ends(ann)
    await bob.is_answered()
    await bob.sees("Your turn. Waited ")
    assert [status["done"] for status in bob.statuses] == [False, True]
    await server.admission.service.tick()
    await cid.sees(FIRST)
    assert not cid.call.done()


async def test_stop_is_noticed_and_leaves_the_queue(server: PipelinesServer) -> None:
    await server.message("ann").is_answered()
    bob = server.message("bob")
    await bob.sees(FIRST)
    bob.stop()
    await bob.refusal()
    ticket = await server.admission.ticket("bob")
    assert (ticket["status"], ticket["reason"]) == ("disconnected", "left")
    await bob.sees("You left the line.")
    assert bob.statuses[-1] == {
        "description": "You left the line.",
        "done": True,
        "hidden": False,
    }


@pytest.mark.parametrize("what", ["task", "internal", "direct"])
async def test_what_needs_no_turn_passes(server: PipelinesServer, what: str) -> None:
    known: dict[str, Any] = {what: "title_generation"}
    await server.message("ann", **known).is_answered()
    assert (await server.admission.metrics())["active"] == 0


async def test_after_the_longest_wait_the_place_is_kept_and_the_chat_says_so(
    server: PipelinesServer,
) -> None:
    await server.set(max_wait_s=1)
    ann = server.message("ann")
    await ann.is_answered()
    bob = server.message("bob")
    assert "Your place is kept" in await bob.refusal()
    assert bob.words[-1].endswith("Your place is kept.")
    assert bob.statuses[-1]["done"] is True
    [(kind, words)] = bob.toasts
    assert kind == "info"  # nothing went wrong, so nothing is red
    assert words.startswith("Your place is kept and you need not watch")
    assert bob.is_stopped  # so that Open WebUI shows no error of its own
    ticket = await server.admission.ticket("bob")
    assert (ticket["status"], ticket["position"]) == ("waiting", 1)
    await server.session_ends(ann)
    await bob.sees("It is your turn")
    await until(lambda: bob.toasts[-1][0] == "success")
    again = server.message("bob")
    await again.is_answered()
    assert again.told == []


async def test_refusals_are_shown_although_open_webui_does_not_show_what_is_raised(
    server: PipelinesServer,
) -> None:
    await server.admission.service.store.configure(DEFAULT_POOL, {"paused": True})
    ann = server.message("ann")
    assert "is not taking new chats" in await ann.refusal()
    assert "is not taking new chats" in ann.words[-1]
    assert ann.toasts == [("error", ann.words[-1])]
    assert ann.is_stopped


@pytest.mark.parametrize("chat_id", ["temporary:sid", "local:sid", "channel:general", ""])
async def test_what_streams_and_cannot_be_told_here_is_the_gateways_to_hold(
    server: PipelinesServer, chat_id: str
) -> None:
    """A stream can say the place in line, and for longer than Open WebUI waits for a filter."""
    await server.message("ann").is_answered()
    await server.message("bob", chat_id=chat_id).is_answered()
    assert (await server.admission.metrics())["waiting"] == 0
    assert server.above.events == []


@pytest.mark.parametrize("chat_id", ["temporary:sid", "channel:general"])
async def test_what_can_be_told_nowhere_waits_in_silence(
    server: PipelinesServer, chat_id: str
) -> None:
    await server.message("ann").is_answered()
    bob = server.message("bob", stream=False, chat_id=chat_id)
    await server.admission.has_in_line("bob")
    await server.admission.service.store.cancel(DEFAULT_POOL, "bob")
    assert "took you out of the line" in await bob.refusal()
    assert server.above.events == []
    assert not bob.is_stopped


async def test_an_api_call_waits_only_shortly_and_without_statuses(server: PipelinesServer) -> None:
    await server.set(api_max_wait_s=1)
    await server.message("ann").is_answered()
    bob = server.api_call("bob")
    assert "Your turn did not come within 1 s" in await bob.refusal()
    assert server.above.events == []
    assert (await server.admission.ticket("bob"))["status"] == "disconnected"


async def test_an_api_call_is_answered_when_the_slot_is_free(server: PipelinesServer) -> None:
    ann = server.message("ann")
    await ann.is_answered()
    bob = server.api_call("bob")
    await server.admission.has_in_line("bob")
    await server.session_ends(ann)
    await bob.is_answered()


async def test_admission_away_refuses_and_says_so_or_passes(server: PipelinesServer) -> None:
    await server.set(admission_url=NOWHERE)
    ann = server.message("ann")
    assert "cannot be reached" in await ann.refusal()
    assert "cannot be reached" in ann.words[-1]
    await server.set(when_admission_is_away="pass")
    await server.message("ann").is_answered()


async def test_another_pipeline_that_is_uploaded_interrupts_nobody(server: PipelinesServer) -> None:
    ann = server.message("ann")
    await ann.is_answered()
    bob = server.message("bob")
    await bob.sees(FIRST)
    await server.reload()
    await server.session_ends(ann)
    await bob.is_answered()
    await bob.sees("Your turn. Waited ")


async def test_a_model_that_is_not_served_passes(server: PipelinesServer) -> None:
    await server.message("ann", "elsewhere").is_answered()
    assert (await server.admission.metrics())["active"] == 0


@pytest.mark.parametrize("facts", [{"urlIdx": 0}, {"owned_by": "ollama"}, {"pipe": {}}, {}])
async def test_a_model_of_another_server_passes_although_its_name_is_ours(
    server: PipelinesServer, facts: dict[str, object]
) -> None:
    ours = ("http://gateway/v1", {"headers": {"X-Vestibule-Message": "{{MESSAGE_ID}}"}})
    server.above.connections = [("http://elsewhere/v1", {}), ours]
    known = {"id": MODEL, **(facts or {"urlIdx": 1})}
    if facts.get("pipe") is not None:
        known["pipe"] = {"type": "pipe"}
    await server.message("ann", model=known).is_answered()
    assert (await server.admission.metrics())["active"] == (0 if facts else 1)


async def test_a_request_pool_is_the_gateways_to_keep(server: PipelinesServer) -> None:
    await server.admission.service.store.configure(DEFAULT_POOL, {"kind": "request"})
    await server.message("ann").is_answered()
    assert (await server.admission.metrics())["active"] == 0


@pytest.mark.parametrize(
    ("name", "known"),
    [
        (f"gpu.{MODEL}", {"id": f"gpu.{MODEL}", "urlIdx": 0}),
        ("teacher", {"id": "teacher", "info": {"base_model_id": f"gpu.{MODEL}"}}),
        ("teacher", {"id": "another", "urlIdx": 0}),  # the second of two side by side
    ],
)
async def test_presets_and_prefixes_are_known_by_their_models(
    server: PipelinesServer, name: str, known: dict[str, object]
) -> None:
    server.above.connections = [("http://gateway/v1", {"prefix_id": "gpu"})]
    server.above.presets["teacher"] = f"gpu.{MODEL}"
    await server.message("ann", name, model=known).is_answered()
    assert (await server.admission.ticket("ann"))["status"] == "active"


async def test_an_answer_is_renewed_until_its_end(server: PipelinesServer) -> None:
    ann = server.message("ann")
    await ann.is_answered()
    client = ann.metadata["message_id"]
    assert server.pipeline._answers.of(client) is not None
    await ann.ends()
    await until(lambda: server.pipeline._answers.of(client) is None)
    assert (await server.admission.ticket("ann"))["status"] == "active"


async def test_an_answer_that_was_stopped_is_renewed_no_more(server: PipelinesServer) -> None:
    ann = server.message("ann")
    await ann.is_answered()
    await asyncio.sleep(0.1)  # its task was seen
    ann.stop()
    client = ann.metadata["message_id"]
    await until(lambda: server.pipeline._answers.of(client) is None)


async def test_a_stop_while_the_turn_comes_ends_the_answer(
    server: PipelinesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.plugin, "WEBUI_CALL_S", 0.5)
    ann = server.message("ann")
    await ann.is_answered()
    bob = server.message("bob")
    await bob.sees(FIRST)
    await asyncio.sleep(0.2)  # its task was seen
    server.above.hangs_at = "/api/tasks"
    bob.stop()
    await server.session_ends(ann)
    await bob.is_answered()
    server.above.hangs_at = ""
    client = bob.metadata["message_id"]
    await until(lambda: server.pipeline._answers.of(client) is None)


@pytest.mark.parametrize("how", ["kept", "refused", "hung up"])
async def test_a_chat_that_got_no_answer_is_looked_for_no_more(
    server: PipelinesServer, how: str
) -> None:
    server.above.refuses_events = True  # so it is not stopped, and its task stays
    await server.set(max_wait_s=1)
    await server.message("ann").is_answered()
    before = _watches()
    if how == "refused":
        await server.admission.service.store.configure(DEFAULT_POOL, {"paused": True})
    bob = server.message("bob")
    if how == "hung up":
        await server.admission.has_in_line("bob")
        bob.call.cancel()
    await asyncio.wait({bob.call})
    assert not bob.is_stopped
    await until(lambda: _watches() == before)


def _watches() -> set[asyncio.Task[Any]]:
    names = ((task, getattr(task.get_coro(), "__name__", "")) for task in asyncio.all_tasks())
    return {task for task, name in names if name == "task_ends"}


async def test_an_answer_whose_end_nobody_tells_is_renewed_for_a_while(
    server: PipelinesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.plugin, "UNSEEN_ANSWER_S", 0.3)
    await server.api_call("ann").is_answered()
    assert len(server.pipeline._answers._running) == 1
    await until(lambda: not server.pipeline._answers._running)


async def test_classes_come_from_groups_too(server: PipelinesServer) -> None:
    await server.admission.service.store.configure(
        DEFAULT_POOL, {"priorities": {"teachers": {"head_start_ms": 60_000, "weight": 1}}}
    )
    server.above.groups["eve"] = ["Teachers"]
    await server.set(priorities="group:Teachers=teachers")
    await server.message("ann").is_answered()
    bob = server.message("bob")
    await bob.sees(FIRST)
    eve = server.message("eve")
    await eve.sees(FIRST)
    assert (await server.admission.ticket("bob"))["position"] == 2


def test_the_server_finds_what_it_looks_for(pipelines_plugin: types.ModuleType) -> None:
    pipeline = pipelines_plugin.Pipeline()
    assert (pipeline.type, pipeline.id, pipeline.name) == ("filter", "vestibule", "Vestibule")
    assert (pipeline.valves.pipelines, pipeline.valves.priority) == (["*"], 100)
    assert json.dumps(pipeline.valves.model_dump())


def test_a_valve_set_to_none_is_its_default(pipelines_plugin: types.ModuleType) -> None:
    valves = pipelines_plugin.Pipeline.Valves(service_key=None, max_wait_s="100", texts=None)
    assert (valves.service_key, valves.max_wait_s, valves.texts) == ("", 100, "")


@pytest.mark.parametrize(
    ("name", "value"), [("max_wait_s", 271), ("texts", "{"), ("priorities", "x"), ("language", "x")]
)
def test_a_bad_valve_is_named(pipelines_plugin: types.ModuleType, name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        pipelines_plugin.Pipeline.Valves(**{name: value})
