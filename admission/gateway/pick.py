"""Chooses workers for a request. Pure: no I/O, no state."""

from collections.abc import Iterable, Mapping

from admission.domain import Worker


def in_order(workers: Iterable[Worker], outstanding: Mapping[str, int]) -> list[Worker]:
    """Workers to try, the least loaded first; equals in the order of their ids.

    ``outstanding``: requests now running on each worker, by id; a missing one has none.
    """
    return sorted(workers, key=lambda w: (outstanding.get(w.worker_id, 0), w.worker_id))
