"""The agents on simulated machines, and the registry they report to, in plain Python.

An agent starts with its machine, fetches and loads its model, heartbeats, and may be slow, fall
silent, lose its model server, or be the wrong file.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from admission.domain import Worker
from tests.fleet.cloud import NEVER_MS, FakeCloud, Vm

POOL = "default"


class PlainWorkers:
    """As the registry of `admission.store.redis_store.RedisStore` (``steer_worker.lua``)."""

    def __init__(self) -> None:
        self.all: dict[str, Worker] = {}
        self.words: dict[str, int] = {}

    async def pools(self) -> list[str]:
        return [POOL]

    async def workers(self, pool: str) -> list[Worker]:
        return sorted(self.all.values(), key=lambda worker: worker.worker_id)

    async def steer_worker(self, pool: str, worker: str, *, draining: bool, word: int) -> bool:
        known = self.all.get(worker)
        if known is None:
            return False
        if self.words.get(worker, 0) <= word:
            self.words[worker] = word
            self.all[worker] = replace(known, steered=draining, draining=draining, ready=False)
        return True

    async def release_worker(self, pool: str, worker: str) -> bool:
        self.words.pop(worker, None)
        return self.all.pop(worker, None) is not None


@dataclass
class Agent:
    """``begins_ms`` and so on: when it is heard, when vLLM starts, lists its model, answers."""

    vm: Vm
    begins_ms: int
    starts_ms: int
    lists_ms: int
    answers_ms: int
    dies_ms: int = NEVER_MS
    ill_from_ms: int = NEVER_MS  # its model server crashed
    ill_until_ms: int = NEVER_MS
    verdict: str = ""
    mute_until_ms: int = 0  # its heartbeats are lost
    in_flight: int = 0

    def report(self, now_ms: int) -> dict[str, object]:
        """What a heartbeat says."""
        ill = self.ill_from_ms <= now_ms < self.ill_until_ms
        lists = now_ms >= self.lists_ms and not ill
        state = "fetching" if now_ms < self.starts_ms else "serving" if lists else "starting"
        ready = lists and now_ms >= self.answers_ms and not self.verdict
        return {
            "models": ("model",) if lists else (),
            "engine": {"state": "crashed" if ill else state},
            "ready": ready,
            "reason": None if ready else self.verdict or f"vLLM is {state}",
            "in_flight": self.in_flight,
        }


class Agents:
    """Those of one cloud's machines. ``plan``: how the agent of a machine will fare."""

    def __init__(
        self,
        cloud: FakeCloud,
        workers: PlainWorkers,
        rng: random.Random,
        plan: Callable[[Vm], Agent],
    ) -> None:
        self._cloud, self._workers, self._rng, self._plan = cloud, workers, rng, plan
        self.of: dict[str, Agent] = {}

    def live(self, now_ms: int) -> None:
        """A heartbeat of each."""
        for vm in self._cloud.vms.values():
            if vm.deployment == "ours" and vm.id not in self.of:
                self.of[vm.id] = self._plan(vm)
            agent = self.of.get(vm.id)
            if agent and self.heard(agent, now_ms) and agent.mute_until_ms <= now_ms:
                self._beat(agent, now_ms)

    def heard(self, agent: Agent, now_ms: int) -> bool:
        began_ms = agent.begins_ms
        if self._cloud.times.install is not None:  # by its provider, if it ever is
            began_ms = max(began_ms, agent.vm.installed_ms)
        return self._cloud.runs(agent.vm) and began_ms <= now_ms < agent.dies_ms

    def _beat(self, agent: Agent, now_ms: int) -> None:
        name = agent.vm.owner
        known = self._workers.all.get(name)
        if known is None:
            known = Worker(
                worker_id=name,
                url=f"https://{agent.vm.id}.cloud:8001",
                kind="agent",
                pool=POOL,
                models=(),
                slots=4,
                ready=False,
                draining=False,
                reason="registered",
                first_seen_ms=now_ms,
                last_seen_ms=now_ms,
            )
        if known.draining:
            agent.in_flight = max(0, agent.in_flight - self._rng.randint(0, 2))
        else:
            agent.in_flight = self._rng.randint(0, 4)
        told = agent.report(now_ms)
        ready = bool(told.pop("ready")) and not known.draining
        self._workers.all[name] = replace(
            known,
            last_seen_ms=now_ms,
            ready=ready,
            verdict=agent.verdict,
            **told,  # type: ignore[arg-type]
        )

    def silence(self, now_ms: int, lease_ms: int = 30_000) -> None:
        """Reports that are too old are good for nothing, as in the registry."""
        for name, worker in self._workers.all.items():
            if worker.ready and worker.last_seen_ms + lease_ms <= now_ms:
                self._workers.all[name] = replace(worker, ready=False)
