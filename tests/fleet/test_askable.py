"""What the HTTP API lets pass is what the life cycle has an arrow for, and nothing else."""

import pytest

from admission.instance import ASKABLE, INSTANCE_ID, Kind, instance_ids
from scheduler.fleet.table import TABLE

ARROWS = {
    Kind.DRAIN: ("drain", "redate"),
    Kind.RESUME: ("resume",),
    Kind.TERMINATE: ("drain", "redate", "terminate"),
    Kind.ARCHIVE: ("archive",),
}


@pytest.mark.parametrize("kind", ARROWS)
def test_a_change_may_be_asked_where_the_table_has_an_arrow(kind: Kind) -> None:
    assert ASKABLE[kind] == frozenset().union(*(TABLE[name].sources for name in ARROWS[kind]))


def test_every_kind_has_its_states() -> None:
    assert ARROWS.keys() == ASKABLE.keys() == set(Kind) - {Kind.PROVISION}


def test_the_ids_of_a_command_are_its_own_and_the_same_each_time() -> None:
    ids = instance_ids("bare-metal" * 9, "c-1", 50)
    assert len({*ids, *instance_ids("bare-metal" * 9, "c-2", 50)}) == 100
    assert ids == instance_ids("bare-metal" * 9, "c-1", 50)
    assert all(INSTANCE_ID.fullmatch(one) for one in ids)
