"""The command: its words, whom it refuses, who comes, and what it writes."""

import argparse
import asyncio
import json
import re
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest
from aiohttp import ClientSession, TCPConnector, web
from aiohttp.test_utils import TestServer

from infra import cli
from infra.demo_model import MODEL, DemoModel
from infra.errors import CommandError
from infra.load_test import command
from infra.load_test.chat import Said
from infra.load_test.crowd import Crowd, Manners
from infra.load_test.trace import read_trace
from tests.api.calls import caller_of, until
from tests.client.wire import Wire, wired
from tests.conftest import DEADLINE_S, Service
from tests.gateway.conftest import make_ready
from tests.infra.conftest import ROOT, clean_environment

TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2225670,879,55
2023-11-16 18:25:47.0000000,91,16
"""


@asynccontextmanager
async def _model(service: Service) -> AsyncIterator[None]:
    async with TestServer(DemoModel(pause_s=0).application()) as model:
        await make_ready(service, "w1", str(model.make_url("")).rstrip("/"), model=MODEL)
        yield


Started = Callable[..., Awaitable[Process]]


@pytest.fixture
async def started() -> AsyncIterator[Started]:
    """``vestibule load-test`` with these words; gone when the test is over."""
    running: list[Process] = []

    async def start(state: Path, *words: str) -> Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "infra.cli", "load-test", *words),
            cwd=ROOT,
            env={**clean_environment(), "VESTIBULE_STATE_DIR": str(state)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def saw(wire: Wire, verb: str) -> bool:
    return verb in wire.seen


async def _sit(service: Service, number: int) -> None:
    """Wait until so many have a slot."""

    async def seen() -> bool:
        found: int = (await caller_of(service)("GET", "/queue/metrics")).json["active"]
        return found == number

    await until(seen)


async def test_the_command_ends_with_a_report(
    started: Started, service: Service, tmp_path: Path
) -> None:
    await service.capacity(1)
    words = ["group", "--size", "3", "--think", "0", "--messages", "1", "--url", service.url]
    words += ["--service-key", service.service_key, "--vanish", "0", "--stop", "0"]
    words += ["--json", str(tmp_path / "new" / "report.json"), "--plots", str(tmp_path / "plots")]
    async with _model(service):
        running = await started(tmp_path, *words)
        async with asyncio.timeout(2 * DEADLINE_S):
            told, errors = await running.communicate()
    assert (running.returncode, errors) == (0, b"")
    assert b"3 came: 3 left" in told
    assert told.endswith(b"every invariant held\n")
    found = json.loads((tmp_path / "new" / "report.json").read_text())
    assert (found["ok"], found["wait"]["n"], found["answers"]["whole"]) == (True, 2, 3)
    for name in ("slots.svg", "waits.svg"):
        assert ElementTree.parse(tmp_path / "plots" / name).getroot().tag.endswith("svg")


async def test_what_broke_is_exit_code_1(
    started: Started, service: Service, tmp_path: Path
) -> None:
    async with (
        _model(service),
        ClientSession(connector=TCPConnector(limit=0)) as http,
        wired(http, service.url) as wire,
    ):

        async def lies(_: web.Request) -> web.Response:
            true = (await caller_of(service)("GET", "/queue/metrics")).json
            return web.json_response({**true, "capacity": 0})

        wire.acts["metrics"] = lies
        words = ["--messages", "2", "--think", "3", "--service-key", service.service_key]
        running = await started(tmp_path, "single", "ada", "--url", wire.url, *words)
        async with asyncio.timeout(2 * DEADLINE_S):
            told, _ = await running.communicate()
    assert running.returncode == 1
    assert "✗ never more than capacity: 1 slots held of 0" in told.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_told_to_stop_it_writes_its_report_and_says_so(
    started: Started, service: Service, tmp_path: Path, number: signal.Signals
) -> None:
    await service.capacity(1)
    file = tmp_path / "report.json"
    words = ["--url", service.url, "--service-key", service.service_key, "--json", str(file)]
    async with _model(service):
        running = await started(tmp_path, "group", "--size", "2", "--think", "60", *words)
        await _sit(service, 1)
        running.send_signal(number)
        async with asyncio.timeout(DEADLINE_S):
            told, errors = await running.communicate()
    assert (running.returncode, errors) == (128 + number, b"")
    assert b"told to stop" in told
    assert json.loads(file.read_text())["cut"] == "told"
    assert (await caller_of(service)("GET", "/queue/metrics")).json["waiting"] == 0
    await _sit(service, 0)


async def test_told_twice_it_is_gone_at_once(
    started: Started, service: Service, tmp_path: Path
) -> None:
    async with ClientSession() as http, wired(http, service.url) as wire, _model(service):
        wire.acts["leave"] = wire.holds_back
        words = ["single", "ada", "--url", wire.url, "--service-key", service.service_key]
        running = await started(tmp_path, *words, "--think", "60")
        await _sit(service, 1)
        running.send_signal(signal.SIGINT)
        await until(lambda: saw(wire, "leave"))
        running.send_signal(signal.SIGINT)
        async with asyncio.timeout(DEADLINE_S):
            told, _ = await running.communicate()
    assert (running.returncode, told) == (-signal.SIGINT, b"")


def _parsed(*words: str) -> argparse.Namespace:
    return cli.parser("load-test").parse_args(["load-test", *words])


def test_one_person_has_no_manners_unless_told() -> None:
    assert _parsed("single", "ada").vanish == 0
    assert _parsed("load").vanish == 0.05
    assert _parsed("load", "--vanish", "0.5").vanish == 0.5


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["single"],
        ["single", "two words"],
        ["group", "--size", "0"],
        ["load", "--delay", "-1"],
        ["load", "--vanish", "1.5"],
        ["group", "--limit", "nan"],
        ["replay"],
    ],
)
def test_wrong_words(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        _parsed(*words)
    assert stop.value.code == 2


def test_what_cannot_be_written_is_said_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VESTIBULE_STATE_DIR", str(tmp_path))
    file = tmp_path / "file"
    file.write_text("")
    for words, said in (
        (["--plots", str(file)], f"--plots: {file} cannot be written: file exists"),
        (["--plots", "/proc/1"], "--plots: /proc/1 cannot be written"),
        (["--json", str(file / "r.json")], f"--json: {file} cannot be written"),
        (["--json", str(tmp_path)], f"--json: {tmp_path} is a folder"),
    ):
        args = _parsed("group", "--url", "http://127.0.0.1:1", "--service-key", "k", *words)
        with pytest.raises(CommandError, match=re.escape(said)):
            args.run(args)


def test_shares_of_more_than_everybody() -> None:
    args = _parsed("group", "--vanish", "0.6", "--stop", "0.6")
    with pytest.raises(CommandError, match="--vanish and --stop"):
        args.run(args)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_this_machine(host: str) -> None:
    assert command.is_here(host)


@pytest.mark.parametrize("addresses", [["192.0.2.1"], ["127.0.0.1", "192.0.2.1"], ["2001:db8::1"]])
def test_any_address_of_another_machine(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolved(*_: object, **__: object) -> list[object]:
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, 1, 6, "", (address, 0))
            for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    assert not command.is_here("queue.example.org")


def test_another_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VESTIBULE_STATE_DIR", str(tmp_path))
    args = _parsed("group", "--url", "http://192.0.2.1:8600", "--service-key", "k")
    with pytest.raises(CommandError, match=r"192\.0\.2\.1 is not this machine.*--yes-really"):
        args.run(args)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8600", "http://127.0.0.1:99999", "http://[::1", "http://a:b@127.0.0.1"]
)
def test_what_is_no_url(url: str) -> None:
    args = _parsed("group", "--url", url, "--service-key", "k")
    with pytest.raises(CommandError, match=re.escape(f"--url: {url} is no http://")):
        args.run(args)


# --- who comes ----------------------------------------------------------------------------------


def test_a_load_comes_in_batches() -> None:
    plans = Crowd("x", Manners(), 1).load(5, 2, 3.0)
    assert [plan.at_s for plan in plans] == [0, 0, 3, 3, 6]
    assert len({plan.user for plan in plans}) == 5


def test_shares_and_seed() -> None:
    manners = Manners(vanish=0.2, stop=0.3, confirm=0.5)
    plans = Crowd("x", manners, 7).group(1000)
    assert plans == Crowd("x", manners, 7).group(1000)
    assert plans != Crowd("x", manners, 8).group(1000)
    endings = [plan.ending for plan in plans]
    assert endings.count("vanish") == pytest.approx(200, abs=3)
    assert endings.count("stop") == pytest.approx(300, abs=3)
    assert {plan.ending for plan in plans[:12]} == {"leave", "vanish", "stop"}
    assert sum(plan.confirms for plan in plans) == pytest.approx(500, abs=50)


def test_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE)
    asked = read_trace(path, minutes=10, speed=2)
    assert [at_s for at_s, _ in asked] == pytest.approx([0, 2.157, 2.271], abs=0.001)
    assert asked[1][1] == Said(words=396, answer=109)
    plans = Crowd("x", Manners(messages=2), 1).replay(asked, each=2)
    assert [plan.at_s for plan in plans] == pytest.approx([0, 2.271], abs=0.001)
    assert plans[0].says == (Said(374, 44), Said(396, 109))
    assert plans[1].says == (Said(879, 55),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("when,what\n1,2\n", "no column TIMESTAMP"),
        (TRACE.replace("396", "many"), "line 3"),
        (TRACE.replace(",396,109", ""), "line 3"),
        (TRACE.splitlines()[0], "no request in it"),
    ],
)
def test_what_is_no_trace(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(CommandError, match=said):
        read_trace(path, 10, 1)


def test_a_trace_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read: No such file"):
        read_trace(tmp_path / "none.csv", 10, 1)
