"""What is an invariant's end, and what only looks like one."""

from datetime import UTC, datetime
from typing import Any

from admission.client import Ticket
from admission.domain import Status
from infra.load_test import watch as home
from infra.load_test.watch import Watch


def _ticket(status: Status, name: str = "t1", user: str = "ada", **facts: Any) -> Ticket:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Ticket(name, user, "default", status, 1200, at, **{"expires_in": 1200, **facts})


def _pool(capacity: int, active: int, waiting: int = 0) -> dict[str, int]:
    return {"capacity": capacity, "active": active, "draft": 0, "finishing": 0, "waiting": waiting}


def _rules(watch: Watch) -> list[str]:
    return [broken.rule for broken in watch.broken]


def test_a_turn_after_another_breaks_nothing() -> None:
    watch = Watch()
    for status in (Status.WAITING, Status.DRAFT, Status.ACTIVE, Status.DISCONNECTED):
        watch.told("ada", _ticket(status), 1.0)
    watch.told("ada", _ticket(Status.ACTIVE, "t2"), 2.0)
    assert not watch.broken


def test_two_sessions_of_one_user() -> None:
    watch = Watch()
    watch.told("ada", _ticket(Status.ACTIVE), 1.0)
    watch.told("ada", _ticket(Status.ACTIVE, "t2"), 2.0)
    assert _rules(watch) == ["nobody is served twice at once"]


def test_a_session_that_is_over_by_its_deadline_is_none() -> None:
    watch = Watch()
    watch.told("ada", _ticket(Status.ACTIVE, expires_in=10), 1.0)
    watch.told("ada", _ticket(Status.ACTIVE, "t2"), 12.0)
    assert not watch.broken


def test_what_ended_stays_ended() -> None:
    watch = Watch()
    watch.told("ada", _ticket(Status.DISCONNECTED), 1.0)
    watch.told("ada", _ticket(Status.ACTIVE), 2.0)
    assert _rules(watch) == ["what ended stays ended"]


def test_a_ticket_told_to_another() -> None:
    watch = Watch()
    watch.told("ada", _ticket(Status.WAITING), 1.0)
    watch.told("bob", _ticket(Status.WAITING, user="bob"), 1.0)
    assert _rules(watch) == ["a ticket is one user's"]


def test_more_than_capacity() -> None:
    watch = Watch()
    watch.sampled(_pool(5, 5), 1.0)
    watch.sampled(_pool(5, 6), 2.0)
    assert _rules(watch) == ["never more than capacity"]


def test_a_lowered_capacity_evicts_nobody() -> None:
    watch = Watch()
    watch.sampled(_pool(5, 4), 1.0)
    watch.sampled(_pool(2, 5), 2.0)  # one more came just before
    watch.sampled(_pool(2, 5), 3.0)
    watch.sampled(_pool(2, 3), 4.0)
    assert not watch.broken
    watch.sampled(_pool(2, 4), 5.0)
    assert _rules(watch) == ["never more than capacity"]


def test_numbers_that_say_less_than_people_know() -> None:
    watch = Watch()
    for user in ("ada", "bob"):
        watch.told(user, _ticket(Status.ACTIVE, f"of-{user}", user), 0.0)
    watch.sampled(_pool(1, 1), 1.0)
    assert not watch.broken  # one may not have heard yet that it is over
    watch.sampled(_pool(1, 1), 1.0 + home.LATE_S)
    assert _rules(watch) == ["never more than capacity"]


def test_who_is_gone_is_not_counted() -> None:
    watch = Watch()
    for user in ("ada", "bob"):
        watch.told(user, _ticket(Status.ACTIVE, f"of-{user}", user), 0.0)
    watch.sampled(_pool(1, 1), 1.0)
    watch.gone("ada")
    watch.sampled(_pool(1, 1), 1.0 + home.LATE_S)
    assert not watch.broken


def test_places() -> None:
    watch = Watch()
    places = [{"position": 1, "request_id": "a"}, {"position": 2, "request_id": "b"}]
    watch.listed(places, 1.0)
    watch.listed([], 2.0)
    assert not watch.broken
    watch.listed([places[0], places[0]], 3.0)
    assert _rules(watch) == ["places are 1, 2, 3 and nobody's twice", "a ticket waits in one place"]
