"""The fleet's ticks, for the clockwork: one each for what must not wait for the other."""

from collections.abc import Sequence

from admission.attendance import provider_tick
from admission.clock import Clock
from admission.store.redis_store import RedisStore
from scheduler.fleet.commands import Commands
from scheduler.fleet.limits import Limits
from scheduler.fleet.offers import Offers
from scheduler.fleet.orphans import Sweep
from scheduler.fleet.port import Provider
from scheduler.fleet.reconcile import Reconciler
from scheduler.prices import Price
from scheduler.tick import Tick

COMMANDS_S = 1.0
INSTANCES_S = 5.0
ORPHANS_S = 60.0
OFFERS_S = 300.0  # spot prices change by the hour
LIMIT_S = 120.0  # a call to a provider ends after 60 s


def duties(
    store: RedisStore,
    providers: Sequence[Provider],
    clock: Clock,
    *,
    limits: Limits | None = None,
    end_orphans: bool = True,
    prices: Sequence[Price] = (),
) -> list[Tick]:
    """What keeps the fleet as it is wanted.

    Args:
        limits: for all instances; None for the defaults.
        end_orphans: machines that carry our tag and are nobody's are ended, else only reported.
        prices: what counts before the providers' own.
    """
    names = [provider.name for provider in providers]
    commands = Commands(store.fleet, names, limits=limits)
    words = "takes what was asked of the fleet"
    ticks = [Tick("commands", words, COMMANDS_S, LIMIT_S, commands.tick)]
    for provider in providers:
        name = provider.name
        instances = Reconciler(provider, store.fleet, store, clock, limits=limits)
        sweep = Sweep(provider, store.fleet, end=end_orphans)
        offers = Offers(provider, store.fleet, prices)
        words = f"brings instances of {name} further"
        ticks.append(Tick(provider_tick(name), words, INSTANCES_S, LIMIT_S, instances.tick))
        words = f"finds machines and disks at {name} that are nobody's"
        ticks.append(Tick(f"orphans-{name}", words, ORPHANS_S, LIMIT_S, sweep.tick))
        words = f"asks {name} what it offers, at what price"
        ticks.append(Tick(f"offers-{name}", words, OFFERS_S, LIMIT_S, offers.tick))
    return ticks
