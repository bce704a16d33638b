"""The tables of the fleet's past: instances as they last were, what happened to them, their disks.

Ids, states and instants (ms since 1970) are those of ``admission.instance``.
"""

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, String, Table, Text

from admission.accounting.tables import metadata

ENTRY = ("entry_ms", "entry_number")
"""The id of an entry of the stream as two numbers: in this order, and the later one wins."""


def _name(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, default="")


instances = Table(
    "vestibule_instances",
    metadata,
    Column("id", Text, primary_key=True),
    *(_name(name) for name in ("provider", "pool", "type", "zone", "market", "model", "currency")),
    Column("state", String(24), nullable=False),
    Column("version", BigInteger, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in ENTRY),  # that told of it
    Column("requested_ms", BigInteger, nullable=False),
    Column("since_ms", BigInteger, nullable=False),  # in this state
    Column("launched_ms", BigInteger),  # billed from here
    Column("ended_ms", BigInteger),  # to here
    Column("price_per_hour", Float),
    Column("record", Text, nullable=False),  # all of it, as JSON
    Index("vestibule_instances_state", "state", "requested_ms"),
)

events = Table(
    "vestibule_instance_events",
    metadata,
    *(Column(name, BigInteger, primary_key=True) for name in ENTRY),
    Column("instance_id", Text, nullable=False),  # also of machines that only a provider knows
    Column("at_ms", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    *(_name(name) for name in ("name", "source", "target", "reason")),
    Column("progress", Integer, nullable=False),
    Column("ok", Boolean, nullable=False),
    Column("detail", Text, nullable=False),  # JSON
    Index("vestibule_instance_events_of", "instance_id", "entry_ms", "entry_number"),
    Index("vestibule_instance_events_at", "at_ms"),
)

volumes = Table(
    "vestibule_volumes",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("provider_volume_id", Text, primary_key=True),
    Column("instance_id", Text, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in ENTRY),  # that told of it
    _name("volume_type"),
    Column("size_gb", BigInteger, nullable=False),
    Column("is_boot", Boolean, nullable=False),
    Column("delete_on_terminate", Boolean, nullable=False),
    _name("state"),
    Column("deleted_ms", BigInteger),  # when the provider said that it is gone
    Index("vestibule_volumes_of", "instance_id"),
)
