"""``vestibule up`` as its user meets it: real processes, a real Valkey, a real demo worker."""

import asyncio
import json
import os
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests
from redis import Redis

from admission.clock import RedisClock
from admission.domain import DEFAULT_POOL, Worker
from admission.store.connection import open_redis
from admission.store.redis_store import RedisStore
from infra.children import Children
from infra.state import StateFolder
from tests.infra.conftest import ROOT, Up, eventually

Start = Callable[..., Up]


def _alive(processes: list[psutil.Process]) -> list[str]:
    return [p.name() for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def _does_what_it_prints(one: Up) -> None:
    command = re.search(r"try it\s+(curl .*?)\n  Ctrl-C", one.printed, re.DOTALL)
    assert command
    reply = subprocess.run(["sh", "-c", command[1]], capture_output=True, text=True, check=True)
    assert json.loads(reply.stdout)["status"] == "active"


def test_the_curl_it_prints_works_as_printed(running: Up) -> None:
    _does_what_it_prints(running)


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_it_started(up: Start, number: int) -> None:
    one = up().wait_ready()
    family = one.children()
    assert len(family) >= 3
    assert one.stop(number) == 0
    assert not _alive(family)
    assert "Traceback" not in one.errors()


def test_a_port_in_use_is_one_clear_line(up: Start, state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        _fails(up(VESTIBULE_PORT=port), 1, f"cannot listen on 127.0.0.1:{port}")
    assert not (state / "valkey.sock").exists()


def test_an_unwritable_state_folder_is_one_clear_line(up: Start, state: Path) -> None:
    state.write_text("a file stands where the folder should be")
    _fails(up(), 1, f"the state folder {state} cannot be written")


def test_every_bad_setting_is_named_at_once(up: Start) -> None:
    one = up(SESSION_DURATION="soon", VESTIBULE_PROT="1", VESTIBULE_UPSTREAMS="ftp://x")
    errors = _fails(one, 2, "")
    for name in ("SESSION_DURATION", "VESTIBULE_PROT", "VESTIBULE_UPSTREAMS"):
        assert re.search(rf"^vestibule: {name}: ", errors, re.MULTILINE)


def test_a_port_that_is_no_number_names_the_setting(up: Start) -> None:
    _fails(up(VESTIBULE_PORT="eighty"), 2, "VESTIBULE_PORT")


def test_a_second_one_on_the_same_folder_is_refused(running: Up, up: Start) -> None:
    second = up(VESTIBULE_STATE_DIR=str(running.state))
    _fails(second, 1, f"another vestibule already runs on the state folder {running.state}")


def test_data_of_a_newer_server_is_refused(running: Up, up: Start, state: Path) -> None:
    note = "valkey-version"
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", (running.state / note).read_text())
    state.mkdir()
    (state / "up.lock").touch()
    (state / note).write_text("99.0.0\n")
    _fails(up(), 1, "was written by Valkey 99.0.0, newer than")


def test_a_redis_that_does_not_answer_is_one_clear_line(up: Start) -> None:
    one = up(REDIS_URL="redis://:secret@127.0.0.1:1/0")
    assert "secret" not in _fails(one, 1, "no Redis answers at 127.0.0.1:1/0")


def test_it_listens_on_ipv6_too(up: Start) -> None:
    one = up("--host", "::1").wait_ready()
    assert f"http://[::1]:{one.port}/v1" in one.printed
    assert requests.get(f"http://[::1]:{one.port}/readyz", timeout=5).status_code == 200


def test_a_host_that_is_none_is_one_clear_line(up: Start) -> None:
    _fails(up("--host", "no.such.host.invalid"), 1, "cannot listen on no.such.host.invalid")


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


def test_redis_url_switches_the_embedded_server_off(up: Start, state: Path, valkey: str) -> None:
    one = up(REDIS_URL=valkey).wait_ready()
    assert one.post("/queue/join/ada").status_code == 200
    assert not (state / "valkey.sock").exists()
    assert "valkey-server" not in {p.name() for p in one.children()}


def test_what_was_acknowledged_survives_kill_9_of_all(up: Start) -> None:
    one = up(MAX_ACTIVE_USERS="1").wait_ready()
    one.post("/queue/join/first", {"auto_confirm": True})
    ticket = one.post("/queue/join/second").json()
    family = one.children()
    for process in (*family, psutil.Process(one.process.pid)):
        process.kill()
    psutil.wait_procs(family, timeout=10)
    again = up(MAX_ACTIVE_USERS="1").wait_ready()
    kept = again.get("/queue/status/second").json()
    assert (kept["ticket_id"], kept["position"]) == (ticket["ticket_id"], 1)
    assert again.get("/queue/metrics").json()["active"] == 1


def test_survivors_of_kill_9_are_stopped_at_the_next_start(up: Start) -> None:
    one = up().wait_ready()
    survivors = one.children()
    os.kill(one.process.pid, signal.SIGKILL)
    one.process.wait()
    assert _alive(survivors)
    again = up().wait_ready()
    eventually(lambda: not _alive(survivors), "what the killed one started still runs")
    assert again.get("/readyz").status_code == 200


@pytest.mark.parametrize("text", ["", "[]", '{"valkey": 5}', '{"a": [-1, 0]}', '{"a": ["x", 0]}'])
def test_a_damaged_record_of_children_does_not_hinder_a_start(tmp_path: Path, text: str) -> None:
    record = tmp_path / "children.json"
    record.write_text(text)
    Children(tmp_path).stop_survivors()
    assert not record.exists()


def test_a_folder_of_other_things_is_left_alone(up: Start, state: Path) -> None:
    state.mkdir(mode=0o755)
    (state / "thesis.txt").write_text("mine")
    _fails(up(), 1, f"{state} holds other things")
    assert stat.S_IMODE(state.stat().st_mode) == 0o755


def test_a_closed_terminal_leaves_no_process(up: Start) -> None:
    one = up().wait_ready()
    family = one.children()
    assert one.stop(signal.SIGHUP) == 0
    assert not _alive(family)


def test_a_worker_that_was_stopped_is_ready_no_more(up: Start, valkey: str) -> None:
    with Redis.from_url(valkey) as redis:
        redis.flushall()  # other tests kill their workers, whose leases then last a while
    one = up(REDIS_URL=valkey).wait_ready()
    (ours,) = one.get("/admin/workers", "admin_key").json()["workers"]
    assert ours["ready"]
    assert one.stop() == 0
    assert [worker.ready for worker in asyncio.run(_workers_at(valkey))] == [False]


async def _workers_at(url: str) -> list[Worker]:
    redis = open_redis(url)
    try:
        return await RedisStore(redis, RedisClock(), None).workers(DEFAULT_POOL)
    finally:
        await redis.aclose()


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


def test_reload_restarts_at_a_change_and_stops_clean(up: Start) -> None:
    one = up("--reload").wait_ready()
    (ROOT / "admission" / "__init__.py").touch()
    one.wait_printed(r"changed: __init__\.py; restarting(.|\n)*Ctrl-C stops everything\.\n")
    family = one.children()
    assert one.stop() == 0
    assert not _alive(family)


def _fails(one: Up, code: int, text: str) -> str:
    """It ends by itself with ``code`` and says ``text``, every line its own, no traceback."""
    assert one.process.wait(20) == code
    errors = one.errors()
    assert text in errors
    assert "Traceback" not in errors
    assert all(line.startswith("vestibule: ") for line in errors.splitlines()), errors
    return errors
