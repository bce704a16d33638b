"""``vestibule provision`` at moto: from a command to a machine with its agent, and its end."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from redis.asyncio import Redis

from infra import cli
from infra.worker import agent_environment
from tests.aws import cloud
from tests.ports import free_port
from tests.providers import life
from tests.providers.aws_world import REGION

WORKER = Path(__file__).parent.parent / "infra" / "small_worker.py"
FLEET = """
[deployment]
name = "lab"
[providers.aws]
kind = "aws"
region = "{region}"
endpoint_url = "{url}"
subnets = {{ {zone} = "{subnet}" }}
types = {{ "g6e.xlarge" = 2 }}
launch_template = "{template}"
root_device = "/dev/sda1"
disk = 100
data_disk = 50
keep_data_disk = true
[limits]
look_booting = 1
unseen = 1
"""


def _instances(ec2: Any) -> list[dict[str, Any]]:
    found = ec2.describe_instances()["Reservations"]
    return [each for reservation in found for each in reservation["Instances"]]


@contextmanager
def _first_boot(ec2: Any, admission_url: str, folder: Path) -> Iterator[None]:
    """What the user data does on the machine, once there is one."""
    started: list[subprocess.Popen[bytes]] = []
    over = threading.Event()

    def boot() -> None:
        while not (found := _instances(ec2)):
            if over.wait(0.2):
                return
        tags = {each["Key"]: each["Value"] for each in found[0]["Tags"]}
        environment = agent_environment(
            admission_url=admission_url,
            worker_token="worker-token",
            worker_id=tags["vestibule-instance"],
            state_file=folder / "worker.json",
            vllm_url="",
            slots=2,
            drain_timeout_s=1,
        )
        environment |= {
            "VESTIBULE_POOL": tags["vestibule-pool"],
            "VESTIBULE_INSTANCE_ID": found[0]["InstanceId"],
            "VESTIBULE_WORKER_PORT": str(free_port()),
        }
        command = [sys.executable, str(WORKER)]
        started.append(subprocess.Popen(command, env=os.environ | environment))

    booting = threading.Thread(target=boot)
    booting.start()
    try:
        yield
    finally:
        over.set()
        booting.join()
        for process in started:
            process.terminate()
            process.wait(10)


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_from_a_command_to_the_archive(
    redis: Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    with cloud.running() as url:
        ec2 = boto3.client("ec2", REGION, endpoint_url=url)
        (subnet, *_) = ec2.describe_subnets()["Subnets"]
        image = ec2.register_image(Name="gpu")["ImageId"]
        made = ec2.create_launch_template(
            LaunchTemplateName="worker", LaunchTemplateData={"ImageId": image}
        )
        text = FLEET.format(
            region=REGION,
            url=url,
            zone=subnet["AvailabilityZone"],
            subnet=subnet["SubnetId"],
            template=made["LaunchTemplate"]["LaunchTemplateId"],
        )
        async with life.serving(redis, tmp_path, text) as fleet:
            monkeypatch.setenv("VESTIBULE_PORT", fleet._base.rpartition(":")[2])
            monkeypatch.setenv("VESTIBULE_ADMIN_KEY", "admin-key")
            with _first_boot(ec2, fleet._base, tmp_path):
                words = ["provision", "--yes", "--json"]
                assert await asyncio.to_thread(cli.main, words) == 0
                [told] = json.loads(capsys.readouterr().out)["instances"]
                name = told["instance_id"]
                await fleet.call("DELETE", f"/admin/instances/{name}?drain=0")
                over, _ = await fleet.until(name, "terminated", 60)
                await fleet.call("POST", f"/admin/instances/{name}/archive")
                await fleet.until(name, "archived", 30)
        disks = {each["state"] for each in over["volumes"]}
        assert disks == {"kept", "deleted"}
        names = [line["name"] for line in over["history"]]
        for event in ("create", "see_volumes", "become_ready", "terminate", "lose_machine", "end"):
            assert event in names, names
        assert {each["State"]["Name"] for each in _instances(ec2)} == {"terminated"}
        assert [each["Size"] for each in ec2.describe_volumes()["Volumes"]] == [50]
