"""What the gateway adds to a request: the same upstream with and without it, in one run."""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

from aiohttp import ClientError, ClientSession, web

from infra.state import read_keys

REQUESTS = 1_000
CONNECTIONS = 16
BODY = {"model": "canned", "messages": [{"role": "user", "content": "x" * 1_000}]}
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "y" * 200}}]}
UPSTREAM_PORT, GATEWAY_PORT = 18_701, 18_700


async def main() -> None:
    """Print requests per second and the median latency, direct and through the gateway."""
    print(f"gateway: {REQUESTS} short chats, {CONNECTIONS} connections, canned upstream, 2 cores")
    async with _upstream(), _vestibule() as key:
        headers = {"Authorization": f"Bearer {key}"}
        direct = await _load(f"http://127.0.0.1:{UPSTREAM_PORT}", {})
        async with ClientSession(f"http://127.0.0.1:{GATEWAY_PORT}", headers=headers) as http:
            # A session runs 4 requests at once: as many users as the connections need.
            for user in range(CONNECTIONS // 4):
                await http.post(f"/queue/join/u{user}", json={"auto_confirm": True})
        through = await _load(f"http://127.0.0.1:{GATEWAY_PORT}", headers)
    for name, (rate, ms) in (("upstream alone", direct), ("through the gateway", through)):
        print(f"  {name:<20} {rate:6.0f} requests/s   median {ms:6.2f} ms")
    rate, ms = through[0] / direct[0], through[1] / direct[1]
    print(f"  {'ratio':<20} {rate:6.2f}              median {ms:6.2f}")


async def _load(base: str, headers: dict[str, str]) -> tuple[float, float]:
    """Requests per second, and the median latency in ms."""
    taken: list[float] = []

    async def client(number: int) -> None:
        own = headers | {"X-OpenWebUI-User-Id": f"u{number // 4}"}
        async with ClientSession(base, headers=own) as http:
            for _ in range(REQUESTS // CONNECTIONS):
                start = time.perf_counter()
                async with http.post("/v1/chat/completions", json=BODY) as answer:
                    assert answer.status == 200, await answer.text()
                    await answer.read()
                taken.append((time.perf_counter() - start) * 1000)

    start = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(CONNECTIONS)))
    return len(taken) / (time.perf_counter() - start), median(taken)


@asynccontextmanager
async def _upstream() -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.gateway")
    try:
        await until_answers(f"http://127.0.0.1:{UPSTREAM_PORT}/v1/models")
        yield
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def _vestibule() -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory(prefix="vst-") as state:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "infra.cli", "up", "--port", str(GATEWAY_PORT)),
            env={
                **os.environ,
                "VESTIBULE_STATE_DIR": state,
                "VESTIBULE_UPSTREAMS": f"http://127.0.0.1:{UPSTREAM_PORT}",
            },
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await until_answers(f"http://127.0.0.1:{GATEWAY_PORT}/readyz", '"ready": 1')
            yield read_keys(Path(state) / "keys.json")["service_key"]
        finally:
            process.terminate()
            await process.wait()


async def until_answers(url: str, text: str = "") -> None:
    """Wait until ``url`` answers with ``text`` in its body."""
    async with asyncio.timeout(20), ClientSession() as http:
        while True:
            try:
                async with http.get(url) as answer:
                    if answer.status == 200 and text in await answer.text():
                        return
            except ClientError:
                pass
            await asyncio.sleep(0.05)


def _canned() -> web.Application:
    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "canned"}]})

    async def chat(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response(ANSWER)

    app = web.Application()
    app.add_routes([web.get("/v1/models", models), web.post("/v1/chat/completions", chat)])
    return app


if __name__ == "__main__":
    web.run_app(_canned(), host="127.0.0.1", port=UPSTREAM_PORT, print=None, access_log=None)
