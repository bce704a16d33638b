"""Calls that fail: what is tried again, what is not, and what the error says then."""

import asyncio
import subprocess
import sys

import pytest
from aiohttp import web

from admission import client_calls
from admission.client import Away, Client
from admission.errors import (
    AdmissionError,
    BadInput,
    Busy,
    Conflict,
    Forbidden,
    NotFound,
    Unauthorized,
    Unavailable,
)
from tests.api.calls import Caller, caller_of
from tests.api.conftest import Served
from tests.client.watch import status
from tests.client.wire import Wire, says
from tests.conftest import DEADLINE_S, Service


async def test_the_calls_and_what_they_answer(vestibule: Client) -> None:
    joined = await vestibule.join("ada", client="chat-1")
    assert (joined.status, joined.position, joined.expires_in) == ("draft", None, 300)
    assert joined.token
    assert await vestibule.status("ada") == joined
    confirmed = await vestibule.confirm("ada", ticket_id=joined.ticket_id)
    assert (confirmed.status, confirmed.session_duration) == ("active", 1200)
    assert await vestibule.heartbeat("ada", client="chat-1") == confirmed
    assert (await vestibule.leave("ada", client="chat-1")).status == "active"
    left = await vestibule.leave("ada")
    assert (left.previous_status, left.status) == ("active", "disconnected")


async def test_an_answer_that_is_lost_joins_once(behind: Client, wire: Wire, call: Caller) -> None:
    await call("POST", "/queue/join/bob")
    wire.once("join", wire.loses_the_answer)
    async with asyncio.timeout(DEADLINE_S):
        ada = await behind.join("ada")
    assert wire.seen == ["join", "join"]
    assert ada.position == 1
    assert (await call("GET", "/queue/metrics")).json["waiting"] == 1


async def test_a_service_that_is_gone_is_waited_for(behind: Client, wire: Wire) -> None:
    wire.acts["join"] = wire.is_gone
    joining = asyncio.create_task(behind.join("ada"))
    await asyncio.sleep(0.2)
    assert len(wire.seen) >= 2
    del wire.acts["join"]
    assert (await joining).status == "draft"


async def test_patience_ends(wire: Wire, service: Service) -> None:
    wire.acts["status"] = wire.is_gone
    async with Client(wire.url, service.service_key, patience_s=0.3) as client:
        with pytest.raises(Away, match="no answer") as away:
            await client.status("ada")
    assert (away.value.status, away.value.code) == (503, "away")


@pytest.mark.parametrize("code", [502, 503, 504, 429, 500])
async def test_what_passes_by_itself_is_tried_again(behind: Client, wire: Wire, code: int) -> None:
    wire.once("join", says(code))
    assert (await behind.join("ada")).status == "draft"
    assert len(wire.seen) == 2


async def test_retry_after_is_waited_for(behind: Client, wire: Wire) -> None:
    wire.once("join", says(503, **{"Retry-After": "1"}))
    began_s = asyncio.get_running_loop().time()
    await behind.join("ada")
    assert 1.0 <= asyncio.get_running_loop().time() - began_s < 3


async def test_a_retry_after_beyond_the_patience_is_told_at_once(served: Served) -> None:
    async with served(VESTIBULE_RATE_USER="1/hour") as service:
        token = (await caller_of(service)("POST", "/queue/join/ada")).json["token"]
        async with Client(service.url, token) as own:
            await own.status("ada")
            with pytest.raises(Busy) as busy:
                await own.status("ada")
    assert (busy.value.status, busy.value.code) == (429, "too_many_calls")
    assert (busy.value.retry_after_s or 0) > 3000


async def test_a_full_queue_is_an_error_that_says_when(served: Served) -> None:
    async with served(VESTIBULE_QUEUE_LIMIT="0") as service:
        call = caller_of(service)
        await call("POST", "/queue/join/bob")
        async with Client(service.url, service.service_key) as client:
            with pytest.raises(Unavailable) as full:
                await full_turn(client)
        assert (full.value.code, full.value.retry_after_s) == ("queue_full", 30)
        assert await status(call, "ada") == "ticket_unknown"


async def full_turn(client: Client) -> None:
    async with client.turn("ada"):
        pytest.fail("the queue is full")


