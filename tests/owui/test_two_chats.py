"""Two chats of one user who waits: one place for both, whatever becomes of either."""

from redis.asyncio import Redis

from admission.domain import DEFAULT_POOL
from admission.store import names
from tests.owui.conftest import WebUI

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
