"""What follows from what was seen: pure, so each rule is a line."""

from dataclasses import replace as changed
from typing import Any

import pytest
from msgspec.structs import replace

from admission.domain import Worker
from admission.instance import Instance, Order, State, Volume
from scheduler.fleet.judge import judge
from scheduler.fleet.limits import Limits
from scheduler.fleet.port import Gone, Machine, Power
from scheduler.fleet.steps import (
    Advance,
    Answer,
    Blind,
    DeleteVolume,
    Find,
    Launch,
    ListVolumes,
    Look,
    LookVolume,
    Move,
    Release,
    Seen,
    Steer,
    Step,
    Terminate,
    Wait,
)

NOW = 1_800_000_000_000
LONG_AGO = NOW - 100_000_000
LIMITS = Limits()
IT = Instance(
    id="i-1",
    order=Order("cloud"),
    state=State.BOOTING,
    version=3,
    progress=20,
    requested_ms=LONG_AGO,
    since_ms=NOW - 10_000,
    moved_ms=NOW - 10_000,
    provider_id="vm-1",
    tried_ms=LONG_AGO,
    launched_ms=LONG_AGO,
)
MACHINE = Machine("vm-1", "i-1", Power.RUNNING, address="host")
WORKER = Worker(
    worker_id="i-1",
    url="https://host:8001",
    kind="agent",
    pool="default",
    models=("m",),
    slots=1,
    ready=True,
    draining=False,
    reason=None,
    first_seen_ms=LONG_AGO,
    last_seen_ms=NOW - 1_000,
    engine={"state": "serving"},
)
SILENT = changed(WORKER, ready=False, last_seen_ms=NOW - 200_000)
UNREADY = changed(WORKER, ready=False, reason="vLLM crashed")
DISK = Volume("disk-1", "ssd", 10)


def seen(found: Machine | Gone | Blind | None = MACHINE, **more: Any) -> Seen:
    base: dict[str, Any] = {"heard_ms": NOW, "watched_ms": LONG_AGO, "worker": None}
    answer = None if found is None else Answer(found, NOW)
    return Seen(machine=answer, **(base | more))


def step(state: State, known: Seen, **record: Any) -> Step:
    return judge(replace(IT, state=state, **record), known, NOW, LIMITS)


def did(made: Step) -> str:
    """The name of the arrow, with the code of a failure."""
    assert isinstance(made, Move), made
    after, event = made.made
    return f"{event.name} {after.error_code}".strip()


# --- booting --------------------------------------------------------------------------------------


def test_a_wanted_one_is_launched_until_that_takes_too_long() -> None:
    record = {"since_ms": NOW - 600_000, "provider_id": ""}
    assert step(State.PROVISIONING, seen(None)) == Launch()
    # After an outage of ours it is tried once more.
    assert step(State.PROVISIONING, seen(None), **record) == Launch()
    tried = seen(None, asked={"launch": NOW})
    assert did(step(State.PROVISIONING, tried, **record)) == "fail_provisioning PROVIDER_SILENT"


def test_a_booting_one_is_looked_at_every_5_s() -> None:
    assert step(State.BOOTING, seen(None)) == Look()
    old = Seen(heard_ms=NOW, watched_ms=NOW, machine=Answer(MACHINE, NOW - 5_000))
    assert step(State.BOOTING, old) == Look()


@pytest.mark.parametrize(
    ("progress", "found", "worker", "arrow"),
    [
        (20, MACHINE, None, "start"),
        (30, MACHINE, None, "address"),
        (40, replace(MACHINE, installed=True), None, "install"),
        (40, MACHINE, changed(UNREADY, engine={"state": "fetching"}), "install"),
        (50, MACHINE, changed(UNREADY, models=(), engine={"state": "starting"}), "answer"),
        (60, MACHINE, UNREADY, "load"),
        (75, MACHINE, WORKER, "warm"),
        (90, MACHINE, WORKER, "pass_health"),
        (95, MACHINE, WORKER, "become_ready"),
        # What the agent says needs no provider's word.
        (20, Blind("down"), WORKER, "start"),
        (30, Gone(), WORKER, "address"),
    ],
)
def test_each_milestone_on_the_way_is_written(
    progress: int, found: Machine | Gone | Blind, worker: Worker | None, arrow: str
) -> None:
    assert did(step(State.BOOTING, seen(found, worker=worker), progress=progress)) == arrow


