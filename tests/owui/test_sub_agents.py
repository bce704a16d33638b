"""A sub-agent runs in its parent's turn. After the session's end its parent does not keep the slot
from it, as it would only wait there for its sub-agent."""

from tests.owui.conftest import WebUI


async def test_a_sub_agent_works_in_its_parents_session(webui: WebUI) -> None:
    ann = webui.chat("ann")
    await ann.is_answered()
    before = await webui.ticket("ann")

    await ann.delegate()

    after = await webui.ticket("ann")
    assert (after["status"], after["ticket_id"]) == ("active", before["ticket_id"])
    assert ann.statuses == []
    await ann.ends()


async def test_after_the_sessions_end_a_parent_gives_its_slot_to_who_is_next(webui: WebUI) -> None:
    ann = webui.chat("ann")
    await ann.is_answered()
    await webui.elsewhere.leave("ann")
    bob = webui.chat("bob")
    await bob.sees("You are 1st in line")  # Ann's answer may finish

    await ann.delegate()

    await bob.is_answered()


async def test_a_sub_agent_of_nobody_passes(webui: WebUI) -> None:
    ann = webui.chat("ann")
    await ann.is_answered()
    await ann.ends()

    await ann.delegate()
