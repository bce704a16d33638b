"""How often a provider is asked again, and what of it is remembered."""

import random

from scheduler.fleet.patience import FORGOTTEN_MS, Patience
from scheduler.fleet.port import Unclear
from scheduler.fleet.steps import Blind


async def _no() -> None:
    raise Unclear("down")


async def test_who_gave_no_answer_is_asked_later_and_later_and_forgotten_in_the_end() -> None:
    now = [0]
    patience = Patience("cloud", lambda: now[0], random.Random(1))
    waits = []
    for _ in range(8):
        asked = now[0]
        assert isinstance(await patience.ask("disk-0", _no), Blind)
        while patience.closed("disk-0"):
            now[0] += 500
        waits.append(now[0] - asked)
    assert waits[0] <= 2_000
    assert waits[4] > 4 * waits[0]
    assert max(waits) <= 60_000
    for number in range(1, 1_000):
        now[0] += 10_000
        await patience.ask(f"disk-{number}", _no)
    assert len(patience._failures) <= (FORGOTTEN_MS + 60_000) / 10_000
