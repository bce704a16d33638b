"""Machines that somebody else manages: an inventory. To launch is to claim one, to end to release.

Nothing is started, ended or asked here: whoever runs these machines also runs their agents, under
names of their own. What is claimed by which instance is kept in one file; schedulers of several
hosts need it on storage that they share (``folder``).
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from admission.instance import INSTANCE_ID, Instance, Offer, Order
from infra.providers import fields
from infra.providers.deployment import Deployment
from infra.providers.diskless import Diskless
from infra.providers.locked import locked
from scheduler.fleet.port import Gone, Machine, Power, Refused, Unclear

T = TypeVar("T")


class Host(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table ``[[providers.NAME.machines]]``: one machine with its agent."""

    name: str  # its agent's VESTIBULE_WORKER_ID
    address: str  # host, or host:port, of its agent; shown to people
    pool: str = "default"  # the one that its agent serves
    model: str = ""  # that it serves, for orders that name one
    type: str = "machine"
    zone: str = ""
    slots: int = 8  # requests that it runs well at once
    price_per_hour: float | None = None
    currency: str = "USD"

    def __post_init__(self) -> None:
        fields.fits("name", self.name, r"[\w.-]{1,64}", "1 to 64 of A-Z a-z 0-9 . _ -")
        fields.fits("address", self.address, r"[\w.:\[\]-]+", "a host, or host:port")
        fields.fits("pool", self.pool, r"[a-z0-9-]{1,64}", "1 to 64 of a-z 0-9 -")
        fields.fits("type", self.type, r"[\w.-]{1,64}", "1 to 64 of A-Z a-z 0-9 . _ -")
        fields.within("slots", self.slots, 1, 99_999)
        fields.price("price_per_hour", self.price_per_hour)


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[providers.NAME]`` of a fleet file, kind ``static``."""

    machines: tuple[Host, ...]
    folder: str = ""  # of the file of claims; "": claims/NAME in the state folder

    def __post_init__(self) -> None:
        names = [host.name for host in self.machines]
        fields.require(bool(names), "machines", "must name at least one")
        fields.require(len(set(names)) == len(names), "machines", "two have the same name")


class Claim(Struct, frozen=True):
    """A machine is an instance's. The instant is in ms since 1970."""

    instance_id: str
    since_ms: int


