"""Whatever is asked in whatever order, the engine answers like the plain model of the rules.

A failure prints the calls that led to it; ``make soak`` also makes them as few as it can.
"""

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from admission.domain import PoolPolicy, Priority
from tests.model.machine import Machine, engine_on


@dataclass(frozen=True)
class Effort:
    """How many runs of a machine, of how many calls each."""

    runs: int
    calls: int
    shorten: bool = False  # what failed, which takes minutes

    def settings(self) -> settings:
        return settings(
            max_examples=self.runs,
            stateful_step_count=self.calls,
            deadline=None,
            database=None,
            print_blob=True,
            phases=[Phase.generate, *([Phase.shrink] if self.shorten else [])],
            suppress_health_check=list(HealthCheck),
        )


CLASSES = {"vip": Priority(3000, weight=2), "batch": Priority(-60_000, weight=0.5)}
POLICIES = {
    "sessions": PoolPolicy(capacity=1, session_ms=200_000, idle_ms=90_000, draft_ms=40_000),
    "sessions that requeue": PoolPolicy(
        capacity=2, session_ms=100_000, idle_ms=30_000, requeue=True, priorities=CLASSES
    ),
    "sessions with limits": PoolPolicy(
        capacity=1,
        queue_limit=2,
        queue_timeout_ms=150_000,
        priorities={"batch": Priority(-60_000)},
    ),
    "requests": PoolPolicy(kind="request", capacity=1, lease_ms=30_000, session_ms=100_000),
    "requests with limits": PoolPolicy(
        kind="request",
        capacity=2,
        user_concurrency=1,
        queue_limit=4,
        queue_timeout_ms=150_000,
        priorities=CLASSES,
    ),
}
FAST, SOAK = Effort(runs=12, calls=50), Effort(runs=200, calls=100, shorten=True)
every_pool = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)


def drive(valkey: str, policy: PoolPolicy, effort: Effort) -> None:
    with engine_on(valkey, policy) as engine:
        pool = type("Pool", (Machine,), {"engine": engine, "policy": policy})
        run_state_machine_as_test(pool, settings=effort.settings())


@pytest.mark.timeout(180)
@every_pool
def test_the_engine_answers_like_the_plain_model(valkey: str, policy: PoolPolicy) -> None:
    drive(valkey, policy, FAST)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@every_pool
def test_the_engine_answers_like_the_plain_model_for_long(valkey: str, policy: PoolPolicy) -> None:
    drive(valkey, policy, SOAK)
