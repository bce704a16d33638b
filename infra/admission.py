"""``vestibule admission``: REST and gateway over a Redis of yours, in one process or several."""

import argparse
import asyncio
import os
import resource
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress

from pydantic import SecretStr

from admission import logs
from admission.settings import Settings, SettingsError
from infra import environment, processes
from infra.addresses import callable_url, reserved
from infra.service import serving, store_at
from infra.state import KEY_NAMES, kept_key
from infra.stopping import stop_event


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule admission``."""
    parser.description = (
        "Run REST and gateway over the Redis of REDIS_URL. Any number may run, on as many machines"
        " as you like; `vestibule scheduler` runs the ticks beside them."
    )
    parser.add_argument("--host", help="address to listen on (VESTIBULE_HOST, 127.0.0.1)")
    parser.add_argument("--port", help="port to listen on (VESTIBULE_PORT, 8600)")
    parser.add_argument(
        "--needs-worker", action="store_true", help="admit nobody while no worker is ready"
    )
    parser.add_argument("--one-of-several", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM: 0."""
    settings = environment.settings({"VESTIBULE_HOST": args.host, "VESTIBULE_PORT": args.port})
    url = settings.redis_address()
    if url is None:
        raise SettingsError("REDIS_URL: needed; the embedded server belongs to `vestibule up`")
    logs.configure()
    allow_many_connections()
    settings = with_keys(settings, _kept_keys(settings))
    if args.one_of_several:
        asyncio.run(_one_of_several(url, settings, needs_worker=args.needs_worker))
    elif settings.processes > 1:
        asyncio.run(_several(url, settings, needs_worker=args.needs_worker))
    else:
        asyncio.run(_alone(url, settings, needs_worker=args.needs_worker))
    return 0


def allow_many_connections() -> None:
    """Each person who waits is an open connection; the usual soft limit is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS refuses what it calls unlimited
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def with_keys(settings: Settings, keys: Mapping[str, str]) -> Settings:
    """Keys of the environment win over those of the state folder."""
    made = {
        name: SecretStr(key) for name, key in keys.items() if getattr(settings, name, None) is None
    }
    return settings.model_copy(update=made)


def several(
    settings: Settings, *, needs_worker: bool, changes: Mapping[str, str] | None = None
) -> AbstractAsyncContextManager[None]:
    """As many processes as the settings say, behind their port; ``changes`` are settings that the
    environment lacks."""
    command = [sys.executable, "-m", "infra.cli", "admission", "--one-of-several"]
    ours = {"VESTIBULE_HOST": settings.host, "VESTIBULE_PORT": str(settings.port)}
    return processes.running(
        settings.processes,
        [*command, "--needs-worker"] if needs_worker else command,
        environment.passed_on({**ours, **(changes or {})}),
    )


def _kept_keys(settings: Settings) -> dict[str, str]:
    return {name: key for name in KEY_NAMES if (key := kept_key(settings, name)) is not None}


async def _alone(url: str, settings: Settings, *, needs_worker: bool) -> None:
    stop = stop_event()
    policy = settings.pool_policy(needs_worker=needs_worker)
    async with store_at(url, policy, settings) as store, serving(store, settings):
        _say_ready(settings)
        await stop.wait()


async def _one_of_several(url: str, settings: Settings, *, needs_worker: bool) -> None:
    stop = stop_event()
    policy = settings.pool_policy(needs_worker=needs_worker)
    async with AsyncExitStack() as stack:
        parent = processes.Parent()
        stack.callback(parent.close)
        store = await stack.enter_async_context(store_at(url, policy, settings))
        await stack.enter_async_context(serving(store, settings, share_port=True))
        parent.say_ready(stop)
        await stop.wait()


async def _several(url: str, settings: Settings, *, needs_worker: bool) -> None:
    stop = stop_event()
    async with store_at(url, None, settings):
        pass  # what is wrong with Redis is said once, not by each process
    with reserved(settings.host, settings.port):
        async with several(settings, needs_worker=needs_worker):
            _say_ready(settings)
            await stop.wait()
            print("stopping", flush=True)


def _say_ready(settings: Settings) -> None:
    base, count = callable_url(settings.host, settings.port), settings.processes
    shared = f" in {count} processes" if count > 1 else ""
    print(f"Vestibule's admission listens on {base}{shared} (pid {os.getpid()})", flush=True)
