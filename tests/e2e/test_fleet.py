"""Knows a fleet that follows its queue: a worker is ordered by hand, a second one comes because
somebody waits in a real Open WebUI, goes again, and both end in the archive with their history.

Every worker is `vestibule worker` with a real vLLM, as the local provider starts it. Does not know
how the autoscaler decides (`tests/autoscale`).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests

from infra.providers.local import processes
from tests.e2e.build import ANSWER
from tests.e2e.line import FIRST, SOON_S, becomes, served, waits
from tests.e2e.server import POLL_S
from tests.e2e.stack import BEHIND, EXECUTABLE, MODEL, SERVE, Vestibule, VllmServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.build import Components
    from tests.e2e.conftest import Shots, SignIn
    from tests.e2e.stack import OpenWebUI

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

BOOT_S = 420.0  # 60 to 100 s on two idle cores
GONE_S = 120.0
FLEET = """
[providers.here]
kind = "local"
model = {model}
vllm = {vllm}
arguments = {arguments}
environment = {environment}
capacity = 2
slots = 1
drain = 2

[pools.default]
workers_min = 1
workers_max = 2
wait_target = 60
held = 30
boot = 60
up_after = 45
usual_window = 20
idle_after = 15
surplus_after = 15
drain = 20
"""


class Fleet(Vestibule):
    """`vestibule up` with a fleet's file, and the commands that ask it for machines."""

    def __init__(self, folder: Path, port: int, components: Components) -> None:
        settings = {"MAX_ACTIVE_USERS": 4, "VESTIBULE_FLEET": "fleet.toml"}
        super().__init__(folder, port, "", **settings)
        self._write_file(components)

    def _write_file(self, components: Components) -> None:
        vllm = self.folder / "vllm"
        vllm.write_text(f'#!/bin/sh\nexec {" ".join(BEHIND)} "{components.vllm}/bin/vllm" "$@"\n')
        vllm.chmod(0o755)
        variables = VllmServer(self.folder, components).environment()
        text = FLEET.format(
            model=json.dumps(str(components.model)),
            vllm=json.dumps(str(vllm)),
            arguments=json.dumps(["--served-model-name", MODEL, *SERVE]),
            environment="{ "
            + ", ".join(f"{name} = {json.dumps(value)}" for name, value in variables.items())
            + " }",
        )
        (self.folder / "fleet.toml").write_text(text)

    def _answers(self) -> bool:
        """Also without a worker: its first one is ordered from it."""
        try:
            return requests.get(self.url + self.ready_path, timeout=5).ok
        except requests.RequestException:
            return False

    def stop(self) -> None:
        """Nothing of its workers is left, whatever a case did."""
        super().stop()
        for folder in (self.folder / "state" / "fleet" / "machines" / "here").glob("*"):
            processes.kill(processes.of(folder))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command, as its admin types it."""
        return subprocess.run(
            (EXECUTABLE, *words),
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], **self.environment()},
            capture_output=True,
            text=True,
            timeout=BOOT_S,
            check=False,
        )

    def instances(self, *words: str) -> list[dict[str, Any]]:
        """Those that live; with ids these, whole."""
        done = self.run("instances", *words, "--json")
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)["instances"]
        return found

    async def until(self, states: str, *names: str, within_s: float) -> dict[str, Any]:
        """Wait until an instance that is none of these is in one of the states."""
        deadline = time.monotonic() + within_s
        while True:
            found = await asyncio.to_thread(self.instances)
            for one in found:
                if one["state"] in states.split() and one["instance_id"] not in names:
                    return one
            assert time.monotonic() < deadline, self.error(f"none became {states}: {found}")
            await asyncio.sleep(POLL_S)


@pytest.fixture
def fleet(
    components: Components, open_webui: OpenWebUI, gateway_port: int, tmp_path: Path
) -> Iterator[Fleet]:
    open_webui.forget()
    with Fleet(tmp_path, gateway_port, components) as server:
        yield server
        sys.stderr.write(f"{server.log_tail(200)}\n")


async def test_a_surge_makes_the_fleet_grow_and_shrink_again(
    fleet: Fleet, open_webui: OpenWebUI, sign_in: SignIn, shots: Shots
) -> None:
    by_hand = await _from_nothing_to_ready(fleet)
    admin, settings = fleet.key("admin_key"), {"capacity": "auto", "sessions_per_slot": 1}
    fleet.call("PUT", "/admin/pools/default", key=admin, body=settings)
    fleet.install_into(open_webui)

    ann = await served(sign_in, shots)  # has all there is
    bob = await waits(await sign_in("Bob"), FIRST, shots)
    second = await fleet.until("provisioning booting ready", by_hand, within_s=120)
    assert second["asked_by"] == "autoscaler"
    # Ann's session has 20 minutes left; the machine that comes is counted on.
    await bob.sees_status(r"1st in line, (about [1-9]\b.* minutes?|less than .*)$", 30)
    await shots.take(bob, "sees that a machine comes")
    await bob.sees_answer(ANSWER, BOOT_S)
    await shots.take(bob, "is answered by the second worker")
    assert fleet.ticket(ann.user)["status"] == "active"
    shown = await asyncio.to_thread(fleet.run, "workers")
    assert shown.returncode == 0, shown.stderr

    for person in (ann, bob):
        fleet.leave(person.user)
        await becomes(fleet, person.user, "disconnected", within_s=SOON_S)
    gone = await fleet.until("terminated", within_s=GONE_S)
    assert gone["instance_id"] == second["instance_id"]
    assert gone["error"] is None
    [stays] = [one for one in fleet.instances() if one["instance_id"] == by_hand]
    assert stays["state"] == "ready"

    await _to_the_archive(fleet, by_hand, gone["instance_id"])


async def _from_nothing_to_ready(fleet: Fleet) -> str:
    """The id of a machine that was ordered by hand."""
    done = await asyncio.to_thread(fleet.run, "provision", "--json")
    assert done.returncode == 0, done.stderr
    [one] = json.loads(done.stdout)["instances"]
    steps = [int(step) for step in re.findall(r" (\d+) %", done.stderr)]
    assert steps == sorted(steps)
    assert {50, 60, 100} < set(steps)
    return str(one["instance_id"])


async def _to_the_archive(fleet: Fleet, by_hand: str, other: str) -> None:
    assert fleet.run("drain", by_hand, "--deadline", "5", "--yes").returncode == 0
    await fleet.until("terminated", other, within_s=GONE_S)
    for name in (by_hand, other):
        path = f"/admin/instances/{name}/archive"
        fleet.call("POST", path, key=fleet.key("admin_key"), body={})
    deadline = time.monotonic() + SOON_S
    while len(archived := fleet.instances("--state", "archived")) < 2:
        assert time.monotonic() < deadline, archived
        await asyncio.sleep(POLL_S)
    [whole] = fleet.instances(by_hand)
    walked = [line["target"] for line in whole["history"] if line["target"]]
    assert walked == [
        "provisioning",
        "booting",
        "ready",
        "draining",
        "terminating",
        "terminated",
        "archived",
    ]
