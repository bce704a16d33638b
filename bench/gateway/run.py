"""Measures the sides in turn and prints the table, the ratios and what is to be reached."""

import argparse
import asyncio
import json
import resource
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from aiohttp import ClientSession

from bench.gateway.sides import (
    KEY,
    STARTS,
    UPSTREAMS,
    Started,
    missing,
    upstreams,
)
from bench.gateway.table import Found, print_ratios, print_table
from bench.processes import cores, module

TOGETHER = ("alone", "bare", "ours")
ROUNDS = 3  # of those; the others are measured once
CONNECTIONS = 64
OPEN_STREAMS, SOME_STREAMS = 1_000, 200
PER_SECOND = 20  # chunks of a stream, where it is asked how many one core carries
BURST = "/pace/0/0/50"
PACED, PACED_S = "/pace/0/10/50", 0.5
STEADY = f"/pace/50/{1000 // PER_SECOND}/100000"
SLOW = "/pace/50/1000/100000"


async def main(words: Sequence[str] = ()) -> None:
    """Measure all sides, or those that ``--only`` names."""
    options = argparse.ArgumentParser(prog="python -m bench gateway")
    options.add_argument("--only", metavar="NAME,…", help=", ".join(STARTS))
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument("--no-climb", action="store_true", help="leave out the number of streams")
    given = options.parse_args(words)
    names = given.only.split(",") if given.only else list(STARTS)
    if unknown := set(names) - set(STARTS):
        options.error(f"no side is called {', '.join(sorted(unknown))}")
    names = [name for name in STARTS if name in names or name == "alone"]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    others, own = cores()
    print(
        f"gateway: 2 canned model servers; each gateway in one process on core {own}, the servers"
        f" and the callers on {others}; {given.rounds} rounds in turn"
    )
    start_s = time.perf_counter()
    found: dict[str, Found] = {}
    async with upstreams():
        together = [name for name in TOGETHER if name in names]
        found |= await _measured(together, given.rounds, climbing=not given.no_climb)
        for name in names:
            if name in TOGETHER:
                continue
            if (line := missing(name)) is not None:
                print(f"  {name:<14} is not installed: {line}")
                continue
            try:
                found |= await _measured([name], 1, climbing=not given.no_climb)
            except (RuntimeError, TimeoutError) as error:
                print(f"  {name:<14} could not be measured: {error!r}")
    print_table(found)
    print_ratios(found)
    print(f"  taken: {time.perf_counter() - start_s:.0f} s")


async def _measured(names: list[str], rounds: int, *, climbing: bool) -> dict[str, Found]:
    """Several sides at once, in turn: what disturbs the machine disturbs them all."""
    async with AsyncExitStack() as stack:
        sides = {n: await stack.enter_async_context(STARTS[n]()) for n in names}
        found = {name: Found() for name in names}
        for side in sides.values():  # the first calls take longer
            await _callers("closed", side, stream=False, connections=4, seconds=0.3)
        for job in (_plain, _burst, _paced, _steady):
            for _ in range(rounds):
                for name, side in sides.items():
                    await job(side, found[name])
        for name, side in sides.items():
            await _memory(side, found[name])
            if climbing and side.patience == 1:
                await _pace(STEADY)
                found[name].streams = await _callers("climb", side, per_second=PER_SECOND)
                await asyncio.sleep(1)
        return found


async def _plain(side: Started, found: Found) -> None:
    one = await _callers("closed", side, stream=False, connections=1, seconds=0.7)
    found.plain_ms.append((one["p50_ms"], one["p99_ms"]))
    before = _cpu(side)
    many = await _callers("closed", side, stream=False, connections=CONNECTIONS, seconds=1.2)
    found.rates.append(many["rate"])
    found.plain_cpu_ms.append(_used(side, before, many["answers"]))


async def _burst(side: Started, found: Found) -> None:
    await _pace(BURST)
    one = await _callers("closed", side, stream=True, connections=1, seconds=0.8)
    found.first_ms_1.append((one["p50_ms"], one["p99_ms"]))
    before = _cpu(side)
    many = await _callers("closed", side, stream=True, connections=CONNECTIONS, seconds=1.2)
    found.burst_rates.append(many["rate"])
    found.burst_cpu_ms.append(_used(side, before, many["answers"]))


async def _paced(side: Started, found: Found) -> None:
    await _pace(PACED)
    before = _cpu(side)
    many = await _callers(
        "closed", side, stream=True, connections=CONNECTIONS, seconds=2.7, spread_s=PACED_S
    )
    found.first_ms_64.append((many["p50_ms"], many["p99_ms"]))
    found.paced_cpu_ms.append(_used(side, before, many["answers"] + CONNECTIONS / 2))


async def _memory(side: Started, found: Found) -> None:
    if side.family is None:
        return
    await _pace(SLOW)
    before = side.family.rss_bytes()
    async with _held(side, OPEN_STREAMS) as opened:
        await asyncio.sleep(1)
        if opened == OPEN_STREAMS:
            found.open_mb = (side.family.rss_bytes() - before) / 1e6


async def _steady(side: Started, found: Found) -> None:
    """What one core would carry by the processor time that a stream takes."""
    if side.family is None:
        return
    await _pace(STEADY)
    async with _held(side, SOME_STREAMS) as opened:
        if opened < SOME_STREAMS:
            return
        await asyncio.sleep(0.5)
        before, start_s = side.family.cpu_s(), time.perf_counter()
        await asyncio.sleep(2)
        used_s = side.family.cpu_s() - before
        found.by_cpu.append(SOME_STREAMS * (time.perf_counter() - start_s) / used_s)


@asynccontextmanager
async def _held(side: Started, streams: int) -> AsyncIterator[int]:
    """So many streams are open, or as many as have begun in time."""
    process = await _start("hold", side, streams=streams)
    assert process.stdout
    line = (await process.stdout.readline()).split()
    yield int(line[1]) if line else 0
    process.terminate()
    await process.wait()
    await asyncio.sleep(0.3)


def _cpu(side: Started) -> tuple[float, float]:
    return tuple(each.cpu_s() if each else 0.0 for each in (side.family, side.beside))  # type: ignore[return-value]


def _used(side: Started, before: tuple[float, float], answers: float) -> tuple[float, float]:
    """Milliseconds of processor time an answer: the gateway's, and Valkey's beside it."""
    if not answers:
        return float("inf"), float("inf")
    own, beside = (now - was for now, was in zip(_cpu(side), before, strict=True))
    return own * 1000 / answers, beside * 1000 / answers


async def _pace(path: str) -> None:
    async with ClientSession() as http:
        for url in UPSTREAMS:
            async with http.get(url + path):
                pass


async def _callers(job: str, side: Started, **given: Any) -> Any:
    process = await _start(job, side, **given)
    out, error = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{job} {given}: {error.decode()}")
    return json.loads(out)


async def _start(job: str, side: Started, **given: Any) -> asyncio.subprocess.Process:
    on = ",".join(map(str, cores()[0]))
    process = await asyncio.create_subprocess_exec(
        *("taskset", "-c", on, *module("bench.gateway.callers")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    if "seconds" in given:
        given["seconds"] *= side.patience
    line = {"job": job, "ports": side.ports, "key": KEY, **given}
    process.stdin.write(json.dumps(line).encode() + b"\n")
    await process.stdin.drain()
    return process
