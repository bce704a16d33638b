"""Chooses workers for a request, and counts what runs on each."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from admission import logs
from admission.directory import Directory
from admission.domain import Worker

log = logging.getLogger(__name__)


class Unreachable(Exception):
    """No connection to this worker; nothing was sent, another may be tried."""


def in_order(workers: Iterable[Worker], outstanding: Mapping[str, int]) -> list[Worker]:
    """Workers to try, the least loaded first; equals in the order of their ids.

    ``outstanding``: requests now running on each worker, by id; a missing one has none.
    """
    return sorted(workers, key=lambda w: (outstanding.get(w.worker_id, 0), w.worker_id))


def attempts(directory: Directory, model: str) -> Iterator[AbstractContextManager[Worker]]:
    """Blocks to ask one worker in, as long as each is ``Unreachable``; the best worker first."""
    for worker in in_order(directory.ready(model), directory.outstanding):
        yield _attempt(directory, worker)


@contextmanager
def _attempt(directory: Directory, worker: Worker) -> Iterator[Worker]:
    directory.outstanding[worker.worker_id] += 1
    try:
        yield worker
    except Unreachable:
        logs.event(log, "worker_unreachable", logging.WARNING, worker_id=worker.worker_id)
    finally:
        directory.outstanding[worker.worker_id] -= 1


def has_room(directory: Directory, model: str) -> bool:
    """Do fewer requests run than the model's ready workers have slots?

    Of each worker counts what this process sent it or what it reported itself, whichever is more:
    other processes send too, and a report is up to 10 s old.
    """
    ready = directory.ready(model)
    running = sum(max(directory.outstanding[w.worker_id], w.in_flight) for w in ready)
    return running < sum(worker.slots for worker in ready)
