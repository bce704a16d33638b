"""The autoscaler: how many workers a pool should have, and which. Pure; nothing here does anything.

``decide(demand, fleet, spec, memory, now_ms) -> (Decision, Memory)`` is called every few seconds
with what is known, and with the memory that the call before gave back. The same arguments give the
same result. All times are in ms, all spans are spans of time: nothing counts calls.

How it decides, in this order:

1. **Hold** when something is missing: no demand or an old one, no list of instances, a paused pool,
   more than half of the ready workers silent or unready. A hold does nothing at all and says why.
2. **Learn** (``traffic``): the arrival rate with its trend, from counters that only grow; how long
   a slot is held; how long a machine boots. A gap forgets the rates. Far more than is usual, by
   more than chance and for longer than a moment, is a *surge*, far less a *slump*: what is usual
   begins anew there. Who comes all at once is a queue, and no rate.
3. **Size** (``sizing``): the *load* of the moment at which a machine ordered now would be ready is
   how many slots would be in use if nobody waited: rate x time held, or for long sessions what of
   the present ones is left and what comes until then. ``staffing`` gives the least number of slots
   at which no more than ``late_share`` wait longer than ``wait_target_ms`` (Erlang C). On top comes
   what clears the *excess* within one boot time: those who wait now and cannot be served by what
   is there or booting. Also: slots in use over ``saturation`` for ``up_after_ms``, and the engine's
   own estimated wait over the target for ``up_after_ms``.
4. **Up** when that is more than is ready, booting and ordered together, for ``up_after_ms`` or in a
   surge: drains are taken back first, then machines are ordered at the cheapest open place
   (``places``), within ``workers_max``, ``hourly_budget`` and quotas.
5. **Down** to the *peak* of the steadily wanted slots over the last ``surplus_after_ms``, or over
   ``idle_after_ms`` while the GPUs' load is under ``idle_load`` or after a slump. Not while anybody
   waits over the target, not under what is in use, never under the least number of workers, never
   a loading machine that is still wanted, and not before all that span has been watched, which a
   restart begins anew. The least useful worker goes first: one that loads in vain, then the
   dearest slot, the fewest in use, the lowest GPU load, the youngest. Whoever drains is terminated
   when it is empty or its time is over.
6. **Zero**: with ``workers_min`` 0 the last worker goes after ``zero_after_ms`` without anybody.
   Then who comes waits in the queue as ever (it is held, never refused). ``coming`` says which
   machines are on their way, also while others are there: the wait that people see counts them.

``schedule`` raises or lowers the bounds by the clock on the wall, a boot time early. A place that
fails more often than its budget is closed for a time that doubles (``places``).

Files: ``spec`` the knobs · ``demand``, ``fleet`` what is known · ``memory`` what is kept ·
``traffic``, ``staffing``, ``sizing`` the arithmetic · ``schedule`` · ``places`` · ``decision`` what
comes out · ``growing``, ``shrinking`` the two ways · ``decide`` · ``coming`` what follows of it for
who waits.
"""

from scheduler.autoscale.decide import decide
from scheduler.autoscale.decision import Act, Decision, Launch
from scheduler.autoscale.demand import Demand
from scheduler.autoscale.fleet import Fleet, Member
from scheduler.autoscale.memory import Memory
from scheduler.autoscale.places import Failure, Place
from scheduler.autoscale.spec import BadSpec, FleetSpec

__all__ = [
    "Act",
    "BadSpec",
    "Decision",
    "Demand",
    "Failure",
    "Fleet",
    "FleetSpec",
    "Launch",
    "Member",
    "Memory",
    "Place",
    "decide",
]
