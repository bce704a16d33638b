"""``vestibule up`` as its user meets it: real processes, a real Valkey, a real demo worker."""

import asyncio
import json
import os
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests
from redis import Redis

from admission import logs
from admission.clock import RedisClock
from admission.domain import DEFAULT_POOL, Worker
from admission.settings import read_settings
from admission.store.connection import open_redis
from admission.store.redis_store import RedisStore
from infra.children import Children
from infra.cli import main
from infra.state import StateFolder
from infra.up import _welcome
from tests.infra.conftest import ROOT, Up, clean_environment, eventually
from tests.ports import free_port

Start = Callable[..., Up]
Refused = Callable[..., str]


@pytest.fixture
def refused(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Refused]:
    """Runs ``vestibule up`` where it ends by itself: with which code, and what it says.

    In this process, as the start of an interpreter is the longest part of such a run.
    """
    monkeypatch.setattr(logs, "configure", lambda: None)  # pytest's own handlers stay
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)
    monkeypatch.setenv("VESTIBULE_STATE_DIR", str(state))
    monkeypatch.setenv("VESTIBULE_PORT", str(free_port()))

    def run(code: int, text: str, **environment: str) -> str:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert main(["up"]) == code
        return _complains(capsys.readouterr().err, text)

    mask = os.umask(0o022)
    os.umask(mask)
    yield run
    os.umask(mask)


