"""The commands for machines against the real service, with workers that are real processes here."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from admission.settings import Settings
from infra import cli
from infra.fleet import provision
from scheduler import leases, table
from scheduler.fleet import duties
from tests.api.calls import until
from tests.providers import life

WORKER = Path(__file__).parent / "small_worker.py"
FLEET = """
[providers.here]
kind = "local"
command = ["{python}", "{worker}"]
capacity = 2
slots = 2
drain = 1
price_per_hour = 0.25
currency = "EUR"
[providers.broken]
kind = "local"
model = "{folder}"
vllm = "{folder}/vllm"
[pools.default]
[limits]

look_booting = 0.1
look_ending = 0.1
settle = 0
"""

Run = Callable[..., "asyncio.Future[tuple[int, str, str]]"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """All ticks many times a second."""
    for module, names in (
        (duties, ("COMMANDS_S", "INSTANCES_S", "OFFERS_S")),
        (table, ("TICK_S", "WORKERS_S")),
        (leases, ("BEAT_S",)),
        (provision, ("DRAW_S",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, 0.1)


@pytest.fixture
async def served(redis: Redis, tmp_path: Path, quick: None) -> AsyncIterator[Settings]:
    """The service and a scheduler with a fleet, in this process."""
    text = FLEET.format(folder=tmp_path, python=sys.executable, worker=WORKER)
    async with life.served(redis, tmp_path, text, keep_local=False) as settings:
        yield settings


@pytest.fixture
def run(
    served: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs a command: its exit code, what it printed, and what it said beside."""
    for name in [name for name in os.environ if name.startswith("VESTIBULE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VESTIBULE_PORT", str(served.port))
    monkeypatch.setenv("VESTIBULE_ADMIN_KEY", "admin-key")

    async def one(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = await asyncio.to_thread(cli.main, words)
        said = capsys.readouterr()
        return code, said.out, said.err

    return lambda *words: asyncio.ensure_future(one(*words))


async def _until(run: Run, name: str, state: str) -> dict[str, object]:
    async with asyncio.timeout(30):
        while True:
            _, out, _ = await run("instances", name, "--json")
            one: dict[str, object] = json.loads(out)["instances"][0]
            if one["state"] == state:
                return one
            await asyncio.sleep(0.1)


async def test_a_machine_from_nothing_to_ready_and_to_the_archive(run: Run) -> None:
    code, out, err = await run("provision", "--provider", "here", "--yes", "--json")
    assert code == 0, err
    assert json.loads(out)["ok"]
    [name] = [one["instance_id"] for one in json.loads(out)["instances"]]
    steps = [int(step) for step in re.findall(rf"^{name} +(\d+) %", err, re.MULTILINE)]
    assert steps == sorted(steps)
    assert steps[-1] == 100
    assert {5, 50} < set(steps)  # what lies between may pass within one tick

    _, out, _ = await run("instances")
    assert re.search(rf"^{name} +ready +█{{10}} 100 % .* here process +127\.0\.0\.1:\d+", out, re.M)
    assert "\npool default: hold: the pool's capacity is a fixed number (1): " in out
    _, out, _ = await run("instances", "--pool", "default", "--json")
    assert json.loads(out)["pools"][0]["hold"]["code"] == "capacity_fixed"
    _, out, _ = await run("workers")
    assert re.search(rf"^{name} +ready +default +0 of 2 ", out, re.M)

    assert (await run("drain", name, "--deadline", "1", "--reason", "a test", "--yes"))[0] == 0
    ended = await _until(run, name, "terminated")
    assert ended["error"] is None
    _, out, _ = await run("instances", name)
    for line in ("(provisioning → booting)", "(booting → ready)", "(ready → draining) a test"):
        assert line in out
    code, out, _ = await run("terminate", name, "--yes")
    assert (code, out) == (0, f"{name} is terminated already\n")

    async def is_billed() -> bool:
        _, out, _ = await run("costs", "--by", "instance")
        return re.search(rf"^{name} +<?0\.\d\d EUR ", out, re.M) is not None

    await until(is_billed)


async def test_one_that_fails_is_exit_code_1_with_what_to_do(run: Run) -> None:
    code, out, err = await run("provision", "--provider", "broken")
    assert code == 1
    assert re.search(r"^broken-\w+: INSTALL_FAILED at \d+ %$", err, re.MULTILINE)
    assert "there is no executable" in err
    assert "  what to do: Read the error's words" in err
    assert not out


async def test_what_cannot_be_ordered_is_said_before_anything_is_done(run: Run) -> None:
    for words, said in (
        (["--provider", "there"], "--provider: one of broken, here"),
        ([], "--provider: one of broken, here"),
        (["--provider", "here", "--type", "big"], "--type: here offers process, not big"),
        (["--provider", "here"], "at 0.25 EUR per hour (price: the fleet file)? Nobody can be"),
        (["--provider", "here", "--yes", "--pool", "nope"], "there is no pool 'nope'"),
    ):
        code, _, err = await run("provision", *words)
        assert (code, said in err) == (1, True), err
    assert (await run("instances"))[1].startswith("there are none\n")
    for words in (["instances", "nope"], ["terminate", "nope", "--yes"], ["drain", "nope"]):
        code, _, err = await run(*words)
        assert (code, err) == (1, "vestibule: instance_id: there is no instance 'nope'\n")
