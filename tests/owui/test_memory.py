"""What a process that runs for months keeps of the chats that went through its gate: nothing."""

import asyncio
import gc
import types
from collections import Counter

from tests.owui.conftest import Pages, WebUI, answers_are_told, until

FIRST = "You are 1st in line"


def made_by(plugin: types.ModuleType) -> Counter[str]:
    """How many objects of each of the plugin's own classes there are, and tasks of its code."""
    gc.collect()
    own = {one for one in vars(plugin).values() if isinstance(one, type)}
    own = {one for one in own if one.__module__ == plugin.__name__}
    things = gc.get_objects()
    made = Counter(type(one).__name__ for one in things if type(one) in own)
    tasks = [one.get_coro() for one in things if isinstance(one, asyncio.Task)]
    codes = [one.cr_code for one in tasks if isinstance(one, types.CoroutineType)]
    source = plugin.Filter.inlet.__code__.co_filename
    made["Task"] = sum(code.co_filename == source for code in codes)
    return made


async def every_kind_of_chat(webui: WebUI, pages: Pages) -> None:
    """One that is answered and told of its session's end, one that is stopped while it waits, one
    whose place is kept until another takes the turn, and an API call."""
    pages.open("ann")
    pages.open("bob")
    await webui.sessions_last(1)
    ann = webui.chat("ann")
    await ann.is_answered()
    stopped = webui.chat("bob")
    await stopped.sees(FIRST)
    await stopped.stop()
    webui.set(max_wait_s=1)
    await webui.chat("bob").is_kept()
    await ann.ends()
    webui.service.clock.advance_ms(1_001)
    await webui.service.tick()
    await ann.sees("Your session is over.")
    await webui.becomes("bob", "draft")
    again = webui.chat("bob")
    await again.is_answered()
    await webui.session_ends(again, "bob")
    call = webui.api_call("cid")
    await call.is_answered()
    await webui.session_ends(call, "cid")


async def test_of_chats_that_are_over_nothing_is_kept(webui: WebUI, pages: Pages) -> None:
    before = made_by(webui.plugin)
    await every_kind_of_chat(webui, pages)
    webui.forget()
    await answers_are_told(webui.gate)
    await until(lambda: not webui.gate._endings._watching)
    await asyncio.sleep(0)  # what was done is let go
    assert made_by(webui.plugin) - before == Counter()
