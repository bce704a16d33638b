"""Who has news is heard through lost connections, and what may have been missed is said."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from admission.store.connection import open_redis
from admission.store.news import users_with_news
from tests.store.room import Room

PUBSUB_CLIENTS = "pubsub"


@pytest.fixture
async def news(valkey: str) -> AsyncIterator[AsyncIterator[str | None]]:
    """What a service of its own hears; it has heard that it is connected."""
    client = open_redis(valkey)
    users = users_with_news(client)
    assert await anext(users) is None
    yield users
    await users.aclose()  # type: ignore[attr-defined]
    await client.aclose()


async def kill_subscribers(redis: Redis) -> int:
    return await redis.client_kill_filter(_type=PUBSUB_CLIENTS)


async def test_users_are_named_in_the_order_of_their_news(
    news: AsyncIterator[str | None], room: Room
) -> None:
    for user in ("a", "b:c|d", "a"):
        await room.join(user)
        await room.store.leave("default", user)
    heard = [await anext(news) for _ in range(6)]
    assert heard == ["a", "a", "b:c|d", "b:c|d", "a", "a"]


async def test_a_lost_connection_is_made_again_and_told(
    news: AsyncIterator[str | None], room: Room
) -> None:
    for user in ("a", "b"):
        assert await kill_subscribers(room.redis) == 1
        async with asyncio.timeout(5):
            assert await anext(news) is None
        await room.join(user)
        assert await anext(news) == user


async def test_a_name_that_is_no_text_does_not_end_the_news(
    news: AsyncIterator[str | None], redis: Redis
) -> None:
    await redis.publish(b"queue_status:\xff", "{}")
    await redis.publish("queue_status:a", "{}")
    heard = [await anext(news) for _ in range(2)]
    assert heard[-1] == "a"
