"""What is said before machines are ended or drained, and that only what was meant is."""

import argparse
import json
from typing import Any

import pytest

from infra import consent
from infra.errors import CommandError
from infra.fleet import drain, ending, service, terminate
from infra.fleet.service import Refused, Service


def _instance(name: str, state: str = "ready", **facts: Any) -> dict[str, Any]:
    known = {"instance_id": name, "state": state, "pool": "default", "volumes": []}
    place = {"provider": "aws", "type": "g5", "zone": "a", "market": "on-demand"}
    more = {"pending": False, "progress": 100, "worker_id": name, "ended_at": None}
    price = {"price_per_hour": None, "currency": "USD", "launched_at": None}
    return {**known, **place, **more, **price, **facts}


def _worker(name: str, pool: str = "default", **facts: Any) -> dict[str, Any]:
    return {"worker_id": name, "in_flight": 3, "ready": True, "pool": pool, **facts}


def _pool(name: str, kind: str = "session", **facts: Any) -> dict[str, Any]:
    told = {"pool": name, "kind": kind, "active": 5, "waiting": 12, "capacity_setting": 4}
    return {**told, **facts}


DISK = {"provider_volume_id": "v", "delete_on_terminate": True}


class Fleet(Service):
    """A few instances with their workers; keeps what is asked of it."""

    def __init__(self) -> None:
        super().__init__("http://there", "key")
        self.asked: list[tuple[str, str, Any]] = []
        self.instances = {
            "a": _instance("a", volumes=[DISK, {**DISK, "delete_on_terminate": False}]),
            "b": _instance("b", provider="lab", type="l40s", zone="", worker_id="gpu-7"),
        }
        self.workers = [_worker("a"), _worker("gpu-7", in_flight=1), _worker("by-hand", "other")]
        self.pools = [_pool("default"), _pool("other", "request")]
        self.ticks: list[dict[str, Any]] = [{"name": "scale-default", "holder": "host-1"}]
        self.stuck: set[str] = set()

    def get(self, path: str, **query: str | int) -> dict[str, Any]:
        endings = {"aws": "the machine is deleted", "lab": "it is let go"}
        offers = [{"provider": n, "offers": [{"ending": e}]} for n, e in endings.items()]
        instances = [o for o in self.instances.values() if query.get("pool") in (None, o["pool"])]
        told: dict[str, dict[str, Any]] = {
            "/admin/workers": {"workers": self.workers},
            "/admin/pools": {"pools": self.pools},
            "/admin/ticks": {"ticks": self.ticks},
            "/admin/instances/offers": {"providers": offers},
            "/admin/instances": {"instances": instances},
        }
        if path in told:
            return told[path]
        name = path.rpartition("/")[2]
        if name not in self.instances:
            raise Refused(404, "instance_unknown", f"no {name}")
        return self.instances[name]

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(("POST", path, body))
        return {}

    def delete(self, path: str, **query: str | int) -> dict[str, Any]:
        if path.rpartition("/")[2] in self.stuck:
            raise Refused(409, "wrong_state", "it is terminating")
        self.asked.append(("DELETE", path, query))
        return {}


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    ours = Fleet()
    monkeypatch.setattr(service, "of", lambda _: ours)
    return ours


def _run(module: Any, *words: str) -> int:
    parser = argparse.ArgumentParser()
    module.configure(parser)
    args = parser.parse_args(words)
    code: int = args.run(args)
    return code


def test_each_machine_is_told_with_what_runs_there_and_what_its_end_means(fleet: Fleet) -> None:
    fleet.instances["a"] |= {"price_per_hour": 2.0, "launched_at": "2026-11-22T00:00:00.000Z"}
    fleet.instances["a"] |= {"ended_at": "2026-11-22T01:00:00.000Z"}
    new = _instance("c", "booting", progress=50)
    asked = _instance("d", "provisioning", pending=True, worker_id="d")
    lines = ending.facts(fleet, [*fleet.instances.values(), new, asked], "  It waits.")
    assert lines == [
        "  a  aws g5 a, ready: 3 requests run; 1 disk is deleted; 1 disk stays;"
        " the machine is deleted (2.00 USD so far, 2 USD per hour)",
        "  b  lab l40s, ready: 1 request runs; it is let go",
        "  c  aws g5 a, booting at 50 %: no requests run; the machine is deleted",
        "  d  aws g5 a, asked for: no requests run; the machine is deleted",
        "  It waits.",
    ]


def test_a_pool_without_a_worker_then_is_told_with_who_is_there(fleet: Fleet) -> None:
    fleet.instances |= {"b": _instance("b"), "c": _instance("c", "booting", pool="other")}
    fleet.workers[1:] = [_worker("b")]
    assert ending.facts(fleet, list(fleet.instances.values()), "")[3:-1] == [
        "  No ready worker is left for default: 5 sessions are in use, 12 wait.",
        "  No ready worker is left for other: 5 requests run, 12 wait.",
    ]


