"""The fleet as its file asks for it: its providers open, their ticks, and an end in good order."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib import import_module

from admission.accounting.ledger import Ledger
from admission.attendance import provider_tick
from admission.clock import RedisClock
from admission.errors import StoreUnavailable
from admission.instance import ASKABLE, Command, Instance, Kind
from admission.settings import Settings
from admission.store.fleet_store import FleetStore
from admission.store.redis_store import RedisStore
from infra import fleet_file
from infra.addresses import callable_url
from infra.errors import CommandError
from infra.fleet_file import KINDS, FleetFile
from infra.providers.deployment import Deployment
from infra.state import kept_key
from scheduler.budgets import Budgets
from scheduler.fleet.duties import duties
from scheduler.fleet.port import Provider, Unclear
from scheduler.fleet.same_file import SameFile
from scheduler.fleet.unattended import Unattended
from scheduler.scaling import Scaling
from scheduler.tick import Tick

LOCAL = "local"
TAKEN_S = 3.0  # a command is taken within a second; a stop waits no longer for one that is not
LOOK_S = 0.1


def of(settings: Settings) -> FleetFile | None:
    """The file that the settings name; None without one.

    Raises:
        SettingsError: every problem in it.
    """
    return None if settings.fleet is None else fleet_file.read(settings.fleet)


class Fleet:
    """What one process does for the fleet. ``local``: providers whose workers end with it."""

    def __init__(
        self,
        store: FleetStore,
        ticks: Sequence[Tick] = (),
        local: Mapping[str, Provider] | None = None,
    ) -> None:
        self._store, self.ticks, self._local = store, tuple(ticks), dict(local or {})

    @asynccontextmanager
    async def ending(self) -> AsyncIterator[None]:
        """Entered when the ticks run already; before they stop, what runs here is ended, and its
        history says why."""
        try:
            yield
        finally:
            with suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(TAKEN_S):
                    await self._ask_to_end()
            for provider in self._local.values():
                with suppress(Unclear):
                    await provider.end_all()  # type: ignore[attr-defined]  # a local one's alone

    async def _ask_to_end(self) -> None:
        wanted = await self._wanted()
        if wanted:
            command = Command(
                f"c-{secrets.token_hex(12)}",
                Kind.TERMINATE,
                await self._store.now_ms(),
                "scheduler",
                tuple(one.id for one in wanted),
                drain_s=0,
                reason="the scheduler of this machine was stopped",
            )
            await self._store.ask(command)
        while await self._wanted():  # noqa: ASYNC110 - it is Redis that changes
            await asyncio.sleep(LOOK_S)

    async def _wanted(self) -> list[Instance]:
        """Those that run here: another host may have a provider of the same name."""
        here = set()
        for provider in self._local.values():
            with suppress(Unclear):
                here |= {each.instance_id for each in await provider.machines()}
        known = await self._store.instances() if here else []
        return [one for one in known if one.id in here and one.state in ASKABLE[Kind.TERMINATE]]


@asynccontextmanager
async def opened(
    file: FleetFile | None, store: RedisStore, settings: Settings, *, keep_local: bool
) -> AsyncIterator[Fleet]:
    """The fleet; without a file one that only tells of machines that nobody looks after.

    Args:
        keep_local: whether workers on this machine outlive it, where the file does not say.

    Raises:
        CommandError: a provider cannot be opened.
    """
    if file is None:
        yield Fleet(store.fleet, [Unattended(store).tick])
        return
    if file.deployed.keep_local is not None:
        keep_local = file.deployed.keep_local
    deployment = _deployment(file, settings)
    await _check_local(file, store)
    async with AsyncExitStack() as stack:
        providers: dict[str, Provider] = {}
        for name, planned in file.providers.items():
            try:
                module = import_module(KINDS[planned.kind])
                provider: Provider = module.open(name, planned.settings, deployment)
            except (OSError, ValueError) as error:
                dot = ": " if isinstance(error, OSError) else "."
                raise CommandError(f"{file.path}: providers.{name}{dot}{error}") from error
            stack.push_async_callback(provider.close)
            providers[name] = provider
        local = {
            name: providers[name]
            for name, planned in file.providers.items()
            if planned.kind == LOCAL and not keep_local
        }
        ledger = Ledger(settings.ledger_url())
        stack.callback(ledger.close)
        budgets = Budgets(store.fleet, ledger, file.budgets)
        yield Fleet(store.fleet, [*_ticks(file, store, providers), budgets.tick], local)


async def _check_local(file: FleetFile, store: RedisStore) -> None:
    """A scheduler on another host would look for the workers of this one in vain, and end them.

    Raises:
        CommandError: one leads there now.
    """
    leads = {tick.name: tick.holder for tick in await store.ticks.all()}
    for name, planned in file.providers.items():
        holder = leads.get(provider_tick(name)) or ""
        if planned.kind == LOCAL and holder and not holder.startswith(f"{socket.gethostname()}-"):
            raise CommandError(
                f"{file.path}: providers.{name}: {holder} on another host has a local provider of"
                " this name: give each host's its own (if that one was just killed, its lease ends"
                " in five seconds)"
            )


def _ticks(file: FleetFile, store: RedisStore, providers: dict[str, Provider]) -> list[Tick]:
    ours = list(providers.values())
    ticks = duties(
        store,
        ours,
        RedisClock(),
        limits=file.limits,
        end_orphans=file.deployed.end_orphans,
        prices=file.prices,
    )
    ticks += [Unattended(store).tick, SameFile(store, file.digest).tick]
    for pool in file.pools.values():
        rooms = {name: providers[name].capacity for name in pool.providers}
        ticks.append(Scaling(store, pool.spec, rooms).tick)
    return ticks


def _deployment(file: FleetFile, settings: Settings) -> Deployment:
    token = kept_key(settings, "worker_token")
    if token is None:
        raise CommandError(
            f"{file.path}: new workers register with the worker token: set VESTIBULE_WORKER_TOKEN"
            " (or VESTIBULE_STATE_DIR, whose keys.json has it)"
        )
    state_dir = settings.state_dir.resolve() / "fleet"
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Deployment(
        name=file.deployed.name,
        admission_url=file.deployed.admission_url or callable_url(settings.host, settings.port),
        worker_token=token,
        state_dir=state_dir,
        folder=file.path.parent,
        agent_sha256=settings.worker_agent_sha256,
    )
