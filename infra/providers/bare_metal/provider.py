"""The port over an inventory of hosts. What is claimed, by whom and how far it is stands on them.

So any number of schedulers may ask, of any number of machines, and two deployments that name the
same host never share it.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import worker_image
from admission.instance import INSTANCE_ID, Instance, Offer, Order
from infra.providers import fields
from infra.providers.bare_metal.host import WORDS_MAX, Barred, Door, Entrance, Seen, Silent
from infra.providers.bare_metal.parcel import parcel
from infra.providers.bare_metal.settings import Host, Settings
from infra.providers.deployment import Deployment
from infra.providers.diskless import Diskless
from scheduler.fleet.port import Gone, Machine, Power, Refused, Unclear
from worker_image import flavors
from worker_image.flavors import Flavor

AT_ONCE = 16  # connections

Answers = dict[str, Seen | Silent | Barred]


class BareMetal(Diskless):
    """A `Provider` whose machines are hosts; an instance's is named ``host/instance``."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        deployment: Deployment,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.ending = "all that was installed there goes, and the host stays"
        self.capacity: int | None = len(settings.hosts)
        self.lag_s: float = 0.0
        self._settings, self._deployment, self._clock = settings, deployment, clock
        fields.fits("deployment", deployment.name, r"[\w.-]+", "of A-Z a-z 0-9 . _ -")
        _check_reach(settings, deployment.admission_url)
        for secret in settings.secrets:
            one_line = "\n" not in os.environ.get(secret, "\n")
            fields.require(one_line, "secrets", f"{secret} is not in this environment, in one line")
        entrance = Entrance(settings, deployment.folder)
        self._doors = {host.name: Door(host, entrance) for host in settings.hosts}
        self._flavors = {
            host.name: _flavor(host.flavor or settings.flavor) for host in settings.hosts
        }
        self._agent = _agent(settings, deployment)
        self._checksum = deployment.agent_sha256 or hashlib.sha256(self._agent).hexdigest()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._perhaps: dict[str, str] = {}  # instance: the host on which its claim's reply was lost
        self._silent_since: dict[str, float] = {}  # instance: of its host, while it is installed

    # --- the port --------------------------------------------------------------------------------

    async def offers(self) -> Sequence[Offer]:
        found = {
            (host.type, host.zone): Offer(
                type=host.type,
                zone=host.zone,
                market="on-demand",
                price_per_hour=host.price_per_hour,
                currency=host.currency,
                slots=host.slots or self._flavors[host.name].vllm.max_num_seqs,
                source="the fleet file" if host.price_per_hour else "",
            )
            for host in reversed(self._settings.hosts)
        }
        return sorted(found.values(), key=lambda offer: offer.price_per_hour or 0.0)

    async def launch(self, instance_id: str, order: Order) -> Machine:
        fit = self._fit(instance_id, order)
        answers = await self._ask_all()
        if machine := self._found(instance_id, answers):
            return machine
        perhaps = self._perhaps.pop(instance_id, "")
        if perhaps and isinstance(answers.get(perhaps), Silent):
            self._perhaps[instance_id] = perhaps
            raise Unclear(f"it may have been claimed: {answers[perhaps]}")
        return await self._claim(instance_id, fit, answers)

    async def find(self, instance_id: str) -> Machine | Gone:
        answers = await self._ask_all()
        if machine := self._found(instance_id, answers):
            return machine
        _whole(answers)
        return Gone()

    async def look(self, provider_id: str) -> Machine | Gone:
        name, _, instance_id = provider_id.partition("/")
        if name not in self._doors:
            return Gone()  # whoever takes a host out of the inventory says so
        return self._machine_of(name, instance_id, await self._step(name, "look")) or Gone()

    async def advance(self, instance: Instance, machine: Machine) -> Machine:
        name, _, _ = machine.provider_id.partition("/")
        if name not in self._doors:
            raise Unclear(f"{name} is not in the inventory")
        now_s, since = self._clock(), self._silent_since
        try:
            found = await self._advance(name, instance)
        except Silent as error:
            if now_s - since.setdefault(instance.id, now_s) >= self._settings.unreachable:
                del since[instance.id]
                raise Refused("SSH_NOT_ACCESSIBLE", str(error)) from error
            raise Unclear(str(error)) from error
        except Barred as error:
            raise Refused("SSH_NOT_ACCESSIBLE", str(error)) from error
        since.pop(instance.id, None)
        return found

    async def terminate(self, provider_id: str) -> None:
        name, _, instance_id = provider_id.partition("/")
        if name in self._doors:
            await self._step(name, "finish", self._deployment.name, instance_id)

    async def machines(self) -> Sequence[Machine]:
        answers = _whole(await self._ask_all())
        return [
            self._machine(name, seen)
            for name, seen in answers.items()
            if seen.claimed and seen.deployment == self._deployment.name
        ]

    async def close(self) -> None:
        pass

    # --- asking ----------------------------------------------------------------------------------

    async def _say(self, name: str, command: str, *words: str, parcel: bytes = b"") -> Seen:
        async with self._room:
            return await self._doors[name].step(command, *words, parcel=parcel)

    async def _step(self, name: str, command: str, *words: str) -> Seen:
        try:
            return await self._say(name, command, *words)
        except (Silent, Barred) as error:
            raise Unclear(str(error)) from error

    async def _ask_all(self) -> Answers:
        async def ask(name: str) -> Seen | Silent | Barred:
            try:
                return await self._say(name, "look")
            except (Silent, Barred) as error:
                return error

        answers = await asyncio.gather(*map(ask, self._doors))
        return dict(zip(self._doors, answers, strict=True))

    def _found(self, instance_id: str, answers: Answers) -> Machine | None:
        for name, seen in answers.items():
            if isinstance(seen, Seen) and (it := self._machine_of(name, instance_id, seen)):
                return it
        return None

    # --- claiming --------------------------------------------------------------------------------

    async def _claim(self, instance_id: str, fit: Sequence[Host], answers: Answers) -> Machine:
        """The first free host. Raises `Refused` and `Unclear`."""
        barred, silent = [], []
        for host in fit:
            seen = answers[host.name]
            if isinstance(seen, Seen) and not seen.claimed:
                seen = await self._ask_for(host.name, instance_id)
            if isinstance(seen, Silent):
                silent.append(str(seen))
            elif isinstance(seen, Barred):
                barred.append(str(seen))
            elif machine := self._machine_of(host.name, instance_id, seen):
                return machine
        if silent:
            raise Unclear("; ".join(silent))
        if len(barred) == len(fit):
            raise Refused("SSH_NOT_ACCESSIBLE", "; ".join(barred))
        words = "; ".join(["the hosts that fit are all claimed", *barred])
        raise Refused("PROVIDER_OUT_OF_STOCK", words)

    async def _ask_for(self, name: str, instance_id: str) -> Seen | Barred:
        """Whose it is then. Raises `Unclear`: it may be ours by now."""
        now_ms = str(round(self._clock() * 1000))
        try:
            seen = await self._say(name, "claim", self._deployment.name, instance_id, now_ms)
        except Barred as error:
            return error
        except Silent as error:
            self._perhaps[instance_id] = name
            raise Unclear(f"it may have been claimed: {error}") from error
        return Barred(f"{name}: {seen.trouble}") if seen.trouble else seen

    def _fit(self, instance_id: str, order: Order) -> Sequence[Host]:
        """The hosts that an order means. Raises `Refused` when there is none of the kind."""
        fit, wrong = list(self._settings.hosts), ""
        for field in ("type", "zone"):
            if wanted := getattr(order, field):
                fit = [host for host in fit if getattr(host, field) == wanted]
                wrong = wrong or ("" if fit else f"{field}: no host has {wanted}")
        if not INSTANCE_ID.fullmatch(instance_id):
            wrong = f"{instance_id!r} is no id of an instance"
        elif order.market != "on-demand":
            wrong = f"market: there is only on-demand, not {order.market}"
        elif order.options:
            wrong = f"options: there are none, not {', '.join(sorted(order.options))}"
        elif order.model and not fields.MODEL.fullmatch(order.model):
            wrong = "model: must be one line of printable characters"
        elif not (order.model or self._settings.model):
            wrong = "model: neither the order nor the provider's settings name one"
        if wrong:
            raise Refused("PROVIDER_INVALID_ORDER", wrong)
        return fit

    # --- installing ------------------------------------------------------------------------------

    async def _advance(self, name: str, instance: Instance) -> Machine:
        seen = await self._say(name, "look")
        machine = self._machine_of(name, instance.id, seen)
        if machine is None or seen.ending:
            raise Unclear(f"{name} is not claimed for {instance.id}, or ends")
        if machine.failure:
            raise Refused(*machine.failure)
        if not (seen.installing or seen.started):
            packed = parcel(
                self._settings,
                self._deployment,
                self._doors[name].host,
                self._flavors[name],
                self._agent,
                self._checksum,
                instance.id,
                instance.order,
            )
            words = (self._deployment.name, instance.id)
            seen = await self._say(name, "begin", *words, parcel=packed)
            if seen.trouble:
                raise Unclear(f"{name}: {seen.trouble}")
            machine = self._machine_of(name, instance.id, seen) or machine
        return machine

    # --- how a host is, as a machine -------------------------------------------------------------

    def _machine_of(self, name: str, instance_id: str, seen: Seen) -> Machine | None:
        mine = (seen.deployment, seen.instance_id) == (self._deployment.name, instance_id)
        return self._machine(name, seen) if mine else None

    def _machine(self, name: str, seen: Seen) -> Machine:
        host, failure, power = self._doors[name].host, None, Power.RUNNING
        said = self._without_secrets(seen.said)[-WORDS_MAX:]  # cut first, half a secret would stay
        if seen.failure:
            code, _, words = seen.failure.partition(" ")
            failure = (code, f"{name}: {words}: {said}" if said else f"{name}: {words}")
        elif seen.started and not (seen.running or seen.installing):
            power = Power.STOPPED
            failure = ("INSTALL_FAILED", f"{name}: its agent has ended: {said}")
        if seen.ending:
            power = Power.STOPPING
        return Machine(
            provider_id=f"{name}/{seen.instance_id}",
            instance_id=seen.instance_id,
            power=power,
            address=f"{host.worker_address or host.address}:{host.worker_port}",
            zone=host.zone,
            type=host.type,
            launched_ms=seen.launched_ms,
            installed=seen.started and seen.running,
            phase=": ".join(filter(None, [seen.phase, seen.admission])),
            failure=failure,
        )

    def _without_secrets(self, text: str) -> str:
        given = [os.environ[name] for name in self._settings.secrets]
        for secret in filter(None, [self._deployment.worker_token, *given]):
            text = text.replace(secret, "…")
        return text


