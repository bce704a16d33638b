"""Who may still call: requests and tokens a minute, tokens a day and a month.

Counted in memory and exchanged with the other processes once a second, so a request costs no call
to Redis; only who was not heard of for two seconds is asked about first. What all processes let in
within one exchange, and what the answers that run still use, may go beyond a limit: a budget stops
the next request, never an answer. While Redis is away each process goes on with what it knows.

Only what has a limit is counted, from when the limit was set. Service keys act for users: the
user's and the project's limits hold, and the key's own if it was given some.
"""

import asyncio
import logging
import math
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, NamedTuple, Self

from admission import logs
from admission.accounting.limits import Limits, limits_for
from admission.accounting.windows import MINUTE_MS, Span, below_in_ms, in_a_minute, window
from admission.auth import Caller, Kind
from admission.errors import Busy, StoreUnavailable
from admission.store.usage_store import Told, UsageStore

EVERY_S = 1.0
FRESH_S = 2.0
LOOK_S = 1.0  # nobody waits longer for what the others counted
AWAY_S = 5.0  # then nobody waits at all, for so long
SCOPES_AT_ONCE, PLACES_AT_ONCE = 500, 2000  # in one exchange: a millisecond or two of Redis
CLOCKS_MS = 1000  # a clock that is further off was set, or is the first one heard of
_LIFE_S = {Span.MINUTE: 180, Span.DAY: 2 * 86_400, Span.MONTH: 33 * 86_400}

log = logging.getLogger(__name__)


class Measure(NamedTuple):
    """One of the four limits, and how it is counted."""

    name: str  # the field of Limits
    counts: Literal["r", "t"]  # requests or tokens
    span: Span
    words: str
    code: str  # as OpenAI's API calls it


_PER_MINUTE, _BUDGET = "rate_limit_exceeded", "insufficient_quota"
MEASURES = (
    Measure("requests_per_minute", "r", Span.MINUTE, "requests a minute", _PER_MINUTE),
    Measure("tokens_per_minute", "t", Span.MINUTE, "tokens a minute", _PER_MINUTE),
    Measure("tokens_per_day", "t", Span.DAY, "tokens a day (UTC)", _BUDGET),
    Measure("tokens_per_month", "t", Span.MONTH, "tokens a month (UTC)", _BUDGET),
)


@dataclass(frozen=True, slots=True)
class Scope:
    """One user, project or key that has limits."""

    of: str
    name: str
    limits: Limits

    def measures(self) -> Iterable[tuple[Measure, int]]:
        """Its limits, each with its number."""
        for measure in MEASURES:
            limit = getattr(self.limits, measure.name)
            if limit is not None:
                yield measure, limit

    def field(self, measure: Measure) -> str:
        return f"{measure.counts}:{self.of}:{self.name}"

    @property
    def id(self) -> str:
        return f"{self.of}:{self.name}"


class Grant:
    """One request that was let in. Leaving the block without ``spend`` gives it back."""

    def __init__(self, counts: "_Counts", scopes: tuple[Scope, ...]) -> None:
        self._counts, self._scopes = counts, scopes
        self._taken = counts.add("r", 1, scopes)
        self._spent = False

    def __enter__(self) -> Self:
        return self

    def spend(self, tokens: int) -> None:
        """The request was served, and used so many tokens."""
        self._spent = True
        if tokens:
            self._counts.add("t", tokens, self._scopes)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._spent:
            self._counts.take_back(self._taken)


