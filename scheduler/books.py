"""All that is brought from Redis into SQL. Only who has a database imports this."""

from dataclasses import dataclass
from typing import Self

from admission.accounting.ledger import Ledger
from admission.settings import Settings
from admission.store.redis_store import RedisStore
from admission.store.usage_store import UsageStore
from scheduler.accounts import Accounts
from scheduler.fleet_accounts import FleetAccounts
from scheduler.samples import Samples


@dataclass(frozen=True)
class Books:
    """What was used, how pools and workers were, and what became of the fleet."""

    accounts: Accounts
    samples: Samples
    fleet: FleetAccounts

    @classmethod
    def of(cls, store: RedisStore, usage: UsageStore, ledger: Ledger, settings: Settings) -> Self:
        """``usage``: the accounting's, which may be in a Redis of its own."""
        return cls(
            Accounts(usage, ledger, settings.accounting_retention),
            Samples(
                store,
                ledger,
                interval_s=settings.history_interval,
                retention_s=settings.history_retention,
            ),
            FleetAccounts(store.fleet, ledger, settings.history_retention),
        )
