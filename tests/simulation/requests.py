"""Requests: the callers of a request pool, each with bursts of requests that wait their turn."""

import random
from typing import Any

from admission.domain import Status, Ticket
from admission.outcomes import Alive, Joined, Passed
from tests.simulation.hours import Hours
from tests.simulation.people import SECOND, TRIES
from tests.simulation.service import Service

RENEWED_MS = 25 * SECOND
BURST_MAX = 4


class Caller:
    """One user of a request pool."""

    def __init__(
        self, user: str, priority: str, service: Service, hours: Hours, rng: random.Random
    ) -> None:
        self._user, self._priority = user, priority
        self._service, self._hours, self._rng = service, hours, rng
        self._number = 0

    async def live(self, arrivals: list[int]) -> None:
        """Send a burst of requests at each of the arrivals."""
        for at_ms in arrivals:
            await self._hours.sleep(at_ms - self._hours.now_ms)
            for _ in range(self._rng.randint(1, BURST_MAX)):
                self._number += 1
                self._hours.begin(self._request(f"r{self._number}"), self._rng.randrange(3000))
            if self._rng.random() < 0.05:
                await self._hours.sleep(self._rng.randrange(60) * SECOND)
                await self._try("leave")

    async def _try(self, name: str, **given: Any) -> Any:
        for attempt in range(TRIES):
            outcome = await self._service.call(name, user=self._user, **given)
            if outcome is not None:
                return outcome
            await self._hours.sleep(SECOND * 2**attempt)
        return None

    async def _request(self, request: str) -> None:
        """One request: wait, run, give the slot back; or vanish on the way."""
        rng = self._rng
        waits = rng.random() < 0.8  # in its connection; else its slot is taken before it comes
        gives_up_ms = self._hours.now_ms + rng.choice(
            (1_200_000, 300_000, rng.randrange(1, 120_000))
        )
        vanishes_ms = self._hours.now_ms + rng.choice((10**12,) * 5 + (rng.randrange(1, 90_000),))
        joined = await self._try(
            "join",
            ticket=f"{rng.getrandbits(48):012x}",
            request=request,
            auto_confirm=waits,
            will_return=False,
            priority=self._priority,
        )
        seen = joined.ticket if isinstance(joined, Joined) else None
        while seen is not None and seen.status is not Status.DISCONNECTED:
            if self._hours.now_ms >= vanishes_ms:
                return
            if self._hours.now_ms >= gives_up_ms:
                await self._try("leave", ticket=seen.ticket_id)
                return
            if seen.status is Status.ACTIVE:
                await self._run(request, seen.ticket_id)
                return
            if seen.status is Status.DRAFT:
                await self._try("confirm", ticket=seen.ticket_id)
            await self._hours.sleep(RENEWED_MS * rng.uniform(0.3, 1))
            seen = await self._look(seen)

    async def _look(self, before: Ticket) -> Ticket | None:
        beat = await self._service.call("heartbeat", user=self._user, ticket=before.ticket_id)
        return beat.ticket if isinstance(beat, Alive) else before if beat is None else None

    async def _run(self, request: str, ticket: str) -> None:
        left_ms = self._rng.expovariate(1 / 25) * SECOND
        while left_ms > 0:
            passed = await self._try("use", request=request, concurrency=4)
            if not isinstance(passed, Passed):
                return
            nap_ms = min(left_ms, RENEWED_MS)
            await self._hours.sleep(nap_ms)
            left_ms -= nap_ms
        if self._rng.random() < 0.9:
            await self._try("leave", ticket=ticket)
