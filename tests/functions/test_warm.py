"""An environment that was frozen neither hangs nor answers for somebody else."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from admission import warm
from admission.functions import Functions
from tests.api.valkey import OwnValkey, own_valkey
from tests.conftest import DEADLINE_S, service_settings
from tests.contract.aws import LINE_BYTES_MAX, Environment
from tests.functions.conftest import Asking, event
from tests.infra.conftest import ROOT, clean_environment

SOON_S = 6.0  # 1 s until a dead connection is given up, 3 s for a new one, and a slow machine


@pytest.fixture
async def own() -> AsyncIterator[OwnValkey]:
    async with own_valkey() as server:
        yield server


@asynccontextmanager
async def environment(url: str) -> AsyncIterator[Environment]:
    """A process that runs the handler in a loop, frozen between its invocations."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.contract.environment"),
        cwd=ROOT,
        env={
            **clean_environment(),
            "_HANDLER": "admission.functions.handler",
            "REDIS_URL": url,
            "VESTIBULE_SERVICE_KEY": "service-key",
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
    )
    one = Environment(process)
    try:
        await one.invoke(event("GET", "/healthz"))  # its start may take longer than an answer
        yield one
    finally:
        await one.end()


async def whose(one: Environment, user: str) -> tuple[int, str | None]:
    """Who joins as ``user``: the status, and whom the answer is for."""
    async with asyncio.timeout(SOON_S):
        answer = await one.invoke(event("POST", f"/queue/join/{user}", {}))
    return answer["statusCode"], (
        Asking.read(answer).json["user_id"] if answer["statusCode"] == 200 else None
    )


async def cut(url: str) -> None:
    """Every connection to the server is closed by it."""
    client = Redis.from_url(url)
    await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # type: ignore[no-untyped-call]
    await client.aclose()


async def test_thawed_after_its_redis_was_killed_and_came_back(own: OwnValkey) -> None:
    async with environment(own.url) as one:
        assert await whose(one, "ada") == (200, "ada")
        await own.kill()
        assert (await whose(one, "bob"))[0] == 503, "it says so, and soon"
        await own.start()
        assert await whose(one, "cy") == (200, "cy")
        await own.kill()
        await own.start()
        assert await whose(one, "dee") == (200, "dee"), "it never knew that Redis was away"


async def test_thawed_after_its_connections_were_cut(own: OwnValkey) -> None:
    async with environment(own.url) as one, environment(own.url) as other:
        for n in range(5):
            assert await whose(one, f"a{n}") == (200, f"a{n}")
            await cut(own.url)
            assert await whose(other, f"b{n}") == (200, f"b{n}")


async def test_connections_cut_in_the_middle_of_invocations(own: OwnValkey) -> None:
    done = asyncio.Event()

    async def cutting() -> None:
        while not done.is_set():
            await cut(own.url)
            await asyncio.sleep(0.003)

    async with environment(own.url) as one:
        assert await whose(one, "ada") == (200, "ada")
        async with asyncio.TaskGroup() as group:
            group.create_task(cutting())
            try:
                for n in range(60):
                    answer = await whose(one, f"u{n}")
                    assert answer in ((200, f"u{n}"), (503, None))
            finally:
                done.set()
        assert await whose(one, "zoe") == (200, "zoe")


async def test_frozen_in_the_middle_of_an_invocation(own: OwnValkey) -> None:
    """Its connection is cut meanwhile, and Redis has answered long ago."""
    async with environment(own.url) as one:
        assert await whose(one, "ada") == (200, "ada")
        pausing = Redis.from_url(own.url)
        await pausing.client_pause(300)
        running = asyncio.create_task(whose(one, "bob"))
        await asyncio.sleep(0.1)
        one._send(signal.SIGSTOP)
        await asyncio.sleep(0.4)
        await cut(own.url)
        one._send(signal.SIGCONT)
        assert await running in ((200, "bob"), (503, None))
        assert await whose(one, "cy") == (200, "cy")
        await pausing.aclose()


# --- in this process --------------------------------------------------------------------------