class Allowances:
    """The limits of all callers of one process."""

    def __init__(
        self,
        store: UsageStore,
        table: Callable[[], Mapping[str, Limits]],
        monotonic_s: Callable[[], float] | None = None,
    ) -> None:
        """``table``: the limits at this moment, by row (``limits``). ``monotonic_s``: by default
        the event loop's clock; what time it is Redis says."""
        self._table = table
        self._monotonic_s = monotonic_s or asyncio.get_running_loop().time
        self._counts = _Counts(store, self._monotonic_s)
        self._away_until_s = float("-inf")

    async def take(self, who: Caller, user: str) -> Grant:
        """Let one request of ``user`` in, before it takes a turn; use it as a context manager.

        Raises:
            Busy: 429, a limit is reached; names which, and when to try again.
        """
        scopes = tuple(self._scopes(who, user))
        if scopes:
            now_s = self._monotonic_s()
            if now_s >= self._away_until_s and not self._counts.are_fresh(scopes):
                await self._ask(scopes)
            self._counts.touch(scopes)
            for scope in scopes:
                self._check(scope)
        return Grant(self._counts, scopes)

    def concern(self, who: Caller, user: str) -> bool:
        """Has this caller any limits?"""
        return any(True for _ in self._scopes(who, user))

    async def exchange(self) -> None:
        """Tell the other processes and hear from them.

        Raises:
            StoreUnavailable: nothing is lost, it is told the next time.
        """
        await self._counts.exchange()

    async def keep_exchanged(self) -> None:
        """Exchange each second until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self._counts.exchange()
                self._away_until_s = float("-inf")
            except StoreUnavailable:
                self._went_away()

    async def flush(self) -> None:
        """Tell the rest, before the process ends."""
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._counts.exchange()

    def _scopes(self, who: Caller, user: str) -> Iterable[Scope]:
        table = self._table()
        if not table:
            return
        names = {"user": user, "project": who.project, "key": who.key}
        for of, name in names.items():
            if not name:
                continue
            limits = limits_for(table, of, name)
            if of == "key" and who.kind is not Kind.USER:
                limits = table.get(f"key:{name}")  # the common limits are of users' keys
            if limits is not None:
                yield Scope(of, name, limits)

    async def _ask(self, scopes: tuple[Scope, ...]) -> None:
        try:
            async with asyncio.timeout(LOOK_S):
                await self._counts.hear(scopes)
        except (StoreUnavailable, TimeoutError):
            self._went_away()

    def _went_away(self) -> None:
        if self._monotonic_s() >= self._away_until_s:
            logs.event(log, "allowances_not_exchanged", logging.WARNING)
        self._away_until_s = self._monotonic_s() + AWAY_S

    def _check(self, scope: Scope) -> None:
        now_ms = self._counts.now_ms()
        for measure, limit in scope.measures():
            before, now = self._counts.of(scope, measure, now_ms)
            per_minute = measure.span is Span.MINUTE
            used = in_a_minute(now_ms, before, now) if per_minute else now
            most = limit - 1 if measure.counts == "r" else limit  # tokens are known afterwards
            if (used > most) if measure.counts == "r" else (used >= most):
                if per_minute:
                    wait_ms = below_in_ms(now_ms, before, now, most)
                else:
                    wait_ms = window(measure.span, now_ms).end_ms - now_ms
                raise _too_much(scope, measure, limit, wait_ms)


def _too_much(scope: Scope, measure: Measure, limit: int, wait_ms: int) -> Busy:
    return Busy(
        f"This {scope.of} may use {limit} {measure.words}, and has.",
        code=measure.code,
        retry_after_s=max(1, math.ceil(wait_ms / 1000)),
        extra={"limit": measure.name, "of": scope.of},
    )


Place = tuple[str, str]
"""A window's name and a field in it."""


