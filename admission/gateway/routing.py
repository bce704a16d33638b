"""Which worker gets a request: filter → score → pick, as pure functions over plain data.

*Filter*: ``fleet``, once a refresh: ready, not draining, serves the model. What this process itself
met with a moment ago is taken out at each request (``trouble``).
*Score*: requests a worker runs, this process' own at this moment and what is known of others, for
its room: its slots, less where its model server lets requests wait or its KV cache is nearly full.
*Pick*: ``least_loaded``; or for a conversation its ``keeper``, the worker whose prefix cache has
it: the first in the conversation's own order of all workers (rendezvous hashing, D. Thaler and
C. Ravishankar 1998) that has not far more than its share (bounded loads, V. Mirrokni et al. 2018).

A worker that joins or leaves moves the conversations of its own share and no others; all processes
find the same order, and remember nothing for it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b

from admission.domain import Worker

SPILL = 0.25
"""A worker that has more than 1 + SPILL times its fair share keeps no further conversation. KubeAI
chose the same; less moves conversations at each ripple of load."""
QUIET = 0.5
"""Below this part of its room a worker keeps its conversations whatever the others have: to compute
a prefix again costs more than to run beside a few others."""
ROOM_MIN = 0.25  # of the slots: one look at a burst that is just arriving must not close a worker
KV_CROWDED = 0.8  # of the cache in use; llm-d's scheduler calls a worker saturated from there
RANKINGS_MAX = 4096  # at 128 workers 1 KiB each


@dataclass(frozen=True)
class Fleet:
    """The workers that may get requests for one model, by id, as the last refresh saw them.

    ``rooms``: requests each takes well, > 0. ``beside``: requests each runs that this process did
    not send, >= 0. ``slots``: ids with their slots, by which conversations are spread.
    """

    workers: Mapping[str, Worker] = field(default_factory=dict)
    rooms: Mapping[str, float] = field(default_factory=dict)
    beside: Mapping[str, int] = field(default_factory=dict)
    slots: tuple[tuple[str, int], ...] = ()


def fleet(workers: Iterable[Worker], model: str, others: Mapping[str, int]) -> Fleet:
    """Those of ``workers`` that may get a request for ``model``.

    ``others``: requests the other gateway processes have running, by worker. What a worker says it
    has in flight contains them and ours, is older, and is not counted again.
    """
    usable = {w.worker_id: w for w in workers if w.ready and not w.draining and model in w.models}
    return Fleet(
        workers=usable,
        rooms={name: room(worker) for name, worker in usable.items()},
        beside={name: others.get(name, 0) + bypassing(w) for name, w in usable.items()},
        slots=tuple((name, worker.slots) for name, worker in usable.items()),
    )


def room(worker: Worker) -> float:
    """How many requests the worker takes well, by what it said last: > 0, at most its slots.

    Where requests wait inside it, no more than it runs. With a KV cache in use above KV_CROWDED
    less, down to half when it is full: vLLM would throw running requests out of it.
    """
    slots = float(max(1, worker.slots))
    load = worker.load or {}
    if worker.queue_depth:
        running = load.get("running") or worker.in_flight - worker.queue_depth
        slots = max(min(slots, running), slots * ROOM_MIN)
    crowded = max(0.0, (load.get("kv_cache_usage") or 0.0) - KV_CROWDED) / (1 - KV_CROWDED)
    return slots * (1 - min(1.0, crowded) / 2)


def bypassing(worker: Worker) -> int:
    """Requests its model server has that did not come through its agent, by its last report."""
    load = worker.load or {}
    return max(0, (load.get("running") or 0) + (load.get("waiting") or 0) - worker.in_flight)


def least_loaded(loads: Mapping[str, int], rooms: Mapping[str, float], chance: float) -> str:
    """The worker that would be the least loaded for its room with one more request.

    ``loads``: the requests of each worker that may be chosen, at least one. ``chance``: 0 <= it < 1
    decides between equals, so that processes which know the same do not all choose the same.
    """
    after = {name: (load + 1) / rooms[name] for name, load in loads.items()}
    lowest = min(after.values())
    equals = [name for name, score in after.items() if score == lowest]
    return equals[int(chance * len(equals))]


def keeper(order: Sequence[str], loads: Mapping[str, int], rooms: Mapping[str, float]) -> str:
    """The first in ``order`` that takes one more request within its bound.

    The bound is 1 + SPILL times the fair share of all requests by room, this one among them, and
    no less than QUIET of the room. Somebody is always within it: otherwise all together would have
    more than all have.
    """
    fair = (sum(loads.values()) + 1) / sum(rooms[name] for name in loads)
    for name in order:
        if name in loads and loads[name] < bound(fair, rooms[name]):
            return name
    raise AssertionError("the bounds of all are above what all have")


def bound(fair: float, room: float) -> int:
    """How many requests a worker has at most, as it keeps conversations; ``fair``: requests for one
    unit of room."""
    return math.ceil(max((1 + SPILL) * fair, QUIET) * room)


@lru_cache(maxsize=RANKINGS_MAX)
def ranking(conversation: str, slots: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    """The workers in this conversation's own order, the same in every process.

    Each worker is first for a part of all conversations that is in proportion to its slots: the
    least of exponential draws with these rates (weighted rendezvous hashing).
    """
    draws = {name: _draw(conversation, name) / max(1, weight) for name, weight in slots}
    return tuple(sorted(draws, key=draws.__getitem__))


def _draw(conversation: str, worker: str) -> float:
    """A number of the exponential distribution that is always the same for the two."""
    text = f"{worker}\n{conversation}".encode(errors="surrogatepass")  # an id has no line end
    number = int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
    return -math.log((number + 1) / 2**64)
