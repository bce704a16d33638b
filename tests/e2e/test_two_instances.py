"""Knows what people notice in their chats when one of two instances is killed: nothing.

Does not know what a stream loses that ran through it: `tests/scale/test_two_instances.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.build import ANSWER
from tests.e2e.instances import Balanced, Instance, Scheduler, settings
from tests.e2e.line import FIRST, SECOND, SOON_S, line_up
from tests.e2e.stack import Valkey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.conftest import Shots, SignIn
    from tests.e2e.stack import OpenWebUI, VllmServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

LOOK_S = 6.0  # so long the plugin looks again after a stream that was cut, with room to spare
Two = tuple[Balanced, Instance]


@pytest.fixture
def two(
    vllm: VllmServer, open_webui: OpenWebUI, gateway_port: int, tmp_path: Path
) -> Iterator[Two]:
    """Vestibule as people see it, installed, and the instance that gets the first call of each."""
    with Valkey(tmp_path) as valkey:
        given = settings(f"redis://127.0.0.1:{valkey.port}/0", vllm.url)
        with (
            Scheduler(tmp_path, given),
            Instance(tmp_path, "one", given) as one,
            Instance(tmp_path, "other", given) as other,
            Balanced(tmp_path, gateway_port, given, one.url, other.url) as both,
        ):
            open_webui.forget()
            both.install_into(open_webui)
            yield both, other


async def test_one_of_two_instances_is_killed_while_people_chat_and_wait(
    two: Two, sign_in: SignIn, shots: Shots
) -> None:
    both, other = two
    ann, bob, cleo = await line_up(sign_in, shots)
    places = [both.ticket(person.user)["ticket_id"] for person in (ann, bob, cleo)]

    other.kill()

    await ann.send("And again?")
    await ann.sees_answer(ANSWER, SOON_S)
    await shots.take(ann, "is answered again")
    for person, place in ((bob, FIRST), (cleo, SECOND)):
        await person.sees_status(place, LOOK_S)
        await shots.take(person, "waits as before")
    assert [both.ticket(person.user)["ticket_id"] for person in (ann, bob, cleo)] == places

    both.leave(ann.user)

    await bob.sees_answer(ANSWER, SOON_S)
    await shots.take(bob, "is answered")
    await cleo.sees_status(FIRST, SOON_S)
    both.leave(bob.user)
    await cleo.sees_answer(ANSWER, SOON_S)
    await shots.take(cleo, "is answered")
    assert [both.ticket(person.user)["ticket_id"] for person in (ann, bob, cleo)] == places