async def test_a_conflict_names_the_field_and_the_ticket(vestibule: Client, call: Caller) -> None:
    await call("POST", "/queue/join/bob")
    await vestibule.join("ada")
    with pytest.raises(Conflict) as waits:
        await vestibule.confirm("ada")
    assert waits.value.code == "still_waiting"
    assert waits.value.extra["ticket"]["position"] == 1  # type: ignore[index]


async def test_a_wrong_field_is_named(vestibule: Client) -> None:
    with pytest.raises(BadInput) as wrong:
        await vestibule.join("ada", client="x" * 200)
    assert (wrong.value.status, wrong.value.field) == (422, "client")
    with pytest.raises(BadInput) as user:
        await vestibule.join("a/b c")
    assert user.value.field == "user_id"


async def test_every_user_id_arrives_as_it_is(vestibule: Client) -> None:
    for user in ("ada@example.org", "a+b", "a:b|c", "-.", "x" * 128):
        assert (await vestibule.join(user)).user_id == user


async def test_who_may_not_is_told_so(service: Service, call: Caller) -> None:
    async with Client(service.url) as nobody, Client(service.url, "wrong") as wrong:
        for client in (nobody, wrong):
            with pytest.raises(Unauthorized):
                await client.join("ada")
    token = (await call("POST", "/queue/join/ada")).json["token"]
    async with Client(service.url, token) as ada:
        with pytest.raises(Forbidden):
            await ada.join("bob")


async def test_nobody_without_a_ticket_is_followed(vestibule: Client) -> None:
    with pytest.raises(NotFound) as unknown:
        await anext(vestibule.events("ada"))
    assert unknown.value.code == "ticket_unknown"


@pytest.mark.parametrize("code", [200, 404, 301])
async def test_an_answer_of_something_else_is_an_error(
    behind: Client, wire: Wire, code: int
) -> None:
    wire.acts["status"] = says(code, Location="/elsewhere")
    with pytest.raises(AdmissionError) as strange:
        await behind.status("ada")
    assert strange.value.code == "not_vestibule"
    assert len(wire.seen) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"code": "ticket_ended", "detail": "over"},
        {"code": "ticket_ended", "detail": "over", "ticket": {"ticket_id": 1}},
        {"code": ["ticket_ended"], "detail": None},
        {"detail": "Not Found"},
    ],
)
async def test_a_refusal_of_something_else_is_an_error(
    behind: Client, wire: Wire, body: dict[str, object]
) -> None:
    async def act(_: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=404)

    wire.acts["events"] = wire.acts["heartbeat"] = act
    with pytest.raises(AdmissionError) as strange:
        await anext(behind.events("ada"))
    assert (strange.value.status, strange.value.code) == (404, "not_vestibule")


async def test_a_token_is_replaced_by_its_renewal(
    service: Service, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("admission.auth.tokens.TOKEN_LIFE_S", 2)
    token = (await call("POST", "/queue/join/ada")).json["token"]
    async with Client(service.url, token) as own:
        for _ in range(4):  # 2.8 s, each call past half the life of the last token
            await asyncio.sleep(0.7)
            assert (await own.status("ada")).status == "draft"


@pytest.mark.parametrize(
    "url",
    [
        *("localhost:8600", "ftp://x", "", "http://", "http://x:99999", "http://[::1"),
        *("http://ada:secret@x", "http://x/queue?pool=a", "http://x#top"),
    ],
)
def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(ValueError, match="url: ") as wrong:
        Client(url)
    assert "secret" not in str(wrong.value)


@pytest.mark.parametrize("key", ["read from a file\n", "two words", "clé"])
def test_a_key_that_is_none_is_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="key: not a key") as wrong:
        Client("http://x", key)
    assert key not in str(wrong.value)


def test_it_may_be_used_far_from_the_service() -> None:
    """Neither Redis nor what signs and checks comes along."""
    code = "import sys, admission.client as c; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "admission.client" in loaded
    assert not loaded & {"redis", "pydantic", "jwt", "sqlalchemy", "admission.settings"}


def test_pauses_grow_and_differ() -> None:
    error = Unavailable("later")
    pauses = {client_calls._again_s(error, 8.0) for _ in range(50)}
    assert len(pauses) > 1
    assert all(pause is not None and 4 <= pause <= 8 for pause in pauses)
