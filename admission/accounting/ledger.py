"""Writes records into SQL: a file of SQLite, or PostgreSQL.

Every record counts once, however often it comes: its row, its part of the sums and of its model's
use are written in one transaction, and only for records that are new. So any number of schedulers
may drain the same stream, and die at any moment. The sums are added to, not computed again: they
outlive the rows they were made from.

Everything here blocks; call it in a thread.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Table,
    case,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import DataError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from admission import logs
from admission.accounting import cost_upgrade, history_tables, instance_tables  # noqa: F401
from admission.accounting.cost_tables import WORK_DIMENSIONS, WORKED, work
from admission.accounting.record import DIMENSIONS, SPANS, Outcome, Record
from admission.accounting.tables import (
    SCHEMA,
    SUMMED,
    metadata,
    models,
    requests,
    schema,
    sums,
)
from admission.accounting.upsert import upsert

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
LOCKED_S = 10.0  # how long a writer of SQLite waits for another
CONNECT_S = 5
_SCHEMA_LOCK = 0x7665_7374  # any number, the same in every process ("vest")

log = logging.getLogger(__name__)


class LedgerUnavailable(Exception):
    """The database does not answer, or not as it should. What was written before stands."""


class UnfitLedger(Exception):
    """The database at hand must not be used; the text says why and what to do."""


class Ledger:
    """The accounting's database. Every method raises LedgerUnavailable when it does not answer."""

    def __init__(self, url: str, *, writes: bool = True) -> None:
        """Connects on first use. Without ``writes`` nothing is ever made or changed there.

        Args:
            url: ``sqlite:///PATH`` or ``postgresql://USER:PASSWORD@HOST/DATABASE``.

        Raises:
            UnfitLedger: its driver is not installed.
        """
        self._url, self._writes = make_url(url), writes
        if self._url.drivername in ("postgres", "postgresql"):
            self._url = self._url.set(drivername="postgresql+psycopg")
        self._engine = _engine(self._url, writes=writes)
        self._fit = False

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def open(self) -> None:
        """Make the tables, or see that they are ours. The other methods do it by themselves.

        Raises:
            UnfitLedger: written by a newer Vestibule.
        """
        with self._answering(), self._engine.begin() as connection:
            self._check(connection)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction over fit tables."""
        with self._answering(), self._engine.begin() as connection:
            if not self._fit:
                self._check(connection)
            yield connection

    def add(self, records: Sequence[Record]) -> int:
        """Write records; how many of them were new."""
        try:
            with self.transaction() as connection:
                return self._add(connection, records)
        except LedgerUnavailable as error:
            if not isinstance(error.__cause__, DataError | IntegrityError):
                raise
            if len(records) > 1:  # one cannot be written, and must not hold up the others
                return sum(self.add([record]) for record in records)
            logs.event(log, "usage_unwritable", logging.ERROR, record=records[0].id)
            return 0

    def prune(self, before_ms: int, most: int = 10_000) -> int:
        """Forget up to ``most`` requests that ended before; how many it were."""
        old = select(requests.c.id).where(requests.c.at_ms < before_ms).limit(most)
        with self.transaction() as connection:
            return connection.execute(delete(requests).where(requests.c.id.in_(old))).rowcount

    def _add(self, connection: Connection, records: Sequence[Record]) -> int:
        # Two who write the same rows take their locks in one order, and none waits for the other.
        rows = [_row(record) for record in sorted(records, key=lambda record: record.id)]
        statement = upsert(connection, requests).on_conflict_do_nothing().returning(requests.c.id)
        new = set(connection.execute(statement, rows).scalars())
        fresh = list({record.id: record for record in records if record.id in new}.values())
        if fresh:
            connection.execute(_adding(upsert(connection, sums), sums, SUMMED), _sums_of(fresh))
            if done := _work_of(fresh):
                connection.execute(_adding(upsert(connection, work), work, WORKED), done)
            connection.execute(_used(upsert(connection, models)), _models_of(fresh))
        return len(fresh)

    def _check(self, connection: Connection) -> None:
        if self._writes and connection.dialect.name == "postgresql":
            # Two that start at once make the tables one after the other.
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})"))
        if not inspect(connection).has_table(schema.name):
            if not self._writes:
                raise LedgerUnavailable("no scheduler has made its tables yet")
            metadata.create_all(connection)
            connection.execute(insert(schema).values(version=SCHEMA))
        version = connection.execute(select(schema.c.version)).scalar_one()
        if version > SCHEMA:
            raise UnfitLedger(
                f"the accounting's database holds version {version}, this Vestibule knows"
                f" {SCHEMA}: upgrade Vestibule"
            )
        if version < SCHEMA and self._writes:
            metadata.create_all(connection)  # what is new in it; no table has changed since 1
            if version < cost_upgrade.SINCE:
                cost_upgrade.fill(connection)
            connection.execute(update(schema).values(version=SCHEMA))
        self._fit = True

    @contextmanager
    def _answering(self) -> Iterator[None]:
        path = self._url.database
        if self._engine.dialect.name == "sqlite" and path and not Path(path).exists():
            if not self._writes:
                raise LedgerUnavailable("there is no file of the accounting here")
            self._make_file(Path(path))
        try:
            yield
        except SQLAlchemyError as error:
            self._fit = False  # tables made in what was rolled back are gone
            raise LedgerUnavailable(type(error).__name__) from error

    def _make_file(self, path: Path) -> None:
        """It names users, so it is its owner's alone."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
        except OSError as error:
            raise LedgerUnavailable(f"{path}: {error.strerror}") from error


