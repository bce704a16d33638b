"""``vestibule scheduler``: the clockwork alone, beside others, over one Redis."""

import argparse
import asyncio
import os
import signal
import sys

from admission import logs
from admission.errors import StoreUnavailable
from admission.settings import Settings, SettingsError, read_settings
from admission.store.connection import UnfitServer
from infra import worker
from infra.service import store_at
from scheduler import clockwork


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``scheduler`` to the command line."""
    parser = commands.add_parser(
        "scheduler",
        help="run the clockwork alone, beside others",
        description="Run the expire, announce and worker-liveness ticks over the Redis of"
        " REDIS_URL. Any number may run.",
    )
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM: 0; 1 or 2 when it cannot start."""
    logs.configure()
    try:
        settings = read_settings(os.environ, also_known=worker.AGENT_SETTINGS)
        url = settings.redis_address()
        if url is None:
            raise SettingsError("REDIS_URL: needed; the embedded server belongs to `vestibule up`")
        asyncio.run(_run(url, settings))
    except SettingsError as error:
        print(f"vestibule: {error}", file=sys.stderr)
        return 2
    except StoreUnavailable:
        print("vestibule: no Redis answers at REDIS_URL", file=sys.stderr)
        return 1
    except UnfitServer as error:
        print(f"vestibule: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(url: str, settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with store_at(url, settings) as store, clockwork.running(store, settings.upstreams):
        await stop.wait()
