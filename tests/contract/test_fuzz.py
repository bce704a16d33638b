"""The functions' own document, and whatever may be sent to what it describes."""

import asyncio

import pytest

from tests.contract.set_ups import ADMIN_KEY, set_up
from tests.frontends.fuzz import fuzz, told_by
from tests.scale.conftest import binary_of

EXAMPLES = 5
NOT_THERE = {"/queue/events/{user_id}", "/chat/stream", "/v1/chat/completions", "/wait/{user_id}"}


@pytest.mark.parametrize("form", ["http-api-2.0", "rest-api"])
@pytest.mark.soak
async def test_whatever_is_sent_to_a_function_gets_a_documented_answer(form: str) -> None:
    async with set_up(form, "single", binary_of("valkey")) as url:
        document = await asyncio.to_thread(told_by, url)
        paths = set(document["paths"])
        assert "/queue/join/{user_id}" in paths
        assert not NOT_THERE & paths
        await asyncio.to_thread(fuzz, url, ADMIN_KEY, document, EXAMPLES)
