"""What machines cost: the operator's own prices over those that a provider's adapter knows."""

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from admission.instance import Offer


class Price(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of the price file. "" stands for any ``type``, ``zone`` or ``market``.

    Raises:
        ValueError: names the field.
    """

    provider: str
    price_per_hour: float
    type: str = ""
    zone: str = ""
    market: str = ""
    currency: str = "USD"
    source: str = ""  # a page, a contract
    date: str = ""  # on which it was so

    def __post_init__(self) -> None:
        if not 0 <= self.price_per_hour < 1e6:
            raise ValueError("price_per_hour: from 0 to 1,000,000")
        if self.market not in ("", "on-demand", "spot"):
            raise ValueError("market: on-demand or spot")

    def fits(self, provider: str, offer: Offer) -> bool:
        """Whether it is this offer's."""
        return self.provider == provider and all(
            getattr(self, name) in ("", getattr(offer, name)) for name in ("type", "zone", "market")
        )

    @property
    def exactness(self) -> int:
        """How many of its words are not "any"."""
        return sum(bool(getattr(self, name)) for name in ("type", "zone", "market"))


def priced(offers: Iterable[Offer], provider: str, prices: Sequence[Price]) -> list[Offer]:
    """A provider's offers at these prices where there is one, the most exact."""
    return [_priced(offer, provider, prices) for offer in offers]


def _priced(offer: Offer, provider: str, prices: Sequence[Price]) -> Offer:
    fitting = [price for price in prices if price.fits(provider, offer)]
    if not fitting:
        return offer
    price = max(fitting, key=lambda each: each.exactness)
    return replace(
        offer,
        price_per_hour=price.price_per_hour,
        currency=price.currency,
        source=" ".join(filter(None, (price.source or "the operator's price file", price.date))),
    )
