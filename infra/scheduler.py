"""``vestibule scheduler``: the clockwork alone, beside others, over one Redis."""

import argparse
import asyncio

from admission import logs
from admission.settings import Settings, SettingsError
from infra import environment
from infra.service import accounts_of, store_at
from infra.stopping import stop_event
from scheduler import clockwork


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule scheduler``."""
    parser.description = (
        "Run the expire, announce and worker-liveness ticks over the Redis of REDIS_URL."
        " Any number may run."
    )
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM: 0."""
    settings = environment.settings()
    url = settings.redis_address()
    if url is None:
        raise SettingsError("REDIS_URL: needed; the embedded server belongs to `vestibule up`")
    logs.configure()
    asyncio.run(_run(url, settings))
    return 0


async def _run(url: str, settings: Settings) -> None:
    stop = stop_event()
    async with (
        store_at(url, None, settings) as store,
        accounts_of(store, settings) as accounts,
        clockwork.running(store, settings.upstreams, settings.worker_agent_sha256, accounts),
    ):
        await stop.wait()
