"""Several processes behind one port, kept running; and ``vestibule up`` with them."""

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests

from infra import processes
from infra.errors import CommandError
from tests.infra.conftest import Up, eventually

Start = Callable[..., Up]
DEADLINE_S = 10.0


def _program(text: str) -> list[str]:
    """A program that holds its end of the link to the parent, in a few words."""
    held = "import signal, socket, sys, time; link = socket.socket(fileno=0)"
    return [sys.executable, "-c", f"{held}; {text}"]


async def test_one_that_dies_before_it_listens_is_an_error() -> None:
    with pytest.raises(CommandError, match="ended with status 7 at its start"):
        async with processes.running(2, _program("sys.exit(7)"), {}):
            raise AssertionError("it opened")


async def test_one_that_dies_later_is_started_again_ever_more_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(processes, "RESTART_S", 0.01)
    monkeypatch.setattr(processes, "RESTART_MAX_S", 0.05)
    lives = tmp_path / "lives"
    dies = f"open({str(lives)!r}, 'a').write('x'); link.sendall(b'ready'); sys.exit(3)"
    async with processes.running(1, _program(dies), {}), asyncio.timeout(DEADLINE_S):
        while len(lives.read_text()) < 5:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
    pauses = [record.args for record in caplog.records if "process_ended" in record.getMessage()]
    said = " ".join(record.getMessage() for record in caplog.records)
    assert len(pauses) >= 4
    for pause in ("0.02", "0.04", "0.05"):
        assert f"code=3 again_in_s={pause}" in said


async def test_one_that_does_not_drain_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_S", 0.1)
    stubborn = (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); link.sendall(b'ready'); time.sleep(60)"
    )
    before = set(psutil.Process().children())
    async with processes.running(2, _program(stubborn), {}):
        ours = set(psutil.Process().children()) - before
        assert len(ours) == 2
    assert not any(process.is_running() for process in ours)


def serving_of(one: Up) -> list[psutil.Process]:
    """The processes that share the port now."""
    found = []
    for process in one.children():
        with suppress(psutil.Error):  # it ends at this moment
            if "--one-of-several" in process.cmdline():
                found.append(process)
    return found


@pytest.mark.long
def test_up_serves_with_several_processes(up: Start) -> None:
    one = up(VESTIBULE_PROCESSES="3", MAX_ACTIVE_USERS="1").wait_ready()
    serving = serving_of(one)
    assert len(serving) == 3
    assert one.post("/queue/join/ada", {"auto_confirm": True}).json()["status"] == "active"
    for _ in range(9):  # each a connection of its own, so each process gets some
        reply = requests.post(
            one.url + "/v1/chat/completions",
            json={"model": "vestibule-demo", "messages": [{"role": "user", "content": "hello"}]},
            headers={**one._headers("service_key"), "X-OpenWebUI-User-Id": "ada"},
            timeout=20,
        )
        assert reply.status_code == 200
    serving[0].kill()

    def whole() -> bool:
        now = serving_of(one)
        return len(now) == 3 and serving[0] not in now

    eventually(whole, "the killed process was not replaced")
    family = one.children()
    assert one.stop() == 0
    assert not [p for p in family if p.is_running()]
    assert "Traceback" not in one.errors()


@pytest.mark.long
def test_a_killed_up_leaves_a_port_that_the_next_one_gets(up: Start) -> None:
    one = up(VESTIBULE_PROCESSES="2").wait_ready()
    ticket = one.post("/queue/join/ada").json()["ticket_id"]
    one.process.send_signal(signal.SIGKILL)
    one.process.wait()
    again = up(VESTIBULE_PROCESSES="2", VESTIBULE_PORT=one.port).wait_ready()
    assert again.get("/queue/status/ada").json()["ticket_id"] == ticket
