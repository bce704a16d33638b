"""Simulated hours hold every invariant; and the simulation can fail, naming its seed.

One of each kind of pool is enough: the third is a soak, as the days of traffic are.
"""

import pytest

from tests.simulation.day import Day
from tests.simulation.ledger import Broken


@pytest.mark.parametrize(
    ("seed", "kind"),
    [
        pytest.param(1, "session", marks=pytest.mark.long),
        (2, "request"),
        pytest.param(3, "session", marks=pytest.mark.soak),
    ],
)
async def test_an_hour_of_traffic_breaks_no_invariant(valkey: str, seed: int, kind: str) -> None:
    report = await Day(valkey, seed, hours=1, kind=kind).live()
    assert report.calls > 500
    assert report.admitted > 10


async def test_the_same_seed_is_the_same_hour(valkey: str) -> None:
    first = await Day(valkey, 7, hours=0.2, kind="session").live()
    assert await Day(valkey, 7, hours=0.2, kind="session").live() == first


async def test_a_broken_invariant_names_its_seed_and_the_way_there(valkey: str) -> None:
    day = Day(valkey, 3, hours=0.5, kind="session")
    day.witness.slots = lambda: 0  # type: ignore[method-assign]
    with pytest.raises(Broken, match=r"seed 3, 0\.5 h(.|\n)*held of 0\n.*--seed 3 --hours 0\.5"):
        await day.live()
