"""``vestibule costs`` and what the fleet's file says of money."""

import argparse
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from admission.settings import SettingsError
from infra import fleet_file
from infra.fleet import costs, service

NOW = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)
NONE = {"instances": 0, "hours": 0, "prompt_tokens": 0, "completion_tokens": 0}


def row(cost: float, unused: float = 0, **more: Any) -> dict[str, Any]:
    names = ("begin", "pool", "model", "user", "project", "key", "instance")
    tokens = {"prompt_tokens": 1200, "completion_tokens": 5}
    money = {"currency": "USD", "cost": cost, "used": cost - unused, "unused": unused}
    return {**dict.fromkeys(names), **money, **tokens, **more}


SPENT: dict[str, Any] = {
    "by": "user",
    "from": "2026-10-19T12:00:00.000Z",
    "to": "2026-11-18T12:00:00.000Z",
    "costs": [row(6.0, user="ada"), row(0.001, user=""), row(2.0, 2.0)],
    "totals": [{"currency": "USD", "cost": 8.001, "used": 6.001, "unused": 2.0}],
    "unpriced": NONE,
}
BUDGET: dict[str, Any] = {
    "budget": "lab",
    "pool": None,
    "end": "2026-11-30T00:00:00.000Z",
    "amount": 10.0,
    "currency": "USD",
    "spent": 8.001,
    "share": 0.8001,
    "expected": 20.0,
    "used_up_at": "2026-11-18T14:00:00.000Z",
    "uncounted": 0,
    "alarms": [{"share": 0.5}, {"share": 0.8}],
}
BURN: dict[str, Any] = {
    "pool": "default",
    "currency": "USD",
    "instances": 2,
    "unpriced": 0,
    "per_hour": 1.0,
    "today": 3.0,
    "today_expected": 15.0,
    "month": 8.001,
    "month_expected": 308.0,
}


class Ours:
    """A service that gives these answers."""

    now = NOW

    def __init__(self, spent: dict[str, Any], now: dict[str, Any]) -> None:
        self.answers = {"/admin/costs": spent, "/admin/costs/now": now}
        self.asked: dict[str, Any] = {}

    def get(self, path: str, **query: str) -> dict[str, Any]:
        self.asked[path] = query
        found: dict[str, Any] = self.answers[path]
        return found


def shown(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *words: str,
    spent: dict[str, Any] = SPENT,
    **now: Any,
) -> tuple[str, Ours]:
    ours = Ours(spent, {"burn": [BURN], "budgets": [BUDGET], **now})
    monkeypatch.setattr(service, "of", lambda _: ours)
    parser = argparse.ArgumentParser()
    costs.configure(parser)
    args = parser.parse_args(words)
    assert args.run(args) == 0
    return capsys.readouterr().out, ours


def test_burn_budgets_and_whose_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, ours = shown(monkeypatch, capsys, "--by", "user", "--from", "2026-10-19")
    assert ours.asked["/admin/costs"] == {"by": "user", "from": "2026-10-19"}
    burn, budgets, whose = (part.splitlines() for part in out.split("\n\n"))
    assert re.split(" {2,}", burn[1])[:4] == ["default", "2", "1.00 USD", "3.00 USD"]
    assert "8.00 of 10 USD  ████████░░  80 %" in budgets[1]
    assert re.split(" {2,}", budgets[1])[-3:] == [
        "used up 2026-11-18 14:00Z (in 2 h)",
        "ends 2026-11-30 00:00Z (in 11 d) with 20.00 USD",
        "alarmed at 50% 80%",
    ]
    assert whose[0] == "2026-10-19T12:00Z to 2026-11-18T12:00Z, by user"
    assert [line.split()[0] for line in whose[2:]] == ["ada", "(none)", "(unused)", "in"]
    assert "<0.01 USD" in whose[3]
    assert "1,200" in whose[2]


def test_a_word_without_anything_in_it_is_passed_on_to_be_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, ours = shown(monkeypatch, capsys, "--from", "", "--to", "2026-11-18")
    assert ours.asked["/admin/costs"] == {"by": "pool", "from": "", "to": "2026-11-18"}


def test_what_is_not_known_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unpriced = {"instances": 2, "hours": 1.5, "prompt_tokens": 1000, "completion_tokens": 500}
    spent = {**SPENT, "costs": [], "totals": [], "unpriced": unpriced}
    over = {**BUDGET, "share": 2.5, "used_up_at": None, "uncounted": 3, "pool": "gpu"}
    burn = {**BURN, "unpriced": 1}
    out, _ = shown(monkeypatch, capsys, spent=spent, burn=[burn], budgets=[over])
    assert "2 (1 unpriced)" in out
    assert "██████████ 100 % (250 %)" in out
    assert re.search("alarmed at 50% 80% +pool gpu +3 machines not counted", out)
    assert "nothing was billed" in out
    assert "what 2 machines without a price cost in 1.5 h" in out
    assert "what 1,500 tokens of workers without a price cost" in out
    out, _ = shown(monkeypatch, capsys, burn=[], budgets=[])
    assert out.startswith("no machine was billed this month\n\n2026")