def test_its_address_may_come_from_its_agent() -> None:
    made = step(State.BOOTING, seen(Blind("down"), worker=WORKER), progress=30)
    assert isinstance(made, Move)
    assert made.made[0].address == "host"


def test_disks_are_listed_once_it_runs_and_then_it_is_advanced() -> None:
    record = {"progress": 40}
    assert step(State.BOOTING, seen(), **record) == ListVolumes()
    listed = seen(volumes=(DISK,), asked={"volumes": NOW})
    assert did(step(State.BOOTING, listed, **record)) == "see_volumes"
    assert step(State.BOOTING, listed, volumes=(DISK,), **record) == Advance(MACHINE)
    asked = seen(asked={"volumes": NOW, "advance": NOW - 1_000})
    assert isinstance(step(State.BOOTING, asked, **record), Wait)


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (Gone(), "DELETED_BY_PROVIDER"),
        (Gone(("PROVIDER_OUT_OF_STOCK", "sold out")), "PROVIDER_OUT_OF_STOCK"),
        (replace(MACHINE, failure=("INSTALL_FAILED", "no space")), "INSTALL_FAILED"),
        (replace(MACHINE, ends_ms=NOW + 120_000), "SPOT_INTERRUPTED"),
        (replace(MACHINE, power=Power.STOPPED), "MACHINE_STOPPED"),
        (replace(MACHINE, power=Power.STOPPING), "MACHINE_STOPPED"),
    ],
)
def test_what_can_never_become_ready_fails(found: Machine | Gone, code: str) -> None:
    record = {"progress": 50, "volumes": (DISK,)}
    assert did(step(State.BOOTING, seen(found), **record)) == f"fail_startup {code}"


def test_not_found_is_not_believed_of_what_is_new() -> None:
    new = {"tried_ms": NOW - 299_000, "launched_ms": NOW - 299_000}
    held = step(State.BOOTING, seen(Gone()), **new)
    assert isinstance(held, Wait)
    assert held.hold
    assert isinstance(step(State.TERMINATING, seen(Gone()), **new), Wait)
    explained = step(State.BOOTING, seen(Gone(("PROVIDER_DENIED", "no key"))), **new)
    assert did(explained) == "fail_startup PROVIDER_DENIED"


def test_an_answer_is_as_old_as_its_question() -> None:
    asked = replace(seen(), machine=Answer(Gone(), NOW - 4_000))
    assert isinstance(step(State.BOOTING, asked, tried_ms=NOW - 303_000), Wait)
    assert isinstance(step(State.BOOTING, asked, tried_ms=NOW - 304_000), Move)


@pytest.mark.parametrize("unseen_s", [0, 300])
def test_a_launch_may_be_under_way_longer_than_lists_lag(unseen_s: int) -> None:
    for ago_s, over in [(unseen_s + 119, False), (unseen_s + 120, True)]:
        record = {"provider_id": "", "launched_ms": None, "tried_ms": NOW - ago_s * 1000}
        it = replace(IT, state=State.TERMINATING, **record)
        made = judge(it, seen(Gone()), NOW, Limits(unseen_s=unseen_s))
        assert isinstance(made, Move) == over


def test_an_agent_of_the_wrong_file_fails_after_a_minute() -> None:
    wrong = changed(UNREADY, verdict="agent checksum is 0")
    record = {"progress": 75, "volumes": (DISK,)}
    failed = step(State.BOOTING, seen(worker=wrong), **record)
    assert did(failed) == "fail_startup AGENT_CHECKSUM_FAILED"
    just_now = changed(wrong, first_seen_ms=NOW - 59_000)
    assert isinstance(step(State.BOOTING, seen(worker=just_now), **record), Wait)


@pytest.mark.parametrize(
    ("progress", "seconds"), [(20, 600), (30, 300), (40, 1200), (50, 3600), (60, 1800), (75, 600)]
)
def test_each_phase_has_its_time(progress: int, seconds: int) -> None:
    known = seen(replace(MACHINE, power=Power.STARTING))
    for over_s, ends in [(-1, False), (0, True)]:
        record = {"progress": progress, "moved_ms": NOW - (seconds + over_s) * 1000}
        made = step(State.BOOTING, known, **record)
        assert isinstance(made, Move) == ends, made
    assert did(made) == "fail_startup STARTUP_TIMEOUT"


