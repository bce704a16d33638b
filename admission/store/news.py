"""Listens to what the scripts say of each pool, through lost connections.

Knows whose tickets moved, not how: a message may be lost, so the reader fetches a snapshot.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator

from redis.asyncio import Redis
from redis.exceptions import RedisError

from admission import logs
from admission.domain import Change
from admission.store.connection import listener
from admission.store.names import CHANGED_CHANNELS

RECONNECT_S = 0.5
QUIET_S = 5.0  # how long one read waits; nothing depends on it

log = logging.getLogger(__name__)


async def changes(redis: Redis) -> AsyncIterator[Change]:
    """Yield each change of each pool as it is published.

    Yields a change of everything whenever some may have been missed (each new connection, the first
    included): every snapshot must then be read again. Never ends by itself.
    """
    while True:
        try:
            async with listener(redis) as pubsub:
                await pubsub.psubscribe(CHANGED_CHANNELS)
                while True:
                    message = await pubsub.get_message(timeout=QUIET_S)
                    if message is None:
                        continue
                    if message["type"] == "psubscribe":
                        yield Change(None, None)
                    elif message["type"] == "pmessage":
                        yield _read(message["channel"], message["data"])
        except (RedisError, OSError) as error:
            logs.event(log, "news_lost", logging.WARNING, error=error)
            await asyncio.sleep(RECONNECT_S)


def _read(channel: bytes, data: bytes) -> Change:
    """What a message says; anybody may publish, so what cannot be read may mean anything."""
    pool = channel.decode(errors="replace").split("{")[-1].split("}")[0]
    try:
        moved = json.loads(data).get("moved", ())
    except (ValueError, RecursionError, AttributeError):
        return Change(pool, None)
    if not isinstance(moved, list | tuple):
        return Change(pool, None)
    return Change(pool, tuple(user for user in moved if isinstance(user, str)))
