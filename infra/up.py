"""``vestibule up``: everything on this machine, in the foreground, until it is stopped."""

import argparse
import asyncio
import os
import shlex
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from pydantic import SecretStr

from admission import logs
from admission.directory import Directory
from admission.errors import StoreUnavailable
from admission.keys import DIRECTORY, STORE
from admission.settings import Settings, SettingsError, read_settings
from admission.store.connection import UnfitServer
from infra import demo_model, embedded, reload, worker
from infra.children import Children
from infra.service import serving
from infra.state import StateError, StateFolder
from scheduler import clockwork

WORKER_START_S = 2.5  # then the welcome says that none is ready yet


class UpError(Exception):
    """Why it cannot start, in one line a person can act on."""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``up`` to the command line."""
    parser = commands.add_parser(
        "up",
        help="run everything on this machine",
        description="Run the queue's server, admission, gateway, scheduler and, when no"
        " VESTIBULE_UPSTREAMS are named, a demo worker, in the foreground. Settings come from the"
        " environment; the README lists them.",
    )
    parser.add_argument("--host", help="address to listen on (VESTIBULE_HOST, 127.0.0.1)")
    parser.add_argument("--port", help="port to listen on (VESTIBULE_PORT, 8600)")
    parser.add_argument("--reload", action="store_true", help="restart when the code changes")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM: 0; 1 when it cannot start, with one line that says why."""
    environ = dict(os.environ)
    for name, value in (("VESTIBULE_HOST", args.host), ("VESTIBULE_PORT", args.port)):
        if value is not None:
            environ[name] = value
    try:
        settings = read_settings(environ, also_known=worker.AGENT_SETTINGS)
        if args.reload:
            words = ["up", "--host", settings.host, "--port", str(settings.port)]
            return reload.run([sys.executable, "-m", "infra.cli", *words])
        logs.configure()
        asyncio.run(_up(settings))
    except SettingsError as error:
        for line in str(error).splitlines():
            print(f"vestibule: {line}", file=sys.stderr)
        return 2
    except (UpError, StateError, UnfitServer) as error:
        print(f"vestibule: {error}", file=sys.stderr)
        return 1
    except StoreUnavailable:
        print(f"vestibule: no Redis answers at {_shown(settings)}", file=sys.stderr)
        return 1
    return 0


async def _up(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        folder = StateFolder(settings.state_dir)
        folder.claim()
        stack.callback(folder.release)
        _check_port(settings.host, settings.port)
        settings = _with_keys(settings, folder.keys())
        children = Children(folder.path)
        children.stop_survivors()
        stack.push_async_callback(children.stop)
        url = settings.redis_address() or await embedded.start(folder, children)
        if not settings.upstreams:
            await _start_demo(settings, folder, children)
        app = await stack.enter_async_context(serving(url, settings, needs_worker=True))
        await stack.enter_async_context(clockwork.running(app[STORE], settings.upstreams))
        ready = asyncio.create_task(_first_worker(app[DIRECTORY]))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((ready, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            print(_welcome(settings, folder, worker_ready=ready.result()), flush=True)
        await stopped
        ready.cancel()
        print("stopping", flush=True)


def _with_keys(settings: Settings, keys: Mapping[str, str]) -> Settings:
    """Keys of the environment win over those of the state folder."""
    made = {
        name: SecretStr(key) for name, key in keys.items() if getattr(settings, name, None) is None
    }
    return settings.model_copy(update=made)


def _check_port(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            return
    except OSError as error:
        raise UpError(
            f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}"
            " (choose another with --port)"
        ) from error


async def _start_demo(settings: Settings, folder: StateFolder, children: Children) -> None:
    """One local worker agent in front of the demo model."""
    model_port, agent_port = _free_port(), _free_port()
    assert settings.worker_token is not None
    await children.start("demo-model", worker.demo_command(port=model_port))
    await children.start(
        "worker",
        worker.agent_command(port=agent_port),
        worker.agent_environment(
            admission_url=f"http://{_reachable(settings.host)}:{settings.port}",
            worker_token=settings.worker_token.get_secret_value(),
            worker_id="demo",
            state_file=folder.path / "worker.json",
            vllm_url=f"http://127.0.0.1:{model_port}",
        ),
    )


async def _first_worker(directory: Directory) -> bool:
    """True once a worker is ready; False when none is after a while."""
    try:
        async with asyncio.timeout(WORKER_START_S):
            while not directory.count()["ready"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # a copy of the registry: no event tells of it
    except TimeoutError:
        return False
    return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _reachable(host: str) -> str:
    """An address of this machine to call, for one that means "listen everywhere"."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)


def _shown(settings: Settings) -> str:
    """The Redis address without its password."""
    return (settings.redis_address() or "the embedded server").rsplit("@", 1)[-1]


def _command() -> str:
    """How this command was called, so that what is printed can be typed."""
    called = Path(sys.argv[0])
    return shlex.quote(sys.argv[0]) if called.name == "vestibule" else "vestibule"


def _welcome(settings: Settings, folder: StateFolder, *, worker_ready: bool) -> str:
    base = f"http://{_reachable(settings.host)}:{settings.port}"
    keys = shlex.quote(str(folder.keys_file))
    key = f"""$(sed -n 's/.*"service_key": "\\(.*\\)".*/\\1/p' {keys})"""
    if settings.upstreams:
        workers = ", ".join(upstream.url for upstream in settings.upstreams)
    else:
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
  keys        {folder.keys_file} (service_key, admin_key, worker_token)
  Open WebUI  {_command()} owui install --url http://YOUR-OPEN-WEBUI --email ADMIN
              or by hand: an OpenAI connection to {base}/v1 with the service_key
  try it      curl -s -X POST {base}/queue/join/ada \\
                -H "Authorization: Bearer {key}" \\
                -d '{{"auto_confirm": true}}'
  Ctrl-C stops everything.
"""
