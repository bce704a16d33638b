"""One host or two of an inventory, both of them this machine, and the way to a running agent."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec
import psutil

from admission.instance import Instance, Order, State
from infra.providers import bare_metal
from infra.providers.bare_metal import BareMetal, Settings
from infra.providers.deployment import Deployment
from scheduler.fleet.port import Gone, Machine
from tests.ports import free_port
from tests.providers.sshd import Sshd
from tests.worker.processes import GOOD_VLLM, stand_in_for_vllm

TOKEN = "shared-worker-token"
DEADLINE_S = 40.0
ORDER = Order("metal", pool="night")


def settings(server: Sshd, folder: Path, **changes: Any) -> Settings:
    """An inventory of two hosts, both of them this machine."""
    hosts = [
        {
            "name": name,
            "address": "127.0.0.1",
            "port": server.port,
            "folder": str(folder / name),
            "zone": "cellar",
        }
        for name in ("one", "two")
    ]
    table = {
        "hosts": hosts,
        "user": server.user,
        "key": str(server.key),
        "known_hosts": str(server.known_hosts),
        "way": "process",
        "flavor": "cpu",
        "model": "demo",
        "listen": "127.0.0.1",
        "python": sys.executable,
        "drain": 1,
        "answer": 40,
        **changes,
    }
    return msgspec.convert(table, Settings, strict=True)


def open_it(chosen: Settings, folder: Path, **deployment: Any) -> BareMetal:
    known = {"name": "ours", "admission_url": "http://127.0.0.1:1", "worker_token": TOKEN}
    return bare_metal.open(
        "metal", chosen, Deployment(state_dir=folder, folder=folder, **{**known, **deployment})
    )


def marked(folder: Path) -> list[psutil.Process]:
    """What was started on the hosts of this test."""
    found = []
    for process in psutil.process_iter():
        try:
            said = process.environ()
        except psutil.Error:
            continue
        if any(name.endswith("_OF_VESTIBULE") and str(folder) in said[name] for name in said):
            found.append(process)
    return found


def record(machine: Machine, order: Order = ORDER) -> Instance:
    return Instance(
        id=machine.instance_id,
        order=order,
        state=State.BOOTING,
        version=2,
        progress=40,
        requested_ms=0,
        since_ms=0,
        moved_ms=0,
        provider_id=machine.provider_id,
    )


async def advance(provider: BareMetal, machine: Machine) -> Machine:
    """Step by step until it is installed, or refused."""
    async with asyncio.timeout(DEADLINE_S):
        while not machine.installed:
            machine = await provider.advance(record(machine), machine)
            await asyncio.sleep(0.05)
    return machine


async def to_the_end(provider: BareMetal, machine: Machine) -> None:
    """The same; an agent that ends at once was there for a moment."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            await provider.advance(record(machine), machine)
            await asyncio.sleep(0.05)


async def gone(provider: BareMetal, machine: Machine) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if await provider.look(machine.provider_id) == Gone():
                return
            await asyncio.sleep(0.05)


def open_one(
    server: Sshd, folder: Path, admission_url: str = "http://127.0.0.1:1", **more: Any
) -> Any:
    hosts = [
        {
            "name": "one",
            "address": "127.0.0.1",
            "port": server.port,
            "folder": str(folder / "one"),
            "worker_port": free_port(),
        }
    ]
    deployment = {"admission_url": admission_url}
    for name in ("name", "agent_sha256"):
        if name in more:
            deployment[name] = more.pop(name)
    vllm = more.pop("vllm", None) or str(stand_in_for_vllm(folder, GOOD_VLLM))
    chosen = settings(server, folder, **{"hosts": hosts, "vllm": vllm, **more})
    return open_it(chosen, folder, **deployment)
