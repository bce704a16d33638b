"""Conversations on a real Valkey: whole exchanges, bounded, isolated, forgotten after a day."""

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.errors import StoreUnavailable
from admission.store import thread_store
from admission.store.connection import open_redis
from admission.store.names import USER_KEYS, user_key
from admission.store.thread_store import LIFE_MS, THREAD_BYTES_MAX, THREADS_MAX, ThreadStore

DOCS = Path(__file__).parents[2] / "docs" / "redis.md"


@pytest.fixture
def threads(redis: Redis, clock: ManualClock) -> ThreadStore:
    return ThreadStore(redis, clock)


async def said(threads: ThreadStore, user: str, thread: str) -> list[str]:
    found = await threads.read(user, thread)
    assert found is not None
    return [message.content for message in found.messages]


async def test_exchanges_are_kept_in_order_with_their_roles(threads: ThreadStore) -> None:
    assert await threads.append("ada", "t1", "hé?", 'so "so"\n\0', cleared=None)
    assert await threads.append("ada", "t1", "and?", "well", cleared=0)
    found = await threads.read("ada", "t1")
    assert found is not None
    assert [(m.role, m.content) for m in found.messages] == [
        ("user", "hé?"),
        ("assistant", 'so "so"\n\0'),
        ("user", "and?"),
        ("assistant", "well"),
    ]
    assert {m.at_ms for m in found.messages} == {found.created_ms}


async def test_system_prompt_and_metadata_stay(threads: ThreadStore) -> None:
    made = await threads.create("ada", "t1", system="Be é brief.", metadata={"title": "é/x"})
    await threads.append("ada", "t1", "q", "a", cleared=made.cleared)
    found = await threads.read("ada", "t1")
    assert found is not None
    assert (found.system, found.metadata) == ("Be é brief.", {"title": "é/x"})
    again = await threads.create("ada", "t1", system="Other.", metadata={})
    assert again.system == "Be é brief."


async def test_another_user_with_the_same_id_has_another_thread(threads: ThreadStore) -> None:
    await threads.append("ada", "t1", "secret", "word", cleared=None)
    assert await threads.read("bob", "t1") is None
    assert await threads.of("bob") == []
    assert not await threads.delete("bob", "t1")
    assert await threads.clear("bob", "t1") is None
    await threads.append("bob", "t1", "mine", "ok", cleared=None)
    assert await said(threads, "ada", "t1") == ["secret", "word"]


async def test_a_thread_lives_a_day_from_its_last_use(
    threads: ThreadStore, clock: ManualClock, redis: Redis
) -> None:
    await threads.append("ada", "t1", "q1", "a1", cleared=None)
    clock.advance_ms(LIFE_MS - 1)
    await threads.append("ada", "t1", "q2", "a2", cleared=0)
    clock.advance_ms(LIFE_MS - 1)
    assert await said(threads, "ada", "t1") == ["q1", "a1", "q2", "a2"]
    clock.advance_ms(1)
    assert await threads.read("ada", "t1") is None
    assert await threads.of("ada") == []
    assert not await threads.append("ada", "t1", "q3", "a3", cleared=0)
    for name in ("threads", "messages:t1"):  # and Redis collects what is left
        assert 0 < await redis.pttl(user_key("ada", name)) <= LIFE_MS


async def test_a_new_thread_with_an_old_id_begins_empty(
    threads: ThreadStore, clock: ManualClock
) -> None:
    await threads.append("ada", "t1", "old", "old", cleared=None)
    clock.advance_ms(LIFE_MS)
    await threads.create("ada", "t1", system=None, metadata={})
    assert await said(threads, "ada", "t1") == []


