"""How soon the next user hears of a slot that was given back, while many others are attached."""

import asyncio
import random
import time
from statistics import quantiles

from aiohttp import ClientSession

from admission.domain import DEFAULT_POOL
from bench.attached import KEY, Client, room

ATTACHED = 1_000
RELEASES = 500
EVERY_S = (0.02, 0.08)  # at any moment of the passes over all places, and while they run
TO_REACH_MS = {50: 5.0, 99: 50.0}


class Turns:
    """Who was admitted, and when that was heard."""

    def __init__(self) -> None:
        self.admitted: asyncio.Queue[Client] = asyncio.Queue()

    def heard(self, client: Client) -> None:
        if client.status == "active":
            self.admitted.put_nowait(client)


async def main() -> None:
    """Print the percentiles from the call that releases a slot to the next user's event, in ms."""
    chance, turns = random.Random(1), Turns()
    print(
        f"handover: {RELEASES} releases, {ATTACHED} and more attached over SSE, 1 process, 1 slot"
    )
    async with room(capacity=1) as place:
        await place.join("first", auto_confirm=True)
        users = [f"u{i}" for i in range(ATTACHED + RELEASES)]
        await place.join(*users, auto_confirm=True)
        clients = await place.attach(users, turns.heard)
        taken: list[float] = []
        replied: list[float] = []
        current, cpu_s, begun_s = "first", place.cpu_s(), time.perf_counter()
        async with ClientSession(
            f"http://127.0.0.1:{place.port}", headers={"Authorization": f"Bearer {KEY}"}
        ) as http:
            for _ in range(RELEASES):
                await asyncio.sleep(chance.uniform(*EVERY_S))
                start_s = time.perf_counter()
                async with http.post(f"/queue/leave/{current}?pool={DEFAULT_POOL}") as answer:
                    assert answer.status == 200, await answer.text()
                replied.append((time.perf_counter() - start_s) * 1000)
                async with asyncio.timeout(10):
                    client = await turns.admitted.get()
                taken.append((client.at_s - start_s) * 1000)
                current = client.user
        cores = (place.cpu_s() - cpu_s) / (time.perf_counter() - begun_s)
        for client in clients:
            if client.transport:
                client.transport.abort()
    for percent, to_reach in TO_REACH_MS.items():
        told_ms, replied_ms = _percentile(taken, percent), _percentile(replied, percent)
        print(
            f"  p{percent}  {told_ms:6.2f} ms (to reach: {to_reach:.0f}); the reply to the release"
            f" itself {replied_ms:6.2f} ms"
        )
    print(f"  worst {max(taken):.2f} ms; {cores:.2f} cores of the service")


def _percentile(values: list[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]


if __name__ == "__main__":
    asyncio.run(main())