def _alive(processes: list[psutil.Process]) -> list[str]:
    return [p.name() for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def _does_what_it_prints(one: Up) -> None:
    command = re.search(r"try it\s+(curl .*?)\n  Ctrl-C", one.printed, re.DOTALL)
    assert command
    reply = subprocess.run(["sh", "-c", command[1]], capture_output=True, text=True, check=True)
    assert json.loads(reply.stdout)["status"] == "active"


def test_the_curl_it_prints_works_as_printed(running: Up) -> None:
    _does_what_it_prints(running)


def test_the_install_it_prints_says_where_this_one_is(running: Up) -> None:
    printed = next(line for line in running.printed.splitlines() if "owui install" in line)
    assert f"VESTIBULE_STATE_DIR={running.state.resolve()} " in printed
    assert printed.endswith(f" --admission-url {running.url}")


@pytest.mark.parametrize(
    ("given", "front", "end"),
    [
        ({}, "", ""),
        ({"VESTIBULE_OWUI_JWT_SECRET": "s" * 32}, "", " --jwt"),
        ({"VESTIBULE_SERVICE_KEY": "k" * 32}, "", ' --service-key "$VESTIBULE_SERVICE_KEY"'),
        ({"VESTIBULE_WAIT_LIMIT": "3600"}, "", ""),
        ({"VESTIBULE_WAIT_LIMIT": "60"}, "VESTIBULE_WAIT_LIMIT=60 ", ""),
    ],
)
def test_the_install_it_prints_brings_what_another_shell_does_not_know(
    tmp_path: Path, given: dict[str, str], front: str, end: str
) -> None:
    settings = read_settings({"VESTIBULE_STATE_DIR": str(tmp_path), **given})
    welcome = _welcome(settings, StateFolder(tmp_path), worker_ready=True)
    printed = next(line for line in welcome.splitlines() if "owui install" in line)
    state = f"VESTIBULE_STATE_DIR={tmp_path.resolve()}"
    assert printed.startswith(f"  Open WebUI  {state} {front}vestibule owui install ")
    assert printed.endswith(f" --email ADMIN{end}")
    assert "s" * 32 not in welcome


def test_only_their_owner_reads_the_keys(running: Up) -> None:
    keys = json.loads((running.state / "keys.json").read_text())
    assert set(keys) == {"service_key", "admin_key", "worker_token"}
    assert stat.S_IMODE((running.state / "keys.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(running.state.stat().st_mode) == 0o700


def test_keys_are_made_once(state: Path) -> None:
    made = StateFolder(state)
    made.claim()
    keys = made.keys()
    made.release()
    assert StateFolder(state).keys() == keys


def test_the_demo_worker_answers_through_the_gateway(running: Up) -> None:
    one = running
    models = one.get("/v1/models").json()["data"]
    assert [model["id"] for model in models] == ["vestibule-demo"]
    assert one.post("/queue/join/ada", {"auto_confirm": True}).json()["status"] == "active"
    reply = requests.post(
        one.url + "/v1/chat/completions",
        json={"model": "vestibule-demo", "messages": [{"role": "user", "content": "hello"}]},
        headers={**one._headers("service_key"), "X-OpenWebUI-User-Id": "ada"},
        timeout=20,
    )
    assert reply.status_code == 200
    assert "demo" in reply.json()["choices"][0]["message"]["content"]
    (worker,) = one.get("/admin/workers", "admin_key").json()["workers"]
    assert worker["kind"] == "agent"
    assert worker["ready"]
    assert len(worker["agent_info"]["checksum"]) == 64


def test_ctrl_c_stops_everything_it_started(up: Start) -> None:
    one = up().wait_ready()
    family = one.children()
    assert len(family) >= 3
    assert one.stop(signal.SIGINT) == 0
    assert not _alive(family)
    assert "Traceback" not in one.errors()


def test_a_port_in_use_is_one_clear_line(up: Start, state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        one = up(VESTIBULE_PORT=port)
        assert one.process.wait(20) == 1
        _complains(one.errors(), f"cannot listen on 127.0.0.1:{port}")
    assert not (state / "valkey.sock").exists()


def test_an_unwritable_state_folder_is_one_clear_line(refused: Refused, state: Path) -> None:
    state.write_text("a file stands where the folder should be")
    refused(1, f"the state folder {state} cannot be written")


def test_every_bad_setting_is_named_at_once(refused: Refused) -> None:
    wrong = {"SESSION_DURATION": "soon", "VESTIBULE_PROT": "1", "VESTIBULE_UPSTREAMS": "ftp://x"}
    errors = refused(2, "", **wrong)
    for name in ("SESSION_DURATION", "VESTIBULE_PROT", "VESTIBULE_UPSTREAMS"):
        assert re.search(rf"^vestibule: {name}: ", errors, re.MULTILINE)


def test_a_port_that_is_no_number_names_the_setting(refused: Refused) -> None:
    refused(2, "VESTIBULE_PORT", VESTIBULE_PORT="eighty")


def test_a_second_one_on_the_same_folder_is_refused(running: Up, refused: Refused) -> None:
    said = f"another vestibule already runs on the state folder {running.state}"
    refused(1, said, VESTIBULE_STATE_DIR=str(running.state))


def test_data_of_a_newer_server_is_refused(running: Up, refused: Refused, state: Path) -> None:
    note = "valkey-version"
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", (running.state / note).read_text())
    state.mkdir()
    (state / "up.lock").touch()
    (state / note).write_text("99.0.0\n")
    refused(1, "was written by Valkey 99.0.0, newer than")


def test_a_redis_that_does_not_answer_is_one_clear_line(refused: Refused) -> None:
    said = "no Redis answers at 127.0.0.1:1/0"
    assert "secret" not in refused(1, said, REDIS_URL="redis://:secret@127.0.0.1:1/0")


def test_it_listens_on_ipv6_too_and_a_closed_terminal_leaves_no_process(up: Start) -> None:
    one = up("--host", "::1").wait_ready()
    assert f"http://[::1]:{one.port}/v1" in one.printed
    assert requests.get(f"http://[::1]:{one.port}/readyz", timeout=5).status_code == 200
    family = one.children()
    assert one.stop(signal.SIGHUP) == 0
    assert not _alive(family)


def test_a_host_that_is_none_is_one_clear_line(refused: Refused) -> None:
    refused(1, "cannot listen on no.such.host.invalid", VESTIBULE_HOST="no.such.host.invalid")


def test_keys_of_the_environment_are_in_force_and_no_child_gets_one_it_does_not_need(
    up: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"VESTIBULE_SERVICE_KEY": "one-of-my-own", "VESTIBULE_ADMIN_KEY": "another-of-my-own"}
    for name, key in keys.items():
        monkeypatch.setenv(name, key)
    one = up(**keys).wait_ready()
    assert f"{', '.join(keys)} of the environment" in one.printed
    _does_what_it_prints(one)
    for child in one.children():
        assert not child.environ().keys() & keys.keys()


@pytest.mark.long
def test_what_was_acknowledged_survives_kill_9_and_what_survived_it_is_stopped(up: Start) -> None:
    one = up(MAX_ACTIVE_USERS="1").wait_ready()
    one.post("/queue/join/first", {"auto_confirm": True})
    ticket = one.post("/queue/join/second").json()
    survivors = one.children()
    one.process.kill()
    one.process.wait()
    assert _alive(survivors)
    again = up(MAX_ACTIVE_USERS="1").wait_ready()
    eventually(lambda: not _alive(survivors), "what the killed one started still runs")
    _still_has(again, ticket)
    family = again.children()
    for process in (*family, psutil.Process(again.process.pid)):
        process.kill()
    psutil.wait_procs(family, timeout=10)
    _still_has(up(MAX_ACTIVE_USERS="1").wait_ready(), ticket)


def _still_has(one: Up, ticket: dict[str, object]) -> None:
    kept = one.get("/queue/status/second").json()
    assert (kept["ticket_id"], kept["position"]) == (ticket["ticket_id"], 1)
    assert one.get("/queue/metrics").json()["active"] == 1


@pytest.mark.parametrize("text", ["", "[]", '{"valkey": 5}', '{"a": [-1, 0]}', '{"a": ["x", 0]}'])
def test_a_damaged_record_of_children_does_not_hinder_a_start(tmp_path: Path, text: str) -> None:
    record = tmp_path / "children.json"
    record.write_text(text)
    Children(tmp_path).stop_survivors()
    assert not record.exists()


def test_a_folder_of_other_things_is_left_alone(refused: Refused, state: Path) -> None:
    state.mkdir(mode=0o755)
    (state / "thesis.txt").write_text("mine")
    refused(1, f"{state} holds other things")
    assert stat.S_IMODE(state.stat().st_mode) == 0o755


def test_redis_url_switches_the_embedded_server_off_and_a_stopped_worker_is_ready_no_more(
    up: Start, state: Path, valkey: str
) -> None:
    with Redis.from_url(valkey) as redis:
        redis.flushall()  # other tests kill their workers, whose leases then last a while
    one = up(REDIS_URL=valkey).wait_ready()
    assert one.post("/queue/join/ada").status_code == 200
    assert not (state / "valkey.sock").exists()
    assert "valkey-server" not in {p.name() for p in one.children()}
    (ours,) = one.get("/admin/workers", "admin_key").json()["workers"]
    assert ours["ready"]
    assert one.stop(signal.SIGTERM) == 0
    assert [worker.ready for worker in asyncio.run(_workers_at(valkey))] == [False]


def test_without_the_demo_it_waits_for_workers_to_come(up: Start) -> None:
    one = up(VESTIBULE_DEMO="off").wait_printed(r"Ctrl-C stops everything\.\n")
    assert "models      of the workers to come" in one.printed
    assert "no worker is ready" in one.printed
    assert {p.name() for p in one.children()} == {"valkey-server"}
    assert one.get("/v1/models").json()["data"] == []
    assert one.stop(signal.SIGTERM) == 0


async def _workers_at(url: str) -> list[Worker]:
    redis = open_redis(url)
    try:
        return await RedisStore(redis, RedisClock(), None).workers(DEFAULT_POOL)
    finally:
        await redis.aclose()


@pytest.mark.long
def test_a_killed_valkey_comes_back_with_every_ticket(up: Start) -> None:
    one = up().wait_ready()
    ticket = one.post("/queue/join/ada").json()["ticket_id"]
    (server,) = [p for p in one.children() if p.name() == "valkey-server"]
    server.kill()

    def known() -> bool:
        reply = one.get("/queue/status/ada")
        assert reply.status_code in (200, 503)
        return reply.status_code == 200 and reply.json()["ticket_id"] == ticket

    eventually(known, "the ticket did not come back")
    assert "Traceback" not in one.errors()


@pytest.mark.long
def test_reload_restarts_at_a_change_and_stops_clean(up: Start) -> None:
    one = up("--reload").wait_ready()
    (ROOT / "admission" / "__init__.py").touch()
    one.wait_printed(r"changed: __init__\.py; restarting(.|\n)*Ctrl-C stops everything\.\n")
    family = one.children()
    assert one.stop() == 0
    assert not _alive(family)


def _complains(errors: str, text: str) -> str:
    """It says ``text``, every line its own, no traceback."""
    assert text in errors
    assert "Traceback" not in errors
    assert all(line.startswith("vestibule: ") for line in errors.splitlines()), errors
    return errors
