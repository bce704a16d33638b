"""Somebody who uses the queue: joins, waits, confirms, chats, and goes the way they go."""

import asyncio
import random
import uuid
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from admission.client import Away, Client, Ticket, Turn, TurnOver
from admission.domain import Status
from admission.errors import AdmissionError, Busy, Unavailable
from infra.load_test.chat import Chats
from infra.load_test.crowd import Coming
from infra.load_test.visit import Ended, Visit
from infra.load_test.watch import Watch

CONFIRM_S = (0.5, 2.0)  # until who is asked has read the question


@dataclass
class Scene:
    """Where people meet. ``same_clock``: the service's is this machine's, so its instants mean
    something here; ``began_s`` is on the loop's clock."""

    client: Client
    chats: Chats
    pool: str
    watch: Watch
    same_clock: bool
    began_s: float

    def now_s(self) -> float:
        """Since the beginning."""
        return asyncio.get_running_loop().time() - self.began_s


class Person:
    """Lives one plan out; what they lived through is in ``visit`` from the first moment on."""

    def __init__(self, plan: Coming, scene: Scene) -> None:
        self._plan, self._scene = plan, scene
        self.visit = Visit(plan.user, came_s=scene.now_s())
        self._asked = False

    async def live(self) -> None:
        """Come, and go; whatever the service answers is noted, not raised."""
        visit = self.visit
        try:
            if self._plan.ending == "vanish":
                await self._vanish()
            else:
                await self._take_a_turn()
        except asyncio.CancelledError:
            self._end("cut")
            raise
        except TurnOver as over:
            self._end("over", str(over))
        except AdmissionError as error:
            refused = isinstance(error, Busy | Unavailable) and not isinstance(error, Away)
            self._end("refused" if refused else "error", error.code)
        finally:
            self._scene.watch.gone(visit.user)

    async def _take_a_turn(self) -> None:
        plan, scene = self._plan, self._scene
        stops_at_s = plan.patience_s if plan.ending == "stop" else None
        try:
            async with scene.client.turn(
                plan.user,
                pool=scene.pool,
                on_update=self._told,
                wait_s=stops_at_s,
                auto_confirm=not plan.confirms,
            ) as turn:
                await self._chat(turn)
                if turn.is_over:
                    self._end("over", turn.ticket.reason or "")
                else:
                    self._end("stopped" if plan.ending == "stop" else "left")
                scene.watch.gone(plan.user)  # before the leave: its slot is another's at once
        except TimeoutError:
            self._end("stopped")

    async def _chat(self, turn: Turn) -> None:
        plan = self._plan
        for number, said in enumerate(plan.says, 1):
            stops = plan.ending == "stop" and number == len(plan.says)
            answer = await self._scene.chats.say(said, turn.headers(), stops=stops)
            self.visit.answers.append(answer)
            if number < len(plan.says):
                with suppress(TimeoutError):
                    async with asyncio.timeout(plan.think_s):
                        await turn.ended()
            if turn.is_over:
                return

    async def _vanish(self) -> None:
        """Say nothing any more: in the line when it takes too long, else after the first answer."""
        plan, scene = self._plan, self._scene
        ticket = await scene.client.join(
            plan.user, pool=scene.pool, auto_confirm=True, request_id=uuid.uuid4().hex
        )
        headers = {"Authorization": f"Bearer {ticket.token}"} if ticket.token else {}
        await self._told(ticket)
        with suppress(TimeoutError):
            async with (
                asyncio.timeout(plan.patience_s),
                aclosing(scene.client.events(plan.user, pool=scene.pool)) as events,
            ):
                async for ticket in events:
                    await self._told(ticket)
                    if ticket.status is Status.ACTIVE:
                        break
        if ticket.status is Status.ACTIVE:
            self.visit.answers.append(await scene.chats.say(plan.says[0], headers))
        self._end("vanished")

    async def _told(self, ticket: Ticket) -> None:
        scene = self._scene
        scene.watch.told(self._plan.user, ticket, scene.now_s())
        now = datetime.now(UTC) if scene.same_clock else None
        self.visit.told(ticket, scene.now_s(), now)
        if ticket.status is Status.DRAFT and not self._asked:
            self._asked = True
            await asyncio.sleep(random.uniform(*CONFIRM_S))

    def _end(self, how: Ended, why: str = "") -> None:
        """The first ending is the one."""
        if self.visit.gone_s is None:
            self.visit.ended, self.visit.why = how, why
            self.visit.gone_s = self._scene.now_s()
