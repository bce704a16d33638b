"""A function's cold start and its warm answers, beside a handler that only asks Redis for a key.

Each cold start is a process of its own: what it imports, then the first answer. Neither includes
what Lambda itself takes to fetch a package and start Python.
"""

import asyncio
import json
import sys
from statistics import median, quantiles
from typing import Any

from bench.attached import KEY
from bench.scripts import server

COLD, WARM = 9, 2_000
HANDLERS = {
    "admission.functions": "POST /queue/join, then GET /queue/status",
    "scheduler.functions": "the ticks of a schedule; when warm none is due yet",
    "bench.hello": "one GET over redis-py",
}
LEAST = "bench.hello"


async def main() -> None:
    """Print medians in ms, and each as a multiple of the baseline."""
    print(f"functions: medians of {COLD} fresh processes; {WARM} warm invocations of one, in ms")
    async with server() as url:
        found = {name: await _measured(name, url) for name in HANDLERS}
    least = found[LEAST]
    for name, row in found.items():
        shown = "  ".join(
            f"{what} {row[what]:7.2f} ({row[what] / least[what]:.1f}x)" for what in row
        )
        print(f"  {name:<20} {shown}   {HANDLERS[name]}")


async def _measured(handler: str, url: str) -> dict[str, float]:
    await _process(handler, url, 1)  # Python's own cache of what it compiles
    cold = [await _process(handler, url, 1) for _ in range(COLD)]
    cuts = quantiles((await _process(handler, url, WARM))["warm"], n=100)
    return {
        "import": median(one["import"] for one in cold),
        "first": median(one["first"] for one in cold),
        "p50": cuts[49],
        "p99": cuts[98],
    }


async def _process(handler: str, url: str, invocations: int) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.cold", handler, str(invocations)),
        env={"REDIS_URL": url, "VESTIBULE_SERVICE_KEY": KEY},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, handler
    found: dict[str, Any] = json.loads(said)
    return found


if __name__ == "__main__":
    asyncio.run(main())
