"""A host over SSH in the hands of a real scheduler: from an order to the archive."""

import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.ports import free_port
from tests.providers import life, sshd
from tests.worker.processes import GOOD_VLLM, stand_in_for_vllm

FLEET = """
[deployment]
name = "lab"
[providers.metal]
kind = "bare-metal"
user = "{server.user}"
key = "{server.key}"
known_hosts = "{server.known_hosts}"
way = "process"
flavor = "cpu"
model = "{model}"
arguments = {arguments}
listen = "127.0.0.1"
python = "{python}"
vllm = "{vllm}"
drain = 1
environment = {environment}
[[providers.metal.hosts]]
name = "rack-1"
address = "127.0.0.1"
port = {server.port}
folder = "{folder}/rack-1"
worker_port = {port}
"""


@pytest.mark.long
async def test_from_an_order_to_the_archive(redis: Redis, tmp_path: Path) -> None:
    async with sshd.running(tmp_path / "sshd") as server:
        text = FLEET.format(
            server=server,
            folder=tmp_path,
            port=free_port(),
            python=sys.executable,
            vllm=stand_in_for_vllm(tmp_path, GOOD_VLLM),
            model="demo",
            arguments="[]",
            environment="{}",
        )
        async with life.serving(redis, tmp_path, text) as fleet:
            order = {"provider": "metal", "reason": "a test"}
            over = await life.live(fleet, order, ready_s=60, gone_s=60)
        names = [line["name"] for line in over["history"]]
        for name in ("create", "start", "address", "install", "become_ready", "drain", "terminate"):
            assert name in names, names
        assert not (tmp_path / "rack-1").exists()
