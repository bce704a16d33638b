"""``vestibule scheduler``: the clockwork alone, beside others, over one Redis."""

import argparse
import asyncio

from admission import logs
from admission.settings import Settings, SettingsError
from infra import environment, fleet_duties
from infra.fleet_file import FleetFile
from infra.service import books_of, store_at
from infra.stopping import stop_event
from scheduler import clockwork


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule scheduler``."""
    parser.description = (
        "Run the ticks over the Redis of REDIS_URL. Any number may run: one leads, and when it is"
        " killed another goes on within five seconds. With VESTIBULE_FLEET it also makes and ends"
        " machines; workers that it started on this machine go on when it stops."
    )
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM: 0."""
    settings = environment.settings()
    url = settings.redis_address()
    if url is None:
        raise SettingsError("REDIS_URL: needed; the embedded server belongs to `vestibule up`")
    file = fleet_duties.of(settings)
    logs.configure()
    asyncio.run(_run(url, settings, file))
    return 0


async def _run(url: str, settings: Settings, file: FleetFile | None) -> None:
    stop = stop_event()
    async with (
        store_at(url, None, settings) as store,
        books_of(store, settings) as books,
        fleet_duties.opened(file, store, settings, keep_local=True) as fleet,
        clockwork.running(
            store, settings.upstreams, settings.worker_agent_sha256, books, fleet.ticks
        ),
        fleet.ending(),
    ):
        await stop.wait()