def test_for_programs_it_is_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = shown(monkeypatch, capsys, "--json")
    assert json.loads(out) == {**SPENT, "now": {"burn": [BURN], "budgets": [BUDGET]}}


def test_days_have_no_hour_and_instances_their_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    days = {**SPENT, "by": "day", "costs": [row(1, begin="2026-11-18T00:00:00.000Z")]}
    out, _ = shown(monkeypatch, capsys, "--by", "day", spent=days)
    assert "\n2026-11-18  1.00 USD" in out
    machines = {**SPENT, "by": "instance", "costs": [row(1, instance="aws-1", pool="p")]}
    out, _ = shown(monkeypatch, capsys, "--by", "instance", spent=machines)
    assert "\naws-1" in out


# --- the fleet's file -----------------------------------------------------------------------------

HERE = '[providers.here]\nkind = "local"\nmodel = "m"\n'
STATIC = """
[providers.rack]
kind = "static"
[[providers.rack.machines]]
name = "a"
address = "10.0.0.1"
price_per_hour = 0.2
currency = "EUR"
"""
POOL = "[pools.default]\nhourly_budget = 5.0\n"


def _problems(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "fleet.toml"
    file.write_text(text)
    try:
        fleet_file.read(file)
    except SettingsError as error:
        return [line.removeprefix(f"{file}: ") for line in str(error).splitlines()]
    return []


def test_budgets_are_read(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(
        '[[budgets]]\nname = "lab"\namount = 100\n[[budgets]]\nname = "gpu"\namount = 5.5\n'
        'pool = "gpu"\nper = "day"\nalarm_at = [1, 1.5]\ntimezone = "Europe/Berlin"\n'
    )
    lab, gpu = fleet_file.read(file).budgets
    assert (lab.amount, lab.per, lab.alarm_at, lab.pool) == (100, "month", (0.5, 0.8, 1.0), "")
    assert (gpu.pool, gpu.per, gpu.alarm_at, gpu.timezone) == (
        "gpu",
        "day",
        (1.0, 1.5),
        "Europe/Berlin",
    )


def test_every_mistake_of_a_budget_is_named(tmp_path: Path) -> None:
    text = """
    [[budgets]]
    name = "a"
    amount = 0
    per = "year"
    colour = "red"
    [[budgets]]
    name = "b"
    amount = 1
    [[budgets]]
    name = "b"
    amount = 1
    timezone = "Mars"
    """
    problems = _problems(tmp_path, text)
    assert problems[1] == "budgets.1.per: 'year' is none of day, week, month"
    places = [problem.partition(": ")[0] for problem in problems]
    assert places == ["budgets.1.colour", "budgets.1.per", "budgets.1.amount", "budgets.3.timezone"]
    text = '[[budgets]]\nname = "b"\namount = 1\n'
    assert _problems(tmp_path, text + text) == ["budgets.2.name: another budget is called b"]
    assert _problems(tmp_path, "budgets = 3") == [
        "budgets: written as [[budgets]], one table for each budget"
    ]


@pytest.mark.parametrize(
    ("more", "is_fit"),
    [
        ("", True),  # the local one has no price
        ("price_per_hour = 1.0\n", False),
        ('price_per_hour = 1.0\ncurrency = "EUR"\n', True),
    ],
)
def test_an_hourly_budget_bounds_one_currency(tmp_path: Path, more: str, is_fit: bool) -> None:
    problems = _problems(tmp_path, HERE + more + STATIC + POOL)
    assert [problem.partition(": ")[0] for problem in problems] == (
        [] if is_fit else ["pools.default.hourly_budget"]
    )
    assert _problems(tmp_path, HERE + more + STATIC + "[pools.default]\n") == []


@pytest.mark.parametrize("price", ["0", "-1", "inf", "nan", "1e6"])
def test_a_price_by_which_nothing_can_be_added_up_is_refused(tmp_path: Path, price: str) -> None:
    [problem] = _problems(tmp_path, f"{HERE}price_per_hour = {price}\n")
    assert problem.startswith("providers.here.price_per_hour: ")


def test_prices_of_the_operators_own_say_the_currency(tmp_path: Path) -> None:
    text = HERE + "price_per_hour = 1.0\n" + STATIC + POOL
    euros = '[[prices]]\nprovider = "here"\nprice_per_hour = 1.0\ncurrency = "EUR"\n'
    assert _problems(tmp_path, text + euros) == []
    [problem] = _problems(tmp_path, text + euros + 'type = "big"\n')
    assert "EUR (here, rack), USD (here)" in problem