def _engine(url: Any, *, writes: bool) -> Engine:
    try:
        if url.drivername.startswith("sqlite"):
            engine = create_engine(url, hide_parameters=True, connect_args={"timeout": LOCKED_S})
            _prepare_sqlite(engine, writes=writes)
            return engine
        # Also while it waits for an answer: the system asks an idle peer after two hours.
        alive = {"keepalives_idle": 10, "keepalives_interval": 5, "tcp_user_timeout": 30_000}
        connect = {"connect_timeout": CONNECT_S, **alive}
        return create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args=connect)
    except (ImportError, NoSuchModuleError) as error:
        raise UnfitLedger(
            f"VESTIBULE_DATABASE_URL: no driver for it is installed ({error}); for PostgreSQL"
            " install the extra postgres"
        ) from error


def _prepare_sqlite(engine: Engine, *, writes: bool) -> None:
    """Readers beside one writer (WAL), which is on disk before the stream forgets a record.

    Transactions are begun by us: the driver would begin none for DDL, and one that reads first and
    then writes fails when another wrote in between.
    """

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        if writes:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        else:
            connection.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def begin_of(span: str, at_ms: int) -> int:
    """When the hour, day or week that holds ``at_ms`` began, in UTC; weeks begin on Monday."""
    if span == "hour":
        return at_ms - at_ms % HOUR_MS
    day_ms = at_ms - at_ms % DAY_MS
    if span == "day":
        return day_ms
    return day_ms - (day_ms // DAY_MS + 3) % 7 * DAY_MS  # 1970 began on a Thursday


def _row(record: Record) -> dict[str, Any]:
    fields = {name: getattr(record, name) for name in record.__struct_fields__}
    return {**fields, "outcome": record.outcome.value, "tokens_per_s": record.tokens_per_s}


def _sums_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    found: defaultdict[tuple[str | int, ...], Counter[str]] = defaultdict(Counter)
    for record in records:
        part = Counter(
            requests=1,
            served=int(record.outcome not in (Outcome.REFUSED, Outcome.FAILED)),
            prompt_tokens=record.prompt_tokens,
            completion_tokens=record.completion_tokens,
            queued_ms=record.queued_ms,
            first_tokens=int(record.first_token_ms is not None),
            first_token_ms=record.first_token_ms or 0,
            total_ms=record.total_ms,
        )
        whose = tuple(getattr(record, name) for name in DIMENSIONS)
        for span in SPANS:
            found[(span, begin_of(span, record.at_ms), *whose)].update(part)
    names = ("span", "begin_ms", *DIMENSIONS)
    return [{**dict(zip(names, key, strict=True)), **found[key]} for key in sorted(found, key=str)]


def _models_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    instants: defaultdict[str, list[int]] = defaultdict(list)
    for record in records:
        instants[record.model].append(record.at_ms)
    return [
        {"model": model, "first_ms": min(at), "last_ms": max(at), "uses": len(at)}
        for model, at in sorted(instants.items())
    ]


def _work_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    found: defaultdict[tuple[str | int, ...], Counter[str]] = defaultdict(Counter)
    for record in records:
        part = Counter({name: getattr(record, name) for name in WORKED})
        if part.total():
            whose = tuple(getattr(record, name) for name in WORK_DIMENSIONS)
            found[(begin_of("hour", record.at_ms), *whose)].update(part)
    names = ("begin_ms", *WORK_DIMENSIONS)
    return [{**dict(zip(names, key, strict=True)), **found[key]} for key in sorted(found, key=str)]


def _adding(statement: Any, table: Table, names: Sequence[str]) -> Any:
    """The insert that adds to the sums there are."""
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={name: table.c[name] + statement.excluded[name] for name in names},
    )


def _used(statement: Any) -> Any:
    """The insert that notes another use of a model."""
    new, old = statement.excluded, models.c
    return statement.on_conflict_do_update(
        index_elements=[models.c.model],
        set_={
            "first_ms": case((new.first_ms < old.first_ms, new.first_ms), else_=old.first_ms),
            "last_ms": case((new.last_ms > old.last_ms, new.last_ms), else_=old.last_ms),
            "uses": old.uses + new.uses,
        },
    )
