"""An order as the words of RunInstances. The same order makes the same words: EC2 compares them
when a launch is repeated with its token, and makes a second machine for another zone's."""

import re
from typing import Any
from zlib import crc32

from admission.instance import INSTANCE_ID, Order
from infra.providers.aws.settings import Settings
from scheduler.fleet.port import Refused

DEPLOYMENT_TAG = "vestibule-deployment"
INSTANCE_TAG = "vestibule-instance"
POOL_TAG = "vestibule-pool"
MODEL_TAG = "vestibule-model"
KEEP_TAG = "vestibule-keep"
"""A disk with it outlives its machine. EC2 itself forgets that it was asked to keep a disk as soon
as the machine is gone."""

# Tag values: Amazon EC2 User Guide, "Tag restrictions".
_TAG_VALUE = re.compile(r"[\w .:/=+@-]{0,256}")


def run_instances(
    instance_id: str, order: Order, settings: Settings, deployment: str, user_data: bytes
) -> dict[str, Any]:
    """For boto3, one machine with all its tags.

    Raises:
        Refused: PROVIDER_INVALID_ORDER, of what we know ourselves to be wrong.
    """
    zone, kind = _place(instance_id, order, settings)
    words: dict[str, Any] = {
        "ClientToken": instance_id,
        "MinCount": 1,
        "MaxCount": 1,
        "InstanceType": kind,
        "InstanceInitiatedShutdownBehavior": "terminate",
        # Tags in the metadata tell a machine who it is, without user data of its own. IMDSv2, and
        # not beyond the machine: a container on it does not reach the role's credentials.
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
            "InstanceMetadataTags": "enabled",
        },
        "TagSpecifications": _tags(instance_id, order, settings, deployment),
    }
    if settings.launch_template:
        words["LaunchTemplate"] = {
            "LaunchTemplateId": settings.launch_template,
            "Version": settings.launch_template_version,
        }
    if settings.image:
        words["ImageId"] = settings.image
    if user_data:
        words["UserData"] = user_data  # botocore encodes it
    if settings.instance_profile:
        named = "Arn" if settings.instance_profile.startswith("arn:") else "Name"
        words["IamInstanceProfile"] = {named: settings.instance_profile}
    if disks := _disks(settings):
        words["BlockDeviceMappings"] = disks
    if order.market == "spot":
        words["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {
                "SpotInstanceType": "one-time",
                "InstanceInterruptionBehavior": "terminate",
            },
        }
    if settings.placement_group:
        words["Placement"] = {"GroupName": settings.placement_group}
    return words | _network(settings, settings.subnets[zone])


def _place(instance_id: str, order: Order, settings: Settings) -> tuple[str, str]:
    """Zone and type; who names no zone gets one that stays the same however often it is said."""
    zones = sorted(settings.subnets)
    zone = order.zone or zones[crc32(instance_id.encode()) % len(zones)]
    kind = order.type or next(iter(settings.types))
    wrong = ""
    if not INSTANCE_ID.fullmatch(instance_id):
        wrong = f"{instance_id!r} is no id of an instance"
    elif zone not in settings.subnets:
        wrong = f"zone: one of {', '.join(zones)}, not {zone}"
    elif kind not in settings.types:
        wrong = f"type: one of {', '.join(settings.types)}, not {kind}"
    elif order.market not in settings.markets:
        wrong = f"market: one of {', '.join(settings.markets)}, not {order.market}"
    elif order.options:
        wrong = f"options: there are none, not {', '.join(sorted(order.options))}"
    elif not _TAG_VALUE.fullmatch(order.model):
        wrong = "model: becomes a tag: at most 256 of letters, digits, space and . : / = + @ - _"
    if wrong:
        raise Refused("PROVIDER_INVALID_ORDER", wrong)
    return zone, kind


def _tags(
    instance_id: str, order: Order, settings: Settings, deployment: str
) -> list[dict[str, Any]]:
    """In the same call, so that nothing is ever there without them."""
    ours = settings.tags | {
        "Name": settings.tags.get("Name", instance_id),
        DEPLOYMENT_TAG: deployment,
        INSTANCE_TAG: instance_id,
    }
    machine = ours | {POOL_TAG: order.pool}
    if order.model:
        machine[MODEL_TAG] = order.model
    disk = ours | ({KEEP_TAG: "true"} if settings.keep_data_disk else {})
    tagged = {"instance": machine, "volume": disk}
    if order.market == "spot":
        tagged["spot-instances-request"] = ours
    return [
        {
            "ResourceType": kind,
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        }
        for kind, tags in tagged.items()
    ]


def _disks(settings: Settings) -> list[dict[str, Any]]:
    """Explicitly gp3: else an image's or the account's own kind is taken."""
    kind: dict[str, Any] = {
        "VolumeType": "gp3",
        "Encrypted": True,
        "Iops": settings.disk_iops,
        "Throughput": settings.disk_throughput,
    }
    if settings.kms_key:
        kind["KmsKeyId"] = settings.kms_key
    disks = []
    if settings.disk:
        root = kind | {"VolumeSize": settings.disk, "DeleteOnTermination": True}
        disks.append({"DeviceName": settings.root_device, "Ebs": root})
    if settings.data_disk:
        data = kind | {"VolumeSize": settings.data_disk}
        data["DeleteOnTermination"] = not settings.keep_data_disk
        disks.append({"DeviceName": settings.data_device, "Ebs": data})
    return disks


def _network(settings: Settings, subnet: str) -> dict[str, Any]:
    groups = list(settings.security_groups)
    if settings.efa:
        interface = {
            "DeviceIndex": 0,
            "InterfaceType": "efa",
            "SubnetId": subnet,
            "Groups": groups,
            "DeleteOnTermination": True,
        }
        return {"NetworkInterfaces": [interface]}
    return {"SubnetId": subnet} | ({"SecurityGroupIds": groups} if groups else {})
