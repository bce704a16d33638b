"""A channel shows no status: what the filter says there is the text of the message itself."""

from tests.owui.conftest import WebUI, until

FIRST = "You are 1st in line"


async def test_nothing_but_the_place_is_written_where_the_answer_will_stand(webui: WebUI) -> None:
    ann = webui.chat("ann")
    await ann.is_answered()
    bob = webui.chat("bob", session_id="channel:1", chat_id="channel:1")
    await until(lambda: bool(bob.events))
    await webui.session_ends(ann, "ann")
    await bob.is_answered()
    assert await bob.ends() is bob.body
    texts = [event["data"]["content"] for event in bob.events]
    assert texts == [text for text in texts if text.startswith(FIRST)]
