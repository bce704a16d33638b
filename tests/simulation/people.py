"""People: the users of a session pool, who come, wait, talk, leave and vanish as people do."""

import random
from dataclasses import dataclass
from typing import Any

from admission.domain import Status, Ticket
from admission.outcomes import Alive, Confirmed, Joined, Passed, Refused
from tests.simulation.hours import Hours
from tests.simulation.service import Service

SECOND = 1000
MINUTE = 60 * SECOND
NEVER = 10**12
IMPATIENT = 0.03  # share of the looks before which somebody confirms what is no draft yet
TRIES = 4  # before somebody gives up a call that is not answered
USE_RENEWED_MS = 20 * SECOND


@dataclass(frozen=True)
class Manner:
    """How somebody behaves in one visit; times in ms from its begin, or from the step before."""

    auto_confirm: bool  # a chat, which needs no click
    will_return: bool  # does not watch
    attached: bool  # sends heartbeats, or is on a stream
    streamed: bool  # its presence is told by the process it is attached to
    beat_ms: int
    leaves_ms: int  # has enough of waiting
    closes_ms: int  # closes the tab
    away_ms: int  # and comes back after that, or never
    comes_back: bool
    reacts_ms: int  # to a draft
    no_show: bool
    stays_ms: int
    gap_ms: int  # between messages
    vanishes: bool  # when done, instead of leaving
    stops: bool  # leaves only with the chat, by Stop

    @classmethod
    def drawn(cls, rng: random.Random) -> "Manner":
        chat = rng.random() < 0.5
        will_return = rng.random() < 0.12
        return cls(
            auto_confirm=chat and not will_return,
            will_return=will_return,
            attached=chat or rng.random() < 0.8,
            streamed=rng.random() < 0.3,
            beat_ms=rng.randrange(25, 59) * SECOND,
            leaves_ms=rng.choice((NEVER, NEVER, rng.randrange(10, 1800) * SECOND)),
            closes_ms=rng.choice((NEVER, NEVER, NEVER, rng.randrange(5, 900) * SECOND)),
            away_ms=rng.choice((30, 59, 61, 200, 599, 661, 900)) * SECOND,
            comes_back=rng.random() < 0.7,
            reacts_ms=round(rng.expovariate(1 / 40)) * SECOND,
            no_show=rng.random() < 0.2,
            stays_ms=round(min(rng.expovariate(1 / 10), 40) * MINUTE),
            gap_ms=rng.choice((20, 60, 120, 240, 500)) * SECOND,
            vanishes=rng.random() < 0.3,
            stops=rng.random() < 0.3,
        )


class Person:
    """One user of a session pool."""

    def __init__(
        self, user: str, priority: str, service: Service, hours: Hours, rng: random.Random
    ) -> None:
        self._user, self._priority = user, priority
        self._service, self._hours, self._rng = service, hours, rng
        self._visits = 0

    async def live(self, arrivals: list[int]) -> None:
        """Visit at each of the arrivals, or right after the visit before."""
        for at_ms in arrivals:
            await self._hours.sleep(at_ms - self._hours.now_ms)
            self._visits += 1
            self._client = f"m{self._visits}"
            self._how = Manner.drawn(self._rng)
            await self._visit()

    async def _visit(self) -> None:
        how, began = self._how, self._hours.now_ms
        seen = await self._join()
        closes_ms = how.closes_ms
        while seen is not None:
            if seen.status is Status.DRAFT:
                await self._take_draft(seen)
                return
            if seen.status is Status.ACTIVE:
                await self._talk()
                return
            if seen.status is Status.DISCONNECTED:
                return
            await self._hours.sleep(how.beat_ms * self._rng.uniform(0.5, 1))
            waited_ms = self._hours.now_ms - began
            if waited_ms > how.leaves_ms:
                await self._leave()
                return
            if waited_ms > closes_ms:
                if not how.comes_back:
                    return
                await self._hours.sleep(how.away_ms)
                closes_ms = NEVER
                seen = await self._join()
            else:
                seen = await self._look(seen)

    async def _try(self, name: str, **given: Any) -> Any:
        """Repeat a call that was not answered, as a client does."""
        for attempt in range(TRIES):
            outcome = await self._service.call(name, user=self._user, **given)
            if outcome is not None:
                return outcome
            await self._hours.sleep(SECOND * 2**attempt)
        return None

    async def _join(self) -> Ticket | None:
        outcome = await self._try(
            "join",
            ticket=f"{self._user}-{self._rng.getrandbits(48):012x}",
            auto_confirm=self._how.auto_confirm,
            will_return=self._how.will_return,
            client=self._client,
            priority=self._priority,
        )
        if isinstance(outcome, Refused) and self._rng.random() < 0.5:
            await self._hours.sleep(MINUTE)
            outcome = await self._try(
                "join",
                ticket=f"{self._user}-{self._rng.getrandbits(48):012x}",
                auto_confirm=self._how.auto_confirm,
                will_return=self._how.will_return,
                client=self._client,
                priority=self._priority,
            )
        return outcome.ticket if isinstance(outcome, Joined) else None

    async def _look(self, before: Ticket) -> Ticket | None:
        """What one learns while waiting: by a heartbeat, a stream, or only by asking."""
        if self._rng.random() < IMPATIENT:
            await self._service.call("confirm", user=self._user)
        if self._how.attached and not self._how.streamed:
            beat = await self._service.call("heartbeat", user=self._user)
            return beat.ticket if isinstance(beat, Alive) else before if beat is None else None
        if self._how.attached:
            await self._service.call("attend", tickets=[before.ticket_id])
        seen = await self._service.call("status", user=self._user)
        return seen if isinstance(seen, Ticket) else before if seen is None else None

    async def _take_draft(self, draft: Ticket) -> None:
        if self._how.no_show:
            return
        await self._hours.sleep(self._how.reacts_ms)
        named = draft.ticket_id if self._rng.random() < 0.5 else ""
        outcome = await self._try("confirm", ticket=named)
        if isinstance(outcome, Confirmed):
            await self._talk()

    async def _talk(self) -> None:
        """Messages and answers until one has enough, or is refused."""
        ends_ms = self._hours.now_ms + self._how.stays_ms
        number = 0
        while self._hours.now_ms < ends_ms:
            number += 1
            if not await self._ask(f"{self._client}-{number}"):
                return
            await self._hours.sleep(self._how.gap_ms * self._rng.uniform(0.2, 1.8))
        if self._how.stops:
            await self._try("leave", client=self._client)
        if not self._how.vanishes:
            await self._leave()

    async def _ask(self, request: str) -> bool:
        """One message and its answer; False when there is no session any more."""
        if self._rng.random() < 0.5:
            await self._service.call("heartbeat", user=self._user, client=request)
        left_ms = self._rng.expovariate(1 / 15) * SECOND
        while left_ms > 0:
            passed = await self._try("use", request=request, message=request, concurrency=4)
            if not isinstance(passed, Passed):
                return False
            nap_ms = min(left_ms, USE_RENEWED_MS)
            await self._hours.sleep(nap_ms)
            left_ms -= nap_ms
        if self._rng.random() < 0.9:  # else the gateway died
            await self._service.call("done", ticket=passed.ticket_id, request=request)
            await self._service.call("leave", user=self._user, client=request)
        return True

    async def _leave(self) -> None:
        await self._try("leave")
