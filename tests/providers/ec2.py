"""Amazon EC2 behind a real boto3 client, on a clock of the test, with what makes it hard to use.

It honours client tokens as EC2 does (for one zone, and the same words), answers in pages, tells
what is new or gone only after a while, has quotas and zones that sell out, gives spot machines two
minutes' notice, and keeps disks that are in use. `Wire` breaks the connection to it, or to moto.
"""

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from botocore import xform_name
from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError

NEVER_MS = 10**15
HOUR_MS = 3_600_000
PAGE = 2
NOTICE_MS = 120_000
Answer = tuple[SimpleNamespace, dict[str, Any]]


def refused(code: str, words: str = "no", status: int = 400, **headers: str) -> Answer:
    about = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    told = {"Error": {"Code": code, "Message": words}, "ResponseMetadata": about}
    return SimpleNamespace(status_code=status), told


class Wire:
    """What happens to calls on their way. ``fault``: asked for each operation's: "" nothing, "down"
    not done, "lost" done and no reply, else the code that it is refused with."""

    def __init__(self, client: Any) -> None:
        self.fault: Callable[[str], str] = lambda operation: ""
        self.called: list[str] = []
        self.words: dict[str, Any] = {}  # the last ones of each operation
        events = client.meta.events
        events.register_first("before-parameter-build.ec2", self._hear)
        events.register_first("before-call.ec2", self._before)
        events.register("after-call.ec2", self._after)

    def heal(self) -> None:
        """As if nobody had used it before."""
        self.fault = lambda operation: ""
        self.called.clear()

    @contextmanager
    def breaking(self, fault: str, operation: str = "") -> Iterator[None]:
        """All calls, or those of one operation."""
        self.fault = lambda asked: fault if operation in ("", asked) else ""
        try:
            yield
        finally:
            self.fault = lambda asked: ""

    def _hear(self, params: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:
        self.called.append(model.name)
        self.words[model.name] = params
        context["said"] = params
        context["fault"] = self.fault(model.name)

    def _before(self, context: dict[str, Any], **_: Any) -> Answer | None:
        match context["fault"]:
            case "" | "lost":
                return None
            case "down":
                raise ConnectTimeoutError(endpoint_url="ec2")
            case "RequestLimitExceeded":
                return refused("RequestLimitExceeded", status=503, **{"retry-after": "7"})
            case code:
                return refused(code)

    def _after(self, context: dict[str, Any], **_: Any) -> None:
        if context["fault"] == "lost":
            raise ReadTimeoutError(endpoint_url="ec2")


class No(Exception):
    """EC2's error: its code."""


@dataclass
class Vm:
    """A machine; instants in ms."""

    id: str
    words: Mapping[str, Any]
    made_ms: int
    runs_ms: int
    zone: str
    request_id: str = ""  # of a spot machine
    stopping_ms: int = NEVER_MS
    gone_ms: int = NEVER_MS
    marked_ms: int = NEVER_MS
    reason: tuple[str, str] = ("Client.UserInitiatedShutdown", "User initiated")

    @property
    def tags(self) -> dict[str, str]:
        return _tags(self.words, "instance")

    def state(self, at_ms: int) -> str:
        if at_ms >= self.gone_ms:
            return "terminated"
        if at_ms >= self.stopping_ms:
            return "shutting-down"
        return "running" if at_ms >= self.runs_ms else "pending"


@dataclass
class Disk:
    """A volume."""

    id: str
    vm: Vm
    device: str
    gb: int
    goes: bool
    tags: dict[str, str]
    asked_ms: int = NEVER_MS
    deleted_ms: int = NEVER_MS

    @property
    def gone_ms(self) -> int:
        return min(self.deleted_ms, self.vm.gone_ms if self.goes else NEVER_MS)


@dataclass
class FakeEc2:
    """The account. ``lag_ms``: how old what is described may be; ``subnets``: subnet -> zone."""

    now_ms: Callable[[], int]
    subnets: dict[str, str]
    lag_ms: int = 0
    start_ms: int = 30_000
    end_ms: int = 40_000
    disk_end_ms: int = 10_000
    quota: int = 1_000
    sold_out: set[str] = field(default_factory=set)  # zones
    stuck: set[str] = field(default_factory=set)  # zones in which nothing starts
    spot_prices: list[dict[str, Any]] = field(default_factory=list)
    vms: dict[str, Vm] = field(default_factory=dict)
    disks: dict[str, Disk] = field(default_factory=dict)
    tokens: dict[tuple[str, str], Vm] = field(default_factory=dict)  # token and zone
    efa: set[str] = field(default_factory=set)  # types that have an Elastic Fabric Adapter
    template: bytes = b""  # the user data of the one launch template

    def attach(self, client: Any) -> None:
        """The client's calls come here; a test's fake takes the place of the one before."""
        client.meta.events.register("before-call.ec2", self._answer, unique_id="fake-ec2")

    def detach(self, client: Any) -> None:
        client.meta.events.unregister("before-call.ec2", unique_id="fake-ec2")

    def _answer(self, model: Any, context: dict[str, Any], **_: Any) -> Answer:
        try:
            told = getattr(self, xform_name(model.name))(**context["said"])
        except No as no:
            return refused(*no.args)
        return SimpleNamespace(status_code=200), told

    # --- machines --------------------------------------------------------------------------------

    def run_instances(self, **words: Any) -> dict[str, Any]:
        placed = words.get("SubnetId") or words["NetworkInterfaces"][0]["SubnetId"]
        if placed not in self.subnets:
            raise No("InvalidSubnetID.NotFound", placed)
        zone = self.subnets[placed]
        known = self.tokens.get((words["ClientToken"], zone))
        if known is None:
            self._may(words, zone)
            known = self.make(words, zone)
            self.tokens[words["ClientToken"], zone] = known
        elif known.words != words:
            raise No("IdempotentParameterMismatch", "other words with this token")
        return {"Instances": [self._told(known, self.now_ms())]}

    def _may(self, words: Mapping[str, Any], zone: str) -> None:
        alive = [vm for vm in self.vms.values() if self.now_ms() < vm.gone_ms]
        if len(alive) >= self.quota:
            raise No("VcpuLimitExceeded", "more vCPUs than the account's limit")
        if zone in self.sold_out:
            raise No("InsufficientInstanceCapacity", f"nothing left in {zone}")

    def make(self, words: Mapping[str, Any], zone: str) -> Vm:
        """A machine with its disks, whoever asked."""
        number, now_ms = len(self.vms) + 1, self.now_ms()
        runs_ms = NEVER_MS if zone in self.stuck else now_ms + self.start_ms
        vm = Vm(f"i-{number:08x}", words, now_ms, runs_ms, zone)
        if words.get("InstanceMarketOptions", {}).get("MarketType") == "spot":
            vm.request_id = f"sir-{number:08x}"
        self.vms[vm.id] = vm
        for each in words.get("BlockDeviceMappings", []):
            self.leave_disk(vm, each["DeviceName"], each["Ebs"])
        return vm

    def leave_disk(self, vm: Vm, device: str, ebs: Mapping[str, Any]) -> Disk:
        name = f"vol-{len(self.disks) + 1:08x}"
        tags = _tags(vm.words, "volume")
        goes = ebs["DeleteOnTermination"]
        self.disks[name] = Disk(name, vm, device, ebs["VolumeSize"], goes, tags)
        return self.disks[name]

    def end(self, vm: Vm, code: str = "Client.UserInitiatedShutdown") -> None:
        now_ms = self.now_ms()
        if vm.stopping_ms > now_ms:
            vm.stopping_ms, vm.gone_ms = now_ms, now_ms + self.end_ms
            vm.reason = code, f"{code}: it ends"

    def interrupt(self, vm: Vm) -> None:
        """The notice for a spot machine; two minutes later it ends."""
        vm.marked_ms = self.now_ms()
        vm.stopping_ms = vm.marked_ms + NOTICE_MS
        vm.gone_ms = vm.stopping_ms + self.end_ms
        vm.reason = "Server.SpotInstanceTermination", "Spot instance termination"

    def terminate_instances(self, InstanceIds: list[str]) -> dict[str, Any]:  # noqa: N803
        for name in InstanceIds:
            vm = self.vms.get(name)
            if vm is None or self.now_ms() >= vm.gone_ms + HOUR_MS:
                raise No("InvalidInstanceID.NotFound", name)
            self.end(vm)
        return {"TerminatingInstances": []}

    def describe_instances(self, **words: Any) -> dict[str, Any]:
        at_ms = self.now_ms() - self.lag_ms
        seen = {v.id: v for v in self.vms.values() if v.made_ms <= at_ms < v.gone_ms + HOUR_MS}
        if missing := set(words.get("InstanceIds", [])) - seen.keys():
            raise No("InvalidInstanceID.NotFound", ", ".join(missing))
        told = [
            self._told(vm, at_ms)
            for vm in seen.values()
            if vm.id in words.get("InstanceIds", seen)
            and _fits(words, vm.tags, **{"instance-state-name": vm.state(at_ms)})
        ]
        return _page("Reservations", [{"Instances": [each]} for each in told], words)

    def describe_spot_instance_requests(self, **words: Any) -> dict[str, Any]:
        told = [
            {
                "SpotInstanceRequestId": vm.request_id,
                "Status": {
                    "Code": "marked-for-termination"
                    if vm.marked_ms <= self.now_ms()
                    else "fulfilled",
                    "UpdateTime": _instant(min(vm.marked_ms, self.now_ms())),
                },
            }
            for vm in self.vms.values()
            if vm.request_id and _fits(words, {}, **{"spot-instance-request-id": vm.request_id})
        ]
        return _page("SpotInstanceRequests", told, words)

    def describe_spot_price_history(self, **words: Any) -> dict[str, Any]:
        return _page("SpotPriceHistory", self.spot_prices, words)

    def describe_instance_types(self, InstanceTypes: list[str]) -> dict[str, Any]:  # noqa: N803
        told = [
            {"InstanceType": kind, "NetworkInfo": {"EfaSupported": kind in self.efa}}
            for kind in InstanceTypes
        ]
        return {"InstanceTypes": told}

    def describe_launch_template_versions(self, **words: Any) -> dict[str, Any]:
        data = {"UserData": base64.b64encode(self.template).decode()} if self.template else {}
        return {"LaunchTemplateVersions": [{"VersionNumber": 1, "LaunchTemplateData": data}]}

    def _told(self, vm: Vm, at_ms: int) -> dict[str, Any]:
        state = vm.state(at_ms)
        told: dict[str, Any] = {
            "InstanceId": vm.id,
            "State": {"Name": state},
            "Tags": _as_list(vm.tags),
            "LaunchTime": _instant(vm.made_ms),
            "InstanceType": vm.words["InstanceType"],
            "Placement": {"AvailabilityZone": vm.zone},
            "RootDeviceName": "/dev/xvda",
            "BlockDeviceMappings": [
                {"DeviceName": d.device, "Ebs": {"VolumeId": d.id, "DeleteOnTermination": d.goes}}
                for d in self.disks.values()
                if d.vm is vm and state != "terminated"
            ],
        }
        if state != "terminated":
            told["PrivateIpAddress"] = f"10.0.0.{int(vm.id[2:], 16)}"
        if vm.request_id:
            told |= {"InstanceLifecycle": "spot", "SpotInstanceRequestId": vm.request_id}
        if state in ("shutting-down", "terminated"):
            told["StateReason"] = {"Code": vm.reason[0], "Message": vm.reason[1]}
        return told

    # --- disks -----------------------------------------------------------------------------------

    def describe_volumes(self, **words: Any) -> dict[str, Any]:
        at_ms = self.now_ms() - self.lag_ms
        seen = {d.id: d for d in self.disks.values() if d.vm.made_ms <= at_ms < d.gone_ms}
        if missing := set(words.get("VolumeIds", [])) - seen.keys():
            raise No("InvalidVolume.NotFound", ", ".join(missing))
        told = []
        for disk in seen.values():
            on = disk.vm.id if at_ms < disk.vm.gone_ms else ""
            wanted = disk.id in words.get("VolumeIds", seen)
            if wanted and _fits(words, disk.tags, **{"attachment.instance-id": on}):
                state = "in-use" if on else "deleting" if disk.asked_ms <= at_ms else "available"
                told.append(
                    {
                        "VolumeId": disk.id,
                        "VolumeType": "gp3",
                        "Size": disk.gb,
                        "State": state,
                        "Tags": _as_list(disk.tags),
                        "Attachments": [{"DeleteOnTermination": disk.goes}] if on else [],
                    }
                )
        return _page("Volumes", told, words)

    def delete_volume(self, VolumeId: str) -> dict[str, Any]:  # noqa: N803
        disk, now_ms = self.disks.get(VolumeId), self.now_ms()
        if disk is None or disk.gone_ms <= now_ms:
            raise No("InvalidVolume.NotFound", VolumeId)
        if now_ms < disk.vm.gone_ms:
            raise No("VolumeInUse", VolumeId)
        if disk.asked_ms != NEVER_MS:
            raise No("IncorrectState", "it is being deleted")
        disk.asked_ms, disk.deleted_ms = now_ms, now_ms + self.disk_end_ms
        return {}


def _tags(words: Mapping[str, Any], kind: str) -> dict[str, str]:
    for each in words["TagSpecifications"]:
        if each["ResourceType"] == kind:
            return {tag["Key"]: tag["Value"] for tag in each["Tags"]}
    return {}


def _as_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _fits(words: Mapping[str, Any], tags: Mapping[str, str], **values: str) -> bool:
    """The filters; one that is not known here is an error of the test."""
    for each in words.get("Filters", []):
        name, wanted = each["Name"], each["Values"]
        if name.startswith("tag:"):
            has = tags.get(name[4:]) in wanted
        elif name == "tag-key":
            has = not tags.keys().isdisjoint(wanted)
        else:
            has = values[name] in wanted
        if not has:
            return False
    return True


def _page(key: str, told: list[dict[str, Any]], words: Mapping[str, Any]) -> dict[str, Any]:
    begin = int(words.get("NextToken") or 0)
    page: dict[str, Any] = {key: told[begin : begin + PAGE]}
    if begin + PAGE < len(told):
        page["NextToken"] = str(begin + PAGE)
    return page


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
