"""A load test as it runs: a crowd, its people, and who watches; over by itself."""

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)

from admission.client import Client
from admission.errors import AdmissionError
from infra.errors import CommandError
from infra.load_test.chat import Chats
from infra.load_test.crowd import Coming
from infra.load_test.person import Person, Scene
from infra.load_test.visit import Visit
from infra.load_test.watch import Watch

LOOK_EVERY_S = 1.0
LOOK_S = 5.0  # for one answer
LIST_MAX = 1000  # places at the front that are looked at
LEAVE_S = 10.0  # for all who vanished together
AWAY_S = 60.0  # without an answer to any look; longer than a failover takes, or a restart

Cut = Literal["", "limit", "told", "away"]
"""Why it ended before all were gone: it ran for so long, was told to stop, or nobody answered."""


@dataclass(frozen=True)
class Target:
    """What is tested. ``local``: it is on this machine, so its clock is this one's."""

    url: str
    key: str
    pool: str
    model: str | None = None  # None: the first that is served
    local: bool = True


class Rehearsal:
    """One load test; it may be looked at while it runs."""

    def __init__(self, target: Target, plans: Sequence[Coming], limit_s: float) -> None:
        self.target, self.plans, self.limit_s = target, plans, limit_s
        self.watch = Watch()
        self.people: list[Person] = []
        self.model = target.model or ""
        self.seconds = 0.0
        self.cut: Cut = ""
        self.over = False
        self.told_to_stop = asyncio.Event()
        self._answered_s = 0.0
        self._away = asyncio.Event()
        self._headers = {"Authorization": f"Bearer {target.key}"}

    @property
    def visits(self) -> list[Visit]:
        """Of all who came, in order."""
        return [person.visit for person in self.people]

    async def run(
        self, *, look_on: Callable[["Rehearsal"], None], also_where_people_wait: bool = False
    ) -> None:
        """Let everybody come and go; ``look_on`` is called once a second. Ends when all are gone,
        at the limit, when told to stop, or when nobody answered for ``AWAY_S``; whatever it made is
        taken away on every ending.

        Raises:
            CommandError: nobody is there, the key is wrong, the model is not served, or people
                wait.
        """
        connector, jar = TCPConnector(limit=0), DummyCookieJar()
        async with (
            ClientSession(connector=connector, cookie_jar=jar) as http,
            Client(self.target.url, self.target.key, http=http) as client,
        ):
            await self._check(http, also_where_people_wait=also_where_people_wait)
            scene = Scene(
                client=client,
                chats=Chats(http, self.target.url, self.model),
                pool=self.target.pool,
                watch=self.watch,
                same_clock=self.target.local,
                began_s=asyncio.get_running_loop().time(),
            )
            watching = asyncio.create_task(self._look_on(http, scene, look_on))
            try:
                await self._let_come(scene)
            finally:
                watching.cancel()
                await asyncio.wait({watching})
                self.seconds = scene.now_s()
                await self._clear(client)
            await self._look(http, scene)
            self.over = True
            look_on(self)
            if not watching.cancelled():
                watching.result()

    # --- people ----------------------------------------------------------------------------------

    async def _let_come(self, scene: Scene) -> None:
        async def come(plan: Coming) -> None:
            await asyncio.sleep(plan.at_s)
            self.people.append(Person(plan, scene))
            await self.people[-1].live()

        lives = [asyncio.create_task(come(plan)) for plan in self.plans]
        everybody = asyncio.create_task(_all_of(lives))
        told = asyncio.create_task(self.told_to_stop.wait())
        away = asyncio.create_task(self._away.wait())
        tasks: set[asyncio.Task[Any]] = {everybody, told, away, *lives}
        try:
            await asyncio.wait(
                {everybody, told, away}, timeout=self.limit_s, return_when=asyncio.FIRST_COMPLETED
            )
            if everybody.done():
                await everybody
            else:
                self.cut = "told" if told.done() else "away" if away.done() else "limit"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _clear(self, client: Client) -> None:
        """Who vanished is taken out, so that nobody waits for them after this."""

        async def leave(user: str) -> None:
            with suppress(AdmissionError):  # over by now
                await client.leave(user, pool=self.target.pool)

        gone = [visit.user for visit in self.visits if visit.ended in ("vanished", "cut", "error")]
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await asyncio.gather(*map(leave, gone))

    # --- looks -----------------------------------------------------------------------------------

    async def _check(self, http: ClientSession, *, also_where_people_wait: bool) -> None:
        metrics = await self._ask(http, f"/queue/metrics?pool={self.target.pool}", "waiting")
        if metrics["waiting"] and not also_where_people_wait:
            raise CommandError(
                f"{metrics['waiting']} wait at {self.target.url}: a load test would make them wait"
                " longer. Come back when nobody does, or add --yes-really."
            )
        self.watch.sampled(metrics, 0.0)
        served = await self._ask(http, "/v1/models", "data")
        models = [model["id"] for model in served["data"]]
        if not models:
            raise CommandError(f"{self.target.url} serves no model at this moment")
        if self.model and self.model not in models:
            raise CommandError(f"--model: {self.model} is not served; there is {', '.join(models)}")
        self.model = self.model or models[0]

    async def _ask(self, http: ClientSession, path: str, field: str) -> dict[str, Any]:
        """The JSON object there, which has ``field``. A redirect is not followed: who asks for this
        machine means no other.

        Raises:
            CommandError: nobody answers, or something else does.
        """
        url, timeout = self.target.url.rstrip("/"), ClientTimeout(total=LOOK_S)
        try:
            async with http.get(
                url + path, headers=self._headers, timeout=timeout, allow_redirects=False
            ) as answer:
                if answer.status != 200:
                    why = _why(await answer.text(errors="replace"))
                    raise CommandError(f"{url}, GET {path}: {answer.status}, {why}")
                found: Any = await answer.json()
        except TimeoutError as error:
            raise CommandError(f"{url}: no answer within {LOOK_S:.0f} s") from error
        except ClientConnectorError as error:
            number = error.os_error.errno or 0
            why = os.strerror(number).lower() if number > 0 else str(error.os_error)
            raise CommandError(f"{url}: nobody answers there ({why})") from error
        except (ClientError, ValueError) as error:
            raise CommandError(f"{url}: no answer of Vestibule ({error})") from error
        if not isinstance(found, dict) or field not in found:
            raise CommandError(f"{url}, GET {path}: no answer of Vestibule (without {field!r})")
        return found

    async def _look_on(
        self, http: ClientSession, scene: Scene, tell: Callable[["Rehearsal"], None]
    ) -> None:
        while True:
            await self._look(http, scene)
            self.seconds = scene.now_s()
            tell(self)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self, http: ClientSession, scene: Scene) -> None:
        pool = self.target.pool
        try:
            metrics = await self._ask(http, f"/queue/metrics?pool={pool}", "waiting")
            path = f"/queue/status?pool={pool}&limit={LIST_MAX}"
            listed = await self._ask(http, path, "queue_items")
        except CommandError:
            self.watch.missed += 1
            if scene.now_s() - self._answered_s >= AWAY_S:
                self._away.set()
            return
        self._answered_s = scene.now_s()
        self.watch.sampled(metrics, scene.now_s())
        self.watch.listed(listed["queue_items"], scene.now_s())


def _why(text: str) -> str:
    """The detail of a problem (RFC 9457), else the text as it is, on one line."""
    with suppress(ValueError, LookupError, TypeError):
        text = json.loads(text)["detail"]
    return " ".join(str(text).split())[:300] or "without a word"


async def _all_of(lives: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.gather(*lives)
