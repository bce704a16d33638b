"""What machines cost in a time, and for whom: read from SQL, added up exactly.

A machine's hour in which it did any work is shared among those it worked for, one in which it did
none is ``unused``. All machines of a pool (and of a model, where their order names one) that worked
in an hour are shared as one, so that who was sent to the dear one pays no more: by tokens, one of
an answer counting for ``COMPLETION_WEIGHT`` of a prompt.

Everything here blocks; call it in a thread.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, or_, select, text

from admission.accounting.cost import (
    COMPLETION_WEIGHT,
    HOUR_MS,
    OF_MACHINES,
    PROMPT_WEIGHT,
    Uptime,
    divide,
)
from admission.accounting.cost_tables import uptimes, work
from admission.accounting.ledger import Ledger, begin_of
from admission.accounting.record import DIMENSIONS
from admission.accounting.reports import ROWS_MAX, TooManyRows

HOURS_MAX = 1_000_000
"""Of all machines together in one answer: 1,300 machines in a month."""

Work = Mapping[tuple[int, str], tuple[int, int]]
"""(hour, worker) -> prompt and completion tokens."""


class Asked(NamedTuple):
    """``by`` one of ``cost.BY``; whole hours of UTC from ``from_ms`` to ``to_ms``, as far as they
    are over at ``now_ms``."""

    by: str
    from_ms: int
    to_ms: int
    now_ms: int


@dataclass
class Row:
    """A part of the costs in micro: ``used`` by somebody, and not. ``name``: of what ``by`` says,
    an instant (ms) for hours and days; None: of nobody."""

    name: str | int | None
    currency: str
    pool: str | None = None
    used: int = 0
    unused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass
class Costs:
    """``rows`` come to ``totals`` (currency -> used and unused, micro) exactly. Then what no price
    is known of: machines, the hours they were billed, and tokens of these and of all workers that
    are nobody's instances."""

    rows: list[Row] = field(default_factory=list)
    totals: dict[str, tuple[int, int]] = field(default_factory=dict)
    unpriced_instances: int = 0
    unpriced_hours: float = 0.0
    unpriced_prompt_tokens: int = 0
    unpriced_completion_tokens: int = 0


def costs(ledger: Ledger, asked: Asked) -> Costs:
    """
    Raises:
        TooManyRows, LedgerUnavailable, UnfitLedger.
    """
    with ledger.transaction() as connection:
        machines = billed(connection, asked.from_ms, asked.now_ms)
        _bound(machines, asked)
        done = _work(connection, asked)
        spread = _Spread(asked, done, machines)
        rows = spread.rows if asked.by in OF_MACHINES else _whose(connection, asked.by, spread)
    if len(rows) > ROWS_MAX:
        raise TooManyRows
    if asked.by in ("hour", "day"):
        rows.sort(key=lambda row: (row.name, row.currency))
    else:  # the dearest first, and nobody's last
        rows.sort(key=lambda row: (row.currency, row.name is None, -row.used - row.unused))
    return spread.costs(rows)


def billed(connection: Connection, from_ms: int, now_ms: int) -> list[Uptime]:
    """The machines that may be billed for anything from then on, by their id."""
    columns = uptimes.c
    names = Uptime.__struct_fields__
    statement = (
        select(*(columns[name] for name in names))
        .where(columns.launched_ms <= now_ms)
        .where(
            or_(
                columns.ended_ms.is_(None),
                columns.ended_ms > from_ms,
                columns.launched_ms + columns.least_ms > from_ms,
            )
        )
        .order_by(columns.instance_id)
    )
    return [Uptime(**row) for row in connection.execute(statement).mappings()]


def _bound(machines: Iterable[Uptime], asked: Asked) -> None:
    if sum(_billed_ms(one, asked) for one in machines) > HOURS_MAX * HOUR_MS:
        raise TooManyRows


def _billed_ms(one: Uptime, asked: Asked) -> int:
    end_ms = min(one.end_ms(asked.now_ms), asked.to_ms)
    return max(0, end_ms - max(one.launched_ms, asked.from_ms))


def _work(connection: Connection, asked: Asked) -> Work:
    columns = work.c
    statement = (
        select(
            columns.begin_ms,
            columns.worker,
            func.sum(columns.prompt_tokens),
            func.sum(columns.completion_tokens),
        )
        .where(columns.begin_ms >= asked.from_ms, columns.begin_ms < asked.to_ms)
        .group_by(columns.begin_ms, columns.worker)
    )
    return {
        (hour_ms, worker): (int(prompt), int(completion))
        for hour_ms, worker, prompt, completion in connection.execute(statement)
    }


def _weight(tokens: tuple[int, int]) -> int:
    return tokens[0] * PROMPT_WEIGHT + tokens[1] * COMPLETION_WEIGHT


