"""The conversations of `/chat/stream` on Redis: kept per user and thread, 24 hours since last used.

A user's keys carry that user's own hash tag, so nobody reaches another's by guessing an id, and
users spread over a Redis Cluster. What does not fit makes room from the old end: the oldest
exchange of a thread, the longest unused thread of a user.
"""

import asyncio
import json
import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from admission import logs
from admission.clock import Clock
from admission.conversation import Message, Thread
from admission.errors import StoreUnavailable
from admission.store import names, scripts

LIFE_MS = 24 * 3600 * 1000
THREAD_BYTES_MAX = 131_072
"""Of the messages of one thread: about the context window of a 32k-token model."""
THREADS_MAX = 32
"""Of one user: with the limit above at most 4 MiB."""
ANSWER_TIMEOUT_S = 1.0
"""A conversation is a comfort: nobody waits longer for it."""

log = logging.getLogger(__name__)


class ThreadStore:
    """Conversations of all users; any number of processes may serve one Redis.

    Every method raises StoreUnavailable when Redis does not answer within a second.
    """

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self._redis = redis
        self._clock = clock

    async def create(
        self, user: str, thread: str, *, system: str | None, metadata: dict[str, str]
    ) -> Thread:
        """Begin a conversation; one that has this id already is returned as it is."""
        facts = {"metadata": metadata} | ({"system": system} if system else {})
        _, known, *gone = await self._run(
            "create", user, thread, facts=json.dumps(facts), threads_max=THREADS_MAX
        )
        await self._remove_messages(user, gone[0] if gone else ())
        return _thread(thread, known)

    async def append(
        self, user: str, thread: str, question: str, answer: str, *, cleared: int | None
    ) -> bool:
        """Keep one exchange; False when it could not be: the thread was deleted or cleared since
        it was read, or the exchange alone is larger than a thread may be.

        Args:
            cleared: of the thread as it was read; None begins a new thread.
        """
        tag, *rest = await self._run(
            "append",
            user,
            thread,
            cleared=-1 if cleared is None else cleared,
            question=question,
            answer=answer,
            bytes_max=THREAD_BYTES_MAX,
            threads_max=THREADS_MAX,
        )
        if tag == b"saved":
            await self._remove_messages(user, rest[1])
        return bool(tag == b"saved")

    async def read(self, user: str, thread: str) -> Thread | None:
        """The conversation with its messages; None when there is none of that id."""
        tag, *rest = await self._run("read", user, thread)
        if tag == b"unknown":
            return None
        messages = tuple(Message(**json.loads(raw)) for raw in rest[1])
        return replace(_thread(thread, rest[0]), messages=messages)

    async def clear(self, user: str, thread: str) -> Thread | None:
        """Forget the messages; None when there is none of that id."""
        tag, *rest = await self._run("clear", user, thread)
        return None if tag == b"unknown" else _thread(thread, rest[0])

    async def delete(self, user: str, thread: str) -> bool:
        """Forget the conversation; False when there was none of that id."""
        return bool((await self._run("delete", user, thread))[0] == b"deleted")

    async def of(self, user: str) -> list[Thread]:
        """All of the user's conversations without their messages, the last used first."""
        _, found = await self._run("list", user)
        threads = [_thread(found[i].decode(), found[i + 1]) for i in range(0, len(found), 2)]
        return sorted(threads, key=lambda thread: (-thread.used_ms, thread.thread_id))

    async def _remove_messages(self, user: str, threads: Iterable[bytes]) -> None:
        """Nothing refers to these any more; where this fails they expire by themselves."""
        for thread in threads:
            await self._answer("unlink", self._redis.unlink(_messages_key(user, thread.decode())))

    async def _run(self, name: str, user: str, thread: str = "", **given: str | int) -> list[Any]:
        text, contract = _script(name)
        given |= {"now_ms": self._clock.now_ms(), "life_ms": LIFE_MS}
        if "thread" in contract.arguments:
            given["thread"] = thread
        args = scripts.arguments(contract, given)
        keys = [names.user_key(user, "threads"), _messages_key(user, thread)]

        async def call() -> Any:
            try:
                digest = sha1(text.encode(), usedforsecurity=False).hexdigest()
                return await self._redis.evalsha(digest, 2, *keys, *args)
            except NoScriptError:
                return await self._redis.eval(text, 2, *keys, *args)

        reply: list[Any] = await self._answer(name, call())
        return reply

    async def _answer(self, name: str, call: Any) -> Any:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await call
        except (RedisError, OSError, TimeoutError) as error:
            logs.event(
                log, "threads_failed", logging.WARNING, script=name, error=type(error).__name__
            )
            raise StoreUnavailable from error


@cache
def _script(name: str) -> tuple[str, scripts.Contract]:
    folder = files("admission.store") / "lua"
    parts = (folder / "lib" / "clock.lua", folder / "threads" / "facts.lua")
    script = (folder / "threads" / f"{name}.lua").read_text()
    return "\n".join([*(part.read_text() for part in parts), script]), scripts.read_contract(script)


def _messages_key(user: str, thread: str) -> str:
    return names.user_key(user, f"messages:{thread}")


def _thread(thread: str, raw: bytes) -> Thread:
    facts = json.loads(raw)
    return Thread(
        thread,
        created_ms=facts["created_ms"],
        used_ms=facts["used_ms"],
        expires_ms=facts["used_ms"] + LIFE_MS,
        size_bytes=facts["bytes"],
        cleared=facts["cleared"],
        system=facts.get("system"),
        metadata=facts.get("metadata") or {},
    )
