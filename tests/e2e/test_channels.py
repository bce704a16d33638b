"""Knows what a channel shows of a model that was mentioned and whose turn has not come.

Does not know chats: a channel has no status lines, and everybody in it reads along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.build import ANSWER
from tests.e2e.line import FIRST, LONG_SESSION_S, SECOND, SOON_S, becomes
from tests.e2e.stack import MODEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Shots, SignIn, StartVestibule
    from tests.e2e.stack import OpenWebUI, User

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

EVERYBODY = [
    {"principal_type": "user", "principal_id": "*", "permission": permission}
    for permission in ("read", "write")
]


@pytest.fixture
def channel(open_webui: OpenWebUI) -> Iterator[str]:
    """A channel that everybody may read and write in; its path in the API."""
    open_webui.configure("/api/v1/auths/admin/config", ENABLE_CHANNELS=True)
    made = {"name": "tea-room", "access_grants": EVERYBODY}
    known = open_webui.as_admin("POST", "/api/v1/channels/create", made)
    yield f"/channels/{known['id']}"
    open_webui.as_admin("DELETE", f"/api/v1/channels/{known['id']}/delete")
    open_webui.configure("/api/v1/auths/admin/config", ENABLE_CHANNELS=False)


def mention(open_webui: OpenWebUI, channel: str, user: User, text: str) -> str:
    """Post this for the model to answer; the path of the thread in which it does."""
    post = {"content": f"<@M:{MODEL}|{MODEL}> {text}", "data": {}}
    made = open_webui.as_user(user, "POST", f"/api/v1{channel}/messages/post", post)
    return f"{channel}?thread={made['id']}"


async def test_a_model_mentioned_in_a_channel(
    start_vestibule: StartVestibule,
    open_webui: OpenWebUI,
    channel: str,
    sign_in: SignIn,
    shots: Shots,
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    other = open_webui.add_user("Zoe")
    vestibule.join(other)
    ann, bob = await sign_in("Ann"), await sign_in("Bob")

    thread = mention(open_webui, channel, ann.user, "Hello, is it my turn?")

    await becomes(vestibule, ann.user, "waiting")
    post = await ann.another_tab(thread)
    await post.sees_post(FIRST)
    await shots.take(post, "waits")
    later = await bob.another_tab(mention(open_webui, channel, bob.user, "And mine?"))
    await later.sees_post(SECOND)
    reader = await bob.another_tab(thread)
    await reader.sees_post(FIRST)
    await shots.take(reader, "reads along")

    vestibule.leave(other)

    await post.sees_post(ANSWER, SOON_S)
    await reader.sees_post(ANSWER, SOON_S)
    await shots.take(post, "is answered")
    await later.sees_post(FIRST, SOON_S)
    await shots.take(later, "moved up")
    assert vestibule.ticket(ann.user)["status"] == "active"
