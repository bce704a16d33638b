"""Soak: seeded days, one after the other, for the time it is given.

``python -m tests.simulation.soak --minutes 20``; at a failure it prints the seed, the last steps
and how to live that day again.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from infra import embedded
from infra.state import StateFolder
from tests.simulation import day
from tests.simulation.ledger import Broken


@contextmanager
def server() -> Iterator[str]:
    """A Valkey of its own that writes nothing to disk: restarts are tested elsewhere."""
    with tempfile.TemporaryDirectory(prefix="vst-") as name:
        folder = StateFolder(Path(name))
        command = [*embedded.command(folder), "--appendonly", "no"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        client = Redis.from_url(embedded.url(folder))
        try:
            while not _answers(client):
                assert process.poll() is None, "the Valkey did not start"
                time.sleep(0.02)
            yield embedded.url(folder)
        finally:
            client.close()
            process.terminate()
            process.wait()


def _answers(client: "Redis") -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


async def soak(url: str, options: argparse.Namespace) -> int:
    """Live days until the time is over; 1 when one of them broke an invariant."""
    began, seed, days, calls = time.monotonic(), options.seed, 0, 0
    while days < options.days and time.monotonic() - began < options.minutes * 60:
        try:
            kind = None if options.kind == "any" else options.kind
            report = await day.Day(url, seed, options.hours, kind).live()
        except Broken as broken:
            print(f"\nBROKEN after {days} good days\n{broken}", flush=True)
            return 1
        seed, days, calls = seed + 1, days + 1, calls + report.calls
        print(
            f"seed {report.seed}: {report.calls} calls, {report.admitted} admitted,"
            f" {report.expired} expired, {report.crashes} crashes; {day.described(report.policy)}",
            flush=True,
        )
    took = time.monotonic() - began
    print(
        f"{days} simulated days of {options.hours:g} h (seeds {options.seed} to {seed - 1}),"
        f" {calls} calls, {day.USERS} users each: no invariant broken. {took:.0f} s"
    )
    return 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long (10)")
    parser.add_argument("--days", type=float, default=float("inf"), help="at most so many days")
    parser.add_argument("--hours", type=float, default=24, help="that a day has (24)")
    parser.add_argument("--seed", type=int, default=1, help="of the first day (1)")
    parser.add_argument(
        "--kind", choices=("session", "request", "any"), default="any", help="of the pool (any)"
    )
    options = parser.parse_args()
    with server() as url:
        return asyncio.run(soak(url, options))


if __name__ == "__main__":
    sys.exit(main())
