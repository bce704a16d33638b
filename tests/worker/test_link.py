"""What the agent tells admission, and what it does when admission answers oddly or not at all."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import aiohttp

from tests.ports import free_port
from tests.worker.processes import AGENT, agent, program
from tests.worker.stand_ins import (
    DEADLINE_S,
    STREAM_HEAD,
    Admission,
    Request,
    Upstream,
    chunk,
)
from worker_image.agent import Journal, Link, Machine, ModelServer, Worker, read_settings

KEY = {"Authorization": "Bearer upstream-key"}
CHAT = "/v1/chat/completions"


async def test_it_registers_once_it_listens_and_says_what_it_is(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    upstream.metrics = (
        'vllm:num_requests_waiting{engine="0",model_name="a"} 2.0\n'
        'vllm:num_requests_waiting{engine="1",model_name="a"} 3.0\n'
        'vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 7.0\n'
    )
    async with agent(
        tmp_path,
        admission_url=admission.url,
        vllm_url=upstream.url,
        VESTIBULE_SLOTS="3",
        VESTIBULE_POOL="gpu",
    ) as running:
        await admission.until_ready()
        info = json.loads((await running.get("/info"))[1])
    register, beat = admission.registrations[0], admission.heartbeats[-1]
    known = {name: info[f"agent_{name}"] for name in ("version", "build_date", "checksum")}
    assert register.key == "shared"
    assert register.body["url"] == running.url
    assert beat.key == "own-1"
    for body in (register.body, beat.body):
        assert (body["worker_id"], body["pool"], body["slots"]) == ("w1", "gpu", 3)
        assert body["agent_info"] == known
        assert body["hardware"]["cpu_count"] >= 1
        assert body["hardware"]["disk_total_mb"] >= body["hardware"]["disk_free_mb"] > 0
    assert (beat.body["ready"], beat.body["reason"], beat.body["models"]) == (True, None, ["tiny"])
    assert (beat.body["in_flight"], beat.body["queue_depth"]) == (0, 5)
    assert set(beat.body["load"]) == {
        *("gpu_load", "gpu_memory_used_mb", "gpu_memory_total_mb"),
        *("cpu_load", "memory_used_mb", "gpus", "running", "waiting", "kv_cache_usage"),
    }
    assert beat.body["engine"] == {"state": "external", "version": "0.33.0"}


async def test_a_change_of_readiness_is_told_at_once(tmp_path: Path, admission: Admission) -> None:
    port = free_port()
    async with agent(
        tmp_path, admission_url=admission.url, vllm_url=f"http://127.0.0.1:{port}"
    ) as running:
        await running.until("/readyz", 503)
        await admission.until(lambda: bool(admission.heartbeats))
        assert admission.heartbeats[0].body["ready"] is False
        assert "does not answer" in admission.heartbeats[0].body["reason"]
        async with Upstream(answer=_nothing).running(port):
            await admission.until_ready()  # in far less than the heartbeat interval of 10 s
            assert json.loads(await running.until("/readyz", 200))["models"] == ["tiny"]
        await admission.until(lambda: not admission.heartbeats[-1].body["ready"])
        assert json.loads(await running.until("/readyz", 503))["ready"] is False


async def test_a_worker_that_admission_forgot_registers_again(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    admission.heartbeat_interval = 0.1
    async with agent(tmp_path, admission_url=admission.url, vllm_url=upstream.url):
        await admission.until_ready()
        admission.known.clear()
        await admission.until(lambda: admission.heartbeats[-1].key not in {"own-1"})
    keys = [call.key for call in admission.registrations]
    assert keys == ["shared", "own-1", "shared"]  # its own is tried first


async def test_a_restarted_worker_comes_back_with_its_own_token(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    async with agent(tmp_path, admission_url=admission.url, vllm_url=upstream.url):
        await admission.until_ready()
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600
    admission.upstream_key = "another-key"
    async with agent(
        tmp_path, admission_url=admission.url, vllm_url=upstream.url, VESTIBULE_WORKER_TOKEN=""
    ) as running:
        await admission.until(lambda: admission.heartbeats[-1].key == "own-2")
        # A gateway that has not heard of the new upstream key yet is still served.
        for key in ("upstream-key", "another-key"):
            headers = {"Authorization": f"Bearer {key}"}
            async with running.http.get(f"{running.url}/v1/x", headers=headers) as answer:
                assert answer.status == 200
    assert [call.key for call in admission.registrations] == ["shared", "own-1"]


async def test_draining_in_the_reply_is_honored_and_taken_back(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    admission.heartbeat_interval = 0.1
    async with agent(tmp_path, admission_url=admission.url, vllm_url=upstream.url) as running:
        await running.until("/readyz", 200)
        admission.draining = True
        assert json.loads(await running.until("/readyz", 503))["reason"].startswith("draining")
        admission.draining = False
        await running.until("/readyz", 200)


async def test_drain_makes_it_unready_and_tells_admission(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    async with agent(tmp_path, admission_url=admission.url, vllm_url=upstream.url) as running:
        await admission.until_ready()
        async with running.http.post(f"{running.url}/drain", headers=KEY) as answer:
            assert await answer.json() == {"draining": True, "in_flight": 0}
        assert (await running.get("/readyz"))[0] == 503
        assert admission.drains == ["/workers/w1/drain?pool=default"]
        await admission.until(lambda: not admission.heartbeats[-1].body["ready"])


async def test_a_stop_lets_the_running_answer_finish(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    told = asyncio.Event()

    async def stream(_: Request, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(b"one"))
        await asyncio.wait_for(told.wait(), DEADLINE_S)
        writer.write(chunk(b"two") + chunk(b""))

    upstream.answer = stream
    admission.heartbeat_interval = 0.1
    async with agent(tmp_path, admission_url=admission.url, vllm_url=upstream.url) as running:
        await admission.until_ready()
        async with running.http.post(f"{running.url}{CHAT}", headers=KEY, json={}) as answer:
            assert await answer.content.readany() == b"one"
            running.child.signal(signal.SIGTERM)
            await admission.until(lambda: bool(admission.drains))
            enough = len(admission.heartbeats) + 6  # it waits, and goes on telling
            await admission.until(lambda: len(admission.heartbeats) >= enough)
            assert admission.heartbeats[-1].body["in_flight"] == 1
            told.set()
            assert await answer.read() == b"two"
        status, written = await running.child.end()
    assert status == 0
    assert "Traceback" not in written


async def test_a_second_signal_does_not_wait(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    async def endless(
        _: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(STREAM_HEAD + chunk(b"one"))
        await reader.read()

    upstream.answer = endless
    async with agent(tmp_path, admission_url=admission.url, vllm_url=upstream.url) as running:
        await admission.until_ready()
        async with running.http.post(f"{running.url}{CHAT}", headers=KEY, json={}) as answer:
            await answer.content.readany()
            running.child.signal(signal.SIGINT)
            await admission.until(lambda: bool(admission.drains))
            running.child.signal(signal.SIGINT)
            _, written = await running.child.end()
    assert "Traceback" not in written


class _Beating(Link):
    """A link that has always something new to tell."""

    async def _beat(self) -> None:
        await asyncio.sleep(0)
        self._worker.changed.set()


async def test_a_stop_ends_it_whatever_it_does_just_then(tmp_path: Path) -> None:
    """Also in the step in which a change wakes it, where Python 3.11's `wait_for` loses it."""
    given = {"VESTIBULE_WORKER_TOKEN": "shared", "VESTIBULE_STATE_DIR": str(tmp_path)}
    settings, machine = read_settings([], given), Machine(tmp_path)
    async with aiohttp.ClientSession() as asking:
        for steps in range(1, 20):
            worker, model = Worker(settings, ""), ModelServer(asking, settings, lambda: False)
            link = _Beating(asking, worker, machine, model, None, Journal())
            link.registered = True
            running = asyncio.create_task(link.run())
            for _ in range(steps):
                await asyncio.sleep(0)
            running.cancel()
            assert await asyncio.wait({running}, timeout=DEADLINE_S) == ({running}, set())


