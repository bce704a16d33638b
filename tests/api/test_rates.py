"""How often somebody may call (DESIGN section 5): off unless set, and never for trusted keys."""

import asyncio

import jwt
import pytest
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.settings import SettingsError, read_settings
from admission.store import connection
from tests.api.calls import Caller, Reply, caller_of, contents, raw_call, until
from tests.api.conftest import Served, served_at
from tests.api.valkey import own_valkey
from tests.conftest import Service


async def user_key(service: Service, user: str = "ada") -> Caller:
    """Calls with a new key of this user."""
    admin = caller_of(service, service.admin_key)
    made = await admin("POST", "/admin/keys", {"kind": "user", "user": user})
    return caller_of(service, made.json["key"])


async def token(service: Service, user: str = "ada") -> Caller:
    """Calls with a token of this user."""
    return caller_of(
        service, (await caller_of(service)("POST", f"/queue/join/{user}")).json["token"]
    )


async def statuses(call: Caller, count: int, path: str = "/v1/models") -> list[int]:
    return [(await call("GET", path)).status for _ in range(count)]


def refused(reply: Reply) -> str:
    """Whose calls were too many."""
    assert (reply.status, reply.json["code"]) == (429, "too_many_calls")
    assert 1 <= int(reply.headers["Retry-After"]) <= 3600
    return str(reply.json["detail"]).removeprefix("More calls of one ").split()[0]


async def test_there_is_no_limit_unless_one_is_set(service: Service, redis: Redis) -> None:
    assert set(await statuses(await token(service), 50)) == {200}
    assert not [key async for key in redis.scan_iter("*rates*")]


async def test_a_user_has_one_count_for_all_tokens_and_keys(served: Served) -> None:
    async with served(VESTIBULE_RATE_USER="3/hour") as service:
        assert await statuses(await token(service), 2) == [200, 200]
        ada = await user_key(service)
        assert await statuses(ada, 2) == [200, 429]
        assert refused(await ada("GET", "/queue/status/ada")) == "user"
        assert (await (await token(service, "bob"))("GET", "/v1/models")).status == 200


async def test_a_token_counts_only_where_it_is_taken(served: Served) -> None:
    async with served(VESTIBULE_RATE_USER="1/hour") as service:
        ada = await token(service)
        path = f"/queue/status/ada?token={ada.key}"  # in the query of a call that reads none there
        assert await statuses(ada.with_key(None), 2, path) == [401, 401]
        assert await statuses(ada, 2) == [200, 429]


async def test_each_key_has_a_count_of_its_own(served: Served) -> None:
    async with served(VESTIBULE_RATE_KEY="2/hour") as service:
        one, other = await user_key(service), await user_key(service)
        assert await statuses(one, 3) == [200, 200, 429]
        assert await statuses(other, 1) == [200]
        assert refused(await one("GET", "/queue/status/ada")) == "key"


async def test_an_address_has_one_count_whoever_calls(served: Served) -> None:
    async with served(VESTIBULE_RATE_ADDRESS="3/hour") as service:
        stranger = caller_of(service).with_key(None)
        assert await statuses(stranger, 1) == [401]
        assert await statuses(caller_of(service, "guessed"), 1) == [401]  # guessing is bounded too
        assert await statuses(await token(service), 2) == [200, 429]
        assert refused(await stranger("POST", "/queue/join/eve")) == "address"


async def test_trusted_keys_workers_and_watchers_are_never_counted(served: Served) -> None:
    limits = dict.fromkeys(
        ("VESTIBULE_RATE_KEY", "VESTIBULE_RATE_USER", "VESTIBULE_RATE_ADDRESS"), "1/hour"
    )
    async with served(**limits) as service:
        admin = caller_of(service, service.admin_key)
        made = (await admin("POST", "/admin/keys", {"kind": "service"})).json["key"]
        for call in (caller_of(service), admin, caller_of(service, made)):
            assert set(await statuses(call, 5)) == {200}
        stranger = caller_of(service).with_key(None)
        assert set(await statuses(stranger, 5, "/healthz")) == {200}
        assert set(await statuses(stranger, 5, "/readyz")) == {200}
        worker = caller_of(service, service.worker_token)
        for _ in range(5):
            assert (await worker("POST", "/workers/register", {})).status == 422


async def test_a_refused_call_costs_nothing(served: Served, redis: Redis) -> None:
    async with served(VESTIBULE_RATE_USER="2/hour", VESTIBULE_RATE_ADDRESS="2/hour") as service:
        ada, bob = await user_key(service), await user_key(service, "bob")
        assert await statuses(ada, 2) == [200, 200]
        before = await contents(redis)
        for call in (ada, bob):
            assert refused(await call("POST", "/queue/join/bob", {"auto_confirm": True}))
        assert await contents(redis) == before  # no ticket, and no count: bob's neither


async def test_all_processes_share_one_count(served: Served) -> None:
    limit = {"VESTIBULE_RATE_USER": "10/hour"}
    async with served(**limit) as one, served(**limit) as other:
        key = (await user_key(one)).key
        calls = [caller_of(service, key) for service in (one, other) for _ in range(10)]
        replies = await asyncio.gather(*(call("GET", "/v1/models") for call in calls))
    assert sorted(reply.status for reply in replies) == [200] * 10 + [429] * 10


async def test_the_window_moves_on(served: Served) -> None:
    async with served(VESTIBULE_RATE_USER="1/second") as service:
        ada = await token(service)
        assert await statuses(ada, 1) == [200]
        reply = await ada("GET", "/v1/models")
        assert (reply.status, reply.headers["Retry-After"]) == (429, "1")

        async def passes() -> bool:
            return (await ada("GET", "/v1/models")).status == 200

        await until(passes)  # although it was refused many times meanwhile


async def test_nobody_is_refused_because_redis_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "ANSWER_TIMEOUT_S", 0.2)
    limits = {"VESTIBULE_RATE_USER": "1/hour", "VESTIBULE_RATE_ADDRESS": "1/hour"}
    async with own_valkey() as server, served_at(server.url, ManualClock(), **limits) as service:
        ada = await token(service)
        await server.kill()
        assert await statuses(ada, 3) == [200, 200, 200]
        await server.start()


async def test_on_v1_a_refusal_is_in_the_envelope_of_openai(served: Served) -> None:
    async with served(VESTIBULE_RATE_USER="1/hour") as service:
        ada = await token(service)
        await ada("GET", "/v1/models")
        reply = await ada("GET", "/v1/models")
    error = reply.json["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "too_many_calls")
    assert "Retry-After" in reply.headers


async def test_a_bad_or_expired_token_is_still_told_so(served: Served) -> None:
    async with served(VESTIBULE_RATE_USER="1/hour") as service:
        old = jwt.encode({"sub": "ada", "exp": 1}, "x" * 32, "HS256")
        assert await statuses(caller_of(service, old), 2) == [401, 401]
        head = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        answer = await raw_call(service, head + b"Authorization: Basic eA==\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("text", ["60", "0/minute", "60/day", "-1/second", "1.5/hour", "many"])
def test_a_bad_limit_is_an_error_at_start(text: str) -> None:
    with pytest.raises(SettingsError, match=r"VESTIBULE_RATE_USER: is not a number of calls"):
        read_settings({"VESTIBULE_RATE_USER": text})
