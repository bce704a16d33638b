"""The tables of what machines cost: what each is billed for, whose work it did, the budgets.

Nothing here is forgotten: a month that is long over can still be asked for.
"""

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, Table, Text

from admission.accounting.instance_tables import ENTRY
from admission.accounting.record import DIMENSIONS
from admission.accounting.tables import metadata

WORK_DIMENSIONS = ("worker", *DIMENSIONS)
WORKED = ("prompt_tokens", "completion_tokens")


def _name(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, default="")


uptimes = Table(
    "vestibule_uptimes",
    metadata,
    Column("instance_id", Text, primary_key=True),
    *(Column(name, BigInteger, nullable=False) for name in ENTRY),  # that told of it
    *(_name(name) for name in ("worker", "provider", "pool", "type", "zone", "market", "model")),
    _name("currency"),
    Column("price_per_hour", Float),
    Column("launched_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Column("least_ms", BigInteger, nullable=False),
    Index("vestibule_uptimes_ended", "ended_ms"),
)
"""A machine that was ever launched (``cost.Uptime``); stays when its instance is forgotten."""

work = Table(
    "vestibule_work",
    metadata,
    Column("begin_ms", BigInteger, primary_key=True),
    *(Column(name, Text, primary_key=True) for name in WORK_DIMENSIONS),
    *(Column(name, BigInteger, nullable=False, default=0) for name in WORKED),
    sqlite_with_rowid=False,  # its rows lie in the order in which they are added up
)
"""What the requests that ended in an hour of UTC made one worker do, by whose they were."""

budgets = Table(
    "vestibule_budgets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("place", Integer, nullable=False),  # in the file
    Column("record", Text, nullable=False),  # budgets.Budget as JSON
    Column("looked_ms", BigInteger, nullable=False),
)
"""As the scheduler's fleet file has them, for those who have no such file."""

alarms = Table(
    "vestibule_budget_alarms",
    metadata,
    Column("budget", Text, primary_key=True),
    Column("begin_ms", BigInteger, primary_key=True),  # of the day, week or month
    Column("threshold", BigInteger, primary_key=True),  # micro
    Column("at_ms", BigInteger, nullable=False),
    Column("record", Text, nullable=False),  # budgets.Alarm as JSON
    Column("told", Boolean, nullable=False),  # on /admin/events
)
"""Each once, whoever sees it first."""
