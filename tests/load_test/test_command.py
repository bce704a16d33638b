"""The command: its words, whom it refuses, who comes, and what it writes."""

import argparse
import asyncio
import json
import socket
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from aiohttp.test_utils import TestServer

from infra import cli
from infra.demo_model import MODEL, DemoModel
from infra.errors import CommandError
from infra.load_test import command
from infra.load_test.chat import Said
from infra.load_test.crowd import Crowd, Manners
from infra.load_test.trace import read_trace
from tests.conftest import DEADLINE_S, Service
from tests.gateway.conftest import make_ready
from tests.infra.conftest import ROOT, clean_environment

TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2225670,879,55
2023-11-16 18:25:47.0000000,91,16
"""


async def test_the_command_ends_with_a_report(service: Service, tmp_path: Path) -> None:
    await service.capacity(1)
    words = ["group", "--size", "3", "--think", "0", "--messages", "1", "--url", service.url]
    words += ["--service-key", service.service_key, "--vanish", "0", "--stop", "0"]
    words += ["--json", str(tmp_path / "new" / "report.json"), "--plots", str(tmp_path / "plots")]
    async with TestServer(DemoModel(pause_s=0).application()) as model:
        await make_ready(service, "w1", str(model.make_url("")).rstrip("/"), model=MODEL)
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "infra.cli", "load-test", *words),
            cwd=ROOT,
            env={**clean_environment(), "VESTIBULE_STATE_DIR": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(2 * DEADLINE_S):
            told, errors = await running.communicate()
    assert (running.returncode, errors) == (0, b"")
    assert b"3 people came: 3 left" in told
    assert told.endswith(b"every invariant held\n")
    found = json.loads((tmp_path / "new" / "report.json").read_text())
    assert (found["ok"], found["wait"]["n"], found["answers"]["whole"]) == (True, 2, 3)
    for name in ("slots.svg", "waits.svg"):
        assert ElementTree.parse(tmp_path / "plots" / name).getroot().tag.endswith("svg")


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