async def test_an_answer_that_outlasts_the_drain_timeout_is_cut(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    gone = asyncio.Event()

    async def endless(
        _: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(STREAM_HEAD + chunk(b"one"))
        await reader.read()
        gone.set()

    upstream.answer = endless
    async with agent(
        tmp_path,
        admission_url=admission.url,
        vllm_url=upstream.url,
        VESTIBULE_WORKER_DRAIN_TIMEOUT="0",
    ) as running:
        await admission.until_ready()
        async with running.http.post(f"{running.url}{CHAT}", headers=KEY, json={}) as answer:
            await answer.content.readany()
            status, written = await running.child.stop()
        await asyncio.wait_for(gone.wait(), DEADLINE_S)
    assert status == 0
    assert "Traceback" not in written


async def test_it_waits_for_an_admission_that_comes_later_and_says_so_once(
    tmp_path: Path, upstream: Upstream
) -> None:
    port = free_port()
    async with agent(
        tmp_path, admission_url=f"http://127.0.0.1:{port}", vllm_url=upstream.url
    ) as running:
        waiting = await running.until("/readyz", 200)
        assert json.loads(waiting)["registered"] is False
        async with Admission().running(port) as late:
            await late.until_ready()
        status, written = await running.child.stop()
    assert status == 0
    assert written.count("does not answer") <= 2  # before it came, and after it went
    assert written.count("admission state=registered") == 1


async def test_a_refused_token_ends_it_with_one_clear_line(
    tmp_path: Path, admission: Admission
) -> None:
    environment = {
        "VESTIBULE_WORKER_TOKEN": "wrong",
        "VESTIBULE_ADMISSION_URL": admission.url,
        "VESTIBULE_WORKER_PORT": str(free_port()),
    }
    async with program([sys.executable, str(AGENT)], environment, tmp_path) as child:
        status, written = await child.end()
    assert status == 1
    assert "agent: admission refuses this worker: nobody knows this key (401)\n" in written
    assert "Traceback" not in written


async def test_a_taken_worker_id_is_tried_again_until_it_is_free(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    admission.known["w1"] = "somebody else's"
    async with agent(tmp_path, admission_url=admission.url, vllm_url=upstream.url) as running:
        await admission.until(lambda: len(admission.registrations) >= 2)
        assert "taken (409)" in (await running.get("/readyz"))[1]
        del admission.known["w1"]
        await admission.until_ready()


async def test_a_wrong_checksum_keeps_it_up_and_unready(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    async with agent(
        tmp_path, admission_url=admission.url, vllm_url=upstream.url, WORKER_AGENT_SHA256="0" * 64
    ) as running:
        await admission.until(lambda: bool(admission.heartbeats))
        status, text = await running.get("/readyz")
        assert status == 503
        assert "WORKER_AGENT_SHA256" in json.loads(text)["reason"]
        assert "WORKER_AGENT_SHA256" in admission.heartbeats[-1].body["reason"]
        assert (await running.get("/healthz"))[0] == 200


async def _nothing(_: Request, __: asyncio.StreamReader, ___: asyncio.StreamWriter) -> None:
    return
