"""``vestibule up``: everything on this machine, in the foreground, until it is stopped."""

import argparse
import asyncio
import hashlib
import os
import shlex
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from admission import background, logs
from admission.directory import REFRESH_S, Directory
from admission.keys import DIRECTORY
from admission.settings import Settings
from admission.store.redis_store import RedisStore
from infra import demo_model, embedded, environment, fleet_duties, reload, worker
from infra.addresses import callable_url, check_free, free_port, reserved
from infra.admission import allow_many_connections, several, with_keys
from infra.children import Children
from infra.fleet_file import FleetFile
from infra.service import books_of, serving, store_at
from infra.state import KEY_NAMES, StateFolder, kept_key
from infra.stopping import stop_event
from scheduler import clockwork

WORKER_START_S = 2.5  # then the welcome says that none is ready yet


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule up``."""
    parser.description = (
        "Run the queue's server, admission, gateway, scheduler and, when no VESTIBULE_UPSTREAMS"
        " are named, a demo worker, in the foreground. Settings come from the environment; the"
        " README lists them."
    )
    parser.add_argument("--host", help="address to listen on (VESTIBULE_HOST, 127.0.0.1)")
    parser.add_argument("--port", help="port to listen on (VESTIBULE_PORT, 8600)")
    parser.add_argument("--reload", action="store_true", help="restart when the code changes")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM: 0."""
    settings = environment.settings({"VESTIBULE_HOST": args.host, "VESTIBULE_PORT": args.port})
    if args.reload:
        words = ["up", "--host", settings.host, "--port", str(settings.port)]
        return reload.run([sys.executable, "-m", "infra.cli", *words])
    file = fleet_duties.of(settings)
    logs.configure()
    os.umask(0o077)  # what is written from here on is its owner's alone
    allow_many_connections()
    uvloop.run(_up(settings, file))
    return 0


