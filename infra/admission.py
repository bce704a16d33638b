"""``vestibule admission``: REST and gateway over a Redis of yours, in one process or several.

``vestibule gateway`` is the same with fewer routes (``infra.gateway``).
"""

import argparse
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass

import uvloop
from aiohttp import web
from pydantic import SecretStr

from admission import logs
from admission.app import ROUTES
from admission.settings import Settings, SettingsError
from infra import environment, processes
from infra.addresses import callable_url, reserved
from infra.service import serving, store_at
from infra.state import KEY_NAMES, kept_key
from infra.stopping import stop_event


@dataclass(frozen=True)
class Part:
    """What one command serves of the whole."""

    command: str
    routes: Sequence[web.RouteTableDef]


ALL = Part("admission", ROUTES)


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule admission``."""
    parser.description = (
        "Run REST and gateway over the Redis of REDIS_URL. Any number may run, on as many machines"
        " as you like; `vestibule scheduler` runs the ticks beside them."
    )
    parser.add_argument(
        "--needs-worker", action="store_true", help="admit nobody while no worker is ready"
    )
    add_words(parser)
    parser.set_defaults(part=ALL, run=run)


def add_words(parser: argparse.ArgumentParser) -> None:
    """The words that every part has."""
    parser.add_argument("--host", help="address to listen on (VESTIBULE_HOST, 127.0.0.1)")
    parser.add_argument("--port", help="port to listen on (VESTIBULE_PORT, 8600)")
    parser.add_argument("--one-of-several", action="store_true", help=argparse.SUPPRESS)


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
        uvloop.run(_one_of_several(url, settings, args.part, needs_worker=args.needs_worker))
    elif settings.processes > 1:
        uvloop.run(_several(url, settings, args.part, needs_worker=args.needs_worker))
    else:
        uvloop.run(_alone(url, settings, args.part, needs_worker=args.needs_worker))
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
    settings: Settings,
    part: Part = ALL,
    *,
    needs_worker: bool,
    changes: Mapping[str, str] | None = None,
) -> AbstractAsyncContextManager[None]:
    """As many processes as the settings say, behind their port; ``changes`` are settings that the
    environment lacks."""
    command = [sys.executable, "-m", "infra.cli", part.command, "--one-of-several"]
    ours = {"VESTIBULE_HOST": settings.host, "VESTIBULE_PORT": str(settings.port)}
    return processes.running(
        settings.processes,
        [*command, "--needs-worker"] if needs_worker and part is ALL else command,
        environment.passed_on({**ours, **(changes or {})}),
    )


def _kept_keys(settings: Settings) -> dict[str, str]:
    return {name: key for name in KEY_NAMES if (key := kept_key(settings, name)) is not None}


async def _alone(url: str, settings: Settings, part: Part, *, needs_worker: bool) -> None:
    stop = stop_event()
    policy = settings.pool_policy(needs_worker=needs_worker)
    async with store_at(url, policy, settings) as store, serving(store, settings, part.routes):
        _say_ready(settings, part)
        await stop.wait()


async def _one_of_several(url: str, settings: Settings, part: Part, *, needs_worker: bool) -> None:
    stop = stop_event()
    policy = settings.pool_policy(needs_worker=needs_worker)
    async with AsyncExitStack() as stack:
        parent = processes.Parent()
        stack.callback(parent.close)
        store = await stack.enter_async_context(store_at(url, policy, settings))
        await stack.enter_async_context(serving(store, settings, part.routes, share_port=True))
        parent.say_ready(stop)
        await stop.wait()


async def _several(url: str, settings: Settings, part: Part, *, needs_worker: bool) -> None:
    stop = stop_event()
    async with store_at(url, None, settings):
        pass  # what is wrong with Redis is said once, not by each process
    with reserved(settings.host, settings.port):
        async with several(settings, part, needs_worker=needs_worker):
            _say_ready(settings, part)
            await stop.wait()
            print("stopping", flush=True)


def _say_ready(settings: Settings, part: Part) -> None:
    base, count = callable_url(settings.host, settings.port), settings.processes
    shared = f" in {count} processes" if count > 1 else ""
    print(f"Vestibule's {part.command} listens on {base}{shared} (pid {os.getpid()})", flush=True)
