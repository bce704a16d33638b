"""JSON out: what machines cost, how fast, how the budgets stand. Micro become units of money."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from admission.accounting.cost import BY, MICRO
from admission.views import iso

if TYPE_CHECKING:  # a function's package may be without SQL, and describes itself
    from admission.accounting.budgets import Alarm, Standing
    from admission.accounting.burn import Burn
    from admission.accounting.costs import Costs, Row

COST_VIEWS = {
    "CostRow": {
        "begin": "instant?", "pool": "string?", "model": "string?", "user": "string?",
        "project": "string?", "key": "string?", "instance": "string?", "currency": "string",
        "cost": "number", "used": "number", "unused": "number", "prompt_tokens": "integer",
        "completion_tokens": "integer",
    },
    "CostTotal": {"currency": "string", "cost": "number", "used": "number", "unused": "number"},
    "Unpriced": {
        "instances": "integer", "hours": "number", "prompt_tokens": "integer",
        "completion_tokens": "integer",
    },
    "Costs": {
        "by": "string", "from": "instant", "to": "instant", "costs": "[]CostRow",
        "totals": "[]CostTotal", "unpriced": "Unpriced",
    },
    "Burn": {
        "pool": "string", "currency": "string", "instances": "integer", "unpriced": "integer",
        "per_hour": "number", "today": "number", "today_expected": "number", "month": "number",
        "month_expected": "number",
    },
    "BudgetAlarm": {"share": "number", "spent": "number", "at": "instant"},
    "Budget": {
        "budget": "string", "pool": "string?", "per": "string", "timezone": "string",
        "begin": "instant", "end": "instant", "amount": "number", "currency": "string",
        "spent": "number", "share": "number", "per_hour": "number", "expected": "number",
        "used_up_at": "instant?", "uncounted": "integer", "alarm_at": "[]number",
        "alarms": "[]BudgetAlarm", "looked_at": "instant",
    },
    "CostsNow": {"at": "instant", "burn": "[]Burn", "budgets": "[]Budget"},
}  # fmt: skip
"""How they look, in the short words of ``openapi.VIEWS``."""


_NOW = {"day": "today", "week": "this week", "month": "this month"}


def money(micro: int) -> float:
    """Exact to the last of six digits after the point."""
    return micro / MICRO


def row_view(row: "Row", by: str) -> dict[str, Any]:
    """One part of ``GET /admin/costs``; null where it is not told apart, or nobody's."""
    named: dict[str, Any] = {name: None for name in BY if name not in ("hour", "day")}
    begin = None
    if by in named:
        named[by] = row.name
    elif isinstance(row.name, int):
        begin = iso(row.name)
    return {
        "begin": begin,
        **named,
        "pool": row.pool,
        "currency": row.currency,
        "cost": money(row.used + row.unused),
        "used": money(row.used),
        "unused": money(row.unused),
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
    }


def costs_view(found: "Costs", rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The rest of ``GET /admin/costs``."""
    return {
        "costs": rows,
        "totals": [
            {
                "currency": currency,
                "cost": money(used + unused),
                "used": money(used),
                "unused": money(unused),
            }
            for currency, (used, unused) in sorted(found.totals.items())
        ],
        "unpriced": {
            "instances": found.unpriced_instances,
            "hours": round(found.unpriced_hours, 3),
            "prompt_tokens": found.unpriced_prompt_tokens,
            "completion_tokens": found.unpriced_completion_tokens,
        },
    }


def burn_view(row: "Burn") -> dict[str, Any]:
    """A pool of ``GET /admin/costs/now``."""
    names = ("per_hour", "today", "today_expected", "month", "month_expected")
    return {
        "pool": row.pool,
        "currency": row.currency,
        "instances": row.instances,
        "unpriced": row.unpriced,
        **{name: money(getattr(row, name)) for name in names},
    }


def standing_view(one: "Standing") -> dict[str, Any]:
    """A budget of ``GET /admin/costs/now``."""
    budget = one.budget
    return {
        "budget": budget.name,
        "pool": budget.pool or None,
        "per": budget.per,
        "timezone": budget.timezone,
        "begin": iso(one.begin_ms),
        "end": iso(one.end_ms),
        "amount": budget.amount,
        "currency": budget.currency,
        "spent": money(one.spent),
        "share": round(money(one.spent) / budget.amount, 4),
        "per_hour": money(one.per_hour),
        "expected": money(one.expected),
        "used_up_at": iso(one.used_up_ms),
        "uncounted": one.uncounted,
        "alarm_at": list(budget.alarm_at),
        "alarms": [
            {"share": alarm.share, "spent": money(alarm.spent), "at": iso(alarm.at_ms)}
            for alarm in one.alarms
        ],
        "looked_at": iso(one.looked_ms),
    }


def alarm_view(alarm: "Alarm") -> dict[str, Any]:
    """``event: budget`` of ``/admin/events``, and the line of the log."""
    budget = alarm.budget
    return {
        "budget": budget.name,
        "pool": budget.pool or None,
        "per": budget.per,
        "begin": iso(alarm.begin_ms),
        "share": alarm.share,
        "spent": money(alarm.spent),
        "amount": budget.amount,
        "currency": budget.currency,
        "used_up_at": iso(alarm.used_up_ms),
    }


def words_of(alarm: "Alarm") -> str:
    """For people."""
    budget = alarm.budget
    said = (
        f"{alarm.share:.0%} of the budget {budget.name} is spent: {money(alarm.spent):.2f} of"
        f" {budget.amount:g} {budget.currency} {_NOW[budget.per]}"
    )
    if alarm.used_up_ms is None:
        return said
    at = datetime.fromtimestamp(alarm.used_up_ms / 1000, UTC).astimezone(ZoneInfo(budget.timezone))
    return f"{said}; at this rate it is used up on {at:%Y-%m-%d at %H:%M} ({budget.timezone})"
