"""Chooses workers for a request, one after the other, and counts what runs on each.

The rules are in ``routing``; here they meet what this process knows at this moment.

A choice costs, with 2, 16 and 128 workers: 3, 6 and 28 us for the least loaded, 3, 5 and 20 us for
a conversation this process knows, and once for each new one 6, 23 and 160 us (CPython 3.11).
"""

import asyncio
import logging
import random
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType

from admission import logs
from admission.directory import Directory
from admission.domain import Worker
from admission.gateway import routing

RESENDS = 1

log = logging.getLogger(__name__)


class Unreachable(Exception):
    """No connection to this worker, or it was lost before the answer's first byte: another may be
    tried, and this one rests for a moment.

    ``sent``: the request had gone out; it is sent at most RESENDS times more, as it may be what
    kills the worker.
    """

    def __init__(self, *, sent: bool = False) -> None:
        super().__init__()
        self.sent = sent


class Saturated(Exception):
    """The worker's own admission said 503 before the first byte: full, not dead.

    ``status``, ``headers`` and ``body`` are its answer, given on when all workers say so.
    """

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__()
        self.status, self.headers, self.body = status, headers, body


def attempts(
    directory: Directory, model: str, conversation: str = ""
) -> Iterator[AbstractContextManager[Worker]]:
    """Blocks to ask one worker in, the best first, as long as each is ``Unreachable`` or
    ``Saturated``; it ends when nobody is left.

    Args:
        conversation: names what should stay with one worker; "" for nothing.

    Raises:
        Saturated: in the place of its end, when a worker was; the last one's answer.
    """
    fleet = directory.fleet(model)
    left, sent = dict(fleet.workers), 0
    saturated: Saturated | None = None
    while sent <= RESENDS and (worker := _choose(directory, fleet, left, conversation)):
        attempt = _Attempt(directory, worker)
        yield attempt
        failure = attempt.failure
        if isinstance(failure, Unreachable) and failure.sent:
            sent += 1  # it may be a connection that was just closing: nobody is ruled out
            continue
        if isinstance(failure, Saturated):
            saturated = failure
        del left[worker.worker_id]
    if saturated:
        raise saturated


def in_turn(directory: Directory) -> Iterator[AbstractContextManager[Worker]]:
    """Blocks to ask each worker in that may get requests, once and whatever its models; the ones in
    trouble come last. ``Unreachable`` and ``Saturated`` end a block, and the next one follows."""
    workers = {worker.worker_id: worker for worker in directory.everyone()}
    well = frozenset(directory.trouble.usable(workers, _now_s()))
    for worker in sorted(workers.values(), key=lambda each: each.worker_id not in well):
        yield _Attempt(directory, worker)


def suggested(
    directory: Directory, model: str, conversation: str, among: Collection[str]
) -> Worker | None:
    """The worker of ``among`` that this conversation goes to, for a proxy that asks it by itself;
    None: nobody."""
    fleet = directory.fleet(model)
    left = {name: worker for name, worker in fleet.workers.items() if name in among}
    return _choose(directory, fleet, left, conversation)


def _choose(
    directory: Directory, fleet: routing.Fleet, left: Mapping[str, Worker], conversation: str
) -> Worker | None:
    """The worker to try of those ``left``; None: nobody."""
    names = directory.trouble.usable(left, _now_s()) if directory.trouble else left
    if not names:
        return None
    running, beside = directory.outstanding, fleet.beside
    loads = {name: running.get(name, 0) + beside[name] for name in names}
    if conversation:
        order = routing.ranking(conversation, fleet.slots)
        return left[routing.keeper(order, loads, fleet.rooms)]
    return left[routing.least_loaded(loads, fleet.rooms, random.random())]


class _Attempt:
    """One worker asked, counted as long as the block lasts. ``failure``: why the next is tried."""

    def __init__(self, directory: Directory, worker: Worker) -> None:
        self._directory, self._worker = directory, worker
        self._tries = False
        self.failure: Unreachable | Saturated | None = None

    def __enter__(self) -> Worker:
        name = self._worker.worker_id
        self._directory.outstanding[name] += 1
        self._tries = self._directory.trouble.try_again(name)
        return self._worker

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        name, trouble = self._worker.worker_id, self._directory.trouble
        self._directory.outstanding[name] -= 1
        match error:
            case Unreachable():
                trouble.unreachable(name, _now_s())
                logs.event(log, "worker_unreachable", logging.WARNING, worker_id=name)
            case Saturated():
                trouble.full(name, _now_s())
            case _:
                if self._tries:
                    trouble.not_told(name)
                return False
        self.failure = error
        return True


def answers(directory: Directory, worker: Worker) -> None:
    """The head of this worker's answer came, whatever it says: it is not dead."""
    if directory.trouble:
        directory.trouble.answers(worker.worker_id)


def has_room(directory: Directory, model: str) -> bool:
    """Do fewer requests run than the model's ready workers have slots?

    Of each worker counts what the gateways sent it or what it reported itself, whichever is more.
    """
    fleet, running = directory.fleet(model), directory.outstanding
    sent = {name: running.get(name, 0) + fleet.beside[name] for name in fleet.workers}
    known = sum(max(sent[name], worker.in_flight) for name, worker in fleet.workers.items())
    return known < sum(slots for _, slots in fleet.slots)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
