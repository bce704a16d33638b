"""What machines are billed for, in SQL: as their records tell it, ended when nobody knows them.

Everything here blocks; call it in a thread.
"""

from collections.abc import Collection, Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection, case, select, tuple_, update

from admission.accounting.cost import Uptime
from admission.accounting.cost_tables import uptimes
from admission.accounting.instance_tables import ENTRY
from admission.accounting.ledger import Ledger
from admission.accounting.upsert import upsert

_OF_THE_ORDER = ("pool", "model", "currency", "price_per_hour", "least_ms")


def keep(connection: Connection, told: Iterable[tuple[dict[str, int], Uptime]]) -> None:
    """Write what these entries (ENTRY) of the history tell; an older one changes nothing.

    A machine whose record was lost and that was found again is the same one: its order is not
    known any more, and stays as it was.
    """
    rows = [{**entry, **_clean(uptime)} for entry, uptime in told]
    if not rows:
        return
    statement = upsert(connection, uptimes)
    new, old = statement.excluded, uptimes.c
    is_adopted = new.price_per_hour.is_(None)
    changes = {each.name: new[each.name] for each in uptimes.columns if not each.primary_key}
    changes |= {name: case((is_adopted, old[name]), else_=new[name]) for name in _OF_THE_ORDER}
    changes["launched_ms"] = case(
        (old.launched_ms < new.launched_ms, old.launched_ms), else_=new.launched_ms
    )
    later = statement.on_conflict_do_update(
        index_elements=[old.instance_id],
        set_=changes,
        where=tuple_(*(old[name] for name in ENTRY)) <= tuple_(*(new[name] for name in ENTRY)),
    )
    connection.execute(later, rows)


def _clean(uptime: Uptime) -> dict[str, Any]:
    """PostgreSQL has no NUL in a text."""
    return {
        name: value.replace("\0", "") if isinstance(value, str) else value
        for name, value in msgspec.structs.asdict(uptime).items()
    }


def running(ledger: Ledger) -> set[str]:
    """The instances that are billed until somebody tells of their end.

    Raises:
        LedgerUnavailable, UnfitLedger.
    """
    statement = select(uptimes.c.instance_id).where(uptimes.c.ended_ms.is_(None))
    with ledger.transaction() as connection:
        return set(connection.execute(statement).scalars())


def end(ledger: Ledger, forgotten: Collection[str], now_ms: int) -> None:
    """Nobody knows these any more: they are billed until now. Later news counts instead.

    Raises:
        LedgerUnavailable, UnfitLedger.
    """
    columns = uptimes.c
    statement = (
        update(uptimes)
        .where(columns.instance_id.in_(forgotten), columns.ended_ms.is_(None))
        .values(ended_ms=now_ms)
    )
    with ledger.transaction() as connection:
        connection.execute(statement)
