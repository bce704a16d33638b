"""The client's own cases (``tests/client``), asked of the functions: no stream passes, it polls."""

import inspect
from typing import Any

import pytest
from aiohttp import ClientSession

from admission.client import Client
from tests.api.calls import Caller
from tests.client import test_calls, test_events, test_session, test_turn
from tests.client.conftest import soon  # noqa: F401 - the client's pauses are short here, too
from tests.contract.set_ups import ADMIN_KEY, SERVICE_KEY, set_up
from tests.scale.conftest import binary_of

CASES = (
    test_calls.test_nobody_without_a_ticket_is_followed,  # the first: nobody was here
    test_calls.test_the_calls_and_what_they_answer,
    test_calls.test_a_conflict_names_the_field_and_the_ticket,
    test_events.test_the_end_is_told_last,
    test_session.test_a_session_may_stay_for_the_next_block,
    test_session.test_who_keeps_the_session_still_leaves_the_line,
    test_session.test_blocks_of_one_user_share_the_session_and_the_last_one_ends_it,
    test_session.test_of_two_blocks_that_wait_one_may_go,
    test_turn.test_a_slot_that_is_free_is_had_at_once_and_left,
    test_turn.test_it_is_left_when_the_block_fails,
    test_turn.test_who_is_cancelled_in_the_block_has_left,
    test_turn.test_what_an_update_raises_ends_the_wait,
)
PEOPLE = ("ada", "bob")


@pytest.mark.soak
@pytest.mark.parametrize("form", ["http-api-2.0", "rest-api"])
async def test_the_clients_cases_hold_with_functions(form: str, subtests: pytest.Subtests) -> None:
    async with (
        set_up(form, "single", binary_of("valkey")) as url,
        Client(url, SERVICE_KEY) as vestibule,
        ClientSession() as http,
    ):
        call = Caller(http, url, SERVICE_KEY)
        await call.with_key(ADMIN_KEY)("PUT", "/admin/pools/default", {"capacity": 1})
        given: dict[str, Any] = {"vestibule": vestibule, "call": call}
        for case in CASES:
            with subtests.test(case.__name__):
                await case(**{name: given[name] for name in inspect.signature(case).parameters})
            for user in PEOPLE:
                await call("POST", f"/queue/leave/{user}")
