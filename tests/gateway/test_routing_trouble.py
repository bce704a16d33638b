"""What a process remembers of workers that did not answer, or were full."""

import pytest

from admission.gateway.trouble import FULL_S, REST_MAX_S, REST_S, Trouble

BOTH = ("a", "b")


@pytest.fixture
def trouble() -> Trouble:
    return Trouble()


def test_where_nothing_happened_all_are_usable(trouble: Trouble) -> None:
    assert not trouble
    assert trouble.usable(BOTH, 0.0) == ["a", "b"]
    assert not trouble.try_again("a")


def test_an_unreachable_worker_rests_and_then_one_request_tries_it(trouble: Trouble) -> None:
    trouble.unreachable("a", 10.0)
    assert trouble.usable(BOTH, 10.0 + REST_S - 0.01) == ["b"]
    assert trouble.usable(BOTH, 10.0 + REST_S) == ["a", "b"]
    assert trouble.try_again("a")
    assert trouble.usable(BOTH, 60.0) == ["b"]  # as long as that one has not been answered
    assert not trouble.try_again("a")
    trouble.answers("a")
    assert trouble.usable(BOTH, 60.0) == ["a", "b"]
    assert not trouble


def test_each_failed_try_doubles_the_rest(trouble: Trouble) -> None:
    now_s, rests = 0.0, []
    for _ in range(8):
        trouble.try_again("a")
        trouble.unreachable("a", now_s)
        since_s = now_s
        while trouble.usable(BOTH, now_s) == ["b"]:
            now_s += REST_S / 2
        rests.append(now_s - since_s)
    assert rests == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert rests[-1] == REST_MAX_S


def test_many_requests_that_fail_together_are_one_failure(trouble: Trouble) -> None:
    for _ in range(50):
        trouble.unreachable("a", 10.0)
    assert trouble.usable(BOTH, 10.0 + REST_S) == ["a", "b"]


def test_an_answer_makes_all_failures_forgotten(trouble: Trouble) -> None:
    for now_s in (0.0, 1.0, 2.0):
        trouble.unreachable("a", now_s)
    trouble.answers("a")
    trouble.unreachable("a", 100.0)
    assert trouble.usable(BOTH, 100.0 + REST_S) == ["a", "b"]


def test_a_try_whose_caller_went_away_is_repeated_by_the_next(trouble: Trouble) -> None:
    trouble.unreachable("a", 0.0)
    assert trouble.try_again("a")
    trouble.not_told("a")
    assert trouble.usable(BOTH, REST_S) == ["a", "b"]
    assert trouble.try_again("a")


def test_when_all_rest_one_request_at_a_time_tries(trouble: Trouble) -> None:
    trouble.unreachable("a", 0.0)
    assert trouble.usable(("a",), 0.0) == ["a"]
    trouble.try_again("a")
    assert trouble.usable(("a",), 0.0) == []  # the others are told at once that nobody is there
    for _ in range(9):
        trouble.unreachable("a", 0.0)
        trouble.try_again("a")
    trouble.not_told("a")
    assert trouble.usable(BOTH, REST_S) == ["a", "b"]  # these tries have not made its rest longer


def test_a_full_worker_is_asked_after_the_others_for_a_moment(trouble: Trouble) -> None:
    trouble.full("a", 5.0)
    assert trouble.usable(BOTH, 5.0 + FULL_S - 0.01) == ["b"]
    assert trouble.usable(BOTH, 5.0 + FULL_S) == ["a", "b"]


def test_full_workers_are_asked_when_there_are_no_others(trouble: Trouble) -> None:
    trouble.full("a", 0.0)
    trouble.full("b", 0.0)
    assert trouble.usable(BOTH, 0.0) == ["a", "b"]
    trouble.unreachable("b", 0.0)
    assert trouble.usable(BOTH, 0.0) == ["a"]  # full is better than away


def test_a_worker_that_says_it_is_full_can_be_reached(trouble: Trouble) -> None:
    trouble.unreachable("a", 0.0)
    trouble.full("a", 0.0)
    assert trouble.usable(BOTH, FULL_S) == ["a", "b"]


def test_what_is_over_is_forgotten(trouble: Trouble) -> None:
    trouble.unreachable("a", 0.0)
    trouble.full("b", 0.0)
    trouble.forget(BOTH, FULL_S - 0.1)
    assert trouble.usable(BOTH, 0.1) == ["b"]
    trouble.forget(("b",), FULL_S)
    assert not trouble
