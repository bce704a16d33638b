"""The history of pools and workers in SQL: how busy, how ready, how fast they were.

Everything here blocks; call it in a thread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, literal_column, select

from admission.accounting.history_tables import REQUEST_SUMS, samples
from admission.accounting.ledger import HOUR_MS, Ledger
from admission.accounting.reports import ROWS_MAX, TooManyRows
from admission.accounting.tables import requests
from admission.accounting.upsert import upsert

EACH_WORKER = "*"
FORGOTTEN_AT_ONCE_MS = 6 * HOUR_MS  # also where much less is kept from now on

_MEANS = ("ready", "slots", "busy", "waiting", "wait_ms", "gpu_load", "gpu_memory")


@dataclass(frozen=True)
class Sample:
    """One pool (``worker`` ""), or one worker of it, as it is now; see ``history_tables``."""

    pool: str
    worker: str
    ready: int
    slots: int
    busy: int
    waiting: int
    wait_ms: int | None = None
    gpu_load: float | None = None
    gpu_memory: float | None = None


@dataclass(frozen=True)
class Period:
    """``from_ms`` <= begin < ``to_ms``, summed up in steps of ``step_ms``. ``worker``: one, "*" for
    each, "" for the pool as a whole."""

    from_ms: int
    to_ms: int
    step_ms: int
    pool: str
    worker: str = ""


def keep(
    ledger: Ledger, seen: Sequence[Sample], *, begin_ms: int, end_ms: int, forget_ms: int
) -> int:
    """Write one interval, with the requests that ended in it; how many rows were new.

    The first that comes stands: whoever writes the interval again changes nothing. What began
    before ``forget_ms`` goes, six hours of it at a time.

    Raises:
        LedgerUnavailable, UnfitLedger.
    """
    with ledger.transaction() as connection:
        sums = _sums(connection, begin_ms, end_ms)
        rows = [{"begin_ms": begin_ms, **asdict(each), **_of(sums, each)} for each in seen]
        new = 0
        if rows:
            new = upsert(connection, samples).on_conflict_do_nothing()
            statement = new.returning(samples.c.pool)
            new = len(connection.execute(statement, rows).all())
        oldest_ms = connection.execute(select(func.min(samples.c.begin_ms))).scalar()
        if oldest_ms is not None and oldest_ms < forget_ms:
            until_ms = min(forget_ms, oldest_ms + FORGOTTEN_AT_ONCE_MS)
            connection.execute(delete(samples).where(samples.c.begin_ms < until_ms))
        return new


def history(ledger: Ledger, period: Period) -> list[dict[str, Any]]:
    """Means over each step, the greatest number that waited, and the sums of requests; by begin
    and worker.

    Raises:
        TooManyRows, LedgerUnavailable, UnfitLedger.
    """
    step: Any = literal_column(str(period.step_ms))  # a parameter would be another one in GROUP BY
    begin = (samples.c.begin_ms - samples.c.begin_ms % step).label("since_ms")
    groups = [begin, samples.c.pool, samples.c.worker]
    of_worker = samples.c.worker == period.worker
    statement = (
        select(
            *groups,
            *(func.avg(samples.c[name]).label(name) for name in _MEANS),
            func.max(samples.c.waiting).label("waiting_max"),
            *(func.sum(samples.c[name]).label(name) for name in REQUEST_SUMS),
        )
        .where(samples.c.begin_ms >= period.from_ms, samples.c.begin_ms < period.to_ms)
        .where(samples.c.pool == period.pool)
        .where(samples.c.worker != "" if period.worker == EACH_WORKER else of_worker)
        .group_by(*groups)
        .order_by(*groups)
        .limit(ROWS_MAX + 1)
    )
    with ledger.transaction() as connection:
        rows = connection.execute(statement).mappings().all()
    if len(rows) > ROWS_MAX:
        raise TooManyRows
    return [{name: _number(name, value) for name, value in row.items()} for row in rows]


def _sums(connection: Connection, from_ms: int, to_ms: int) -> list[Mapping[str, Any]]:
    """What the requests come to that ended in a span, by pool and worker."""
    columns = requests.c
    statement = (
        select(
            columns.pool,
            columns.worker,
            func.count().label("requests"),
            func.sum(columns.completion_tokens).label("completion_tokens"),
            func.sum(columns.queued_ms).label("queued_ms"),
            func.count(columns.first_token_ms).label("first_tokens"),
            func.coalesce(func.sum(columns.first_token_ms), 0).label("first_token_ms"),
            func.sum(columns.total_ms).label("total_ms"),
        )
        .where(columns.at_ms >= from_ms, columns.at_ms < to_ms)
        .group_by(columns.pool, columns.worker)
    )
    return [dict(row) for row in connection.execute(statement).mappings()]


def _of(sums: Sequence[Mapping[str, Any]], sample: Sample) -> dict[str, int]:
    """The sums of one worker, or of all there were in a pool."""
    own = [s for s in sums if s["pool"] == sample.pool and sample.worker in ("", s["worker"])]
    return {name: sum(int(each[name]) for each in own) for name in REQUEST_SUMS}


def _number(name: str, value: Any) -> Any:
    """A mean or a sum is a Decimal in PostgreSQL."""
    if value is None or isinstance(value, str):
        return value
    return float(value) if name in _MEANS else int(value)
