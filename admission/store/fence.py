"""By what right a tick writes: the epoch of the lease it ran under (``tick_store``).

A script of `{_global}` keys that writes for a tick has ``LUA`` between ``lib/clock`` and itself,
names.TICKS_KEY among its KEYS, the fence's two parts among its ARGV, and answers "fenced".
"""

from importlib.resources import files
from typing import NamedTuple

LUA = (files("admission.store") / "lua" / "ticks" / "fence.lua").read_text()
"""Defines ``fenced(ticks_key, tick, epoch)``."""


class Fence(NamedTuple):
    """What a script is given that writes for a tick."""

    tick: str
    epoch: int


class Fenced(Exception):
    """Another has taken the tick's lease since: nothing was changed, and this run is to end."""
