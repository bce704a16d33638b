"""The tables of the accounting, the same in SQLite and PostgreSQL. Instants are ms since 1970."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

from admission.accounting.record import DIMENSIONS

SCHEMA = 3
"""Version of everything below. A service refuses a newer one, and upgrades an older one.

1: the accounting. 2: also the fleet's past (``instance_tables``) and samples (``history_tables``).
3: also what machines cost, and whose work that was (``cost_tables``).
"""

metadata = MetaData()


def _name(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, default="")  # "" for none: part of keys, never null


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, default=0)


schema = Table("vestibule_schema", metadata, Column("version", Integer, primary_key=True))

requests = Table(
    "vestibule_requests",
    metadata,
    Column("id", Text, primary_key=True),  # Record.id
    Column("at_ms", BigInteger, nullable=False),
    *(_name(name) for name in ("kind", "user", "key", "project", "model", "pool", "worker")),
    _count("prompt_tokens"),
    _count("completion_tokens"),
    Column("estimated", Boolean, nullable=False),
    _count("queued_ms"),
    Column("first_token_ms", BigInteger),
    _count("total_ms"),
    Column("tokens_per_s", Float),
    Column("outcome", String(16), nullable=False),
    Index("vestibule_requests_at", "at_ms"),
)
"""Single requests, for as long as VESTIBULE_ACCOUNTING_RETENTION says."""

SUMMED = (
    "requests",
    "served",  # of these: with an answer, whole or not
    "prompt_tokens",
    "completion_tokens",
    "queued_ms",
    "first_tokens",  # how many of them have a first_token_ms
    "first_token_ms",
    "total_ms",
)
sums = Table(
    "vestibule_sums",
    metadata,
    Column("span", String(4), primary_key=True),  # hour, day or week
    Column("begin_ms", BigInteger, primary_key=True),
    *(Column(name, Text, primary_key=True) for name in DIMENSIONS),
    *(_count(name) for name in SUMMED),
)
"""What the requests of an hour, a day and a week come to. These stay."""

models = Table(
    "vestibule_models",
    metadata,
    Column("model", Text, primary_key=True),
    _count("first_ms"),
    _count("last_ms"),
    _count("uses"),
)
