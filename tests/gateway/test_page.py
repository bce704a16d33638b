"""What a chat of Open WebUI's page is shown while it waits without a plugin: its own status events,
in the stream (0.12.4, utils/middleware.py)."""

import asyncio
from typing import Any

import pytest

from admission import listener
from admission.domain import DEFAULT_POOL
from admission.gateway import notice
from admission.pages.words import LANGUAGES, words
from tests.conftest import Service
from tests.gateway.upstream import CHUNKS, Upstream
from tests.gateway.waiters import (
    Stream,
    data_of,
    free_slot,
    streaming,
    take_slot,
)

ON_PAGE = {"X-Vestibule-Message": "m1"}
LINE_CHARACTERS = 80  # what one line of a status shows


async def next_status(stream: Stream) -> dict[str, Any]:
    event = data_of(await stream.next() or "")
    assert list(event) == ["event"]
    assert event["event"]["type"] == "status"
    status: dict[str, Any] = event["event"]["data"]
    return status


@pytest.mark.parametrize("mark", [ON_PAGE, {"X-OpenWebUI-Chat-Id": "c1"}])
async def test_a_chat_of_the_page_sees_its_place_and_that_its_turn_has_come(
    service: Service, upstream: Upstream, mark: dict[str, str]
) -> None:
    upstream.go.set()
    await take_slot(service)
    async with streaming(service, "ada", mark) as stream:
        first = await next_status(stream)
        assert first["description"].startswith("You are 1st in line, about 20 minutes")
        assert first["done"] is False
        await free_slot(service)
        assert await next_status(stream) == {
            "description": "Your turn. Waited 1 s.",
            "done": True,
        }
        assert await stream.response.content.read() == b"".join(CHUNKS)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Vestibule-Message": "", "X-OpenWebUI-Chat-Id": "c1"},  # Open WebUI's own API
        {"X-OpenWebUI-Chat-Id": ""},
    ],
)
async def test_other_clients_see_nothing_but_comments(
    service: Service, upstream: Upstream, headers: dict[str, str]
) -> None:
    upstream.go.set()
    await take_slot(service)
    async with streaming(service, "ada", headers) as stream:
        assert (await stream.next() or "").startswith(": You are 1st")
        await free_slot(service)
        blocks = await stream.rest()
    assert not [block for block in blocks if "event" in block]


async def test_who_does_not_wait_sees_no_status(service: Service, upstream: Upstream) -> None:
    upstream.go.set()
    async with streaming(service, "ada", ON_PAGE) as stream:
        assert await stream.response.content.read() == b"".join(CHUNKS)


async def test_an_error_ends_the_status_and_stands_for_itself(
    service: Service, upstream: Upstream
) -> None:
    await take_slot(service)
    async with streaming(service, "ada", ON_PAGE) as stream:
        await next_status(stream)
        await service.store.cancel(DEFAULT_POOL, "ada")
        last = await next_status(stream)
        assert (last["done"], last["hidden"]) == (True, True)
        error = data_of(await stream.next() or "")["error"]
        assert (error["code"], error["message"]) == (
            "ticket_ended",
            "Your turn ended before it came.",
        )
        assert await stream.next() is None


@pytest.mark.parametrize(("pace_s", "told"), [(0.01, True), (3600.0, False)])
async def test_the_chats_row_is_not_written_at_every_move(
    service: Service,
    upstream: Upstream,
    monkeypatch: pytest.MonkeyPatch,
    pace_s: float,
    told: bool,
) -> None:
    """What was held back is told when its time has come."""
    monkeypatch.setattr(notice, "STATUS_EVERY_S", pace_s)
    monkeypatch.setattr(listener, "SETTLE_S", 0.01)
    upstream.go.set()
    await take_slot(service)
    await service.store.join(DEFAULT_POOL, "second", ticket="t2", client="c")
    async with streaming(service, "bob") as other, streaming(service, "ada", ON_PAGE) as stream:
        await other.next()
        assert "3" in (await next_status(stream))["description"]
        await service.store.leave(DEFAULT_POOL, "second", client="c")
        await other.next()  # now all know
        await asyncio.sleep(0.1)
        await free_slot(service)
        await other.rest()
        await service.store.leave(DEFAULT_POOL, "bob")
        seen = []
        while not (status := await next_status(stream))["done"]:
            seen.append(status["description"])
    assert bool(seen) is told


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_status_fits_on_its_line(language: str) -> None:
    said = words(language)
    assert len(said.place(12_345, 6_000, 86_399)) < LINE_CHARACTERS
    assert len(said.waited(86_399)) < LINE_CHARACTERS


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "1 s"), (42.4, "42 s"), (185, "3 min 5 s"), (4200, "1 h 10 min")]
)
def test_a_time_that_passed_is_told_as_people_say_it(seconds: float, said: str) -> None:
    assert words("en").waited(seconds) == f"Your turn. Waited {said}."
