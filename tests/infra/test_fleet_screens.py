"""What the commands for machines show: on a terminal, in a pipe, and to who answers a question."""

import argparse
import io
import os
import pty
import re
import signal
import sys
import termios
import threading
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from typing import Any, TextIO

import pytest

from infra import consent
from infra.errors import CommandError
from infra.fleet import columns, decisions, figures, instances, numbers, provision
from infra.fleet.bars import Bars, Way
from infra.fleet.service import News, Refused, Service, Unanswered

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
VIEW: dict[str, Any] = {
    "instance_id": "aws-3f9c2a71b04d",
    "state": "booting",
    "pending": False,
    "progress": 50,
    "provider": "aws",
    "pool": "default",
    "type": "g5.xlarge",
    "zone": "eu-west-1a",
    "market": "spot",
    "address": "10.0.0.7:9001",
    "price_per_hour": 0.5,
    "currency": "EUR",
    "error_code": None,
    "error": None,
    "requested_at": "2026-11-21T09:58:00.000Z",
    "launched_at": "2026-11-21T10:00:00.000Z",
    "ended_at": None,
}


class Screen(io.StringIO):
    """A terminal of 80 columns, as far as who writes to it can tell."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError

    def shown(self) -> list[str]:
        """What stands on it, by the codes that move the cursor up and clear what is below."""
        lines: list[str] = []
        for part in self.getvalue().replace("\x1b[J", "").split("\x1b["):
            up, moved, text = part.partition("A")
            if moved and up.isdigit():
                lines = lines[: len(lines) - int(up)]
            else:
                text = part
            lines += text.splitlines()
        return lines


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


def test_bars_are_drawn_over_one_another_and_fit_80_columns() -> None:
    screen = Screen()
    bars, one = Bars(screen), Way("a-name-of-a-pool-that-is-very-long-indeed-1a2005689f6-0")
    two = Way("here-1", VIEW)
    bars.show([one, two], 1)
    two.view = {**VIEW, "state": "ready", "progress": 100}
    one.view = {**VIEW, "state": "startup_failed", "error_code": "AGENT_CHECKSUM_FAILED"}
    bars.show([one, two], 2_000)
    bars.show([one, two], 3_000)
    first, second = screen.shown()
    assert "…" in first
    assert first.endswith(" 50 %  startup_failed: AGENT_CH 2000 s")
    assert second.endswith("███████████████ 100 %  ready                    2000 s")
    assert max(map(len, screen.shown())) <= 80


def test_on_a_narrow_terminal_percent_and_words_stand_in_a_line_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(columns, "width_of", lambda out: 40)
    screen, way = Screen(), Way("aws-3f9c2a71b04d-in-a-pool-of-long-name", VIEW)
    bars = Bars(screen)
    bars.show([way], 3)
    bars.show([way], 4)
    name, bar = screen.shown()
    assert re.fullmatch(r"aws-3f9c2a71b04…l-of-long-name +4 s", name)
    assert bar == "  █████░░░░░  50 %  agent and vLLM insta"
    assert max(map(len, screen.shown())) <= 40


def test_of_more_machines_than_lines_those_on_their_way_are_shown() -> None:
    """What has scrolled away cannot be drawn over."""
    screen = Screen()
    ways = [Way(f"here-{n}", {**VIEW, "state": "ready", "progress": 100}) for n in range(20)]
    ways += [Way(f"late-{n}", VIEW) for n in range(20)]
    bars = Bars(screen)
    for seconds in range(3):
        bars.show(ways, seconds)
    shown = screen.shown()
    assert len(shown) == 23
    assert [line.split()[0] for line in shown[:20]] == [f"late-{n}" for n in range(20)]
    assert shown[-1] == "and 18 more: 18 ready, 0 failed"


def test_only_what_is_whole_looks_whole() -> None:
    assert figures.bar(99, 10) == "█████████░  99 %"
    assert figures.bar(100, 10) == "██████████ 100 %"


def test_where_nothing_can_be_drawn_each_step_is_a_line() -> None:
    out, way = io.StringIO(), Way("here-1", VIEW)
    bars = Bars(out)
    for seconds in range(3):
        bars.show([way], seconds)
    way.view = {**VIEW, "progress": 60}
    bars.show([way], 4)
    assert out.getvalue().splitlines() == [
        "here-1   50 %  agent and vLLM installed",
        "here-1   60 %  vLLM starts",
    ]


def test_an_order_that_nobody_takes_says_so() -> None:
    way = Way("here-1", {**VIEW, "state": "provisioning", "progress": 0, "pending": True})
    assert "no scheduler" not in way.words(5)
    assert way.words(11) == "no scheduler took it yet"


def test_a_list_is_one_line_each_where_it_fits_and_two_where_not() -> None:
    head, row = ("A", "B", "C", "D"), ("a" * 20, "b" * 20, "c" * 30, "-")
    assert len(columns.lines(head, [row], None, 2)) == 2
    assert columns.lines(head, [row], 60, 2) == [
        f"{'A':<20}  B",
        f"{'a' * 20}  {'b' * 20}",
        f"  {'c' * 30}",
    ]
    assert columns.lines(head, [row], 41, 2)[1:] == ["a" * 20, f"  {'b' * 20}", f"  {'c' * 30}"]
    assert columns.lines(head, [row], 10, 2)[1:] == ["a" * 10, f"  {'b' * 8}", f"  {'c' * 8}"]


def test_what_nobody_looks_after_is_said_under_the_list() -> None:
    lost = {**VIEW, "volumes": [], "unattended": "no scheduler has its provider aws"}
    known = {**VIEW, "volumes": [], "unattended": None}
    assert instances._table([lost, known], NOW)[1].endswith("  UNATTENDED")
    assert instances._unattended([known, lost, {**lost, "instance_id": "aws-2"}]) == [
        "\nUNATTENDED: no scheduler has its provider aws: aws-3f9c2a71b04d aws-2"
    ]


def test_numbers_on_the_command_line_have_bounds() -> None:
    assert (numbers.seconds("0"), numbers.machines("50")) == (0, 50)
    for read, words in (
        (numbers.machines, ("0", "51", "-1", "two", "")),
        (numbers.seconds, ("1.5",)),
    ):
        for text in words:
            with pytest.raises(argparse.ArgumentTypeError, match="no number from"):
                read(text)


def test_what_it_cost_so_far_and_in_all() -> None:
    assert figures.cost(VIEW, NOW) == "1.00 EUR"
    ended = {**VIEW, "ended_at": "2026-11-21T10:30:00.000Z"}
    assert figures.cost(ended, NOW) == "0.25 EUR"
    assert figures.age(ended, NOW) == "32 min"
    assert figures.age(VIEW, NOW) == "2 h"
    assert figures.cost({**VIEW, "price_per_hour": None}, NOW) == "-"
    assert figures.cost({**VIEW, "launched_at": None}, NOW) == "-"
    assert figures.money(0.001, "USD") == "<0.01 USD"
    assert figures.price(VIEW) == "0.5 EUR per hour"
    assert figures.place(VIEW) == "aws g5.xlarge eu-west-1a spot"
    assert figures.bar(50, 4, plain=True) == "##--  50 %"


def test_a_failure_names_its_code_its_words_and_the_remedy() -> None:
    failed = {"state": "startup_failed", "error_code": "SSH_NOT_ACCESSIBLE", "error": "port 22"}
    lines = Way("here-1", {**VIEW, **failed}).obituary()
    assert lines[0] == "here-1: SSH_NOT_ACCESSIBLE at 50 %"
    assert lines[1] == "  port 22"
    assert lines[-1].startswith("  what to do: Check address, port")


@pytest.fixture
def asked() -> Iterator[tuple[TextIO, int]]:
    """A terminal to be asked at: its near end, and where somebody types."""
    typed, near = pty.openpty()
    settings = termios.tcgetattr(near)
    with os.fdopen(near, "r") as terminal:
        yield terminal, typed
        termios.tcsetattr(near, termios.TCSANOW, settings)
    os.close(typed)


@pytest.mark.parametrize(
    ("answer", "agreed"), [("y", True), ("YES", True), ("", False), ("n", False)]
)
def test_only_yes_is_yes(
    asked: tuple[TextIO, int], monkeypatch: pytest.MonkeyPatch, answer: str, agreed: bool
) -> None:
    terminal, typed = asked
    monkeypatch.setattr(sys, "stdin", terminal)
    os.write(typed, f"{answer}\n".encode())
    assert consent.given(argparse.Namespace(yes=False), "End it") is agreed


def test_where_nobody_can_be_asked_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(CommandError, match="--yes"):
        consent.given(argparse.Namespace(yes=False), "End it")
    assert consent.given(argparse.Namespace(yes=True), "End it")


class Told(Service):
    """A service of which only this is heard."""

    def __init__(self, *news: News | None, gone: bool = False) -> None:
        super().__init__("http://there", "key")
        self._news, self._gone, self.looks = news, gone, 0

    def follow(self, look_s: float) -> Generator[News | None, None, None]:
        yield from self._news

    def get(self, path: str, **query: str | int) -> dict[str, Any]:
        self.looks += 1
        if self._gone:
            raise Refused(404, "instance_unknown", "there is no instance")
        return {**VIEW, "history": []}


def _event(name: str, instance: dict[str, Any] | None, **facts: Any) -> News:
    return News({"instance_id": "i", "name": name, "ok": True, "instance": instance, **facts})


def test_a_way_follows_its_events_and_ends_when_it_is_ready() -> None:
    way, out = Way("i"), io.StringIO()
    ready = {**VIEW, "state": "ready", "progress": 100}
    other = News({"instance_id": "another", "name": "x", "ok": True, "instance": ready})
    told = Told(
        News(None), other, None, _event("load", {**VIEW, "progress": 75}), _event("x", ready)
    )
    provision._watch(told, [way], Bars(out))
    assert [line.split()[1] for line in out.getvalue().splitlines()] == ["50", "75", "100"]
    assert told.looks == 1
    assert way.is_up


def test_a_refusal_of_the_scheduler_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    way = Way("i")
    refusal = _event("provision", None, reason="there is no provider x")
    assert refusal.event is not None
    refusal.event["ok"] = False
    provision._watch(Told(refusal), [way], Bars(io.StringIO()))
    assert way.obituary() == ["i: refused at 0 %", "  there is no provider x"]
    gone = Way("i")
    provision._watch(Told(News(None), gone=True), [gone], Bars(io.StringIO()))
    assert gone.is_down


def test_a_service_that_is_away_for_a_while_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    way, ready = Way("i"), {**VIEW, "state": "ready", "progress": 100}

    class Away(Told):
        def get(self, path: str, **query: str | int) -> dict[str, Any]:
            raise Unanswered("nobody answers")

    provision._watch(Away(News(None), None, _event("x", ready)), [way], Bars(io.StringIO()))
    assert way.is_up
    monkeypatch.setattr(provision, "AWAY_S", -1)
    with pytest.raises(Unanswered):
        provision._watch(Away(News(None)), [Way("i")], Bars(io.StringIO()))


def test_ctrl_c_leaves_them_going_and_says_how_to_follow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offers = {"providers": [{"provider": "here", "offers": [_OFFER]}]}

    class Ours(Told):
        def get(self, path: str, **query: str | int) -> dict[str, Any]:
            return offers if path.endswith("/offers") else super().get(path)

        def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
            return {"command_id": "c", "instances": ["here-1"]}

        def follow(self, look_s: float) -> Generator[News | None, None, None]:
            yield None
            signal.raise_signal(signal.SIGINT)
            yield None

    monkeypatch.setattr("infra.fleet.service.of", lambda _: Ours())
    parser = argparse.ArgumentParser()
    provision.configure(parser)
    before = threading.active_count()
    assert provision.run(parser.parse_args([])) == 130
    said = capsys.readouterr().err
    assert "vestibule instances here-1" in said
    assert "vestibule terminate here-1" in said
    assert threading.active_count() == before


_OFFER = {
    "type": "process",
    "zone": "",
    "market": "on-demand",
    "price_per_hour": None,
    "currency": "USD",
    "source": "",
}


DECISION = {
    "pool": "chat",
    "at": "2026-11-21T11:59:57.000Z",
    "reason": "more is wanted, but 2 workers are the most: …",
    "hold": None,
    "short": {"code": "workers_max", "reason": "…", "since": "2026-11-21T11:48:00.000Z"},
    "workers_ready": 1,
    "workers_loading": 1,
    "workers_least": 1,
    "workers_most": 2,
}


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({}, "more is wanted, but 2 workers are the most: … (2 of 1 to 2 workers; so for 12 min)"),
        ({"reason": "as it is: …", "short": None}, "as it is: … (2 of 1 to 2 workers)"),
        (
            {
                "reason": "hold: the pool is paused",
                "hold": {"code": "pool_paused", "since": "2026-11-21T10:59:00.000Z"},
                "workers_ready": None,
                "at": "2026-11-21T11:20:00.000Z",
            },
            "hold: the pool is paused (so for 1 h; nobody has looked for 40 min)",
        ),
    ],
)
def test_why_there_are_no_more_machines_is_a_line(facts: dict[str, Any], told: str) -> None:
    assert decisions.line({**DECISION, **facts}, NOW) == f"pool chat: {told}"