def _whole(answers: Answers) -> dict[str, Seen]:
    """Every host's answer. Raises `Unclear`."""
    missing = [str(each) for each in answers.values() if not isinstance(each, Seen)]
    if missing:
        raise Unclear("; ".join(missing))
    return {name: seen for name, seen in answers.items() if isinstance(seen, Seen)}


def _check_reach(settings: Settings, admission_url: str) -> None:
    """An agent that never finds the service would only be seen to time out."""
    if not fields.is_loopback(urlsplit(admission_url).hostname or ""):
        return
    for host in settings.hosts:
        fields.require(
            fields.is_loopback(host.address),
            "hosts",
            f"{host.name} would look for this service at {admission_url}, which is itself: say in"
            " admission_url of [deployment] where it is",
        )


def _flavor(name: str) -> Flavor:
    try:
        return flavors.load(name)
    except flavors.FlavorError as error:
        raise ValueError(f"flavor: {error}") from error


def _agent(settings: Settings, deployment: Deployment) -> bytes:
    ours = Path(worker_image.__file__).parent / "agent.py"
    file = fields.placed(deployment.folder, settings.agent) if settings.agent else ours
    try:
        return file.read_bytes()
    except OSError as error:
        raise ValueError(f"agent: {file} cannot be read: {error.strerror}") from error
