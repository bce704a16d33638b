"""What CloudWatch is told of the queues, a line each, by the function of the ticks alone."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from admission.clock import ManualClock
from scheduler.functions import Ticks
from scheduler.measures import METRICS, NAMESPACE
from tests.conftest import service_settings
from tests.functions.conftest import Asking


@dataclass
class Context:
    """What Lambda gives beside the event, as far as it is asked."""

    function_name: str = "queue-ticks"

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


@pytest.fixture
def ticks(empty: str, clock: ManualClock) -> Iterator[Ticks]:
    made = Ticks(service_settings(REDIS_URL=empty), clock)
    yield made
    made.close()


def lines(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {line["pool"]: line for line in told}


def test_how_long_the_first_has_waited(
    ask: Asking, ticks: Ticks, clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    ask("PUT", "/admin/pools/default", {"capacity": 0}, key="admin-key")
    ask("PUT", "/admin/pools/other", {"capacity": 1}, key="admin-key")
    ask("POST", "/queue/join/ada")
    clock.advance_ms(30_000)
    ask("POST", "/queue/join/bob")
    clock.advance_ms(12_000)
    ticks({}, Context())
    told = lines(capsys)
    assert {pool: (line["waiting"], line["first_waits_s"]) for pool, line in told.items()} == {
        "default": (2, 42.0),
        "other": (0, 0.0),
    }
    assert not {"ada", "bob"} & set(json.dumps(told).split('"')), "nobody's name"


def test_a_line_is_of_the_form_that_cloudwatch_reads(
    ask: Asking, ticks: Ticks, clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every metric and dimension that is declared stands beside it; the time is in ms."""
    ask("POST", "/queue/join/ada")
    ticks({}, Context())
    line = lines(capsys)["default"]
    assert line["_aws"]["Timestamp"] == clock.now_ms()
    (about,) = line["_aws"]["CloudWatchMetrics"]
    assert about["Namespace"] == NAMESPACE
    assert {each["Name"]: each["Unit"] for each in about["Metrics"]} == METRICS
    assert about["Dimensions"] == [["function"], ["function", "pool"]]
    assert (line["function"], line["pool"]) == ("queue-ticks", "default")
    assert all(isinstance(line[name], int | float) for name in METRICS)


def test_where_no_cloudwatch_listens_nothing_is_told(
    ticks: Ticks, capsys: pytest.CaptureFixture[str]
) -> None:
    ticks({})
    assert capsys.readouterr().out == ""
