"""Knows two real vLLM workers behind one gateway: OpenAI's SDK, vLLM's own benchmark client and a
chat in Open WebUI are served by both, and each of them is once killed in the middle of its answers.

Does not know how a worker is started (`worker.py`). The servers are the same for all cases.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.e2e.build import ANSWER
from tests.e2e.line import FIRST, SOON_S, becomes
from tests.e2e.server import POLL_S
from tests.e2e.stack import MODEL, User, Vestibule
from tests.e2e.worker import Worker

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from openai import AsyncOpenAI
    from redis.asyncio import Redis

    from tests.e2e.build import Components
    from tests.e2e.conftest import Shots, SignIn
    from tests.e2e.stack import OpenWebUI

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

GUESTS = [f"guest{number}" for number in range(6)]  # more than one worker has slots
BOB = User("bob", "Bob", "", "")
DEMO_WORKERS = 1  # `vestibule up` without upstreams brings one, of another model
STREAM_TOKENS, PAUSE_MS = 100, 20  # with pauses, some seconds of talk
AT_ONCE_S = 15.0  # half of what a silent worker is given until it counts as lost
FORGOTTEN_WITHIN_S = 30.0  # idle connections are kept for some seconds
BACK_WITHIN_S = 420.0
PROMPTS, AT_A_TIME = 12, 4


@pytest.fixture(scope="module")
def vestibule(tmp_path_factory: pytest.TempPathFactory, gateway_port: int) -> Iterator[Vestibule]:
    """As many sessions as there are guests; who comes beside them waits."""
    settings = {"MAX_ACTIVE_USERS": len(GUESTS), "VESTIBULE_WHEN_FULL": "wait"}
    with Vestibule(tmp_path_factory.mktemp("queue"), gateway_port, "", **settings) as server:
        yield server


@pytest.fixture(scope="module")
def workers(
    vestibule: Vestibule, components: Components, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Worker, Worker]]:
    """Both ready, and routed to."""
    folder = tmp_path_factory.mktemp("workers")
    one, other = (Worker(folder, components, vestibule, name) for name in ("one", "other"))
    with ThreadPoolExecutor() as together:
        try:
            list(together.map(Worker.start, (one, other)))
            asyncio.run(_both_ready(vestibule))
            yield one, other
        finally:
            list(together.map(Worker.stop, (one, other)))


@pytest.fixture(autouse=True)
def users(vestibule: Vestibule, workers: tuple[Worker, Worker]) -> Iterator[list[str]]:
    """Those a case names have left when it is over, so that the next finds no session."""
    named: list[str] = []
    yield named
    for server in (vestibule, *workers):  # pytest shows it of a case that failed
        sys.stderr.write(f"{server.log_tail()}\n")
    for name in named:
        _leaves(vestibule, name)


@pytest.fixture
async def guests(vestibule: Vestibule, users: list[str]) -> list[str]:
    """Who has all the sessions there are: those of the case before have left, and what they began
    is over."""
    body = {"auto_confirm": True}
    for name in GUESTS:
        users.append(name)
        vestibule.call("POST", f"/queue/join/{name}", key=vestibule.service_key(), body=body)
    await _until(lambda: all(_is_in_session(vestibule, name) for name in GUESTS))
    return GUESTS


@pytest.fixture
async def redis(vestibule: Vestibule) -> AsyncIterator[Redis]:
    """What the gateway keeps in."""
    from redis.asyncio import Redis

    from infra import embedded
    from infra.state import StateFolder

    url = embedded.url(StateFolder(vestibule.folder / "state"))
    async with Redis.from_url(url) as client:
        yield client


@pytest.fixture
async def sdk(vestibule: Vestibule) -> AsyncIterator[AsyncOpenAI]:
    """The SDK as it comes, but that it does not ask again by itself."""
    from openai import AsyncOpenAI

    key, base = vestibule.service_key(), f"{vestibule.url}/v1"
    async with AsyncOpenAI(api_key=key, base_url=base, max_retries=0, timeout=120) as client:
        yield client


def test_the_sdk_is_answered_by_the_real_model_in_its_users_turn(
    vestibule: Vestibule, guests: list[str]
) -> None:
    from openai import OpenAI, RateLimitError

    key, base = vestibule.service_key(), f"{vestibule.url}/v1"
    with OpenAI(api_key=key, base_url=base, max_retries=0, timeout=120) as sdk:
        ada = sdk.with_options(default_headers=_of(guests[0]))
        bob = sdk.with_options(default_headers={**_of(BOB.user_id), "X-Vestibule-Wait": "0"})
        assert MODEL in [model.id for model in ada.models.list()]
        whole = ada.chat.completions.create(model=MODEL, messages=_says("hello"))
        assert whole.choices[0].message.content == ANSWER
        stream = ada.chat.completions.create(model=MODEL, messages=_says("hello"), stream=True)
        chunks = list(stream)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
        assert not any(chunk.usage for chunk in chunks)
        text = ada.completions.create(model=MODEL, prompt="hello there", max_tokens=4)
        assert text.usage
        assert 1 <= text.usage.completion_tokens <= 4
        response = ada.responses.create(model=MODEL, input="hello")
        assert response.output_text == ANSWER
        with pytest.raises(RateLimitError) as refused:
            bob.chat.completions.create(model=MODEL, messages=_says("hello"))
        assert refused.value.code == "no_session"


async def test_the_sdk_is_answered_by_both_workers_and_waits_its_turn(
    vestibule: Vestibule,
    workers: tuple[Worker, Worker],
    guests: list[str],
    users: list[str],
    sdk: AsyncOpenAI,
    redis: Redis,
) -> None:
    users.append(BOB.user_id)
    streams = [Stream(sdk, name) for name in guests]
    waiting = Stream(sdk, BOB.user_id)

    assert set(await asyncio.gather(*(stream.run() for stream in streams))) == {"length"}
    bob = asyncio.create_task(waiting.run())
    await becomes(vestibule, BOB, "waiting")
    assert not waiting.begun.is_set()
    _leaves(vestibule, guests[0])

    assert await bob == "length"
    assert all(stream.text.startswith(ANSWER) for stream in (*streams, waiting))
    others = guests[1:]  # the first one asked in another case too
    await _until(lambda: _by_both(workers, vestibule.served(*others), len(others)))
    await _nothing_is_left(redis, vestibule, workers)


async def test_vllms_own_benchmark_client_is_served_by_both_workers(
    vestibule: Vestibule,
    workers: tuple[Worker, Worker],
    components: Components,
    users: list[str],
    redis: Redis,
    tmp_path: Path,
) -> None:
    users.append("bench")
    command = [
        str(components.vllm / "bin" / "vllm"), "bench", "serve", "--backend", "openai-chat",
        "--base-url", vestibule.url, "--endpoint", "/v1/chat/completions",
        "--model", str(components.model), "--served-model-name", MODEL,
        "--dataset-name", "random", "--random-input-len", "32", "--random-output-len", "16",
        "--num-prompts", str(PROMPTS), "--max-concurrency", str(AT_A_TIME),
        "--header", "X-OpenWebUI-User-Id=bench",
        "--save-result", "--result-dir", str(tmp_path), "--result-filename", "result.json",
    ]  # fmt: skip
    environment = {**os.environ, "OPENAI_API_KEY": vestibule.service_key()}

    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=600
    )

    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["completed"], result.get("failed", 0)) == (PROMPTS, 0)
    assert result["total_output_tokens"] > 0
    await _until(lambda: _by_both(workers, vestibule.served("bench"), PROMPTS))
    await _nothing_is_left(redis, vestibule, workers)


async def test_a_chat_waits_its_turn_and_stays_with_one_worker(
    vestibule: Vestibule,
    workers: tuple[Worker, Worker],
    guests: list[str],
    users: list[str],
    open_webui: OpenWebUI,
    sign_in: SignIn,
    shots: Shots,
    redis: Redis,
) -> None:
    open_webui.forget()
    vestibule.install_into(open_webui)
    ann = await sign_in("Ann")
    users.append(ann.user.user_id)
    await ann.send("Hello, is it my turn?")
    await ann.sees_status(FIRST)
    await shots.take(ann, "waits")
    assert vestibule.ticket(ann.user)["status"] == "waiting"

    _leaves(vestibule, guests[0])

    await ann.sees_answer(ANSWER, SOON_S)
    await shots.take(ann, "is answered")
    await ann.send("And again?")
    await ann.sees_answer(ANSWER, SOON_S)
    await shots.take(ann, "is answered again")
    await _until(lambda: [*vestibule.served(ann.user.user_id).values()] == [2])
    await _nothing_is_left(redis, vestibule, workers)


async def test_a_killed_vllm_loses_only_the_streams_it_had_begun(
    vestibule: Vestibule,
    workers: tuple[Worker, Worker],
    guests: list[str],
    sdk: AsyncOpenAI,
    redis: Redis,
) -> None:
    victim, survivor = workers
    await _loses_only_what_it_had_begun(victim, survivor, victim.kill_vllm, sdk)
    await _nothing_is_left(redis, vestibule, workers)

    await _until(lambda: victim.restarts() == 1 and victim.is_ready(), BACK_WITHIN_S)
    await _is_asked_again(victim, vestibule, sdk)
    await _nothing_is_left(redis, vestibule, workers)


async def test_a_killed_worker_loses_only_the_streams_it_had_begun(
    vestibule: Vestibule,
    workers: tuple[Worker, Worker],
    guests: list[str],
    sdk: AsyncOpenAI,
    redis: Redis,
) -> None:
    survivor, victim = workers
    await _loses_only_what_it_had_begun(victim, survivor, victim.kill, sdk)
    await _nothing_is_left(redis, vestibule, [survivor], dead=victim)

    await asyncio.to_thread(victim.start)
    await _is_asked_again(victim, vestibule, sdk)
    await _nothing_is_left(redis, vestibule, workers)


class Stream:
    """One streamed answer, in its own conversation."""

    def __init__(self, sdk: AsyncOpenAI, user: str, pause_ms: int = 0) -> None:
        self._sdk, self._user, self._pause_ms = sdk, user, pause_ms
        self.begun = asyncio.Event()
        self.pieces = 0
        self.text = ""

    async def run(self) -> str | None:
        """Why it ended: the model's reason, or the error's name."""
        from httpx2 import HTTPError
        from openai import APIError

        reason: str | None = None
        more = {"min_tokens": STREAM_TOKENS, "vllm_xargs": {"pause_ms": self._pause_ms}}
        try:
            answer = await self._sdk.chat.completions.create(
                model=MODEL,
                messages=_says(f"I am {self._user}, tell me much."),
                stream=True,
                max_tokens=STREAM_TOKENS,
                extra_headers=_of(self._user),
                extra_body=more,
            )
            async for chunk in answer:
                self.pieces += 1
                self.text += chunk.choices[0].delta.content or ""
                self.begun.set()
                reason = chunk.choices[0].finish_reason or reason
        except (APIError, HTTPError) as error:  # the second where the connection is cut
            reason = type(error).__name__
        self.begun.set()
        return reason


class ShortCalls:
    """Whole answers, one after the other, of one user."""

    def __init__(self, sdk: AsyncOpenAI, user: str) -> None:
        self._sdk, self._user = sdk, user
        self.answered = 0
        self.over = asyncio.Event()

    async def run(self) -> None:
        while not self.over.is_set():
            answer = await self._sdk.chat.completions.create(
                model=MODEL,
                messages=_says(f"{self._user}, {self.answered}"),
                max_tokens=4,
                extra_headers=_of(self._user),
            )
            assert answer.choices[0].message.content
            self.answered += 1


async def _loses_only_what_it_had_begun(
    victim: Worker, survivor: Worker, kill: Callable[[], None], sdk: AsyncOpenAI
) -> None:
    """Every guest is in the middle of an answer and asks for others when `kill` is called."""
    streams = [Stream(sdk, name, PAUSE_MS) for name in GUESTS]
    ended = [asyncio.create_task(stream.run()) for stream in streams]
    for stream in streams:
        await asyncio.wait_for(stream.begun.wait(), 60)
    begun = {worker: worker.in_flight() for worker in (victim, survivor)}
    assert sum(begun.values()) == len(GUESTS)
    assert min(begun.values()) > 0

    calls = [ShortCalls(sdk, name) for name in GUESTS]
    async with asyncio.TaskGroup() as calling:  # none of them fails
        for call in calls:
            calling.create_task(call.run())
        await _until(lambda: all(call.answered for call in calls))
        answered = {call: call.answered for call in calls}
        kill()
        await _until(lambda: all(c.answered > answered[c] + 3 for c in calls), AT_ONCE_S)
        for call in calls:
            call.over.set()

    reasons = await asyncio.gather(*ended)
    assert reasons.count("length") == begun[survivor], reasons
    cut = [s for s, why in zip(streams, reasons, strict=True) if why != "length"]
    assert len(cut) == begun[victim]
    assert all(0 < stream.pieces < STREAM_TOKENS for stream in cut)


async def _is_asked_again(victim: Worker, vestibule: Vestibule, sdk: AsyncOpenAI) -> None:
    """A worker that is back gets its share of the answers to all guests, and they are whole."""
    await _both_ready(vestibule)
    had = vestibule.served(*GUESTS)[victim.name]
    answers = (Stream(sdk, name).run() for name in GUESTS)
    assert set(await asyncio.gather(*answers)) == {"length"}
    await _until(lambda: vestibule.served(*GUESTS)[victim.name] > had)


async def _nothing_is_left(
    redis: Redis, vestibule: Vestibule, alive: Sequence[Worker], dead: Worker | None = None
) -> None:
    """Nothing counts as running or waiting anywhere, and no connection to a worker is kept."""
    ports = [worker.port for worker in (*alive, *([dead] if dead else []))]
    deadline = time.monotonic() + FORGOTTEN_WITHIN_S
    while True:
        counts = {
            **{worker.name: worker.in_flight() + worker.running() for worker in alive},
            "connections": vestibule.connections_to(*ports),
            **await _counted(redis),
        }
        if not (left := {what: count for what, count in counts.items() if count}):
            return
        assert time.monotonic() < deadline, str(left)
        await asyncio.sleep(POLL_S)


async def _counted(redis: Redis) -> dict[str, int]:
    """Places and running requests as Redis knows them; sessions outlive their requests.

    What an ended ticket still names is nobody's, unless it is `finishing`.
    """
    pool = "vestibule:{default}:"
    places = ("queue", "skipped", "drafts", "finishing")
    tickets: list[Any] = await redis.hvals(f"{pool}tickets")
    facts = [msgspec.msgpack.decode(ticket) for ticket in tickets]
    return {
        **{name: await redis.zcard(f"{pool}{name}") for name in places},
        "outstanding": len(await redis.keys("*:outstanding*")),
        "uses": sum(bool(one.get("uses")) and "ended_ms" not in one for one in facts),
    }


async def _both_ready(vestibule: Vestibule) -> None:
    """The gateway knows two workers that are ready, beside its demo's."""

    def ready() -> bool:
        known: int = vestibule.call("GET", "/readyz")["workers"]["ready"]
        return known == 2 + DEMO_WORKERS

    await _until(ready)


def _by_both(workers: tuple[Worker, Worker], served: Counter[str], at_least: int) -> bool:
    return served.total() >= at_least and len(served) == len(workers)


def _is_in_session(vestibule: Vestibule, user: str) -> bool:
    ticket = vestibule.call("GET", f"/queue/status/{user}", key=vestibule.service_key())
    return bool(ticket["status"] == "active")


def _leaves(vestibule: Vestibule, user: str) -> None:
    vestibule.call("POST", f"/queue/leave/{user}", key=vestibule.service_key())


def _of(user: str) -> dict[str, str]:
    return {"X-OpenWebUI-User-Id": user}


def _says(text: str) -> Any:
    return [{"role": "user", "content": text}]


async def _until(holds: Callable[[], bool], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(POLL_S)
