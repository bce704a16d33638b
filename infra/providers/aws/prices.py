"""What types of machines cost on demand, as far as ``prices.toml`` knows."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any


def on_demand(region: str, kind: str) -> float | None:
    """USD an hour; None when it is not known."""
    price: float | None = _table().get(region, {}).get(kind)
    return price


def source() -> str:
    """Where the prices are from, and when."""
    return f"{_table()['source']}, {_table()['date']}"


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((files(__package__) / "prices.toml").read_text(encoding="utf-8"))
