"""The schedule's function is silent for two minutes: nothing is over-admitted, nothing is lost, and
what is past its deadline counts no more."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from admission.clock import ManualClock
from scheduler.functions import Ticks
from tests.conftest import service_settings
from tests.functions.conftest import Asking

SLOTS, DRAFT_S, SESSION_S = 2, 30, 60
SILENT_S = 120
USERS = [f"u{n:02}" for n in range(14)]
HOLDING = ("draft", "active")


@pytest.fixture
def pair(functions_of: Callable[..., Asking]) -> list[Asking]:
    """Two environments of the function, with two slots."""
    settings = {
        "MAX_ACTIVE_USERS": str(SLOTS),
        "DRAFT_DURATION": str(DRAFT_S),
        "SESSION_DURATION": str(SESSION_S),
    }
    return [functions_of(**settings), functions_of(**settings)]


@pytest.fixture
def ticks(empty: str, clock: ManualClock) -> Iterator[list[Ticks]]:
    made = [Ticks(service_settings(REDIS_URL=empty), clock) for _ in range(2)]
    yield made
    for each in made:
        each.close()


class Day:
    """Who came, who held a slot and in which order, and how turns ended."""

    def __init__(self, pair: list[Asking], clock: ManualClock) -> None:
        self._pair, self._clock, self._second = pair, clock, 0
        self.admitted: list[str] = []
        self.ended: dict[str, str] = {}

    def ask(self, method: str, path: str) -> dict[str, object]:
        reply = self._pair[self._second % 2](method, path)
        assert reply.status == 200, reply.text
        found: dict[str, object] = reply.json
        return found

    def pass_a_second(self, users: list[str]) -> None:
        """Who waits is present; every other draft is confirmed, the others run out."""
        self._clock.advance_ms(1000)
        self._second += 1
        for n, user in enumerate(users):
            if self._second % 15 == n and user not in self.ended:
                view = self._pair[self._second % 2]("POST", f"/queue/heartbeat/{user}")
                assert view.status in (200, 404)
        holding = 0
        for user in [user for user in users if user not in self.ended]:
            view_ = self.ask("GET", f"/queue/status/{user}")
            if view_["status"] == "disconnected":
                self.ended[user] = str(view_["reason"])
            if view_["status"] in HOLDING:
                holding += 1
                if user not in self.admitted:
                    self.admitted.append(user)
                if view_["status"] == "draft" and len(self.admitted) % 2:
                    self.ask("POST", f"/queue/confirm/{user}")
        assert holding <= SLOTS
        metrics = self.ask("GET", "/queue/metrics")
        assert int(str(metrics["active"])) + int(str(metrics["draft"])) <= SLOTS


def test_two_minutes_of_silence(pair: list[Asking], clock: ManualClock, ticks: list[Ticks]) -> None:
    day = Day(pair, clock)
    for user in USERS:
        day.ask("POST", f"/queue/join/{user}")
    for _ in range(SILENT_S):
        day.pass_a_second(USERS)
    assert day.admitted == USERS[: len(day.admitted)], "in the order in which they came"
    assert len(day.admitted) >= 2 * SLOTS, "whose time was over made room for the next"
    assert set(day.ended.values()) <= {"draft_timeout", "session_timeout"}
    assert set(day.ended) < set(day.admitted), "nobody was lost who had not had a turn"

    with ThreadPoolExecutor(2) as threads:  # the schedule is back, and calls twice at once
        assert [answer["done"] for answer in threads.map(lambda each: each({}), ticks)]
    day.pass_a_second(USERS)
    waiting = [user for user in USERS if user not in day.admitted]
    places = [day.ask("GET", f"/queue/status/{user}")["position"] for user in waiting]
    assert places == list(range(1, len(waiting) + 1))


def test_more_deadlines_than_one_call_ends_count_no_more(
    functions_of: Callable[..., Asking], clock: ManualClock
) -> None:
    """A call first ends 100 of those that are due; the others count for nobody all the same."""
    ask = functions_of(MAX_ACTIVE_USERS="150", DRAFT_DURATION=str(DRAFT_S))
    for n in range(150):
        assert ask("POST", f"/queue/join/u{n}").json["status"] == "draft"
    assert ask("POST", "/queue/join/late").json["status"] == "waiting"
    clock.advance_ms(SILENT_S * 1000)
    metrics = ask("GET", "/queue/metrics").json
    assert (metrics["draft"], metrics["free"], metrics["waiting"]) == (0, 150, 1)
    later = [ask("POST", f"/queue/join/later{n}").json["status"] for n in range(150)]
    assert later == ["draft"] * 149 + ["waiting"], "all slots but that of who waited before"
    assert ask("GET", "/queue/status/late").json["status"] == "draft"


def test_deadlines_that_nobody_came_by_for_count_no_more(
    pair: list[Asking], clock: ManualClock, ticks: list[Ticks]
) -> None:
    """Not one call for two minutes: the first join afterwards has a slot."""
    one, other = pair
    for user in USERS[:SLOTS]:
        assert one("POST", f"/queue/join/{user}").json["status"] == "draft"
    one("POST", f"/queue/confirm/{USERS[0]}")
    clock.advance_ms(SILENT_S * 1000)
    metrics = other("GET", "/queue/metrics").json
    assert (metrics["active"], metrics["draft"], metrics["free"]) == (0, 0, SLOTS)
    late = [other("POST", f"/queue/join/late{n}").json["status"] for n in range(SLOTS + 1)]
    assert late == ["draft"] * SLOTS + ["waiting"]
    ticks[0]({})
    assert one("GET", f"/queue/status/{USERS[0]}").json["reason"] == "session_timeout"
    assert one("GET", f"/queue/status/{USERS[1]}").json["reason"] == "draft_timeout"
