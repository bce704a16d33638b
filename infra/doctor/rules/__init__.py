"""All rules, in the order in which a report tells them."""

from collections.abc import Mapping, Sequence

from infra.doctor.rule import Rule
from infra.doctor.rules import (
    callers,
    client,
    envelopes,
    inputs,
    keys,
    pools,
    requests,
    slots,
    streams,
    ticks,
    turns,
    workers,
)

CHAPTERS: Mapping[str, Sequence[Rule]] = {
    "turns": tuple(turns.rules),
    "slots": tuple(slots.rules),
    "request pools": tuple(requests.rules),
    "pools": tuple(pools.rules),
    "streams": tuple(streams.rules),
    "the client": tuple(client.rules),
    "who may call": tuple(callers.rules),
    "bad input": tuple(inputs.rules),
    "every answer": tuple(envelopes.rules),
    "keys": tuple(keys.rules),
    "workers": tuple(workers.rules),
    "ticks": tuple(ticks.rules),
}
RULES: tuple[Rule, ...] = tuple(rule for chapter in CHAPTERS.values() for rule in chapter)
