"""The fleet's file, named by ``VESTIBULE_FLEET``: where machines come from, and for which pools.

TOML. Without it there is no fleet. ``docs/fleet.md`` shows one whole.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from admission.accounting.budgets import Budget
from admission.domain import POOL_NAME
from admission.settings import SettingsError
from infra import fleet_money, toml_table
from infra.toml_table import Problems
from scheduler.autoscale.spec import FleetSpec
from scheduler.fleet.limits import Limits
from scheduler.prices import Price

KINDS = {
    "local": "infra.providers.local",
    "static": "infra.providers.static",
    "bare-metal": "infra.providers.bare_metal",
    "aws": "infra.providers.aws",
}
"""Kind of a provider -> its module, with ``Settings`` and ``open(name, settings, deployment)``."""
TABLES = ("deployment", "providers", "pools", "limits", "prices", "budgets")
# The first part of the ids of its machines, which end with 12 digits (`admission.instance`).
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")


class Deployed(Struct, frozen=True, kw_only=True):
    """``[deployment]``. ``name``: what is made is tagged with it. ``end_orphans``: machines with
    that tag which nobody wants are ended, else only reported. ``keep_local``: what runs on this
    machine goes on when its scheduler stops; None: with ``vestibule scheduler``, not with ``up``.

    Raises:
        ValueError: names the field.
    """

    name: str = "vestibule"
    admission_url: str = ""  # as agents call it; "" is where this host serves
    end_orphans: bool = True
    keep_local: bool | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError("name: 1 to 40 characters of a-z 0-9 -, the first a letter")
        address = urlsplit(self.admission_url)
        if self.admission_url and (address.scheme not in ("http", "https") or not address.hostname):
            raise ValueError("admission_url: an http:// or https:// URL")


@dataclass(frozen=True)
class Planned:
    """A provider as the file has it. ``settings``: its module's own."""

    kind: str
    settings: Any


@dataclass(frozen=True)
class Pool:
    """How a pool's fleet follows its queue, and at which providers it may order."""

    spec: FleetSpec
    providers: tuple[str, ...]


@dataclass(frozen=True)
class FleetFile:
    """What it says, all of it checked."""

    path: Path
    digest: str = ""  # of what it says: other words or another order of the same say the same
    deployed: Deployed = field(default_factory=Deployed)
    providers: Mapping[str, Planned] = field(default_factory=dict)
    pools: Mapping[str, Pool] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    prices: tuple[Price, ...] = ()
    budgets: tuple[Budget, ...] = ()


def read(path: Path) -> FleetFile:
    """The file at ``path``.

    Raises:
        SettingsError: every problem in it, each with file, table and field.
    """
    path = path.expanduser().absolute()
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"VESTIBULE_FLEET: {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not TOML: {error}") from error
    problems = Problems()
    found = _file(path, tables, problems)
    if problems:
        raise SettingsError("\n".join(f"{path}: {problem}" for problem in problems))
    return found


def _file(path: Path, tables: Mapping[str, Any], problems: Problems) -> FleetFile:
    for name in sorted(tables.keys() - set(TABLES)):
        problems.add(name, f"unknown; one of {', '.join(TABLES)}")
    providers = {
        name: planned
        for name, table in _named(tables, "providers", problems).items()
        if (planned := _provider(name, table, problems))
    }
    known = sorted(_named(tables, "providers", Problems()))
    pools = {
        name: pool
        for name, table in _named(tables, "pools", problems).items()
        if (pool := _pool(name, table, known, problems))
    }
    deployed = toml_table.read(
        _table(tables, "deployment", problems), Deployed, "deployment", problems
    )
    limits = toml_table.read(_table(tables, "limits", problems), Limits, "limits", problems)
    prices = _prices(tables.get("prices", []), known, problems)
    own = {name: fleet_money.currencies(it.kind, it.settings) for name, it in providers.items()}
    for name, pool in pools.items():
        if pool.spec.hourly_budget is not None:
            fleet_money.check_bound(name, pool.providers, own, prices, problems)
    return FleetFile(
        path,
        _digest(tables),
        deployed or Deployed(),
        providers,
        pools,
        limits or Limits(),
        prices,
        fleet_money.budgets(tables.get("budgets", []), problems),
    )


def _digest(tables: Mapping[str, Any]) -> str:
    """Without what is each host's own: its local providers."""
    providers = {
        name: table
        for name, table in _named(tables, "providers", Problems()).items()
        if table.get("kind") != "local"
    }
    said = json.dumps({**tables, "providers": providers}, sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()[:12]


def _provider(name: str, table: Mapping[str, Any], problems: Problems) -> Planned | None:
    place = f"providers.{name}"
    if not _NAME.fullmatch(name):
        problems.add(place, "a name is 1 to 40 characters of a-z 0-9 -, the first a letter")
    kind = table.get("kind")
    if kind not in KINDS:
        problems.add(f"{place}.kind", f"one of {', '.join(KINDS)}")
        return None
    own = {key: value for key, value in table.items() if key != "kind"}
    try:
        module = import_module(KINDS[kind])
    except ModuleNotFoundError as error:
        problems.add(f"{place}.kind", f"{kind} needs the library {error.name}, which is missing")
        return None
    settings = toml_table.read(own, module.Settings, place, problems)
    return None if settings is None else Planned(kind, settings)


def _pool(name: str, table: Mapping[str, Any], known: list[str], problems: Problems) -> Pool | None:
    place = f"pools.{name}"
    if not POOL_NAME.fullmatch(name):
        problems.add(place, "a pool's name is 1 to 64 characters of a-z 0-9 -")
    own = dict(table)
    providers = own.pop("providers", known)
    if not isinstance(providers, list) or not all(isinstance(one, str) for one in providers):
        problems.add(f"{place}.providers", "a list of names")
        providers = []
    for one in providers:
        if one not in known:
            problems.add(f"{place}.providers", f"there is no [providers.{one}]")
    if "pool" in own:
        problems.add(f"{place}.pool", "the table's own name says it")
        del own["pool"]
    spec = toml_table.read({**own, "pool": name}, FleetSpec, place, problems)
    return None if spec is None else Pool(spec, tuple(dict.fromkeys(providers)))


def _prices(lines: Any, known: list[str], problems: Problems) -> tuple[Price, ...]:
    """``[[prices]]``."""
    if not isinstance(lines, list) or not all(isinstance(line, dict) for line in lines):
        problems.add("prices", "written as [[prices]], one table for each price")
        return ()
    found = []
    for number, line in enumerate(lines, 1):
        place = f"prices.{number}"
        price = toml_table.read(line, Price, place, problems)
        if price is not None and price.provider not in known:
            problems.add(f"{place}.provider", f"there is no [providers.{price.provider}]")
        found.append(price)
    return tuple(price for price in found if price)


def _named(
    tables: Mapping[str, Any], group: str, problems: Problems
) -> dict[str, Mapping[str, Any]]:
    """The tables ``[group.NAME]``, by name."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, table in _table(tables, group, problems).items():
        if isinstance(table, dict):
            found[name] = table
        else:
            problems.add(f"{group}.{name}", f"is no table: write [{group}.NAME]")
    return found


def _table(tables: Mapping[str, Any], name: str, problems: Problems) -> Mapping[str, Any]:
    table = tables.get(name, {})
    if isinstance(table, dict):
        return table
    problems.add(name, "is no table")
    return {}