class _Spread:
    """The hours of all machines, told apart by what was asked for and by who shares them."""

    def __init__(self, asked: Asked, done: Work, machines: Sequence[Uptime]) -> None:
        self._asked, self._done, self._machines = asked, done, machines
        self._found: dict[tuple[Any, str], Row] = {}
        self._at: defaultdict[tuple[Any, str], set[tuple[int, str]]] = defaultdict(set)
        self._groups: defaultdict[tuple[Any, ...], int] = defaultdict(int)  # -> micro
        self._members: defaultdict[tuple[Any, ...], set[tuple[int, str]]] = defaultdict(set)
        for one in machines:
            if one.is_priced:
                for hour_ms, micro in one.hours(asked.from_ms, asked.to_ms, asked.now_ms):
                    self._add(one, hour_ms, micro)

    @property
    def rows(self) -> list[Row]:
        """By what machines are; each with the tokens of its workers in its hours."""
        return list(self._found.values())

    def totals(self) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        for row in self._found.values():
            used, unused = found.get(row.currency, (0, 0))
            found[row.currency] = used + row.used, unused + row.unused
        return found

    def rates(self) -> dict[str, list[tuple[int, str, float]]]:
        """Currency -> hour, worker, and micro for one token of a prompt there."""
        found: defaultdict[tuple[str, int, str], float] = defaultdict(float)
        for group, micro in self._groups.items():
            members = self._members[group]
            rate = micro / sum(_weight(self._done[at]) for at in members)
            for hour_ms, worker in members:
                found[group[-1], hour_ms, worker] += rate
        rates: defaultdict[str, list[tuple[int, str, float]]] = defaultdict(list)
        for (currency, hour_ms, worker), rate in sorted(found.items()):
            rates[currency].append((hour_ms, worker, rate))
        return rates

    def costs(self, rows: list[Row]) -> Costs:
        unpriced = [one for one in self._machines if not one.is_priced]
        spans = [_billed_ms(one, self._asked) for one in unpriced]
        priced = set().union(*self._members.values())
        tokens = [tokens for at, tokens in self._done.items() if at not in priced]
        return Costs(
            rows,
            self.totals(),
            sum(span > 0 for span in spans),
            sum(spans) / HOUR_MS,
            sum(prompt for prompt, _ in tokens),
            sum(completion for _, completion in tokens),
        )

    def _add(self, one: Uptime, hour_ms: int, micro: int) -> None:
        key = self._name(one, hour_ms), one.currency
        row = self._found.get(key)
        if row is None:
            pool = one.pool if self._asked.by in ("pool", "instance") else None
            row = self._found[key] = Row(*key, pool)
        at = hour_ms, one.worker
        if at not in self._done:
            row.unused += micro
            return
        row.used += micro
        if at not in self._at[key]:
            self._at[key].add(at)
            row.prompt_tokens += self._done[at][0]
            row.completion_tokens += self._done[at][1]
        group = (hour_ms, one.pool, one.model, one.currency)
        self._groups[group] += micro
        self._members[group].add(at)

    def _name(self, one: Uptime, hour_ms: int) -> str | int:
        match self._asked.by:
            case "instance":
                return one.instance_id
            case "hour" | "day" as span:
                return begin_of(span, hour_ms)
            case _:
                return one.pool


def _whose(connection: Connection, by: str, spread: _Spread) -> list[Row]:
    """What was used, by whose it was, and what was not in a row of nobody's."""
    assert by in DIMENSIONS
    rows: list[Row] = []
    rates = spread.rates()
    for currency, (used, unused) in spread.totals().items():
        shares = _shares(connection, by, rates[currency]) if rates.get(currency) else []
        if not any(share.weight for share in shares):  # of machines that cost nothing
            parts = [0] * len(shares)
            unused += used
        else:
            parts = divide(used, [share.weight for share in shares])
        rows += [
            Row(share.name, currency, None, part, 0, share.prompt_tokens, share.completion_tokens)
            for share, part in zip(shares, parts, strict=True)
        ]
        if unused:
            rows.append(Row(None, currency, unused=unused))
    return rows


class _Share(NamedTuple):
    name: str
    weight: float
    prompt_tokens: int
    completion_tokens: int


_RATES = {
    "sqlite": "SELECT json_extract(value, '$[0]') AS begin_ms, json_extract(value, '$[1]')"
    " AS worker, json_extract(value, '$[2]') AS rate FROM json_each(:rates)",
    "postgresql": "SELECT (value->>0)::bigint AS begin_ms, value->>1 AS worker,"
    " (value->>2)::float8 AS rate FROM json_array_elements(CAST(:rates AS json))",
}


def _shares(connection: Connection, by: str, rates: list[tuple[int, str, float]]) -> list[_Share]:
    weight = f"prompt_tokens * {PROMPT_WEIGHT} + completion_tokens * {COMPLETION_WEIGHT}"
    statement = text(
        f'WITH rates AS ({_RATES[connection.dialect.name]}) SELECT w."{by}",'
        f" SUM(({weight}) * rates.rate), SUM(prompt_tokens), SUM(completion_tokens)"
        f" FROM rates JOIN {work.name} w ON w.begin_ms = rates.begin_ms"
        f' AND w.worker = rates.worker GROUP BY w."{by}" ORDER BY w."{by}" LIMIT {ROWS_MAX + 1}'
    )
    found = connection.execute(statement, {"rates": json.dumps(rates)}).all()
    if len(found) > ROWS_MAX:
        raise TooManyRows
    return [_Share(name, float(part), int(p), int(c)) for name, part, p, c in found]
