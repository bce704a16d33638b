"""What others do, each by its documentation, with its own pace, windows and delays.

They give a number of replicas; what is too many goes as Kubernetes' ReplicaSet and SkyServe choose:
what still loads first, then who has the fewest requests. Each has one main knob, which is swept.
Favours to all of them: one shared queue that loses nothing, and a removed worker finishes its
requests (KEDA and SkyServe have complaints of both). Reference: each class.
"""

import math
from bisect import bisect_left
from collections import deque

from bench.autoscale.day import SLOTS, WORKERS_MOST, Day

HPA_SYNC_S = 15.0
HPA_TOLERANCE = 0.1
HPA_DOWN_S = 300.0


def resize(day: Day, replicas: int, drain_s: float = 0.0) -> None:
    """To ``replicas`` machines, between one and the common most."""
    replicas = max(1, min(WORKERS_MOST, replicas))
    there = day.wanted
    for _ in range(replicas - len(there)):
        day.launch()
    by_use = sorted(there, key=lambda machine: (machine.ready, machine.in_use, -machine.number))
    for machine in by_use[: max(0, len(there) - replicas)]:
        day.drain(machine, least=drain_s)


class Fixed:
    """So many, always. Knob: how many."""

    every = 60.0

    def __init__(self, replicas: float) -> None:
        self._replicas = round(replicas)

    def look(self, day: Day) -> None:
        resize(day, self._replicas)


class RequestRate:
    """SkyServe 0.14: requests of the last 60 s over ``target_qps_per_replica``, looked at every
    20 s; 15 times in a row above before it grows (300 s), 60 below before it shrinks (1200 s); a
    replica that goes is kept 120 s. Knob: the target, in requests a second and replica."""

    every = 20.0
    window_s, up, down, drain_s = 60.0, 15, 60, 120.0

    def __init__(self, qps: float) -> None:
        self._qps = qps
        self._target: int | None = None
        self._above = self._below = 0

    def look(self, day: Day) -> None:
        target = self._target = len(day.wanted) if self._target is None else self._target
        requests = day.load.requests
        came = day.arrived - bisect_left(requests, (day.now - self.window_s, 0.0))
        asked = math.ceil(max(0, came) / self.window_s / self._qps)
        asked = max(1, min(WORKERS_MOST, asked))
        self._above = self._above + 1 if asked > target else 0
        self._below = self._below + 1 if asked < target else 0
        if self._above >= self.up or self._below >= self.down:
            self._target, self._above, self._below = asked, 0, 0
        resize(day, self._target, self.drain_s)


class Hpa:
    """Kubernetes' horizontal pod autoscaler (autoscaling/v2): every 15 s, a tolerance of 0.1, at
    most doubled or four more in 15 s, and down to the highest advice of the last 300 s."""

    every = HPA_SYNC_S

    def __init__(self) -> None:
        self._advice: deque[tuple[float, int]] = deque()

    def advise(self, day: Day) -> int:
        raise NotImplementedError

    def look(self, day: Day) -> None:
        now = len(day.wanted)
        advice = max(1, min(WORKERS_MOST, self.advise(day)))
        self._advice.append((day.now, advice))
        while self._advice[0][0] < day.now - HPA_DOWN_S:
            self._advice.popleft()
        advice = max(advice, min(now, max(each for _, each in self._advice)))
        resize(day, min(advice, max(2 * now, now + 4)))


class QueueLength(Hpa):
    """KEDA on the queue alone, as vLLM's production stack documents it: waiting requests over a
    threshold (there 5), as an AverageValue of the HPA. Knob: the threshold."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self._threshold = threshold

    def metric(self, day: Day) -> float:
        return len(day.waiting)

    def advise(self, day: Day) -> int:
        now = len(day.wanted)
        ratio = self.metric(day) / (self._threshold * now)
        if abs(ratio - 1) <= HPA_TOLERANCE:
            return now
        return math.ceil(self.metric(day) / self._threshold)


class QueueAndRunning(QueueLength):
    """KEDA on messages that wait or are being worked on, as its SQS scaler counts them by default
    (``scaleOnInFlight``). Knob: the threshold for each replica."""

    def metric(self, day: Day) -> float:
        return len(day.waiting) + day.in_use


class GpuUtilisation(Hpa):
    """The HPA on the mean GPU utilisation of the pods; one that is not ready counts as 0 when it
    would grow. Kindly, utilisation is the share of slots in use: what NVML calls utilisation is
    1 as soon as one request runs. Knob: the target."""

    def __init__(self, target: float) -> None:
        super().__init__()
        self._target = target

    def advise(self, day: Day) -> int:
        ready, now = day.ready, len(day.wanted)
        if not ready:
            return now
        used = sum(machine.in_use for machine in ready) / SLOTS
        ratio = used / len(ready) / self._target
        if ratio > 1 and now > len(ready):
            ratio = used / now / self._target
            return math.ceil(ratio * now) if ratio > 1 + HPA_TOLERANCE else now
        return now if abs(ratio - 1) <= HPA_TOLERANCE else math.ceil(ratio * len(ready))


class Concurrency:
    """Knative's KPA: every 2 s, the mean concurrency of 60 s over the target; a panic when that of
    6 s asks for twice the ready pods, in which nothing shrinks until 60 s after the last sign; up
    by 1000 times, down by half the ready ones. Knob: the target utilisation of a worker's slots
    (documented: 0.7)."""

    every = 2.0
    stable_s, panic_s, threshold, down = 60.0, 6.0, 2.0, 2.0

    def __init__(self, utilisation: float) -> None:
        self._target = utilisation * SLOTS
        self._seen: deque[int] = deque(maxlen=int(self.stable_s / self.every))
        self._panic_at: float | None = None
        self._most = 0

    def look(self, day: Day) -> None:
        self._seen.append(day.in_use + len(day.waiting))
        short = list(self._seen)[-int(self.panic_s / self.every) :]
        ready = max(1, len(day.ready))
        stable = math.ceil(sum(self._seen) / len(self._seen) / self._target)
        stable = max(stable, math.floor(ready / self.down))
        panic = math.ceil(sum(short) / len(short) / self._target)
        if panic / ready >= self.threshold:
            self._panic_at = day.now
        elif self._panic_at is not None and day.now - self._panic_at > self.stable_s:
            self._panic_at, self._most = None, 0
        if self._panic_at is not None:
            self._most = max(self._most, stable, panic)
            resize(day, self._most)
        else:
            resize(day, stable)
