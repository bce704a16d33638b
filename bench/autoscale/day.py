"""One load on one simulated fleet, under one policy: what was waited, and what it cost.

One queue, first come first served, as admission holds it, for all policies alike; also for all, a
worker that is removed gets nothing new and finishes what runs. Machines boot as long as the seed
says. Times in seconds. Knows no policy.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from bench.autoscale.traffic import WARM_S, Load, Request

SLOTS = 4  # of a worker
PRICE = 1.006  # g5.xlarge (one A10G) in us-east-1, on demand, June 2026, USD an hour
BILLED_LEAST_S = 60.0  # docs.aws.amazon.com, EC2 billing: by the second, at least one minute
WORKERS_MOST = 40
PATIENCE_S = 4 * 3600.0  # nothing is played longer than this after the load's end
LOOKS_FROM_S = 300.0  # policies find a fleet that runs and a load that flows
COUNTS_FROM_S = WARM_S

BOOT_S = (180.0, 290.0, 420.0)
"""Least, most likely and most time from order to ready, drawn from a triangle. vLLM alone, with an
8B model, was measured at 82 s with every cache warm and 294 s with none (Tensorfuse, "Reducing GPU
cold start time when using vLLM", September 2025); a GPU machine itself takes one to two minutes
from order to a running system."""


@dataclass(eq=False)
class Machine:
    """A worker's machine from its order to its end."""

    number: int
    ordered: float
    ready_at: float
    in_use: int = 0
    ready: bool = False
    draining: float | None = None  # since when
    drained_by: float | None = None
    ended: float | None = None

    @property
    def loading(self) -> bool:
        return not self.ready and self.draining is None


@dataclass
class Outcome:
    """What came of a day. ``cost`` in USD up to the load's end, ``use``: slots held of those paid
    for."""

    waits: list[float]
    cost: float
    use: float
    launches: int
    samples: list[tuple[float, int, int, int]]  # at, slots ready, machines billed, in the system

    def wait(self, share: float) -> float:
        """The wait that ``share`` of all requests did not exceed."""
        return self.waits[min(len(self.waits) - 1, int(share * len(self.waits)))]


class Policy(Protocol):
    """Looks every ``every`` seconds, and changes the fleet by ``Day.launch`` and the like."""

    every: float

    def look(self, day: "Day") -> None: ...


@dataclass
class Day:
    """The state that policies read, and the few things that they may do."""

    load: Load
    seed: int
    now: float = 0.0
    machines: list[Machine] = field(default_factory=list)  # not ended
    waiting: deque[Request] = field(default_factory=deque)
    in_use: int = 0
    arrived: int = 0
    begun: int = 0
    held: deque[float] = field(default_factory=lambda: deque(maxlen=100))  # the newest turns

    def __post_init__(self) -> None:
        self._free: deque[Machine] = deque()  # one entry for each free slot
        self._events: list[tuple[float, int, Machine, float]] = []
        self._number = 0
        self._all: list[Machine] = []
        self._chance = Random(self.seed)
        self._waits: list[float] = []
        self._samples: list[tuple[float, int, int, int]] = []

    @property
    def ready(self) -> list[Machine]:
        return [m for m in self.machines if m.ready and m.draining is None]

    @property
    def wanted(self) -> list[Machine]:
        """Ready or loading."""
        return [m for m in self.machines if m.draining is None]

    def start(self, count: int) -> None:
        """Begin with so many ready machines."""
        for _ in range(count):
            self._ready(self._order(boot=0.0))

    def launch(self) -> Machine:
        """Order one."""
        machine = self._order(boot=self._chance.triangular(BOOT_S[0], BOOT_S[2], BOOT_S[1]))
        heapq.heappush(self._events, (machine.ready_at, machine.number, machine, -1.0))
        return machine

    def drain(self, machine: Machine, least: float = 0.0) -> None:
        """Nothing new for it; it ends when it is empty, but not before ``least`` seconds."""
        if machine.loading:
            self._end(machine)
            return
        machine.draining = self.now
        self._free = deque(each for each in self._free if each is not machine)
        if least:
            machine.drained_by = self.now + least
            heapq.heappush(self._events, (self.now + least, machine.number, machine, -1.0))
        else:
            self._settle(machine)

    def undrain(self, machine: Machine) -> None:
        """Take it back."""
        machine.draining = None
        self._free.extend([machine] * (SLOTS - machine.in_use))
        self._serve()

    def _order(self, boot: float) -> Machine:
        self._number += 1
        machine = Machine(self._number, self.now, self.now + boot)
        self.machines.append(machine)
        self._all.append(machine)
        return machine

    def _ready(self, machine: Machine) -> None:
        machine.ready = True
        self._free.extend([machine] * SLOTS)

    def _end(self, machine: Machine) -> None:
        machine.draining = self.now if machine.draining is None else machine.draining
        machine.ended = self.now
        self.machines.remove(machine)

    def _settle(self, machine: Machine) -> None:
        over = machine.drained_by is None or self.now >= machine.drained_by
        if machine.draining is not None and not machine.in_use and over and machine.ended is None:
            self._end(machine)

    def play(self, policy: Policy) -> Outcome:
        """Until everybody was served."""
        looks, at = LOOKS_FROM_S, 0
        requests, events = self.load.requests, self._events
        while at < len(requests) or self.waiting or self.in_use:
            comes = requests[at][0] if at < len(requests) else float("inf")
            happens = events[0][0] if events else float("inf")
            self.now = min(comes, happens, looks)
            if self.now > self.load.ends + PATIENCE_S:
                break
            if self.now == looks:
                policy.look(self)
                self._sample()
                looks += policy.every
            elif self.now == happens:
                self._happen()
            else:
                self.arrived += 1
                self.waiting.append(requests[at])
                at += 1
                self._serve()
        return self._outcome()

    def _happen(self) -> None:
        _, _, machine, held = heapq.heappop(self._events)
        if held >= 0:
            machine.in_use -= 1
            self.in_use -= 1
            self.held.append(held)
            if machine.draining is None:
                self._free.append(machine)
                self._serve()
            else:
                self._settle(machine)
        elif not machine.ready and machine.ended is None:
            self._ready(machine)
            self._serve()
        else:
            self._settle(machine)

    def _serve(self) -> None:
        while self.waiting and self._free:
            came, held = self.waiting.popleft()
            machine = self._free.popleft()
            machine.in_use += 1
            self.in_use += 1
            self.begun += 1
            if came >= COUNTS_FROM_S:
                self._waits.append(self.now - came)
            heapq.heappush(self._events, (self.now + held, machine.number, machine, held))

    def _sample(self) -> None:
        in_system = self.in_use + len(self.waiting)
        slots = SLOTS * len(self.ready)
        self._samples.append((self.now, slots, len(self.machines), in_system))

    def _outcome(self) -> Outcome:
        ends, paid = self.load.ends, 0.0
        for machine in self._all:
            ended = ends if machine.ended is None else machine.ended
            until = min(ends, max(ended, machine.ordered + BILLED_LEAST_S))
            paid += max(0.0, until - max(COUNTS_FROM_S, machine.ordered))
        waits = self._waits + [self.now - came for came, _ in self.waiting]
        used = sum(held for came, held in self.load.requests if came >= COUNTS_FROM_S)
        return Outcome(
            waits=sorted(waits),
            cost=paid * PRICE / 3600,
            use=used / (paid * SLOTS),
            launches=self._number,
            samples=self._samples,
        )