def test_a_pool_that_keeps_a_worker_or_gets_another_is_told_so(fleet: Fleet) -> None:
    fleet.pools[0]["capacity_setting"] = "auto"
    both = list(fleet.instances.values())
    assert ending.facts(fleet, both, "")[2:-1] == [
        "  default follows its queue: its autoscaler may order others."
    ]
    fleet.ticks[0]["holder"] = None
    assert not ending.facts(fleet, both, "")[2:-1]


@pytest.mark.parametrize(
    ("words", "waits"),
    [
        ([], "What runs is given its time to finish."),
        (["--force"], "What runs is not waited for."),
        (["--deadline", "0"], "What runs is not waited for."),
        (["--deadline", "60"], "What runs is given 60 s to finish."),
    ],
)
def test_the_question_says_how_long_what_runs_is_waited_for(
    fleet: Fleet, words: list[str], waits: str
) -> None:
    with pytest.raises(CommandError, match=waits) as raised:
        _run(terminate, "a", *words)
    assert str(raised.value).splitlines()[-1].startswith("End 1 machine?")
    fleet.instances["a"]["state"] = "draining"
    with pytest.raises(CommandError, match=r"--yes") as raised:
        _run(terminate, "a")
    assert "but not where it drains already" in str(raised.value)
    assert not fleet.asked


def test_nothing_is_ended_before_all_are_known_and_somebody_agreed(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Refused):
        _run(terminate, "a", "nope", "--yes")
    with pytest.raises(CommandError, match="--yes"):
        _run(terminate, "a")
    assert not fleet.asked
    fleet.instances["b"]["state"] = "terminated"
    assert _run(terminate, "a", "b", "a", "--yes", "--reason", "r") == 0
    assert fleet.asked == [("DELETE", "/admin/instances/a", {"reason": "r"})]
    assert capsys.readouterr().out.splitlines() == [
        "a drains, then it ends",
        "b is terminated already",
    ]
    assert _run(terminate, "a", "--yes", "--force", "--json") == 0
    assert fleet.asked[-1][2] == {"reason": "", "force": "true"}
    assert json.loads(capsys.readouterr().out) == {"commands": [{}], "failed": {}}


def test_all_of_a_pool_are_ended_also_when_one_of_them_cannot_be(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.instances |= {
        "c": _instance("c", pool="other"),
        "d": _instance("d", "terminated"),
        "e": _instance("e", "booting"),
    }
    fleet.stuck = {"a"}
    assert _run(terminate, "--pool", "default", "--yes", "--deadline", "9") == 1
    assert [path.rpartition("/")[2] for _, path, _ in fleet.asked] == ["b", "e"]
    assert fleet.asked[0][2]["drain"] == 9
    assert capsys.readouterr().out.splitlines() == [
        "a does not end: it is terminating",
        "b drains, then it ends",
        "e ends now",
    ]
    assert _run(terminate, "--pool", "empty") == 0
    assert capsys.readouterr().out == "the pool empty has no machines\n"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["a", "--pool", "default"],
        ["a", "--deadline", "-1"],
        ["a", "--deadline", "86401"],
        ["a", "--deadline", "5", "--force"],
    ],
)
def test_wrong_words_are_exit_code_2(fleet: Fleet, words: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        _run(terminate, *words, "--yes")
    assert raised.value.code == 2
    assert not fleet.asked


def test_a_drain_asks_as_the_machine_is_ended_then(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CommandError, match="Drain a, and end it then"):
        _run(drain, "a")
    fleet.instances["c"] = _instance("c", "booting")
    with pytest.raises(CommandError, match="c is booting"):
        _run(drain, "c", "--yes")
    assert not fleet.asked
    assert _run(drain, "a", "--deadline", "0", "--yes") == 0
    assert fleet.asked == [("POST", "/admin/instances/a/drain", {"reason": "", "drain": 0})]
    assert "vestibule instances a" in capsys.readouterr().out


def test_a_wrong_deadline_is_no_reason_to_drain_something_else(fleet: Fleet) -> None:
    with pytest.raises(SystemExit):
        _run(drain, "a", "--deadline", "-5", "--yes")
    assert not fleet.asked


def test_a_worker_is_drained_with_its_machine_where_it_has_one(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(drain, "gpu-7", "--yes") == 0
    assert _run(drain, "by-hand") == 0
    assert [path for _, path, _ in fleet.asked] == [
        "/admin/instances/b/drain",
        "/admin/workers/by-hand/drain?pool=other",
    ]
    assert "nobody ends it, as no provider made it" in capsys.readouterr().out
    with pytest.raises(Refused, match="no nope"):
        _run(drain, "nope")


def test_who_is_asked_and_presses_ctrl_c_changed_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Terminal())
    with pytest.raises(KeyboardInterrupt):
        consent.given(argparse.Namespace(yes=False), "End it", ["  It runs."])
    assert capsys.readouterr().err == "  It runs.\nEnd it? [y/N] \nnothing was changed\n"
