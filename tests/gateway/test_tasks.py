"""Background tasks at the gateway: beside a session, never instead of one."""

import asyncio
import logging

import pytest
from aiohttp import ClientError, ClientPayloadError, web
from redis.asyncio import Redis

from admission.domain import DEFAULT_POOL, Status, WorkerReport
from admission.gateway import tasks
from admission.store.names import pool_key
from tests.api.calls import Reply, caller_of, contents, until
from tests.api.fleet import look_again
from tests.conftest import DEADLINE_S, Service
from tests.gateway.conftest import Chatter, Start
from tests.gateway.upstream import Upstream, chat
from tests.gateway.waiters import free_slot, status_of, take_slot

TITLE = {"X-Vestibule-Task": "title_generation", "X-Vestibule-Message": ""}


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task looks often, and gives up late."""
    for name, seconds in (("FIRST_S", 0.02), ("LOOK_S", 0.02), ("GRACE_S", 5.0), ("ROOM_S", 5.0)):
        monkeypatch.setattr(tasks, name, seconds)


@pytest.fixture
def bob(service: Service) -> Chatter:
    """A user without a turn."""
    return Chatter(caller_of(service), "bob")


def asking(user: Chatter) -> "asyncio.Task[Reply]":
    return asyncio.create_task(user.says(chat(), **TITLE))


async def dropped(task: "asyncio.Task[Reply]") -> bool:
    reply = await asyncio.wait_for(task, DEADLINE_S)
    return (reply.status, reply.json["error"]["code"]) == (429, "task_dropped")


async def seen(upstream: Upstream, number: int) -> None:
    async def so_many() -> bool:
        return len(upstream.seen) == number

    await until(so_many)


async def has_looked(service: Service) -> None:
    """Enough time for a few looks; what must not happen has no event."""
    await asyncio.sleep(0.15)


async def four_chats(user: Chatter, upstream: Upstream) -> "list[asyncio.Task[bytes]]":
    """As many as a session may run, and as the worker has slots."""

    async def read() -> bytes:
        async with user.streams() as response:
            return await response.content.read()

    running = [asyncio.create_task(read()) for _ in range(4)]
    await seen(upstream, 4)
    return running


async def test_beside_a_session_a_task_runs_and_counts_as_nothing(
    service: Service, upstream: Upstream, ada: Chatter, redis: Redis
) -> None:
    before = await contents(redis)
    reply = await ada.says(chat(), **TITLE)
    assert (reply.status, reply.headers["X-Of-The-Model"]) == (200, "w1")
    assert await contents(redis) == before  # no use, no request, no presence
    assert await redis.zcard(pool_key(DEFAULT_POOL, "unused")) == 1


async def test_running_tasks_never_make_a_chat_wait_for_its_session(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    async def hold(_: web.Request) -> web.Response:
        await upstream.go.wait()
        return web.Response()

    upstream.act = hold
    running = [asking(ada) for _ in range(4)]
    await seen(upstream, 4)
    chats = [asyncio.create_task(ada.says(chat())) for _ in range(4)]
    await seen(upstream, 8)
    upstream.go.set()
    assert [reply.status for reply in await asyncio.gather(*chats, *running)] == [200] * 8


async def test_a_title_asked_for_before_the_turn_waits_for_it_and_keeps_no_place(
    service: Service, upstream: Upstream, bob: Chatter, redis: Redis
) -> None:
    await take_slot(service)
    task = asking(bob)
    await has_looked(service)
    assert await status_of(service, "bob") is None  # it joins nothing
    await service.store.join(DEFAULT_POOL, "bob", ticket="t2", client="m1")
    await has_looked(service)
    assert await redis.zcard(pool_key(DEFAULT_POOL, "presence")) == 0
    await free_slot(service)
    assert await status_of(service, "bob") is Status.DRAFT
    await has_looked(service)
    assert not upstream.seen
    await service.store.confirm(DEFAULT_POOL, "bob")
    assert (await task).status == 200


async def test_an_owner_who_never_comes_drops_the_task_and_that_is_logged_once(
    upstream: Upstream,
    bob: Chatter,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(tasks, "GRACE_S", 0.1)
    assert await dropped(asking(bob))
    lines = [line for line in caplog.messages if line.startswith("task_dropped")]
    assert lines == [
        'task_dropped user_id=bob pool=default task=title_generation why="its user has no turn"'
    ]


async def test_an_owner_who_waits_too_long_drops_the_task(
    service: Service, upstream: Upstream, bob: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "OWNER_S", 0.1)
    await take_slot(service)
    await bob.join()
    assert await dropped(asking(bob))
    assert await status_of(service, "bob") is Status.WAITING


async def test_an_owner_who_leaves_drops_the_task(
    service: Service, upstream: Upstream, bob: Chatter
) -> None:
    await take_slot(service)
    await bob.join()
    task = asking(bob)
    await has_looked(service)
    await service.store.leave(DEFAULT_POOL, "bob")
    assert await dropped(task)


async def test_a_turn_that_ended_before_may_be_followed_by_the_next(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    await free_slot(service, "ada")
    task = asking(ada)
    await has_looked(service)
    await ada.join()
    assert (await task).status == 200


async def test_a_saturated_pool_drops_a_task(
    service: Service, upstream: Upstream, ada: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "ROOM_S", 0.1)
    running = await four_chats(ada, upstream)
    assert await dropped(asking(ada))
    upstream.go.set()
    await asyncio.gather(*running)
    assert len(upstream.seen) == 4


async def test_what_workers_report_counts_too(
    service: Service, upstream: Upstream, ada: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "ROOM_S", 0.1)
    report = WorkerReport(ready=True, reason=None, models=("tiny",), slots=4, in_flight=4)
    identity = {"url": upstream.url, "kind": "static"}
    await service.store.report_worker(DEFAULT_POOL, "w1", report, identity=identity)
    await look_again(service)
    assert await dropped(asking(ada))
    assert (await ada.says(chat())).status == 200  # a chat is not kept out


async def test_a_task_waits_for_room(service: Service, upstream: Upstream, ada: Chatter) -> None:
    running = await four_chats(ada, upstream)
    task = asking(ada)
    await has_looked(service)
    assert len(upstream.seen) == 4
    upstream.go.set()
    assert (await task).status == 200
    await asyncio.gather(*running)


async def test_another_worker_with_room_is_room(
    service: Service, start: Start, ada: Chatter
) -> None:
    first, second = await start("w1"), await start("w2")
    running = [asyncio.create_task(_read(ada)) for _ in range(4)]

    async def all_run() -> bool:
        return len(first.seen) + len(second.seen) == 4

    await until(all_run)
    assert (await ada.says(chat(), **TITLE)).status == 200
    for worker in (first, second):
        worker.go.set()
    await asyncio.gather(*running)


async def _read(user: Chatter) -> bytes:
    async with user.streams() as response:
        return await response.content.read()


async def _think(upstream: Upstream) -> None:
    async def think(_: web.Request) -> web.Response:
        await upstream.go.wait()
        return web.Response()

    upstream.act = think


@pytest.mark.parametrize("ends", ["removed", "left"])
async def test_an_ended_session_cuts_its_tasks(
    service: Service, upstream: Upstream, ada: Chatter, ends: str
) -> None:
    await _think(upstream)
    task = asking(ada)
    await upstream.begun.wait()
    end = service.store.cancel if ends == "removed" else service.store.leave
    await end(DEFAULT_POOL, "ada")
    assert await dropped(task)
    async with asyncio.timeout(DEADLINE_S):
        await upstream.canceled.wait()


async def test_a_task_whose_answer_has_begun_is_cut(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    async with ada.streams(**TITLE) as response:
        await response.content.readany()
        await service.store.cancel(DEFAULT_POOL, "ada")
        with pytest.raises((ClientPayloadError, ClientError)):
            await response.content.read()


async def test_a_task_runs_no_longer_than_allowed(
    upstream: Upstream, ada: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "RUN_S", 0.1)
    await _think(upstream)
    assert await dropped(asking(ada))


async def test_a_client_that_goes_away_ends_its_task(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    await _think(upstream)
    task = asking(ada)
    await upstream.begun.wait()
    task.cancel()
    async with asyncio.timeout(DEADLINE_S):
        await upstream.canceled.wait()


async def test_one_users_tasks_are_so_many_at_most(
    service: Service, upstream: Upstream, bob: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "OF_USER_MAX", 2)
    await take_slot(service)
    await bob.join()
    two = [asking(bob) for _ in range(2)]
    await has_looked(service)
    assert await dropped(asking(bob))
    for task in two:
        task.cancel()

    async def gone() -> bool:
        third = asking(bob)
        await has_looked(service)
        waits = not third.done()
        third.cancel()
        return waits

    await until(gone)


async def test_a_caller_who_acts_for_themselves_asks_for_no_task(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    """Nobody runs beside their session, or waits without limit, by naming a task."""
    call = caller_of(service)
    token = (await call("POST", "/queue/join/bob")).json["token"]
    await call("POST", "/queue/leave/bob")
    bob = Chatter(call.with_key(token), "bob")
    reply = await bob.says(chat(), **TITLE)
    assert (reply.status, reply.json["error"]["code"]) == (429, "no_session")


# --- what an answer waits for, and answers ------------------------------------------------------

STEPS = ("context_compaction", "function_calling", "image_prompt_generation", "query_generation")


@pytest.mark.parametrize("step", STEPS)
async def test_a_step_of_an_answer_runs_in_its_turn_also_where_no_room_is_left(
    service: Service, upstream: Upstream, ada: Chatter, redis: Redis, step: str
) -> None:
    report = WorkerReport(ready=True, reason=None, models=("tiny",), slots=4, in_flight=4)
    identity = {"url": upstream.url, "kind": "static"}
    await service.store.report_worker(DEFAULT_POOL, "w1", report, identity=identity)
    await look_again(service)
    reply = await ada.says(chat(), **{"X-Vestibule-Task": step, "X-Vestibule-Message": "m1"})
    assert reply.status == 200
    assert await redis.zcard(pool_key(DEFAULT_POOL, "unused")) == 0  # it is use of the session


@pytest.mark.parametrize("step", STEPS)
async def test_a_step_of_an_answer_does_not_wait_for_a_turn(
    service: Service, upstream: Upstream, bob: Chatter, step: str
) -> None:
    await take_slot(service)
    headers = {"X-Vestibule-Task": step, "X-Vestibule-Wait": "60"}
    reply = await bob.says(chat(), **headers)
    assert (reply.status, reply.json["error"]["code"]) == (429, "no_session")
    assert await status_of(service, "bob") is None


async def test_merged_answers_wait_as_an_answer_does(
    service: Service, upstream: Upstream, bob: Chatter
) -> None:
    await take_slot(service)
    headers = {"X-Vestibule-Task": "moa_response_generation", "X-Vestibule-Wait": "60"}
    merging = asyncio.create_task(bob.says(chat(), **headers))

    async def waits() -> bool:
        return await status_of(service, "bob") is Status.WAITING

    await until(waits)
    await free_slot(service)
    assert (await asyncio.wait_for(merging, DEADLINE_S)).status == 200


# --- request pools ----------------------------------------------------------------------------


@pytest.fixture
async def one_lease(service: Service, upstream: Upstream) -> None:
    await service.store.configure(DEFAULT_POOL, {"kind": "request", "capacity": 1})
    await look_again(service)


async def _take_lease(service: Service, user: str, request: str) -> None:
    await service.store.join(
        DEFAULT_POOL, user, ticket=f"{user}-{request}", request=request, auto_confirm=True
    )


async def test_in_a_request_pool_a_task_runs_while_a_slot_is_free(
    service: Service, upstream: Upstream, bob: Chatter, one_lease: None, redis: Redis
) -> None:
    before = await contents(redis)
    assert (await bob.says(chat(), **TITLE)).status == 200
    assert await contents(redis) == before


async def test_in_a_request_pool_a_task_waits_while_none_is_free(
    service: Service, upstream: Upstream, bob: Chatter, one_lease: None
) -> None:
    await _take_lease(service, "ada", "r1")
    task = asking(bob)
    await has_looked(service)
    assert not upstream.seen
    await service.store.leave(DEFAULT_POOL, "ada")
    assert (await task).status == 200


async def test_in_a_request_pool_a_task_is_dropped_while_anybody_waits(
    service: Service,
    upstream: Upstream,
    bob: Chatter,
    one_lease: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "ROOM_S", 0.1)
    await service.store.configure(DEFAULT_POOL, {"capacity": 2, "user_concurrency": 1})
    for request in ("r1", "r2"):
        await _take_lease(service, "ada", request)
    metrics = await service.store.metrics(DEFAULT_POOL)
    assert (metrics.waiting, metrics.free) == (1, 1)
    assert await dropped(asking(bob))


async def test_in_a_request_pool_a_step_of_an_answer_has_its_slot_to_itself(
    service: Service, upstream: Upstream, bob: Chatter, one_lease: None
) -> None:
    await _think(upstream)
    step = asyncio.create_task(bob.says(chat(), **{"X-Vestibule-Task": "query_generation"}))
    await upstream.begun.wait()
    await _take_lease(service, "ada", "r1")
    again = await bob.says(chat(), **{"X-Vestibule-Task": "query_generation"})
    assert again.status == 429
    upstream.go.set()
    assert (await step).status == 200


async def test_in_a_request_pool_a_task_makes_way_for_a_request(
    service: Service, upstream: Upstream, bob: Chatter, one_lease: None
) -> None:
    await _think(upstream)
    task = asking(bob)
    await upstream.begun.wait()
    await _take_lease(service, "ada", "r1")
    assert await dropped(task)
