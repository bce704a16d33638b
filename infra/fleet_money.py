"""What the fleet's file says of money: its budgets, and that no sum mixes currencies."""

from collections.abc import Iterable, Mapping
from typing import Any

from admission.accounting.budgets import Budget
from infra import toml_table
from infra.toml_table import Problems
from scheduler.prices import Price


def budgets(lines: Any, problems: Problems) -> tuple[Budget, ...]:
    """``[[budgets]]``."""
    if not isinstance(lines, list) or not all(isinstance(line, dict) for line in lines):
        problems.add("budgets", "written as [[budgets]], one table for each budget")
        return ()
    found: list[Budget] = []
    for number, line in enumerate(lines, 1):
        place = f"budgets.{number}"
        budget = toml_table.read(line, Budget, place, problems)
        if budget is None:
            continue
        if budget.name in {other.name for other in found}:
            problems.add(f"{place}.name", f"another budget is called {budget.name}")
        found.append(budget)
    return tuple(found)


def check_bound(
    pool: str,
    providers: Iterable[str],
    own: Mapping[str, set[str]],
    prices: Iterable[Price],
    problems: Problems,
) -> None:
    """One ``hourly_budget`` bounds no two currencies.

    Args:
        providers: where the pool may order.
        own: provider -> the currencies of the prices that it knows itself.
    """
    lines = list(prices)
    found: dict[str, list[str]] = {}
    for name in providers:
        said = [price for price in lines if price.provider == name]
        known = {price.currency for price in said}
        if all(price.exactness for price in said):  # none of them counts for all of its machines
            known |= own.get(name, set())
        for currency in known:
            found.setdefault(currency, []).append(name)
    if len(found) > 1:
        told = ", ".join(f"{each} ({', '.join(found[each])})" for each in sorted(found))
        problems.add(
            f"pools.{pool}.hourly_budget",
            f"its providers' prices are in {told}, and are never added: give [[prices]] in one"
            " currency, or each a pool of its own",
        )


def currencies(kind: str, settings: Any) -> set[str]:
    """Of the prices that a provider knows without ``[[prices]]``."""
    if kind == "aws":
        return {"USD"}  # its price list, and DescribeSpotPriceHistory
    told = (settings, *getattr(settings, "machines", ()), *getattr(settings, "hosts", ()))
    return {one.currency for one in told if getattr(one, "price_per_hour", None) is not None}
