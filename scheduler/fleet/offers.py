"""Tells what each provider offers, so that an order for what nobody has is refused at once."""

import logging
from collections.abc import Sequence

from msgspec.structs import replace

from admission import logs
from admission.store.fence import Fence
from scheduler.fleet.port import Provider, Unclear
from scheduler.fleet.records import Records
from scheduler.prices import Price, priced

AGAIN_MS = 10_000  # after an answer that was none

log = logging.getLogger(__name__)


class Offers:
    """For one provider. ``prices``: the operator's own, which count before the provider's."""

    def __init__(self, provider: Provider, records: Records, prices: Sequence[Price] = ()) -> None:
        self._provider, self._records, self._prices = provider, records, tuple(prices)

    async def tick(self, fence: Fence) -> int | None:
        """Ask, and publish; without an answer what was said last stays.

        Raises:
            Fenced, StoreUnavailable.
        """
        try:
            offers = await self._provider.offers()
        except Unclear as error:
            logs.event(log, "offers_unclear", provider=self._provider.name, why=error)
            return AGAIN_MS
        told = [
            replace(each, ending=self._provider.ending)
            for each in priced(offers, self._provider.name, self._prices)
        ]
        await self._records.offer(fence, self._provider.name, told)
        return None