@pytest.mark.parametrize(
    ("progress", "known"),
    [
        # The provider does not tell: it may be further.
        (40, seen(Blind("down"))),
        # No scheduler looked meanwhile: it may have waited for us, or its heartbeat for Redis.
        (40, seen(watched_ms=NOW - 1_100_000, asked={"volumes": NOW, "advance": NOW})),
        (60, seen(watched_ms=NOW - 59_000, asked={"volumes": NOW})),
    ],
)
def test_no_time_out_is_seen_by_who_could_not_see(progress: int, known: Seen) -> None:
    made = step(State.BOOTING, known, progress=progress, moved_ms=LONG_AGO)
    assert isinstance(made, Wait), made


def test_a_late_heartbeat_rescues_only_with_news_and_in_time() -> None:
    slow = {"error_code": "STARTUP_TIMEOUT", "progress": 50}
    assert did(step(State.STARTUP_FAILED, seen(worker=UNREADY), **slow)) == "rescue"
    fetching = changed(UNREADY, engine={"state": "fetching"})
    assert isinstance(step(State.STARTUP_FAILED, seen(worker=fetching), **slow), Wait)
    late = {**slow, "since_ms": NOW - 600_000}
    well = {**slow, "progress": 95}  # it was ill when it was to become ready
    assert did(step(State.STARTUP_FAILED, seen(worker=WORKER), **well)) == "rescue"
    over = step(State.STARTUP_FAILED, seen(worker=fetching), **late)
    assert did(over) == "terminate STARTUP_TIMEOUT"
    other = {**slow, "error_code": "INSTALL_FAILED"}
    assert did(step(State.STARTUP_FAILED, seen(worker=UNREADY), **other)).startswith("terminate")


# --- ready ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "known",
    [
        seen(worker=WORKER),
        seen(Gone(), worker=WORKER),  # a heartbeat outranks what the provider says
        seen(Blind("down"), worker=WORKER),
        seen(replace(MACHINE, power=Power.STOPPED), worker=WORKER),
        seen(Blind("down"), worker=SILENT, unwell_ms=LONG_AGO),  # nobody tells
        seen(worker=SILENT, unwell_ms=NOW - 179_000),
        seen(worker=SILENT, unwell_ms=NOW - 899_000, company=False),  # it may be our own side
        # It cannot reach us, and answers when it is asked: the registry calls it ready.
        seen(worker=changed(SILENT, ready=True), unwell_ms=LONG_AGO),
        seen(worker=UNREADY, unwell_ms=NOW - 899_000),
        seen(worker=changed(UNREADY, draining=True), unwell_ms=LONG_AGO),  # an admin's drain
    ],
)
def test_what_may_be_well_is_left_alone(known: Seen) -> None:
    assert isinstance(step(State.READY, known, volumes=(DISK,)), Wait)


@pytest.mark.parametrize(
    ("known", "arrow"),
    [
        (seen(Gone(), worker=SILENT), "fail DELETED_BY_PROVIDER"),
        (seen(Gone()), "fail DELETED_BY_PROVIDER"),
        (seen(replace(MACHINE, power=Power.STOPPED), worker=SILENT), "fail MACHINE_STOPPED"),
        (seen(worker=SILENT, unwell_ms=NOW - 180_000), "fail WORKER_LOST"),
        (seen(unwell_ms=NOW - 900_000, company=False), "fail WORKER_LOST"),
        (seen(worker=UNREADY, unwell_ms=NOW - 900_000), "fail WORKER_UNREADY"),
        (seen(replace(MACHINE, ends_ms=NOW + 120_000), worker=WORKER), "drain SPOT_INTERRUPTED"),
    ],
)
def test_what_is_lost_is_lost(known: Seen, arrow: str) -> None:
    assert did(step(State.READY, known)) == arrow


def test_silence_counts_from_the_last_heartbeat_even_of_one_long_ill() -> None:
    just_silent = changed(UNREADY, last_seen_ms=NOW - 40_000)
    assert isinstance(step(State.READY, seen(worker=just_silent, unwell_ms=NOW - 800_000)), Wait)


def test_the_disks_of_one_that_was_ready_at_once_are_found_all_the_same() -> None:
    assert step(State.READY, seen(worker=WORKER)) == ListVolumes()
    listed = seen(worker=WORKER, volumes=(DISK,), asked={"volumes": NOW})
    assert did(step(State.READY, listed)) == "see_volumes"


