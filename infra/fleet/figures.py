"""Figures as people read them: money, spans of time, bars."""

from datetime import datetime
from typing import Any

BAR = 10
HOUR_S = 3600


def money(amount: float, currency: str) -> str:
    """To the cent, where it is as much."""
    return f"{amount:.2f} {currency}" if amount >= 0.005 or not amount else f"<0.01 {currency}"


def price(view: dict[str, Any]) -> str:
    """Of an instance or an offer, by the hour."""
    amount = view["price_per_hour"]
    if not amount:
        return "no price is known" if amount is None else "nothing is billed"
    return f"{amount:g} {view['currency']} per hour"


def span(seconds: float) -> str:
    """In the largest unit that is full."""
    for unit, length in (("d", 86_400), ("h", HOUR_S), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def bar(percent: int, width: int = BAR, *, plain: bool = False) -> str:
    """A bar and its number; ``plain``: in ASCII."""
    full = width if percent >= 100 else min(width - 1, round(width * percent / 100))
    on, off = "#-" if plain else "█░"
    return f"{on * full}{off * (width - full)} {percent:3d} %"


def instant(text: str | None) -> datetime | None:
    """An instant of the service's."""
    return None if text is None else datetime.fromisoformat(text)


def cost(instance: dict[str, Any], now: datetime) -> str:
    """What it cost so far, or in all."""
    began, ended = instant(instance["launched_at"]), instant(instance["ended_at"]) or now
    if not instance["price_per_hour"] or began is None:
        return "-"
    hours = max(0.0, (ended - began).total_seconds()) / HOUR_S
    return money(instance["price_per_hour"] * hours, instance["currency"])


def age(instance: dict[str, Any], now: datetime) -> str:
    """Since it was asked for; of one that is over, for how long it lived."""
    began, ended = instant(instance["requested_at"]), instant(instance["ended_at"]) or now
    return "-" if began is None else span((ended - began).total_seconds())


def place(view: dict[str, Any]) -> str:
    """Provider, type, zone, and the market where it is not the usual one."""
    market = view["market"] if view["market"] != "on-demand" else ""
    words = (view.get("provider", ""), view["type"], view["zone"], market)
    return " ".join(filter(None, words))


def short(text: str, width: int) -> str:
    """At most ``width`` characters; the middle is what is missed least of an id."""
    if len(text) <= width:
        return text
    kept = width - 1
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"


def count(number: int, one: str, more: str) -> str:
    """ "1 disk", "2 disks", "no disks"."""
    return f"{number or 'no'} {one if number == 1 else more}"
