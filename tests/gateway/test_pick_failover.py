"""A call whose worker fails goes to the next one before the first byte, and never after."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import ClientPayloadError, web

from admission.domain import DEFAULT_POOL
from tests.api.calls import caller_of
from tests.api.fleet import look_again
from tests.conftest import Service
from tests.gateway.conftest import Chatter, Start
from tests.gateway.upstream import Upstream, chat

Act = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def _full(_: web.Request) -> web.StreamResponse:
    return web.json_response({"error": "queue is full"}, status=503, headers={"Retry-After": "7"})


async def _hangs_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _refuses(_: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": "no such parameter"}}, status=400)


async def _fails(_: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": "of mine"}}, status=500)


@pytest.fixture
async def both(start: Start) -> list[Upstream]:
    return [await start("w1"), await start("w2")]


def act(workers: list[Upstream], how: Act) -> None:
    for worker in workers:
        worker.act = how


async def test_a_full_worker_is_not_dead_and_the_next_answers(
    both: list[Upstream], ada: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("admission.gateway.trouble.FULL_S", 60)
    both[0].act = _full
    for _ in range(6):
        assert (await ada.says(chat())).headers["X-Of-The-Model"] == "w2"
    assert len(both[0].seen) <= 1  # for a moment it is asked last


async def test_when_all_are_full_the_caller_hears_it_from_the_last(
    both: list[Upstream], ada: Chatter
) -> None:
    act(both, _full)
    for _ in range(3):  # each time all are asked: nobody was taken for dead
        reply = await ada.says(chat())
        assert (reply.status, reply.headers["Retry-After"]) == (503, "7")
        assert reply.json == {"error": "queue is full"}
    assert [len(worker.seen) for worker in both] == [3, 3]


async def test_a_call_lost_before_its_first_byte_is_answered_by_the_next(
    both: list[Upstream], ada: Chatter
) -> None:
    both[0].act = _hangs_up
    for _ in range(4):
        assert (await ada.says(chat())).headers["X-Of-The-Model"] == "w2"


async def test_a_call_that_kills_workers_kills_two(start: Start, ada: Chatter) -> None:
    workers = [await start(name) for name in ("w1", "w2", "w3")]
    act(workers, _hangs_up)
    assert (await ada.says(chat())).status == 502
    assert sorted(len(worker.seen) for worker in workers) == [0, 1, 1]


async def test_an_answer_that_has_begun_is_never_asked_for_again(
    both: list[Upstream], ada: Chatter
) -> None:
    for worker in both:
        worker.act = worker.break_off
    async with ada.streams() as response:
        await response.content.readany()
        for worker in both:
            worker.go.set()
        with pytest.raises(ClientPayloadError):
            await response.content.read()
    assert sum(len(worker.seen) for worker in both) == 1


@pytest.mark.parametrize(("how", "status"), [(_refuses, 400), (_fails, 500)])
async def test_what_a_worker_says_to_a_call_is_passed_on_and_trips_nothing(
    both: list[Upstream], ada: Chatter, how: Act, status: int
) -> None:
    act(both, how)
    for _ in range(8):
        assert (await ada.says(chat())).status == status
    assert sum(len(worker.seen) for worker in both) == 8
    act(both, both[0].whole)
    assert (await ada.says(chat())).status == 200


async def test_a_draining_worker_gets_nothing_new_and_finishes(
    service: Service, both: list[Upstream], ada: Chatter
) -> None:
    async with ada.streams() as response:
        await response.content.readany()
        busy, idle = sorted(both, key=lambda worker: -len(worker.seen))
        await service.store.drain_worker(DEFAULT_POOL, busy.name)
        await look_again(service)
        for _ in range(4):
            assert (await ada.says(chat())).status == 200
        busy.go.set()
        assert (await response.content.read()).endswith(b"data: [DONE]\n\n")
    assert (len(busy.seen), len(idle.seen)) == (1, 4)


async def test_with_no_worker_left_the_answer_says_so_at_once(
    service: Service, both: list[Upstream], ada: Chatter
) -> None:
    for worker in both:
        await service.store.drain_worker(DEFAULT_POOL, worker.name)
    await look_again(service)
    async with asyncio.timeout(1):
        reply = await ada.says(chat())
    assert (reply.status, reply.json["error"]["code"]) == (503, "no_ready_worker")


async def test_the_chats_of_one_user_stay_each_with_one_worker(
    service: Service, both: list[Upstream]
) -> None:
    """30 conversations of 4 turns, as Open WebUI names them."""
    bob = Chatter(caller_of(service), "bob")
    await bob.join()
    homes: dict[int, set[str]] = {}
    for _ in range(4):
        for number in range(30):
            reply = await bob.says(chat(), **{"X-OpenWebUI-Chat-Id": f"chat-{number}"})
            homes.setdefault(number, set()).add(reply.headers["X-Of-The-Model"])
    assert all(len(seen) == 1 for seen in homes.values())
    assert set.union(*homes.values()) == {"w1", "w2"}