async def _up(settings: Settings, file: FleetFile | None) -> None:
    stop = stop_event()
    async with AsyncExitStack() as stack:
        folder = StateFolder(settings.state_dir)
        stack.callback(folder.release)
        folder.claim()
        children = Children(folder.path)
        children.stop_survivors()
        check_free(settings.host, settings.port)
        given, settings = settings, with_keys(settings, folder.keys())
        stack.push_async_callback(children.stop)
        url = settings.redis_address() or await embedded.start(folder, children)
        if _has_demo(settings):
            await _start_demo(settings, folder, children)
        policy = settings.pool_policy(needs_worker=True)
        store = await stack.enter_async_context(store_at(url, policy, settings))
        directory = await _serve(stack, store, settings, url)
        # Before the service stops, so that the worker can say that it goes.
        stack.push_async_callback(children.stop, "worker", "demo-model")
        await _start_clockwork(stack, store, settings, file)
        lag_s = REFRESH_S if settings.processes > 1 else 0.0  # the others know of it a little later
        within_s = WORKER_START_S if settings.upstreams or _has_demo(settings) else 0.0
        ready = asyncio.create_task(_first_worker(directory, within_s, lag_s))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((ready, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            print(_welcome(given, folder, worker_ready=ready.result()), flush=True)
        await stopped
        ready.cancel()
        print("stopping", flush=True)


async def _serve(
    stack: AsyncExitStack, store: RedisStore, settings: Settings, url: str
) -> Directory:
    """REST and gateway, here or in processes of their own; what is known of the workers."""
    if settings.processes == 1:
        return (await stack.enter_async_context(serving(store, settings)))[DIRECTORY]
    stack.enter_context(reserved(settings.host, settings.port))
    keys = {f"VESTIBULE_{n.upper()}": kept_key(settings, n) or "" for n in KEY_NAMES}
    changes = {"REDIS_URL": url, **keys}
    await stack.enter_async_context(several(settings, needs_worker=True, changes=changes))
    directory = Directory(store)
    await stack.enter_async_context(background.running("directory", directory.keep_fresh))
    return directory


async def _start_clockwork(
    stack: AsyncExitStack, store: RedisStore, settings: Settings, file: FleetFile | None
) -> None:
    """The ticks, and the fleet's where there is a fleet; what it started here ends with it."""
    books = await stack.enter_async_context(books_of(store, settings))
    opened = fleet_duties.opened(file, store, settings, keep_local=False)
    fleet = await stack.enter_async_context(opened)
    agent = settings.worker_agent_sha256
    ticks = clockwork.running(store, settings.upstreams, agent, books, fleet.ticks)
    await stack.enter_async_context(ticks)
    await stack.enter_async_context(fleet.ending())


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _has_demo(settings: Settings) -> bool:
    """Where no workers are named that are to come."""
    return settings.demo and not settings.upstreams and settings.fleet is None


async def _start_demo(settings: Settings, folder: StateFolder, children: Children) -> None:
    """One local worker agent in front of the demo model."""
    model_port, agent_port = free_port(), free_port()
    assert settings.worker_token is not None
    await children.start("demo-model", worker.demo_command(port=model_port))
    await children.start(
        "worker",
        worker.agent_command(port=agent_port),
        worker.agent_environment(
            admission_url=callable_url(settings.host, settings.port),
            worker_token=settings.worker_token.get_secret_value(),
            worker_id=f"demo-{_short(f'{socket.gethostname()} {folder.path}')}",
            state_file=folder.path / "worker.json",
            vllm_url=f"http://127.0.0.1:{model_port}",
        ),
    )


async def _first_worker(directory: Directory, within_s: float, lag_s: float) -> bool:
    """True once a worker is ready; False when none is in time."""
    try:
        async with asyncio.timeout(within_s):
            while not directory.count()["ready"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # a copy of the registry: no event tells of it
    except TimeoutError:
        return False
    await asyncio.sleep(lag_s)
    return True


def _command() -> str:
    """How this command was called, so that what is printed can be typed."""
    called = Path(sys.argv[0])
    return shlex.quote(sys.argv[0]) if called.name == "vestibule" else "vestibule"


def _install(settings: Settings, folder: StateFolder) -> str:
    """The command for Open WebUI, as it works in another shell: with what this one was told."""
    words = f"{_command()} owui install --url http://YOUR-OPEN-WEBUI --email ADMIN"
    usual, here = Settings.model_validate({}), callable_url(settings.host, settings.port)
    if here != callable_url(usual.host, usual.port):
        words += f" --admission-url {here}"
    if settings.service_key is not None:  # no secret itself is printed
        words += ' --service-key "$VESTIBULE_SERVICE_KEY"'
    if settings.owui_jwt_secret is not None:
        words += " --jwt"
    if settings.wait_limit != usual.wait_limit:
        words = f"VESTIBULE_WAIT_LIMIT={settings.wait_limit} {words}"
    if settings.state_dir != usual.state_dir:
        words = f"VESTIBULE_STATE_DIR={shlex.quote(str(folder.path))} {words}"
    return words


def _welcome(settings: Settings, folder: StateFolder, *, worker_ready: bool) -> str:
    """What is printed once; ``settings`` as they were given, without the folder's keys."""
    base = callable_url(settings.host, settings.port)
    file = shlex.quote(str(folder.keys_file))
    key = f"""$(sed -n 's/.*"service_key": "\\(.*\\)".*/\\1/p' {file})"""
    if settings.service_key is not None:
        key = "$VESTIBULE_SERVICE_KEY"
    overridden = [f"VESTIBULE_{n.upper()}" for n in KEY_NAMES if getattr(settings, n) is not None]
    instead = f", but {', '.join(overridden)} of the environment" if overridden else ""
    workers = ", ".join(upstream.url for upstream in settings.upstreams) or "of the workers to come"
    if _has_demo(settings):
        workers = f"the built-in demo model {demo_model.MODEL!r}, which is not a real one"
    notes = (
        ""
        if worker_ready
        else "\n  !           no worker is ready: nobody is admitted until one is"
    )
    return f"""
Vestibule is ready on {base}
  models      {workers}{notes}
  state       {folder.path}
  keys        {folder.keys_file} ({", ".join(KEY_NAMES)}){instead}
  Open WebUI  {_install(settings, folder)}
              or by hand: an OpenAI connection to {base}/v1 with the service_key
  try it      curl -s -X POST {base}/queue/join/ada \\
                -H "Authorization: Bearer {key}" \\
                -d '{{"auto_confirm": true}}'
  Ctrl-C stops everything.
"""
