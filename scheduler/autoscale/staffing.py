"""How many slots a load needs so that few wait long: Erlang C.

A. K. Erlang 1917; the tail of the wait in M/M/c is P(wait > t) = C(c, a) exp(-(c - a) t / held),
with load a = rate x held and C the chance to wait at all. Real requests are neither Poisson nor
exponential: ``headroom`` is for that.
"""

import math


def slots_for(load: float, target_ms: float, held_ms: float, late_share: float) -> int:
    """The least slots at which at most ``late_share`` wait longer than ``target_ms``.

    ``load`` >= 0 in slots, ``held_ms`` > 0 the mean time a slot is held. 0 for no load.
    """
    if load <= 0:
        return 0
    blocking = 1.0  # Erlang B, by its recursion over the number of slots
    slots = 0
    while True:
        slots += 1
        blocking = load * blocking / (slots + load * blocking)
        spare = slots - load
        if spare <= 0:
            continue
        waits = blocking / (1 - (load / slots) * (1 - blocking))
        if waits * math.exp(-spare * target_ms / held_ms) <= late_share:
            return slots
