"""How much one key, user or project may use. Data; who asks for it is ``allowances``."""

from collections.abc import Mapping

import msgspec


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """None is no limit, 0 nothing at all."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None  # prompt and completion together, as in all of these
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None


OF = ("user", "project", "key")
"""Whose limits there are. A row of the table is ``user:ada``, or ``user`` for all who have no row
of their own. What stands in an own row stands instead of the common one, as a whole."""


def row_of(of: str, name: str = "") -> str:
    """The row of one user, project or key; without a name that of all the others."""
    return f"{of}:{name}" if name else of


def limits_for(table: Mapping[str, Limits], of: str, name: str) -> Limits | None:
    """What holds for one of them."""
    own = table.get(row_of(of, name))
    return table.get(of) if own is None else own
