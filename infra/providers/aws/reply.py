"""What EC2 tells of machines and disks, as the fleet's words."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from admission.instance import Volume
from infra.providers.aws import errors
from infra.providers.aws.request import INSTANCE_TAG, KEEP_TAG
from scheduler.fleet.port import Machine, Power

POWERS = {
    "pending": Power.STARTING,
    "running": Power.RUNNING,
    "shutting-down": Power.STOPPING,
    "stopping": Power.STOPPING,
    "stopped": Power.STOPPED,
}
"""All states but ``terminated``, which is an end though EC2 shows it for about an hour: EC2 User
Guide, "Amazon EC2 instance state changes"."""
SPOT_NOTICE_MS = 120_000
"""Between the notice and the end: EC2 User Guide, "Spot Instance interruption notices"."""
NOTICES = frozenset({"marked-for-termination", "marked-for-stop"})
"""Status of a spot request whose machine has its notice: EC2 User Guide, "Get the status of a Spot
Instance request"."""
SPOT_ENDS = frozenset({"Server.SpotInstanceTermination", "Server.SpotInstanceShutdown"})

Reply = Mapping[str, Any]  # a part of boto3's answer


def is_terminated(told: Reply) -> bool:
    return state(told) == "terminated"


def state(told: Reply) -> str:
    return str(told.get("State", {}).get("Name", ""))


def why(told: Reply) -> tuple[str, str]:
    """EC2's reason for the state, a code and words; empty where it has none."""
    reason = told.get("StateReason", {})
    code = str(reason.get("Code", ""))
    return code, str(reason.get("Message", "")) or code


def death(told: Reply) -> tuple[str, str] | None:
    """The fleet's code and EC2's words, of a machine that EC2 itself ended."""
    code, words = why(told)
    known = errors.DEATHS.get(code)
    return (known[0], words) if known else None


def machine(told: Reply, *, public: bool, notice_ms: int | None, now_ms: int) -> Machine:
    """Of one instance in DescribeInstances that is not terminated.

    Args:
        public: whether agents are reached from outside the VPC.
        notice_ms: when its spot request was marked, if it was.

    Raises:
        KeyError: its state is none that EC2 documents.
    """
    power = POWERS[state(told)]
    code, _ = why(told)
    ends_ms = None if notice_ms is None else notice_ms + SPOT_NOTICE_MS
    if power is Power.STOPPING and code in SPOT_ENDS and ends_ms is None:
        ends_ms = now_ms
    launched = told.get("LaunchTime")
    return Machine(
        provider_id=told["InstanceId"],
        instance_id=tags(told).get(INSTANCE_TAG, ""),
        power=power,
        address=str(told.get("PublicIpAddress" if public else "PrivateIpAddress") or ""),
        zone=str(told.get("Placement", {}).get("AvailabilityZone", "")),
        type=str(told.get("InstanceType", "")),
        market="spot" if told.get("InstanceLifecycle") == "spot" else "on-demand",
        launched_ms=_ms(launched) if launched else None,
        failure=death(told) if power in (Power.STOPPING, Power.STOPPED) else None,
        ends_ms=ends_ms,
    )


def notice_ms(request: Reply) -> int | None:
    """When a spot request was marked: its machine ends two minutes later."""
    status = request.get("Status", {})
    if status.get("Code") not in NOTICES or "UpdateTime" not in status:
        return None
    return _ms(status["UpdateTime"])


def mappings(told: Reply) -> dict[str, tuple[bool, bool]]:
    """The disks attached to an instance: id -> whether it boots from it, and whether EC2 deletes it
    with the machine. That last is told here alone for certain."""
    return {
        each["Ebs"]["VolumeId"]: (
            each.get("DeviceName") == told.get("RootDeviceName"),
            bool(each["Ebs"].get("DeleteOnTermination")),
        )
        for each in told.get("BlockDeviceMappings", [])
        if "VolumeId" in each.get("Ebs", {})
    }


def volume(told: Reply, attached: Mapping[str, tuple[bool, bool]]) -> Volume:
    """Of one volume in DescribeVolumes. It is deleted with its machine, or by us after it, unless
    it carries `KEEP_TAG`; one that is none of ours goes or stays as EC2 was told."""
    name = told["VolumeId"]
    boots, goes = attached.get(name, (False, False))
    goes = goes or any(each.get("DeleteOnTermination") for each in told.get("Attachments", []))
    ours = bool(tags(told).get(INSTANCE_TAG))
    kept = KEEP_TAG in tags(told) or not ours
    return Volume(
        provider_volume_id=name,
        volume_type=str(told.get("VolumeType", "")) or "unknown",
        size_gb=int(told.get("Size", 0)),
        is_boot=boots,
        delete_on_terminate=goes or not kept,
        state={"in-use": "attached", "deleting": "deleting"}.get(told.get("State", ""), "detached"),
    )


def tags(told: Reply) -> dict[str, str]:
    return {each["Key"]: each["Value"] for each in told.get("Tags", [])}


def _ms(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)
