"""The table of the life cycle and the functions of its rows say the same; guards refuse."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from admission.instance import Instance, Order, State, Volume
from scheduler.fleet import codes
from scheduler.fleet import transitions as to
from scheduler.fleet.table import FAILED, OVER, TABLE, NotAllowed

NOW = 1_800_000_000_000
ORDER = Order("cloud", type="gpu.1")
DATA = Volume("disk-1", "ssd", 200)
BOOT = Volume("disk-2", "ssd", 100, is_boot=True)
GIVEN: dict[str, dict[str, Any]] = {
    "create": {"provider_id": "vm-1"},
    "address": {"address": "host"},
    "fail_provisioning": {"code": "PROVIDER_DENIED"},
    "fail_startup": {"code": "STARTUP_TIMEOUT"},
    "rescue": {"progress": 60},
    "fail": {"code": "WORKER_LOST"},
    "drain": {"by_ms": NOW + 1000},
    "redate": {"by_ms": NOW + 2000},
    "find": {"provider_id": "vm-1"},
    "see_volumes": {"found": [DATA]},
    "delete_volume": {"volume_id": "disk-1"},
    "lose_volume": {"volume_id": "disk-1"},
    "keep_volume": {"volume_id": "disk-1"},
    "pend": {"code": "TERMINATE_PENDING"},
    "reappear": {"provider_id": "vm-1"},
    "reopen": {"volume": DATA},
}
MADE_FROM: dict[str, dict[str, Any]] = {  # what its guard asks of the record
    "rescue": {"error_code": "STARTUP_TIMEOUT"},
    "delete_volume": {"volumes": (DATA,), "ended_ms": NOW},
    "lose_volume": {"volumes": (replace(DATA, state="deleting"),)},
    "keep_volume": {"volumes": (replace(DATA, delete_on_terminate=False),)},
    "end": {"ended_ms": NOW},
}
CHANGING = [name for name, row in TABLE.items() if row.sources]


def instance(state: State, **changes: Any) -> Instance:
    first = Instance("i-1", ORDER, state, 7, 10, NOW, NOW, NOW)
    return replace(first, **changes)


def function(name: str) -> Callable[..., tuple[Instance, Any]]:
    found: Callable[..., tuple[Instance, Any]] = getattr(to, name)
    return found


def test_each_row_has_its_function_and_each_public_function_its_row() -> None:
    public = {
        name
        for name, found in inspect.getmembers(to, inspect.isfunction)
        if found.__module__ == to.__name__ and "now_ms" in inspect.signature(found).parameters
        if not name.startswith("_")
    }
    assert public == set(TABLE)
    assert all(function(name).__doc__ for name in TABLE)


@pytest.mark.parametrize("name", CHANGING)
def test_an_arrow_leads_where_the_table_says(name: str) -> None:
    row = TABLE[name]
    for state in row.sources:
        before = instance(state, **MADE_FROM.get(name, {}))
        after, event = function(name)(before, NOW + 5, **GIVEN.get(name, {}))
        assert after.state == (row.target or state)
        assert after.version == event.version == 8
        assert after.since_ms == (NOW if row.target is None else NOW + 5)
        assert event.name == name
        assert (event.source, event.target) == ((state, row.target) if row.target else ("", ""))
        assert event.ok == (row.target not in FAILED)
        assert event.progress == after.progress >= before.progress
        if row.progress is not None:
            assert after.progress == row.progress
            assert after.moved_ms == NOW + 5


@pytest.mark.parametrize("name", CHANGING)
def test_an_arrow_that_is_not_in_the_table_is_refused(name: str) -> None:
    for state in set(State) - TABLE[name].sources:
        before = instance(state, **MADE_FROM.get(name, {}))
        with pytest.raises(NotAllowed, match=f"{name}: the instance i-1 is {state}"):
            function(name)(before, NOW, **GIVEN.get(name, {}))


@pytest.mark.parametrize(
    ("name", "before", "given"),
    [
        ("create", {}, {"provider_id": ""}),
        ("start", {"progress": 30}, {}),
        ("install", {"progress": 60}, {}),
        ("fail_startup", {}, {"code": "SOMETHING"}),
        ("rescue", {"error_code": "AGENT_CHECKSUM_FAILED"}, {}),
        ("rescue", {"error_code": "STARTUP_TIMEOUT", "progress": 60}, {}),
        ("redate", {"drain_by_ms": NOW + 2000}, {}),
        ("resume", {"error_code": "SPOT_INTERRUPTED"}, {}),
        ("find", {"provider_id": "vm-0"}, {}),
        ("find", {"ended_ms": NOW}, {}),
        ("lose_machine", {"ended_ms": NOW}, {}),
        ("see_volumes", {"volumes": (DATA,)}, {}),
        ("delete_volume", {"ended_ms": None}, {}),
        ("delete_volume", {"volumes": (replace(DATA, delete_on_terminate=False),)}, {}),
        ("delete_volume", {"volumes": (replace(DATA, state="deleting"),)}, {}),
        ("delete_volume", {"volumes": (BOOT,)}, {}),
        ("lose_volume", {"volumes": (DATA,)}, {}),
        ("keep_volume", {"volumes": (DATA,)}, {}),
        ("pend", {"error_code": "WORKER_LOST"}, {}),
        ("end", {"ended_ms": None}, {}),
        ("end", {"volumes": (replace(DATA, state="deleting"),)}, {}),
        ("end", {"volumes": (DATA,)}, {}),
    ],
)
def test_a_guard_refuses(name: str, before: dict[str, Any], given: dict[str, Any]) -> None:
    state = min(TABLE[name].sources)
    record = instance(state, **{**MADE_FROM.get(name, {}), **before})
    with pytest.raises(NotAllowed, match="i-1"):
        function(name)(record, NOW, **{**GIVEN.get(name, {}), **given})


def test_a_failure_keeps_its_progress_and_its_code_to_the_end() -> None:
    it, _ = to.fail_startup(instance(State.BOOTING, progress=60), NOW, code="STARTUP_TIMEOUT")
    it, _ = to.terminate(it, NOW, code="ORPHAN")
    it, _ = to.lose_machine(it, NOW)
    it, _ = to.end(it, NOW)
    it, _ = to.archive(it, NOW)
    assert (it.state, it.progress, it.error_code) == ("archived", 60, "STARTUP_TIMEOUT")
    assert it.ended_ms == NOW


def test_a_code_that_only_says_that_it_takes_long_goes_when_it_is_over() -> None:
    it, _ = to.pend(instance(State.TERMINATING, ended_ms=NOW), NOW, code="VOLUMES_DELETE_PENDING")
    assert it.error
    it, _ = to.end(it, NOW)
    assert (it.error_code, it.error) == ("", "")


def test_a_new_one_begins_at_5_percent() -> None:
    it, event = to.request("i-1", ORDER, NOW, asked_by="autoscaler")
    assert (it.state, it.version, it.progress, it.tried_ms) == ("provisioning", 1, 5, None)
    assert (event.source, event.target, event.version) == ("", "provisioning", 1)


def test_it_is_billed_from_the_providers_word_else_from_the_first_try() -> None:
    tried = instance(State.PROVISIONING, tried_ms=NOW - 9)
    assert to.create(tried, NOW, provider_id="vm")[0].launched_ms == NOW - 9
    assert to.create(tried, NOW, provider_id="vm", launched_ms=NOW - 3)[0].launched_ms == NOW - 3


def test_a_rescue_does_not_make_it_ready() -> None:
    slow = instance(State.STARTUP_FAILED, error_code="STARTUP_TIMEOUT")
    it, _ = to.rescue(slow, NOW, progress=100)
    assert (it.state, it.progress, it.error_code) == ("booting", 95, "")


def test_disks_are_ordered_data_before_boot_and_how_far_we_are_is_not_overwritten() -> None:
    known = (replace(DATA, state="deleting"), replace(BOOT, size_gb=1))
    found = [replace(BOOT, is_boot=False), DATA, Volume("disk-0", "ssd", 5)]
    after = to.with_volumes(known, found)
    assert [(v.provider_volume_id, v.state) for v in after] == [
        ("disk-0", "attached"),
        ("disk-1", "deleting"),
        ("disk-2", "attached"),
    ]
    assert after[2].is_boot
    assert after[2].size_gb == 100


def test_a_disk_that_comes_back_is_deleted_again_and_the_machine_stays_gone() -> None:
    over = instance(State.TERMINATED, ended_ms=NOW, volumes=(replace(DATA, state="deleted"),))
    it, _ = to.reopen(over, NOW + 5, volume=DATA)
    assert (it.state, it.ended_ms, it.volumes) == ("terminating", NOW, (DATA,))


def test_words_of_a_provider_are_cut() -> None:
    it, _ = to.fail(instance(State.READY), NOW, code="WORKER_UNREADY", words="x" * 9_999)
    assert len(it.error) == to.WORDS_MAX


def test_every_code_tells_people_what_it_means_and_what_to_do() -> None:
    for name, code in codes.CODES.items():
        assert name == code.name == name.upper()
        assert code.words.endswith(".")
        assert code.remedy.endswith(".")


def test_from_everywhere_there_is_a_way_to_the_end() -> None:
    reached = set(OVER)
    for _ in State:
        reached |= {s for row in TABLE.values() if row.target in reached for s in row.sources}
    assert reached == set(State)
