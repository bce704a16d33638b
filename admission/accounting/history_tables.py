"""The table of the history: how each pool and each worker was, interval by interval."""

from sqlalchemy import BigInteger, Column, Float, Integer, Table, Text

from admission.accounting.tables import metadata

REQUEST_SUMS = (
    "requests",
    "completion_tokens",
    "queued_ms",
    "first_tokens",  # how many of the requests have a first_token_ms
    "first_token_ms",
    "total_ms",
)

samples = Table(
    "vestibule_samples",
    metadata,
    Column("begin_ms", BigInteger, primary_key=True),
    Column("pool", Text, primary_key=True),
    Column("worker", Text, primary_key=True),  # "" for the pool as a whole
    Column("ready", Integer, nullable=False),  # workers that may get requests; of a worker 0 or 1
    Column("slots", BigInteger, nullable=False),
    Column("busy", BigInteger, nullable=False),  # slots held; of a worker the requests it runs
    Column("waiting", BigInteger, nullable=False),  # tickets; of a worker the requests it queues
    Column("wait_ms", BigInteger),  # as estimated for who joins now; of pools, when known
    Column("gpu_load", Float),  # 0 to 1; of a pool the mean of the workers that tell
    Column("gpu_memory", Float),
    *(Column(name, BigInteger, nullable=False, default=0) for name in REQUEST_SUMS),
)
"""One interval each, for as long as VESTIBULE_HISTORY_RETENTION says. What is counted is as it was
at the interval's end; the sums are of the requests that ended in it."""
