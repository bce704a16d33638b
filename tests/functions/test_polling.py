"""When who polls asks again: soon near the front, and always well inside draft and grace."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admission.domain import PoolPolicy, Status, Ticket
from admission.polling import again_s

WAITING = Ticket(1_000_000, "t", "ada", "default", Status.WAITING, 100, 0, 1_200_000, 1, 60_000)
CHANCES = st.floats(0, 1)


def at(position: int, wait_ms: float | None, chance: float = 0.5) -> float:
    found = again_s(replace(WAITING, position=position, wait_ms=wait_ms), PoolPolicy(), chance)
    assert found is not None
    return found


def test_near_the_front_it_is_short_and_behind_it_is_longer() -> None:
    waits = [at(place, place * 60_000) for place in (1, 3, 8, 50)]
    assert waits == [2, 6, 16, 30]
    assert at(50, 20_000) == 2, "far behind, but the turn is near"
    assert at(50, None) == 30


@given(
    position=st.integers(1, 10**6),
    wait_ms=st.none() | st.floats(0, 1e9),
    draft_ms=st.integers(1000, 10**7),
    grace_ms=st.integers(1000, 10**7),
    chance=CHANCES,
)
def test_it_is_always_well_inside_draft_and_grace(
    position: int, wait_ms: float | None, draft_ms: int, grace_ms: int, chance: float
) -> None:
    policy = PoolPolicy(draft_ms=draft_ms, grace_ms=grace_ms)
    found = again_s(replace(WAITING, position=position, wait_ms=wait_ms), policy, chance)
    assert found is not None
    assert 0 < found * 1000 <= min(draft_ms / 3, grace_ms * 0.61)


def test_the_jitter_is_a_fifth_of_it_up_and_down() -> None:
    assert [at(5, None, chance) for chance in (0, 0.5, 1)] == pytest.approx([8, 10, 12])


def test_a_deadline_is_approached_more_and_more_often() -> None:
    held = replace(WAITING, status=Status.DRAFT, position=None, wait_ms=None)
    left = [replace(held, expires_ms=held.now_ms + ms) for ms in (300_000, 60_000, 1_000)]
    assert [again_s(ticket, PoolPolicy(), 0.5) for ticket in left] == [30, 6, 2]


def test_what_is_over_is_not_asked_for() -> None:
    over = replace(WAITING, status=Status.DISCONNECTED)
    assert again_s(over, PoolPolicy(), 0.5) is None