def test_what_was_read_before_a_sleep_is_judged_as_of_then() -> None:
    known = seen(worker=WORKER, heard_ms=NOW - 60_000)
    record = {"progress": 75, "moved_ms": LONG_AGO}
    old = changed(WORKER, ready=False, last_seen_ms=NOW - 61_000)
    assert isinstance(step(State.READY, known, volumes=(DISK,)), Wait)
    assert did(step(State.BOOTING, replace(known, worker=old), progress=60, moved_ms=LONG_AGO)) == (
        "load"
    )
    assert did(step(State.BOOTING, known, **record)) == "warm"


def test_a_well_one_is_looked_at_every_minute_a_spot_or_silent_one_every_15_s() -> None:
    def looks(age_s: int, worker: Worker, market: str = "on-demand") -> bool:
        known = Seen(
            heard_ms=NOW,
            watched_ms=LONG_AGO,
            worker=worker,
            machine=Answer(MACHINE, NOW - age_s * 1000),
        )
        return step(State.READY, known, order=Order("cloud", market=market)) == Look()

    assert [looks(age, WORKER) for age in (59, 60)] == [False, True]
    assert [looks(age, WORKER, "spot") for age in (14, 15)] == [False, True]
    assert [looks(age, SILENT) for age in (14, 15)] == [False, True]


# --- draining -------------------------------------------------------------------------------------

DRAINED = changed(WORKER, ready=False, draining=True, steered=True, in_flight=2)
DRAINING = {"drain_by_ms": NOW + 60_000, "since_ms": NOW - 20_000}


def test_the_registry_is_told_of_a_drain_and_of_its_end() -> None:
    assert step(State.DRAINING, seen(worker=WORKER), **DRAINING) == Steer(draining=True)
    assert step(State.READY, seen(worker=DRAINED)) == Steer(draining=False)
    assert step(State.TERMINATING, seen(worker=WORKER)) == Steer(draining=True)
    # Its agent outlived another instance.
    assert step(State.BOOTING, seen(worker=DRAINED)) == Steer(draining=False)


@pytest.mark.parametrize(
    ("worker", "record", "ends"),
    [
        (DRAINED, {}, False),
        (changed(DRAINED, in_flight=0), {}, True),
        (changed(DRAINED, in_flight=0, last_seen_ms=NOW - 16_000), {}, False),  # of before
        (DRAINED, {"drain_by_ms": NOW}, True),
        (None, {}, True),
    ],
)
def test_a_drain_ends_when_nothing_runs_or_its_time_is_over(
    worker: Worker | None, record: dict[str, Any], ends: bool
) -> None:
    made = step(State.DRAINING, seen(worker=worker), **{**DRAINING, **record})
    assert isinstance(made, Move) == ends
    if ends:
        assert did(made) == "terminate"


def test_the_providers_notice_shortens_a_drain_once() -> None:
    known = seen(replace(MACHINE, ends_ms=NOW + 30_000), worker=DRAINED)
    made = step(State.DRAINING, known, **DRAINING)
    assert did(made) == "redate SPOT_INTERRUPTED"
    assert isinstance(made, Move)
    assert made.made[0].drain_by_ms == NOW + 20_000
    told = {"drain_by_ms": NOW + 20_000, "error_code": "SPOT_INTERRUPTED"}
    assert isinstance(step(State.DRAINING, known, **{**DRAINING, **told}), Wait)


def test_a_draining_machine_that_is_gone_failed_unless_that_was_announced() -> None:
    known = seen(Gone(), worker=changed(SILENT, steered=True))
    assert did(step(State.DRAINING, known, **DRAINING)) == "fail DELETED_BY_PROVIDER"
    told = {**DRAINING, "error_code": "SPOT_INTERRUPTED"}
    assert did(step(State.DRAINING, known, **told)) == "terminate SPOT_INTERRUPTED"


# --- the end --------------------------------------------------------------------------------------


def test_what_was_never_tried_needs_no_proof() -> None:
    never = {"tried_ms": None, "provider_id": "", "launched_ms": None}
    assert did(step(State.TERMINATING, seen(None), **never)) == "lose_machine"
    assert did(step(State.TERMINATING, seen(None), ended_ms=NOW, **never)) == "end"


def test_a_lost_launch_is_looked_for_as_long_as_lists_may_lag() -> None:
    unnamed = {"provider_id": "", "launched_ms": None}
    assert step(State.TERMINATING, seen(None), **unnamed) == Find()
    assert did(step(State.TERMINATING, seen(), **unnamed)) == "find"
    assert did(step(State.TERMINATING, seen(Gone()), **unnamed)) == "lose_machine"
    recent = {**unnamed, "tried_ms": NOW - 299_000}
    assert isinstance(step(State.TERMINATING, seen(Gone()), **recent), Wait)


