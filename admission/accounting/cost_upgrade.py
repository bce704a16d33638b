"""Makes the costs of what a database of an older Vestibule still knows."""

import logging
from collections.abc import Iterator
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select

from admission import logs
from admission.accounting.cost import HOUR_MS, Uptime
from admission.accounting.cost_tables import WORK_DIMENSIONS, WORKED, uptimes, work
from admission.accounting.instance_tables import ENTRY, instances
from admission.accounting.tables import requests
from admission.accounting.upsert import upsert
from admission.instance import Instance

SINCE = 3
"""The schema that first has them."""
_INSTANCE = msgspec.json.Decoder(Instance)

log = logging.getLogger(__name__)


def fill(connection: Connection) -> None:
    """Fill the new tables from the requests and instances that are not forgotten yet; what stands
    there stays."""
    if rows := list(_uptimes(connection)):
        connection.execute(upsert(connection, uptimes).on_conflict_do_nothing(), rows)
    columns = requests.c
    begin = (columns.at_ms - columns.at_ms % HOUR_MS).label("begin_ms")
    whose = [columns[name] for name in WORK_DIMENSIONS]
    done = (
        select(begin, *whose, *(func.sum(columns[name]) for name in WORKED))
        .where(columns.prompt_tokens + columns.completion_tokens > 0)
        .group_by(begin, *whose)
    )
    all_of_it = upsert(connection, work).from_select(["begin_ms", *WORK_DIMENSIONS, *WORKED], done)
    connection.execute(all_of_it.on_conflict_do_nothing())


def _uptimes(connection: Connection) -> Iterator[dict[str, Any]]:
    for row in connection.execute(select(instances)).mappings():
        try:
            uptime = Uptime.of(_INSTANCE.decode(row["record"]))
        except msgspec.MsgspecError:  # one of many stops no upgrade
            logs.event(log, "instance_unreadable", logging.ERROR, instance_id=row["id"])
            continue
        if uptime is not None:
            yield {**{name: row[name] for name in ENTRY}, **msgspec.structs.asdict(uptime)}
