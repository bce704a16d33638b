"""vLLM as the agent's child: started, watched, started again, and never left behind.

With the demo model in vLLM's place, or a script that ends as a test wants it.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.worker.processes import GOOD_VLLM, ROOT, agent, stand_in_for_vllm
from tests.worker.stand_ins import DEADLINE_S, Admission, Json
from worker_image.agent import Journal, engine_line

KEY = {"Authorization": "Bearer upstream-key"}
WORDS = ("--model", "some/model", "--", "--dtype", "auto")

# Leaves a process behind that holds on to its output, as vLLM's workers would.
FERTILE_VLLM = GOOD_VLLM.replace(
    'print("arguments"',
    'import subprocess; subprocess.Popen(["sleep", "1000"])\nprint("arguments"',
)


def _children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


async def _gone(processes: list[psutil.Process]) -> None:
    """Wait until none of them runs. Raises `TimeoutError`."""
    async with asyncio.timeout(DEADLINE_S):
        while any(each.is_running() and each.status() != "zombie" for each in processes):  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # no event tells of it


async def test_it_starts_vllm_behind_a_key_of_its_own_and_serves_through_it(
    tmp_path: Path, admission: Admission
) -> None:
    vllm = stand_in_for_vllm(tmp_path, GOOD_VLLM)
    async with agent(
        tmp_path, admission_url=admission.url, words=WORDS, VESTIBULE_VLLM=str(vllm)
    ) as running:
        await admission.until_ready()
        call = {"model": "vestibule-demo", "messages": [{"role": "user", "content": "hello"}]}
        url = f"{running.url}/v1/chat/completions"
        async with running.http.post(url, headers=KEY, json=call) as answer:
            assert "hello" in (await answer.json())["choices"][0]["message"]["content"]
        info = json.loads((await running.get("/info"))[1])
        children = _children(running.child.pid)
        # Else setproctitle, which vLLM calls, wipes the mark by which survivors are found.
        assert children[0].environ()["SPT_NOENV"] == "1"
        status, written = await running.child.stop()
    assert (info["vllm_state"], info["vllm_ready"], info["models"]) == (
        "serving",
        True,
        ["vestibule-demo"],
    )
    assert status == 0
    assert "'some/model', '--dtype', 'auto', '--shutdown-timeout', '5'" in written
    assert "'--host', '127.0.0.1', '--port'" in written
    assert children
    await _gone(children)


async def test_a_crash_is_reported_and_started_again(tmp_path: Path, admission: Admission) -> None:
    admission.heartbeat_interval = 0.1
    vllm = stand_in_for_vllm(tmp_path, FERTILE_VLLM)
    async with agent(
        tmp_path, admission_url=admission.url, words=WORDS, VESTIBULE_VLLM=str(vllm)
    ) as running:
        await admission.until_ready()
        engine, *others = _children(running.child.pid)
        assert others
        engine.kill()
        await admission.until(lambda: admission.heartbeats[-1].body["engine"]["state"] == "crashed")
        told = admission.heartbeats[-1].body
        await _gone([engine, *others])  # its workers, too: they hold the GPU
        assert told["reason"].startswith("vLLM was ended by signal 9; next start in")
        assert told["models"] == ["vestibule-demo"]  # it is still to serve them
        crash: Json = told["engine"]["last_crash"]
        assert (crash["reason"], crash["exit_code"]) == ("vLLM was ended by signal 9", -9)
        assert any("arguments" in line for line in crash["lines"])
        await admission.until_ready()
        assert admission.heartbeats[-1].body["engine"]["restarts"] == 1


async def test_a_vllm_that_does_not_start_is_tried_again_later_each_time(
    tmp_path: Path, admission: Admission
) -> None:
    admission.heartbeat_interval = 0.1
    script = "#!/bin/sh\necho 'torch.OutOfMemoryError: CUDA out of memory'\nexit 3\n"
    vllm = stand_in_for_vllm(tmp_path, script)
    async with agent(tmp_path, admission_url=admission.url, words=WORDS, VESTIBULE_VLLM=str(vllm)):
        await admission.until(
            lambda: any(beat.body["engine"]["restarts"] == 2 for beat in admission.heartbeats)
        )
    reasons = {beat.body["reason"] for beat in admission.heartbeats}
    oom = "vLLM ended with status 3: torch.OutOfMemoryError: CUDA out of memory; next start in"
    assert [reason for reason in reasons if reason.startswith(oom)]


async def test_no_executable_is_a_reason_not_an_end(tmp_path: Path, admission: Admission) -> None:
    async with agent(
        tmp_path, admission_url=admission.url, words=WORDS, VESTIBULE_VLLM="no-such-vllm"
    ) as running:
        await admission.until(
            lambda: any(
                "cannot be started" in (b.body["reason"] or "") for b in admission.heartbeats
            )
        )
        assert (await running.get("/healthz"))[0] == 200


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of our death")
async def test_a_killed_agent_leaves_nothing_behind(tmp_path: Path, admission: Admission) -> None:
    vllm = stand_in_for_vllm(tmp_path, GOOD_VLLM)
    async with agent(
        tmp_path, admission_url=admission.url, words=WORDS, VESTIBULE_VLLM=str(vllm)
    ) as running:
        await admission.until_ready()
        children = _children(running.child.pid)
        running.child.signal(signal.SIGKILL)
        await _gone(children)
    assert children


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows a process's environment")
async def test_what_a_killed_engine_left_is_ended_by_the_next_agent(
    tmp_path: Path, admission: Admission
) -> None:
    mark = {"WORKER_ENGINE_OF": str(tmp_path / "state.json")}
    left = await asyncio.create_subprocess_exec("sleep", "1000", env={**os.environ, **mark})
    others = {"WORKER_ENGINE_OF": str(tmp_path / "other.json")}
    other = await asyncio.create_subprocess_exec("sleep", "1000", env={**os.environ, **others})
    vllm = stand_in_for_vllm(tmp_path, GOOD_VLLM)
    async with agent(tmp_path, admission_url=admission.url, words=WORDS, VESTIBULE_VLLM=str(vllm)):
        assert await asyncio.wait_for(left.wait(), DEADLINE_S) == -signal.SIGKILL
        assert other.returncode is None
    other.kill()
    await other.wait()


async def test_drain_ends_vllm_once_nothing_runs_and_the_agent_still_tells(
    tmp_path: Path, admission: Admission
) -> None:
    vllm = stand_in_for_vllm(tmp_path, GOOD_VLLM)
    async with agent(
        tmp_path, admission_url=admission.url, words=WORDS, VESTIBULE_VLLM=str(vllm)
    ) as running:
        await admission.until_ready()
        children = _children(running.child.pid)
        call = {
            "model": "vestibule-demo",
            "stream": True,
            "messages": [{"role": "user", "content": "one two three four five"}],
        }
        url = f"{running.url}/v1/chat/completions"
        async with running.http.post(url, headers=KEY, json=call) as answer:
            await answer.content.readany()
            async with running.http.post(f"{running.url}/drain", headers=KEY) as drained:
                assert await drained.json() == {"draining": True, "in_flight": 1}
            assert all(child.is_running() for child in children)
            assert b"[DONE]" in await answer.read()
        await _gone(children)
        seen = json.loads(await running.until("/readyz", 503))
        assert seen["reason"] == "draining: asked for by POST /drain"
        info = json.loads((await running.get("/info"))[1])
        assert info["vllm_state"] == "stopped"
        assert (await running.child.stop())[0] == 0


async def test_logs_are_for_the_upstream_key_and_hold_no_secret(
    tmp_path: Path, admission: Admission
) -> None:
    script = GOOD_VLLM.replace(
        'print("arguments"', 'print("my key is", os.environ["VLLM_API_KEY"])\nprint("arguments"'
    )
    vllm = stand_in_for_vllm(tmp_path, script)
    async with agent(
        tmp_path,
        admission_url=admission.url,
        words=WORDS,
        VESTIBULE_VLLM=str(vllm),
        VESTIBULE_VLLM_KEY="very-secret-key",
    ) as running:
        await admission.until_ready()
        assert (await running.get("/logs"))[0] == 401

        async def lines(query: str = "") -> list[Json]:
            async with running.http.get(f"{running.url}/logs{query}", headers=KEY) as answer:
                assert (answer.status, answer.content_type) == (200, "application/jsonl")
                return [json.loads(line) for line in (await answer.text()).splitlines()]

        everything = await lines()
        assert {"agent", "vllm"} == {line["source"] for line in everything}
        assert set(everything[0]) == {"at", "level", "source", "text"}
        [said] = [line["text"] for line in everything if "my key is" in line["text"]]
        assert said == "my key is [removed]"
        assert (await lines("?tail=2")) == everything[-2:]
        since = everything[-1]["at"]
        assert all(line["at"] >= since for line in await lines(f"?since={since}"))
        for query in ("?tail=0", "?tail=many", "?since=yesterday"):
            async with running.http.get(f"{running.url}/logs{query}", headers=KEY) as answer:
                assert answer.status == 422


FRAME = '  File "a.py", line 3, in step'
PREFIX = "(EngineCore pid=7) ERROR 11-21 10:00:00 "


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        (f"{PREFIX}[logger.py:39] prompt: 'a secret'", "[logger.py:39] …"),
        (f"{PREFIX}[core.py:12] ValueError: a secret", "[core.py:12] ValueError"),
        (f"{PREFIX}[core.py:12] {FRAME}", f"[core.py:12] {FRAME}"),
        ("pydantic.ValidationError: a secret", "pydantic.ValidationError"),
        (
            f"{PREFIX}[executor.py:3] Worker proc W-0 died unexpectedly (exit code: -4), a secret",
            "[executor.py:3] Worker proc W-0 died unexpectedly (exit code: -4)",
        ),
        ("    input_value='a secret'", None),
        ("a secret", None),
        ("", None),
        (
            "(APIServer pid=1) INFO 11-21 10:00:00 [loggers.py:9] Engine 000: Running: 1 reqs",
            "[loggers.py:9] Engine 000: Running: 1 reqs",
        ),
    ],
)
def test_once_it_serves_no_line_holds_a_prompt(line: str, kept: str | None) -> None:
    found = engine_line(line, served=True)
    assert (found and found[1]) == kept
    before = engine_line(line, served=False)
    assert not line or before


def test_levels_are_vllms_own() -> None:
    assert engine_line(f"{PREFIX}[core.py:1] x", served=False) == (logging.ERROR, "[core.py:1] x")
    assert engine_line("plain", served=False) == (logging.INFO, "plain")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("GET https://s3/a.tar?X-Amz-Signature=abc now", "GET https://s3/a.tar?[removed] now"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [removed]"),
        ("token=abc, x", "token=[removed], x"),
        ("with hf_abcdefghijkl", "with [removed]"),
        ("https://user:pass@host/x", "https://[removed]@host/x"),
        ("max_num_batched_tokens: 2048", "max_num_batched_tokens: 2048"),
        ("x" * 600, "x" * 500 + "…"),
        ("our own-token-1 here", "our [removed] here"),
    ],
)
def test_secrets_are_known_by_their_shape_or_by_name(text: str, clean: str) -> None:
    journal = Journal()
    journal.hide("own-token-1", "")
    assert journal.clean(text) == clean


@pytest.mark.parametrize("given", [("--shutdown-timeout", "7"), ("--shutdown-timeout=7",)])
async def test_a_deadline_among_vllms_words_wins(
    tmp_path: Path, admission: Admission, given: tuple[str, ...]
) -> None:
    vllm = stand_in_for_vllm(tmp_path, GOOD_VLLM)
    words = ("--model", "some/model", "--", *given)
    async with agent(
        tmp_path, admission_url=admission.url, words=words, VESTIBULE_VLLM=str(vllm)
    ) as running:
        await admission.until_ready()
        _, written = await running.child.stop()
    assert written.count("--shutdown-timeout") == 1


def test_the_file_is_alone() -> None:
    """It imports nothing of ours."""
    text = (ROOT / "worker_image" / "agent.py").read_text()
    for package in ("admission", "scheduler", "infra", "worker_image"):
        assert f"import {package}" not in text
        assert f"from {package}" not in text
