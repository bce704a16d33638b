"""What it is worth that a conversation stays: prefix-cache hits of two real vLLM workers.

The same conversations, turn by turn, once dealt to the workers in turn and once through the
gateway. Together the workers' caches hold all conversations; none holds all of them alone.
The vLLM on CPU and the tiny model are those that ``make e2e`` builds.
"""

import asyncio
import itertools
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import requests
from aiohttp import ClientSession

from tests.e2e.build import build, cache_folder
from tests.e2e.stack import MODEL, Vestibule, VllmServer
from tests.ports import free_port

CONVERSATIONS, TURNS, AT_ONCE = 24, 5, 4
TURN_CHARACTERS = 800  # about as many tokens: the tiny model's tokenizer knows hardly a word
CACHE_BLOCKS = 384  # of 128 tokens: 12 of the conversations when they are whole
SLOTS = 8
TO_REACH = 1.5


class Worker(VllmServer):
    """With a cache that is soon full."""

    def command(self) -> Sequence[str | Path]:
        blocks = ("--block-size", "128", "--num-gpu-blocks-override", str(CACHE_BLOCKS))
        return (*super().command(), "--enable-prefix-caching", *blocks)


@dataclass(frozen=True)
class Cached:
    """Tokens of prompts, and those of them that a worker's prefix cache had."""

    queries: int
    hits: int

    @classmethod
    def of(cls, workers: Sequence[Worker]) -> "Cached":
        """Since the workers started."""
        lines = [
            line
            for worker in workers
            for line in requests.get(f"{worker.url}/metrics", timeout=30).text.splitlines()
        ]
        return cls(*(_sum(lines, f"vllm:prefix_cache_{what}_total") for what in _COUNTERS))

    def since(self, before: "Cached") -> "Cached":
        return Cached(self.queries - before.queries, self.hits - before.hits)

    @property
    def rate(self) -> float:
        return self.hits / self.queries


_COUNTERS = ("queries", "hits")


def _sum(lines: Sequence[str], name: str) -> int:
    found = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)]
    return round(sum(found))


async def main() -> None:
    """Print the hit rates side by side."""
    if not (cache_folder() / "vllm").exists():
        print("prefix: not measured, needs the vLLM that `make e2e` builds")
        return
    print(
        f"prefix: {CONVERSATIONS} conversations of {TURNS} turns of {TURN_CHARACTERS} tokens,"
        f" {AT_ONCE} at once, 2 vLLM workers on CPU, a cache of {CACHE_BLOCKS * 128} tokens each"
    )
    components = await asyncio.to_thread(build)
    with tempfile.TemporaryDirectory(prefix="vst-") as folder, ExitStack() as running:
        workers = [Worker(Path(folder), components, f"vllm-{i}") for i in range(2)]
        for worker in workers:
            running.enter_context(worker)
        upstreams = ",".join(f"{worker.url};slots={SLOTS}" for worker in workers)
        gateway = Vestibule(
            Path(folder), free_port(), upstreams, MAX_ACTIVE_USERS=2 * CONVERSATIONS
        )
        running.enter_context(gateway)
        in_turn = itertools.cycle([worker.url for worker in workers])
        dealt = await _measure(workers, "round robin", in_turn, "")
        ours = await _measure(
            workers, "vestibule", itertools.repeat(gateway.url), gateway.service_key()
        )
    for name, cached in (("round robin", dealt), ("vestibule", ours)):
        print(
            f"  {name:<12} {cached.rate:6.1%} of {cached.queries} prompt tokens were in the cache"
        )
    ratio = ours.rate / dealt.rate
    verdict = "reached" if ratio >= TO_REACH else "NOT reached"
    print(f"  {'ratio':<12} {ratio:6.2f}   {TO_REACH} is to be reached: {verdict}")


async def _measure(workers: Sequence[Worker], who: str, urls: Iterator[str], key: str) -> Cached:
    """What the caches had of these conversations."""
    before = Cached.of(workers)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    at_once = asyncio.Semaphore(AT_ONCE)

    async def turn(http: ClientSession, conversation: "Conversation") -> None:
        async with at_once:
            await conversation.go_on(http, next(urls))

    chance = random.Random(7)
    async with ClientSession(headers=headers) as http:
        talks = [Conversation(who, number) for number in range(CONVERSATIONS)]
        if key:
            for talk in talks:
                await talk.join(http, next(urls))
        for _ in range(TURNS):
            chance.shuffle(talks)  # people do not take turns
            await asyncio.gather(*(turn(http, talk) for talk in talks))
    return Cached.of(workers).since(before)


class Conversation:
    """One user's chat, with all that was said in each request; nobody else says the same."""

    def __init__(self, who: str, number: int) -> None:
        self._user = f"{who.replace(' ', '-')}-{number}"
        self._chance = random.Random(self._user)
        self._said: list[dict[str, str]] = []

    async def join(self, http: ClientSession, url: str) -> None:
        """Take a session."""
        path = f"{url}/queue/join/{self._user}"
        async with http.post(path, json={"auto_confirm": True}) as answer:
            answer.raise_for_status()

    async def go_on(self, http: ClientSession, url: str) -> None:
        """Say something, and be answered."""
        words = "".join(self._chance.choices("abcdefghij ", k=TURN_CHARACTERS))
        self._said.append({"role": "user", "content": words})
        body = {"model": MODEL, "messages": self._said, "max_tokens": 8}
        headers = {"X-OpenWebUI-User-Id": self._user, "X-OpenWebUI-Chat-Id": "chat"}
        async with http.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            message = (await answer.json())["choices"][0]["message"]
        self._said.append({"role": "assistant", "content": message["content"]})