async def test_a_full_thread_loses_its_oldest_exchanges(threads: ThreadStore) -> None:
    part = "x" * (THREAD_BYTES_MAX // 8)
    for n in range(6):
        assert await threads.append("ada", "t1", f"q{n}", part + str(n), cleared=0 if n else None)
    assert await threads.append("ada", "t1", "q6", part + part, cleared=0)
    found = await threads.read("ada", "t1")
    assert found is not None
    assert [m.content[:2] for m in found.messages if m.role == "user"] == [
        "q1", "q2", "q3", "q4", "q5", "q6",
    ]  # fmt: skip
    assert found.size_bytes <= THREAD_BYTES_MAX


async def test_an_exchange_larger_than_a_thread_is_not_kept(threads: ThreadStore) -> None:
    await threads.append("ada", "t1", "q", "a", cleared=None)
    assert not await threads.append("ada", "t1", "q", "x" * THREAD_BYTES_MAX, cleared=0)
    assert await said(threads, "ada", "t1") == ["q", "a"]


async def test_the_longest_unused_thread_makes_room(
    threads: ThreadStore, clock: ManualClock, redis: Redis
) -> None:
    for n in range(THREADS_MAX):
        await threads.append("ada", f"t{n}", "q", "a", cleared=None)
        clock.advance_ms(1)
    await threads.append("ada", "t0", "q", "a", cleared=0)
    await threads.create("ada", "one-more", system=None, metadata={})
    listed = [thread.thread_id for thread in await threads.of("ada")]
    assert len(listed) == THREADS_MAX
    assert "t1" not in listed
    assert not await redis.exists(user_key("ada", "messages:t1"))
    await threads.append("ada", "another", "q", "a", cleared=None)
    assert await threads.read("ada", "t2") is None
    assert await threads.read("ada", "t0") is not None


async def test_what_is_over_makes_room_before_what_lives(
    threads: ThreadStore, clock: ManualClock
) -> None:
    for n in range(3):
        await threads.append("ada", f"old{n}", "q", "a", cleared=None)
    clock.advance_ms(LIFE_MS)
    for n in range(THREADS_MAX):
        await threads.append("ada", f"t{n}", "q", "a", cleared=None)
    assert len(await threads.of("ada")) == THREADS_MAX


async def test_an_answer_that_ran_while_its_thread_was_deleted_or_cleared_is_not_kept(
    threads: ThreadStore,
) -> None:
    await threads.append("ada", "t1", "q", "a", cleared=None)
    await threads.clear("ada", "t1")
    assert not await threads.append("ada", "t1", "late", "late", cleared=0)
    assert await said(threads, "ada", "t1") == []
    assert await threads.append("ada", "t1", "new", "new", cleared=1)
    assert await threads.delete("ada", "t1")
    assert not await threads.append("ada", "t1", "late", "late", cleared=1)
    assert await threads.read("ada", "t1") is None


async def test_a_hundred_exchanges_at_once_are_all_whole(threads: ThreadStore) -> None:
    await threads.create("ada", "t1", system=None, metadata={})
    await asyncio.gather(
        *(threads.append("ada", "t1", f"q{n}", f"a{n}", cleared=0) for n in range(100))
    )
    words = await said(threads, "ada", "t1")
    assert sorted(words[::2]) == sorted(f"q{n}" for n in range(100))
    assert [w[1:] for w in words[::2]] == [w[1:] for w in words[1::2]]


async def test_any_instance_reads_what_another_wrote(threads: ThreadStore, valkey: str) -> None:
    await threads.append("ada", "t1", "q", "a", cleared=None)
    async with Redis.from_url(valkey) as other:
        assert await said(ThreadStore(other, ManualClock()), "ada", "t1") == ["q", "a"]


async def test_a_redis_that_is_away_is_an_error_of_the_store(clock: ManualClock) -> None:
    async with open_redis("unix:///nowhere/redis.sock") as away:
        with pytest.raises(StoreUnavailable):
            await ThreadStore(away, clock).read("ada", "t1")


async def test_a_redis_that_hangs_holds_nobody_up(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_store, "ANSWER_TIMEOUT_S", 0.05)

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with silent, Redis(port=silent.sockets[0].getsockname()[1]) as away:
        with pytest.raises(StoreUnavailable):
            await ThreadStore(away, clock).of("ada")


def test_the_table_of_a_users_keys_is_the_code() -> None:
    table = DOCS.read_text()
    for key in USER_KEYS:
        assert f"| `{key.name}` | {key.type} | {key.meaning} |" in table