class _Counts:
    """What this process knows that all have used, and what it has yet to tell."""

    def __init__(self, store: UsageStore, monotonic_s: Callable[[], float]) -> None:
        self._store = store
        self._monotonic_s = monotonic_s
        self._process = secrets.token_hex(8)
        self._number = 0
        self._one_at_a_time = asyncio.Lock()
        self._told: dict[Place, int] = {}  # by Redis
        self._sending: Counter[Place] = Counter()  # its reply has not come
        self._unsent: Counter[Place] = Counter()
        self._ends_ms: dict[str, tuple[int, Span]] = {}  # of the windows, by name
        self._touched: dict[str, Scope] = {}  # since the last exchange
        self._heard_s: dict[str, float] = {}  # of a scope, when
        # Redis' clock before ours; until it was heard, that of this host.
        self._ahead_ms = (time.time() - monotonic_s()) * 1000

    def now_ms(self) -> int:
        """Redis' time, as far as it is known."""
        return int(self._monotonic_s() * 1000 + self._ahead_ms)

    def are_fresh(self, scopes: Iterable[Scope]) -> bool:
        since_s = self._monotonic_s() - FRESH_S
        return all(self._heard_s.get(scope.id, float("-inf")) > since_s for scope in scopes)

    def touch(self, scopes: Iterable[Scope]) -> None:
        """Hear of these in the next exchange."""
        self._touched.update((scope.id, scope) for scope in scopes)

    def of(self, scope: Scope, measure: Measure, now_ms: int) -> tuple[int, int]:
        """What was used in the window before (of minutes) and in this one."""
        *before, now = map(self._sum, self._places(scope, measure, now_ms))
        return sum(before), now

    def add(self, counts: str, much: int, scopes: tuple[Scope, ...]) -> list[tuple[Place, int]]:
        """Count requests ("r") or tokens ("t") in all windows that have a limit; what was counted
        where."""
        if not scopes:
            return []
        now_ms = self.now_ms()
        added = [
            (self._places(scope, measure, now_ms)[-1], much)
            for scope in scopes
            for measure, _ in scope.measures()
            if measure.counts == counts
        ]
        for place, count in added:
            self._unsent[place] += count
        self.touch(scopes)
        return added

    def take_back(self, added: list[tuple[Place, int]]) -> None:
        for place, count in added:
            self._unsent[place] -= count

    async def hear(self, scopes: tuple[Scope, ...]) -> None:
        """Exchange unless another caller's exchange brought these along meanwhile."""
        self.touch(scopes)
        async with self._one_at_a_time:
            while not self.are_fresh(scopes):
                await self._exchange()

    async def exchange(self) -> None:
        async with self._one_at_a_time:
            self._drop_windows()
            if self._touched or self._unsent or self._sending:
                scopes, places = len(self._touched), len(self._unsent)
                rounds = max(scopes // SCOPES_AT_ONCE, places // PLACES_AT_ONCE) + 1
                for _ in range(rounds + bool(self._sending)):  # an earlier word goes alone
                    await self._exchange()
            self._drop_scopes()

    async def _exchange(self) -> None:
        asked = dict(list(self._touched.items())[:SCOPES_AT_ONCE])
        if not self._sending:  # else its reply was lost, and the same is said again
            self._number += 1
            self._sending = Counter(dict(list(self._unsent.items())[:PLACES_AT_ONCE]))
            for place in self._sending:
                del self._unsent[place]
        now_ms = self.now_ms()
        wanted = {
            place
            for scope in asked.values()
            for measure, _ in scope.measures()
            for place in self._places(scope, measure, now_ms)
        } | self._sending.keys()
        now_s = self._monotonic_s()
        redis_ms, found = await self._store.exchange(
            self._process, self._number, self._said(wanted)
        )
        self._sending = Counter()
        for name, fields in found.items():
            self._told.update({(name, field): count for field, count in fields.items()})
        known = abs(redis_ms - self.now_ms()) < CLOCKS_MS
        self._ahead_ms = redis_ms - self._monotonic_s() * 1000
        if known:  # else these were not the windows of today
            for scope_id in asked:
                self._touched.pop(scope_id, None)
                self._heard_s[scope_id] = now_s

    def _said(self, wanted: Iterable[Place]) -> dict[str, Told]:
        by_window: defaultdict[str, list[str]] = defaultdict(list)
        for name, field in sorted(wanted):
            by_window[name].append(field)
        return {
            name: Told(
                _LIFE_S[self._ends_ms[name][1]],
                {f: self._sending[name, f] for f in fields if self._sending[name, f]},
                fields,
            )
            for name, fields in by_window.items()
        }

    def _places(self, scope: Scope, measure: Measure, now_ms: int) -> list[Place]:
        """Where it is counted: of minutes the one before, then the one that runs."""
        here = window(measure.span, now_ms)
        windows = [here]
        if measure.span is Span.MINUTE:
            windows.insert(0, window(Span.MINUTE, here.begin_ms - 1))
        for each in windows:
            self._ends_ms[each.name] = each.end_ms, measure.span
        return [(each.name, scope.field(measure)) for each in windows]

    def _sum(self, place: Place) -> int:
        return self._told.get(place, 0) + self._sending[place] + self._unsent[place]

    def _drop_windows(self) -> None:
        """Nobody asks for what is over."""
        since_ms = self.now_ms() - 2 * MINUTE_MS
        over = {name for name, (end_ms, _) in self._ends_ms.items() if end_ms < since_ms}
        if over:
            for counts in (self._told, self._sending, self._unsent):
                for place in [place for place in counts if place[0] in over]:
                    del counts[place]
            for name in over:
                del self._ends_ms[name]

    def _drop_scopes(self) -> None:
        """Who was not heard of for long is asked about again."""
        since_s = self._monotonic_s() - FRESH_S
        self._heard_s = {i: heard for i, heard in self._heard_s.items() if heard > since_s}
        self._told = {p: n for p, n in self._told.items() if p[1][2:] in self._heard_s}
