"""A process of Open WebUI that died: what the next one says in the chats that waited in it."""

import types
from typing import Any

import pytest

from tests.owui.conftest import Json, Pages, WebUI, until

CUT_SHORT = "Your wait was cut short. Send your message again."


async def test_the_status_of_who_waits_says_what_becomes_of_it(webui: WebUI, pages: Pages) -> None:
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    pages.open("bob")
    bob = webui.chat("bob")
    await bob.sees("You are 1st in line")
    assert bob.last["cut_short"] == CUT_SHORT
    await webui.session_ends(ann, "ann")
    await bob.is_answered()
    assert "cut_short" not in bob.last


async def test_the_next_process_says_so(
    plugin: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Json] = []

    async def left(sign: str) -> list[tuple[Json, Json]]:
        return [({"chat_id": "c", "message_id": "m", "user_id": "u"}, {sign: "Encore !"})]

    async def emitter(metadata: Json) -> Any:
        async def emit(event: Json) -> None:
            shown.append({**metadata, **event})

        return emit

    monkeypatch.setattr(plugin, "TIDY_AFTER_S", (0.0,))
    monkeypatch.setattr(plugin, "cut_short", left)
    monkeypatch.setattr(plugin, "emitter_of", emitter)
    gate = plugin.Filter()
    await until(lambda: bool(shown))
    status = {"description": "Encore !", "done": True, "hidden": False}
    whose = {"chat_id": "c", "message_id": "m", "user_id": "u"}
    assert shown == [{**whose, "type": "status", "data": status}]
    assert gate is not None


def test_without_an_event_loop_the_file_can_be_looked_at(plugin: types.ModuleType) -> None:
    assert plugin.Filter().valves
