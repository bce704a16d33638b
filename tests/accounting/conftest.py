"""What the tests of the accounting share: records, a database of SQLite, the stream."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from admission.accounting.ledger import Ledger
from admission.accounting.record import Record
from admission.clock import ManualClock
from admission.store.usage_store import UsageStore

AT_MS = 1_795_000_000_000  # 2026-11-18, a Wednesday, at 11:06:40 UTC
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000


def record(number: int = 1, **changes: object) -> Record:
    """One request of 10 and 5 tokens."""
    given = {
        "id": f"p-{number}",
        "at_ms": AT_MS,
        "kind": "chat",
        "user": "ada",
        "model": "tiny",
        "pool": "default",
        "worker": "w-1",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "queued_ms": 100,
        "first_token_ms": 200,
        "total_ms": 700,
        **changes,
    }
    return Record(**given)  # type: ignore[arg-type]


@pytest.fixture
def usage(redis: Redis, clock: ManualClock) -> UsageStore:
    return UsageStore(redis, clock)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'state' / 'usage.db'}"


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    ledger = Ledger(url)
    yield ledger
    ledger.close()
