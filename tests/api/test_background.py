"""What runs in the background of the service goes on after a failure, and ends for certain."""

import asyncio
import logging

import pytest
from redis.asyncio import Redis

from admission import background
from tests.conftest import Service

WORKERS = "vestibule:{default}:workers"


async def test_failing_work_is_logged_and_begun_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "AGAIN_S", 0)
    caplog.set_level(logging.ERROR)
    begun, again = 0, asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            raise ValueError("the first time")
        again.set()
        await asyncio.Event().wait()

    async with background.running("a test", work):
        await asyncio.wait_for(again.wait(), 5)
    assert begun == 2
    assert "background_failed work=a test" in caplog.text


async def test_models_come_back_after_a_damaged_worker_record(
    service: Service, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "AGAIN_S", 0.01)
    monkeypatch.setattr("admission.directory.REFRESH_S", 0.01)
    await redis.hset(WORKERS, "damaged", "{}")

    async def known() -> int:
        async with service.http.get("/readyz") as reply:
            count: int = (await reply.json())["workers"]["known"]
            return count

    async with asyncio.timeout(10):
        await redis.hdel(WORKERS, "damaged")
        facts = '{"identity": "{\\"url\\": \\"http://127.0.0.1:1\\", \\"kind\\": \\"static\\"}"'
        facts += ', "slots": 1, "first_seen_ms": 1, "last_seen_ms": 1, "ready": false}'
        await redis.hset(WORKERS, "whole", facts)
        while await known() != 1:  # noqa: ASYNC110 - the service's own clock, seen over HTTP
            await asyncio.sleep(0.01)
