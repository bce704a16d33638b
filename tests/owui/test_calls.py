"""What a chat asks admission: not more than it needs."""

import asyncio

import pytest

from tests.owui.conftest import WebUI, answers_are_told, until
from tests.owui.test_webui import OTHER, request_with
from tests.owui.wire import AWAY, Wire


async def test_a_message_within_a_session_does_not_join_again(webui: WebUI, wire: Wire) -> None:
    ann = webui.chat("ann")
    await ann.is_answered()
    await ann.ends()
    await answers_are_told(webui.gate)
    wire.asked.clear()
    await webui.chat("ann").is_answered()
    assert {verb for verb, _ in wire.asked} == {"heartbeat"}


async def test_a_model_of_another_server_costs_no_call(
    webui: WebUI, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_with(monkeypatch, [OTHER], {}, {})
    body = {"model": "theirs"}
    page = {"session_id": "sid", "chat_id": "chat"}
    pipe = {"id": "theirs", "pipe": {"type": "pipe"}}
    assert await webui.gate.inlet(body, {"id": "ann"}, page, request, pipe) is body
    assert wire.asked == []


async def test_a_call_on_a_connection_that_was_closed_is_an_outage(webui: WebUI) -> None:
    """As a parent's whose answer ends while its sub-agent asks."""
    admission = webui.plugin.Admission(webui.service.url, webui.service.service_key, "ann")
    await admission.aclose()
    with pytest.raises(webui.plugin.Away):
        await admission.ask("status")


async def test_events_that_fail_are_not_asked_for_again_at_once(
    webui: WebUI, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webui.plugin, "AGAIN_S", (60.0, 60.0))
    await webui.chat("ann").is_answered()
    wire.answers["events"] = AWAY
    bob = webui.chat("bob")
    await bob.sees("You are 1st in line")
    await until(lambda: bool(wire.bodies("events")))
    await asyncio.sleep(0.2)
    assert len(wire.bodies("events")) == 1
    assert not bob.task.done()


async def test_whom_no_events_reach_is_present_all_the_same(webui: WebUI, wire: Wire) -> None:
    ann = webui.chat("ann")
    await ann.is_answered()
    await ann.ends()
    await answers_are_told(webui.gate)
    wire.answers["events"] = AWAY
    bob = webui.chat("bob")
    await bob.sees("You are 1st in line")
    for _ in range(3):  # together longer than the grace of 60 s
        webui.service.clock.advance_ms(50_000)
        await wire.has(2, "heartbeat")  # the first of them was answered
        await webui.service.tick()
    assert (await webui.metrics())["waiting"] == 1