def test_calls_from_several_threads_never_mix(ask: Asking) -> None:
    def joined(n: int) -> str:
        user: str = ask("POST", f"/queue/join/u{n}", {}).json["user_id"]
        return user

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(joined, range(100))) == [f"u{n}" for n in range(100)]


def running(ask: Asking) -> set[asyncio.Task[Any]]:
    """What goes on in the environment."""
    return asyncio.all_tasks(ask.functions._warm._loop)


class Context:
    """As Lambda's, with so many ms left."""

    def __init__(self, left_ms: int) -> None:
        self._left_ms = left_ms

    def get_remaining_time_in_millis(self) -> int:
        return self._left_ms


@pytest.mark.parametrize("where", ["in the first question", "in the script"])
def test_an_answer_that_comes_too_late_meets_nobody(
    ask: Asking, empty: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user in ("ada", "bob"):
        ask("POST", f"/queue/join/{user}", {})
    if where == "in the script":

        async def known(_: Functions) -> None:
            pass

        monkeypatch.setattr(Functions, "_refresh", known)
    with BlockingRedis.from_url(empty) as client:
        client.client_pause(400)
        late = ask.functions(event("GET", "/queue/status/ada"), Context(700))
        assert late["statusCode"] == 503
        assert not running(ask), "what it began ended with it"
        assert ask("GET", "/queue/status/bob").json["user_id"] == "bob"
        assert ask("GET", "/queue/status/ada").json["user_id"] == "ada"


@asynccontextmanager
async def between(path: str) -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """An address that leads to the server, and a way to make the connections there go silent, as
    a network does that forgot them; new ones are carried again."""
    silent: set[int] = set()
    known: list[int] = []

    async def carry(reader: Any, writer: Any, mine: int) -> None:
        while data := await reader.read(65_536):
            if mine not in silent:
                writer.write(data)

    async def accepted(reader: Any, writer: Any) -> None:
        known.append(mine := len(known))
        inner, outer = await asyncio.open_unix_connection(path)
        ways = [carry(reader, outer, mine), carry(inner, writer, mine)]
        await asyncio.wait(
            [asyncio.ensure_future(way) for way in ways], return_when=asyncio.FIRST_COMPLETED
        )
        outer.close()
        writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield f"redis://127.0.0.1:{port}", lambda: silent.update(known)
    server.close()


async def test_a_connection_that_died_without_a_sign_is_given_up_soon(
    own: OwnValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm, "HEAR_S", 0.2)
    async with between(own.url.removeprefix("unix://").partition("?")[0]) as (url, forget):
        ask = Asking(Functions(service_settings(REDIS_URL=url)))
        assert (await asyncio.to_thread(ask, "POST", "/queue/join/ada")).status == 200
        forget()
        began_s = time.monotonic()
        reply = await asyncio.to_thread(ask, "GET", "/queue/status/ada")
        assert (reply.status, reply.json["user_id"]) == (200, "ada")
        assert time.monotonic() - began_s < 2
        await asyncio.to_thread(ask.functions.close)


async def test_a_redis_that_hangs_is_503_within_a_bound(
    own: OwnValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Asking(Functions(service_settings(REDIS_URL=own.url)))
    assert (await asyncio.to_thread(ask, "POST", "/queue/join/ada")).status == 200
    own.send(signal.SIGSTOP)
    with monkeypatch.context() as short:
        short.setattr(warm, "HEAR_S", 0.1)
        short.setattr(warm, "REOPENED_S", 0.2)
        async with asyncio.timeout(DEADLINE_S / 4):
            away = await asyncio.to_thread(ask, "GET", "/queue/status/ada")
            alive = await asyncio.to_thread(ask, "GET", "/healthz")
    assert (away.status, away.json["code"]) == (503, "store_unavailable")
    assert "retry-after" in away.headers
    assert alive.status == 200
    own.send(signal.SIGCONT)
    assert (await asyncio.to_thread(ask, "GET", "/queue/status/ada")).status == 200
    await asyncio.to_thread(ask.functions.close)


def test_nothing_goes_on_after_an_invocation(ask: Asking) -> None:
    ask("POST", "/queue/join/ada", {})
    assert not running(ask)
