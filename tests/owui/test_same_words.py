"""The gateway and the plugin say the same of the same ticket: a chat may wait at either.

Neither imports the other, so each has its own texts (``admission.pages.words`` for the gateway,
the waiting page and the chat stream; ``owui_pipeline.words`` for the plugin).
"""

import itertools

import pytest

from admission.domain import Status, Ticket
from admission.pages.words import LANGUAGES, words
from owui_pipeline.words import Words

PLACES = (None, 1, 2, 3, 11, 12, 21, 112, 1_234, 12_342)
WAITS_S = (
    None,
    0,
    1,
    59,
    60,
    89,
    90,
    150,
    1_800,
    3_599,
    3_600,
    5_399,
    5_400,
    9_000,
    86_399,
    86_400,
)
FACTORS = (None, 0.5, 1, 1.19, 1.2, 2, 20, 2_000)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_place_and_an_estimate(language: str) -> None:
    gateway, plugin = words(language), Words(language)
    for place, wait_s, factor in itertools.product(PLACES, WAITS_S, FACTORS):
        high_s = None if factor is None or wait_s is None else round((wait_s + 1) * factor)
        said = gateway.place(place, wait_s, high_s)
        assert said == plugin.line(place, wait_s, high_s), (place, wait_s, high_s)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_turn_that_came(language: str) -> None:
    plugin = Words(language)
    for seconds in (0, 0.4, 42.4, 59.6, 185, 4_215):
        said = plugin.say("admitted", waited=plugin.elapsed(seconds))
        assert words(language).waited(seconds) == said


def test_a_ticket_says_its_high_value_too() -> None:
    """Nine of ten wait less than 20 minutes: "less than a minute" alone would be a promise."""
    ticket = Ticket(
        now_ms=0, ticket_id="t", user_id="ann", pool="default", status=Status.WAITING,
        queue_length=1, joined_ms=0, session_ms=0,
        position=1, wait_ms=53_500.0, wait_high_ms=1_199_500.0,
    )  # fmt: skip
    assert words("en").place_of(ticket) == "You are 1st in line, less than 20 minutes"
