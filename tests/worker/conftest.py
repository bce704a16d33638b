"""A recording admission and a model server that answers nothing until a test says how."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from tests.worker.stand_ins import Admission, Request, Upstream, plain


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The agent ships alone, and runs on Python's own loop."""
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
async def admission() -> AsyncIterator[Admission]:
    async with Admission().running() as running:
        yield running


async def _echo(request: Request, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(plain(request.body))


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream(answer=_echo).running() as running:
        yield running
