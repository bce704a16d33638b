"""Listens to the users' channels, through lost connections.

Knows who has news, not what the news is: a message may be lost, so the reader fetches a snapshot.
"""

import asyncio
import logging
from collections.abc import AsyncIterator

from redis.asyncio import Redis
from redis.exceptions import RedisError

from admission import logs
from admission.store.names import USER_CHANNEL

RECONNECT_S = 0.5
QUIET_S = 5.0  # how long one read waits; nothing depends on it

log = logging.getLogger(__name__)


async def users_with_news(redis: Redis) -> AsyncIterator[str | None]:
    """Yield the id of each user whose channel carries a message.

    Yields None whenever messages may have been missed (each new connection, the first included):
    every snapshot must then be read again. Never ends by itself.
    """
    while True:
        try:
            async with redis.pubsub() as pubsub:
                await pubsub.psubscribe(f"{USER_CHANNEL}*")
                while True:
                    message = await pubsub.get_message(timeout=QUIET_S)
                    if message is None:
                        continue
                    if message["type"] == "psubscribe":
                        yield None
                    elif message["type"] == "pmessage":
                        channel = message["channel"].decode(errors="replace")  # anybody may publish
                        yield channel.removeprefix(USER_CHANNEL)
        except (RedisError, OSError) as error:
            logs.event(log, "news_lost", logging.WARNING, error=error)
            await asyncio.sleep(RECONNECT_S)
