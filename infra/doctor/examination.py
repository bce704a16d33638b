"""Asks for every rule, several at once, and leaves the deployment as it was."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from infra.doctor.deployment import Deployment
from infra.doctor.finishing import finished
from infra.doctor.room import Room, answered, still_there
from infra.doctor.rule import Broken, Pool, Rule, Skipped

AT_ONCE = 8
RULE_S = 60.0  # for one rule; some wait for a deadline of a second
KNOWN_S = 10.0  # until every process knows a new pool; each looks once a second
LATE_S = 2.0  # by then even a slow one has looked
LOOKS = 16  # calls at once: nearly surely to more than one process, where there are several
PREFIX = "contract-"  # of everything made here
# What the deployment's own settings could change of a pool.
USUAL = {
    "needs_worker": False,
    "session_duration": 600,
    "draft_duration": 300,
    "queue_timeout": 3600,
    "queue_limit": 100_000,
}


@dataclass(frozen=True)
class Verdict:
    """What came of one rule; ``why``: for one that was skipped."""

    rule: Rule
    outcome: Literal["held", "broken", "skipped"]
    seconds: float
    call: str | None = None
    expected: str | None = None
    seen: str | None = None
    why: str | None = None


@dataclass
class Examination:
    """What came of all of them, in the order of the rules; ``left``: what could not be cleaned."""

    url: str
    verdicts: list[Verdict] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def of(self, outcome: str) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.outcome == outcome]

    @property
    def good(self) -> bool:
        return not self.of("broken") and not self.left


def waiting(pools: Mapping[str, Mapping[str, Any]]) -> int:
    """How many people wait in a deployment, by what ``Deployment.look`` told."""
    return sum(pool["waiting"] for name, pool in pools.items() if not name.startswith(PREFIX))


async def examine(
    deployment: Deployment,
    rules: Sequence[Rule],
    tell: Callable[[Verdict], None] = lambda _: None,
) -> Examination:
    """Ask for each rule in a room of its own; ``tell`` hears each verdict in the rules' order.

    Raises:
        Broken: there is no pool to ask in.
    """
    done = Examination(deployment.url)
    turns = asyncio.Semaphore(AT_ONCE)
    async with _ground(deployment, rules, done.left) as (run, names):

        async def ask(rule: Rule) -> Verdict:
            async with turns:
                settings = {**USUAL, **rule.pool.settings}
                room = Room(deployment, run, names[_key(rule)], settings)
                try:
                    return await _verdict(rule, room)
                finally:
                    done.left += await finished(room.leave())

        async with asyncio.TaskGroup() as group:
            for task in [group.create_task(ask(rule)) for rule in rules]:
                done.verdicts.append(await task)
                tell(done.verdicts[-1])
    return done


async def _verdict(rule: Rule, room: Room) -> Verdict:
    began = time.monotonic()

    def after() -> float:
        return round(time.monotonic() - began, 3)

    try:
        async with asyncio.timeout(RULE_S):
            await rule.check(room)
    except Broken as broken:
        return Verdict(rule, "broken", after(), broken.call, broken.expected, broken.seen)
    except Skipped as skipped:
        return Verdict(rule, "skipped", after(), why=str(skipped))
    except TimeoutError:
        return Verdict(rule, "broken", after(), "the whole rule", f"an end in {RULE_S} s", "none")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        seen = f"{type(error).__name__}: {error}"
        return Verdict(rule, "broken", after(), "an answer", "the documented fields", seen)
    return Verdict(rule, "held", after())


def _key(rule: Rule) -> object:
    """What pools are shared by."""
    return id(rule.pool) if rule.pool.shared else id(rule)


@asynccontextmanager
async def _ground(
    deployment: Deployment, rules: Sequence[Rule], left: list[str]
) -> AsyncIterator[tuple[str, dict[object, str]]]:
    """The name of this run, which begins that of everything it makes, and a pool for each rule
    that wants its own and for those that share one. After the block all of it is gone."""
    run = f"{PREFIX}{secrets.token_hex(4)}"
    wanted: dict[object, Pool] = {_key(rule): rule.pool for rule in rules}
    names = {key: f"{run}-{n}" for n, key in enumerate(wanted)}
    try:
        for key, pool in wanted.items():
            path = f"/admin/pools/{names[key]}"
            settings = {**USUAL, **pool.settings}
            (await answered(deployment.admin, "PUT", path, settings)).good()
        if names:
            await _known(deployment, names[next(reversed(names))])
        yield run, names
    finally:
        left += await finished(_clear(deployment, run))


async def _clear(deployment: Deployment, run: str) -> list[str]:
    """Take away all pools of this run; what is still there."""
    try:
        pools = (await answered(deployment.admin, "GET", "/admin/pools")).good()["pools"]
        mine = [pool["pool"] for pool in pools if pool["pool"].startswith(run)]
    except (Broken, Skipped, LookupError, TypeError) as error:
        return [f"pools named {run}… ({error})"]
    return await still_there(deployment.admin, [("DELETE", f"/admin/pools/{n}") for n in mine])


async def _known(deployment: Deployment, pool: str) -> None:
    """Wait until every process knows it: each call goes to one of them, by chance."""
    path, began = f"/queue/metrics?pool={pool}", time.monotonic()
    several = False
    while True:
        replies = await asyncio.gather(*(deployment.service("GET", path) for _ in range(LOOKS)))
        strange = next((reply for reply in replies if reply.status != 200), None)
        if strange is None:
            break
        several = True
        if time.monotonic() - began > KNOWN_S:
            raise Broken(path, f"a new pool is known everywhere within {KNOWN_S} s", strange.shown)
        await asyncio.sleep(0.1)
    if several:  # of many processes some were not among those looks
        await asyncio.sleep(max(0.0, LATE_S - (time.monotonic() - began)))