class Static(Diskless):
    """A `Provider` whose machines are there whatever it says."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        deployment: Deployment,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.ending = "it is let go, and its agent runs on"
        self.capacity: int | None = len(settings.machines)
        self.lag_s: float = 0.0
        self._hosts, self._clock = {host.name: host for host in settings.machines}, clock
        given = fields.placed(deployment.folder, settings.folder)
        folder = given if settings.folder else deployment.state_dir / "claims" / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._claims = Claims(folder)

    async def offers(self) -> Sequence[Offer]:
        found = {
            (host.type, host.zone): Offer(
                type=host.type,
                zone=host.zone,
                market="on-demand",
                price_per_hour=host.price_per_hour,
                currency=host.currency,
                slots=host.slots,
                source="the fleet file" if host.price_per_hour else "",
            )
            for host in reversed(self._hosts.values())
        }
        return sorted(found.values(), key=lambda offer: offer.price_per_hour or 0.0)

    async def launch(self, instance_id: str, order: Order) -> Machine:
        fit = self._fit(instance_id, order)
        return await self._do(lambda: self._claim(instance_id, fit))

    async def find(self, instance_id: str) -> Machine | Gone:
        claims = await self._do(self._claims.read)
        for name, claim in claims.items():
            if claim.instance_id == instance_id and name in self._hosts:
                return self._machine(self._hosts[name], claim)
        return Gone()

    async def look(self, provider_id: str) -> Machine | Gone:
        name, _, instance_id = provider_id.partition("/")
        claim = (await self._do(self._claims.read)).get(name)
        if claim is None or claim.instance_id != instance_id or name not in self._hosts:
            return Gone()
        return self._machine(self._hosts[name], claim)

    async def advance(self, instance: Instance, machine: Machine) -> Machine:
        return machine

    async def terminate(self, provider_id: str) -> None:
        await self._do(lambda: self._release(provider_id))

    async def machines(self) -> Sequence[Machine]:
        claims = await self._do(self._claims.read)
        return [
            self._machine(self._hosts[name], claim)
            for name, claim in claims.items()
            if name in self._hosts
        ]

    async def close(self) -> None:
        pass

    # --- in a thread -----------------------------------------------------------------------------

    async def _do(self, step: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(step)
        except BlockingIOError as error:
            raise Unclear("another process is at the claims") from error
        except (OSError, msgspec.MsgspecError) as error:
            raise Unclear(f"the claims: {error}") from error

    def _claim(self, instance_id: str, fit: Sequence[Host]) -> Machine:
        with self._claims.changed() as claims:
            for name, claim in claims.items():
                if claim.instance_id == instance_id and name in self._hosts:
                    return self._machine(self._hosts[name], claim)
            for host in fit:
                if host.name not in claims:
                    claims[host.name] = Claim(instance_id, round(self._clock() * 1000))
                    return self._machine(host, claims[host.name])
        raise Refused("PROVIDER_OUT_OF_STOCK", "all machines that fit are claimed")

    def _release(self, provider_id: str) -> None:
        name, _, instance_id = provider_id.partition("/")
        with self._claims.changed() as claims:
            if name in claims and claims[name].instance_id == instance_id:
                del claims[name]

    def _machine(self, host: Host, claim: Claim) -> Machine:
        return Machine(
            # With the claim in it: a machine that another instance has by now is not this one.
            provider_id=f"{host.name}/{claim.instance_id}",
            instance_id=claim.instance_id,
            power=Power.RUNNING,
            address=host.address,
            zone=host.zone,
            type=host.type,
            launched_ms=claim.since_ms,
            installed=True,
            worker_id=host.name,
        )

    def _fit(self, instance_id: str, order: Order) -> Sequence[Host]:
        """The machines that an order means. Raises `Refused` when there is none of the kind."""
        fit, wrong = list(self._hosts.values()), ""
        for field in ("type", "zone", "pool", "model"):
            if wanted := getattr(order, field):
                fit = [host for host in fit if getattr(host, field) == wanted]
                wrong = wrong or ("" if fit else f"{field}: no machine has {wanted}")
        if not INSTANCE_ID.fullmatch(instance_id):
            wrong = f"{instance_id!r} is no id of an instance"
        elif order.market != "on-demand":
            wrong = f"market: there is only on-demand, not {order.market}"
        elif order.options:
            wrong = f"options: there are none, not {', '.join(sorted(order.options))}"
        if wrong:
            raise Refused("PROVIDER_INVALID_ORDER", wrong)
        return fit


class Claims:
    """Which machine is whose, in one file."""

    def __init__(self, folder: Path) -> None:
        self._file, self._lock = folder / "claims.json", folder / "lock"

    def read(self) -> dict[str, Claim]:
        """Raises ``OSError``, also for a folder that is away, and ``msgspec.MsgspecError``."""
        if not self._file.parent.is_dir():
            raise NotADirectoryError(f"{self._file.parent} is away")
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, Claim])
        except FileNotFoundError:
            return {}

    @contextmanager
    def changed(self) -> Iterator[dict[str, Claim]]:
        """What is done to the claims inside is kept, unless it raises.

        Raises:
            BlockingIOError: another has them for seconds.
        """
        with locked(self._lock):
            claims = self.read()
            before = dict(claims)
            yield claims
            if claims != before:
                fresh = self._file.with_suffix(".new")
                fresh.write_bytes(msgspec.json.encode(claims))
                fresh.replace(self._file)


def open(name: str, settings: Settings, deployment: Deployment) -> Static:
    """The provider ``name``. Raises ``OSError`` when its folder cannot be made."""
    return Static(name, settings, deployment)