def test_disks_are_noted_before_the_machine_is_deleted() -> None:
    ending = State.TERMINATING
    assert step(ending, seen()) == ListVolumes()
    assert did(step(ending, seen(volumes=(DISK,)))) == "see_volumes"
    assert step(ending, seen(volumes=(DISK,)), volumes=(DISK,)) == Terminate()
    assert isinstance(step(ending, seen(volumes=Blind("down"))), Wait)
    long = {"since_ms": NOW - 300_000}
    assert step(ending, seen(volumes=Blind("down")), **long) == Terminate()
    asked = seen(volumes=(), asked={"terminate": NOW - 59_000})
    assert isinstance(step(ending, asked), Wait)


def test_an_end_that_takes_long_is_shown_and_an_older_code_is_kept() -> None:
    stuck = seen(replace(MACHINE, power=Power.STOPPING), asked={"terminate": NOW})
    long = {"since_ms": NOW - 900_000}
    assert did(step(State.TERMINATING, stuck, **long)) == "pend TERMINATE_PENDING"
    assert isinstance(step(State.TERMINATING, stuck, error_code="WORKER_LOST", **long), Wait)


@pytest.mark.parametrize("unclear", [Blind("down"), None])
def test_nothing_is_concluded_from_no_answer(unclear: Blind | None) -> None:
    assert not isinstance(step(State.TERMINATING, seen(unclear)), Move)


def test_a_disk_is_deleted_verified_and_only_then_is_it_over() -> None:
    def at(volume: Volume, known: Seen) -> Step:
        return step(State.TERMINATING, known, ended_ms=NOW - 1_000, volumes=(volume,))

    deleting, gone = replace(DISK, state="deleting"), replace(DISK, state="deleted")
    listed = seen(volumes=())
    assert at(DISK, seen()) == ListVolumes()
    assert did(at(DISK, listed)) == "delete_volume"
    assert at(deleting, listed) == LookVolume("disk-1")
    there = replace(listed, disks={"disk-1": DISK})
    assert at(deleting, there) == DeleteVolume("disk-1")
    assert isinstance(at(deleting, replace(there, asked={"disk-1": NOW - 59_000})), Wait)
    assert isinstance(at(deleting, replace(listed, disks={"disk-1": Blind("down")})), Wait)
    assert did(at(deleting, replace(listed, disks={"disk-1": Gone()}))) == "lose_volume"
    assert did(at(gone, listed)) == "end"
    assert isinstance(at(gone, seen(volumes=Blind("down"))), Wait)  # there may be others
    assert did(at(replace(DISK, delete_on_terminate=False), listed)) == "keep_volume"


def test_disks_that_take_long_are_shown() -> None:
    record = {"ended_ms": NOW - 600_000, "volumes": (replace(DISK, state="deleting"),)}
    known = seen(volumes=(), disks={"disk-1": Blind("VolumeInUse")})
    assert did(step(State.TERMINATING, known, **record)) == "pend VOLUMES_DELETE_PENDING"


def test_its_worker_is_released_once_the_machine_is_gone() -> None:
    known = seen(worker=SILENT, volumes=())
    assert step(State.TERMINATING, known, ended_ms=NOW) == Release()
    assert step(State.TERMINATED, known) == Release()
    theirs = seen(worker=changed(SILENT, worker_id="gpu-7", steered=True), volumes=())
    assert step(State.TERMINATING, theirs, ended_ms=NOW) == Steer(draining=False), "it goes on"
    theirs = seen(worker=changed(SILENT, worker_id="gpu-7", steered=False), volumes=())
    assert did(step(State.TERMINATING, theirs, ended_ms=NOW)) == "end"
    assert isinstance(step(State.TERMINATED, theirs), Wait)


def test_it_is_archived_after_a_day() -> None:
    assert isinstance(step(State.TERMINATED, seen(None), since_ms=NOW - 86_399_000), Wait)
    assert did(step(State.TERMINATED, seen(None), since_ms=NOW - 86_400_000)) == "archive"


@pytest.mark.parametrize("seconds", [-1, float("nan"), 1e9])
def test_a_limit_that_makes_no_sense_is_refused_by_name(seconds: float) -> None:
    with pytest.raises(ValueError, match="^lost_s: from 0 to 2592000"):
        Limits(lost_s=seconds)
