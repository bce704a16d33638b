"""The port over Amazon EC2. Nothing here waits for a machine; each look sees anew.

Which machine is whose stands in its tags, written by the call that makes it. A launch is looked for
by its tag before it is said again: EC2's token protects it too, but only for the same zone, and not
for ever.
"""

import asyncio
import errno
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from admission.instance import Instance, Offer, Order, Volume
from infra.providers.aws import archive, errors, prices, reply, request
from infra.providers.aws.archive import USER_DATA_BYTES_MAX, Archive
from infra.providers.aws.calls import Calls
from infra.providers.aws.request import DEPLOYMENT_TAG, INSTANCE_TAG
from infra.providers.aws.settings import Settings
from infra.providers.deployment import Deployment
from scheduler.fleet.port import Gone, Machine, Refused, Unclear

LINUX = "Linux/UNIX"  # of DescribeSpotPriceHistory's products
# AWS, "Announcing Amazon EC2 per second billing", 2 October 2017: Linux, spot and on demand.
BILLED_LEAST_S = 60

T = TypeVar("T")


class Ec2:
    """A `Provider`. Any number of schedulers may use one account and deployment."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        deployment: str,
        calls: Calls,
        *,
        user_data: bytes = b"",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.ending = "the machine is deleted with its disks"
        self.capacity: int | None = settings.capacity
        self.lag_s: float = 300.0  # EC2 is eventually consistent: minutes
        self._settings, self._deployment, self._user_data = settings, deployment, user_data
        self._calls, self._clock = calls, clock
        self._archive = (
            Archive(settings, calls, user_data, clock) if settings.model_archive else None
        )
        self._has_efa: dict[str, bool] = {}  # as EC2 told of its types
        self._launching = Lock()
        self._launched: dict[str, float] = {}  # by this process: id -> when

    # --- the port --------------------------------------------------------------------------------

    async def offers(self) -> Sequence[Offer]:
        return await self._do(self._offers)

    async def launch(self, instance_id: str, order: Order) -> Machine:
        words = request.run_instances(
            instance_id, order, self._settings, self._deployment, self._user_data
        )
        return await self._do(lambda: self._launch(instance_id, order, words))

    async def find(self, instance_id: str) -> Machine | Gone:
        return await self._do(lambda: self._find(instance_id))

    async def look(self, provider_id: str) -> Machine | Gone:
        return await self._do(lambda: self._look(provider_id))

    async def advance(self, instance: Instance, machine: Machine) -> Machine:
        return machine

    async def terminate(self, provider_id: str) -> None:
        await self._do(lambda: self._terminate(provider_id))

    async def machines(self) -> Sequence[Machine]:
        return await self._do(self._machines)

    async def volumes(self, instance_id: str, provider_id: str) -> Sequence[Volume]:
        return await self._do(lambda: self._volumes(instance_id, provider_id))

    async def orphan_volumes(self, known: frozenset[str]) -> Sequence[tuple[str, Volume]]:
        return await self._do(lambda: self._orphans(known))

    async def delete_volume(self, provider_volume_id: str) -> None:
        await self._do(lambda: self._delete_volume(provider_volume_id))

    async def look_volume(self, provider_volume_id: str) -> Volume | Gone:
        return await self._do(lambda: self._look_volume(provider_volume_id))

    async def close(self) -> None:
        await asyncio.to_thread(self._calls.close)

    # --- machines, in a thread -------------------------------------------------------------------

    async def _do(self, step: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(step)
        except errors.FAULTS as error:
            raise errors.unclear(error) from error
        except (KeyError, ValueError, TypeError) as error:
            raise Unclear(f"an answer of EC2 makes no sense: {error!r}") from error

    def _launch(self, instance_id: str, order: Order, words: dict[str, Any]) -> Machine:
        known = self._tagged(instance_id)
        if not known:
            self._check_efa(words["InstanceType"])
            if self._archive:
                words["UserData"] = self._archive.user_data(instance_id, order)
        told = known[0] if known else self._run(words)
        if reply.is_terminated(told):
            code, why = reply.death(told) or ("DELETED_BY_PROVIDER", reply.why(told)[1])
            raise Refused(code, why or "the machine of this id has ended")
        return self._machine(told)

    def _check_efa(self, kind: str) -> None:
        """EC2 is asked once for each type. If it says no to that, the launch will hear the same."""
        if not self._settings.efa:
            return
        if kind not in self._has_efa:
            try:
                told = self._calls.one("describe_instance_types", InstanceTypes=[kind])
            except errors.FAULTS as error:
                if errors.refusal(error):
                    return
                raise
            network = told["InstanceTypes"][0]["NetworkInfo"]
            self._has_efa[kind] = bool(network["EfaSupported"])
        if not self._has_efa[kind]:
            words = f"efa: {kind} has no Elastic Fabric Adapter"
            raise Refused("PROVIDER_INVALID_ORDER", words)

    def _run(self, words: dict[str, Any]) -> dict[str, Any]:
        """One after the other where there is a capacity, so that all are counted."""
        with self._launching if self.capacity is not None else nullcontext():
            self._check_room()
            try:
                told: dict[str, Any] = self._calls.one("run_instances", **words)["Instances"][0]
            except errors.FAULTS as error:
                if refused := errors.refusal(error):
                    raise refused from error
                raise
            if self.capacity is not None:
                self._launched[told["InstanceId"]] = self._clock()
            return told

    def _check_room(self) -> None:
        """What EC2's lists have, and what this process launched since they may lag."""
        if self.capacity is None:
            return
        since = self._clock() - self.lag_s
        self._launched = {name: at for name, at in [*self._launched.items()] if at > since}
        there = {each.provider_id for each in self._machines()} | self._launched.keys()
        if len(there) >= self.capacity:
            words = f"capacity: {self.capacity} machines at most, and all are there"
            raise Refused("PROVIDER_QUOTA_EXCEEDED", words)

    def _find(self, instance_id: str) -> Machine | Gone:
        for told in self._tagged(instance_id):
            if not reply.is_terminated(told):
                return self._machine(told)
        return Gone()

    def _tagged(self, instance_id: str) -> list[dict[str, Any]]:
        """The machines of this id, the living first, of those the oldest."""
        found = self._instances(Filters=self._ours(instance_id))
        return sorted(found, key=lambda each: (reply.is_terminated(each), each["LaunchTime"]))

    def _look(self, provider_id: str) -> Machine | Gone:
        told = self._instance(provider_id)
        if told is None:
            return Gone()
        return Gone(reply.death(told)) if reply.is_terminated(told) else self._machine(told)

    def _instance(self, provider_id: str) -> dict[str, Any] | None:
        try:
            found = self._instances(InstanceIds=[provider_id])
        except errors.FAULTS as error:
            if errors.is_gone(error):
                return None
            raise
        if len(found) != 1:
            raise Unclear(f"EC2 told of {len(found)} machines where {provider_id} was asked for")
        return found[0]

    def _instances(self, **words: Any) -> list[dict[str, Any]]:
        reservations = self._calls.all("describe_instances", "Reservations", **words)
        return [each for reservation in reservations for each in reservation["Instances"]]

    def _terminate(self, provider_id: str) -> None:
        try:
            self._calls.one("terminate_instances", InstanceIds=[provider_id])
            self._launched.pop(provider_id, None)  # from here on the lists are right, or too long
        except errors.FAULTS as error:
            if not errors.is_gone(error):
                raise

    def _machines(self) -> list[Machine]:
        there = [*self._ours(), _filter("instance-state-name", *reply.POWERS)]
        return [self._machine(each, spot=False) for each in self._instances(Filters=there)]

    def _machine(self, told: dict[str, Any], *, spot: bool = True) -> Machine:
        """``spot``: whether to ask for the notice that only its request tells."""
        marked_ms = self._marked_ms(told.get("SpotInstanceRequestId", "")) if spot else None
        return reply.machine(
            told,
            public=self._settings.address == "public",
            notice_ms=marked_ms,
            now_ms=self._now_ms(),
        )

    def _marked_ms(self, request_id: str) -> int | None:
        if not request_id:
            return None
        # By a filter: a request that is too new to be told is then no error.
        wanted = [_filter("spot-instance-request-id", request_id)]
        found = self._calls.all(
            "describe_spot_instance_requests", "SpotInstanceRequests", Filters=wanted
        )
        return reply.notice_ms(found[0]) if found else None

    def _ours(self, instance_id: str = "") -> list[dict[str, Any]]:
        """What carries this deployment's tag, and an id, or this one."""
        whose = _filter(f"tag:{INSTANCE_TAG}", instance_id)
        return [
            _filter(f"tag:{DEPLOYMENT_TAG}", self._deployment),
            whose if instance_id else _filter("tag-key", INSTANCE_TAG),
        ]

    # --- disks, in a thread ----------------------------------------------------------------------

    def _volumes(self, instance_id: str, provider_id: str) -> list[Volume]:
        found = self._disks(Filters=self._ours(instance_id))
        attached: dict[str, tuple[bool, bool]] = {}
        machine = self._instance(provider_id) if provider_id else None
        if machine is not None and not reply.is_terminated(machine):
            attached = reply.mappings(machine)
            on_it = _filter("attachment.instance-id", provider_id)
            found += self._disks(Filters=[on_it])
        by_id = {each["VolumeId"]: each for each in found}
        return [reply.volume(each, attached) for each in by_id.values()]

    def _orphans(self, known: frozenset[str]) -> list[tuple[str, Volume]]:
        found = self._disks(Filters=self._ours())
        owned = [(reply.tags(each)[INSTANCE_TAG], reply.volume(each, {})) for each in found]
        return [(owner, disk) for owner, disk in owned if owner not in known]

    def _disks(self, **words: Any) -> list[dict[str, Any]]:
        found = self._calls.all("describe_volumes", "Volumes", **words)
        return [each for each in found if each.get("State") != "deleted"]

    def _look_volume(self, name: str) -> Volume | Gone:
        try:
            found = self._disks(VolumeIds=[name])
        except errors.FAULTS as error:
            if errors.is_gone(error):
                return Gone()
            raise
        return reply.volume(found[0], {}) if found else Gone()

    def _delete_volume(self, name: str) -> None:
        try:
            self._calls.one("delete_volume", VolumeId=name)
        except errors.FAULTS as error:
            if errors.is_gone(error):
                return
            # EC2's pages do not say what a second deletion meets: the disk's state does.
            found = self._look_volume(name)
            if isinstance(found, Volume) and found.state != "deleting":
                raise

    # --- offers, in a thread ---------------------------------------------------------------------

    def _offers(self) -> list[Offer]:
        """Cheapest first."""
        it = self._settings
        spot = self._spot_prices() if "spot" in it.markets else {}
        offers = [
            self._offer(kind, zone, market, spot)
            for kind in it.types
            for zone in it.subnets
            for market in it.markets
        ]
        return sorted(offers, key=lambda each: each.price_per_hour or 0.0)

    def _offer(
        self, kind: str, zone: str, market: str, spot: dict[tuple[str, str], float]
    ) -> Offer:
        it = self._settings
        said = it.prices.get(kind)
        price, source = said, "the fleet file"
        if said is None:
            price, source = prices.on_demand(it.region, kind), prices.source()
        if market == "spot":
            # Never more than on demand, which also stands for a price that EC2 does not tell:
            # EC2 User Guide, "Spot Instances", "Pricing and savings".
            known = spot.get((kind, zone))
            source = "DescribeSpotPriceHistory" if known else f"at most the one on demand: {source}"
            price = known or price
        return Offer(
            kind,
            zone,
            market,
            price,
            slots=it.types[kind],
            source=source,
            billed_least_s=BILLED_LEAST_S,
        )

    def _spot_prices(self) -> dict[tuple[str, str], float]:
        """USD an hour now, by type and zone; none where we may not ask."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        try:
            told = self._calls.all(
                "describe_spot_price_history",
                "SpotPriceHistory",
                InstanceTypes=list(self._settings.types),
                ProductDescriptions=[LINUX],
                StartTime=now,  # the last change before it: the price of now
            )
        except errors.FAULTS as error:
            refused = errors.refusal(error)
            if refused and refused.code == "PROVIDER_DENIED":
                return {}
            raise
        newest = sorted(told, key=lambda each: each["Timestamp"])
        found = {(e["InstanceType"], e["AvailabilityZone"]): float(e["SpotPrice"]) for e in newest}
        return {place: price for place, price in found.items() if price > 0}

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)


def _filter(name: str, *values: str) -> dict[str, Any]:
    return {"Name": name, "Values": list(values)}


def open(name: str, settings: Settings, deployment: Deployment) -> Ec2:
    """The provider ``name``. AWS is not asked yet.

    Raises:
        OSError: the user data's file cannot be used.
        ValueError: it lacks what a model's archive needs; names the field.
    """
    user_data = b""
    if settings.user_data:
        path = Path(deployment.folder / settings.user_data)
        user_data = path.read_bytes()
        if len(user_data) > USER_DATA_BYTES_MAX:
            raise OSError(errno.EFBIG, f"{USER_DATA_BYTES_MAX} bytes at most", str(path))
        if settings.model_archive and (wrong := archive.missing(user_data)):
            raise ValueError(f"user_data: {wrong}")
    calls = Calls(settings.region, profile=settings.profile, endpoint_url=settings.endpoint_url)
    return Ec2(name, settings, deployment.name, calls, user_data=user_data)
