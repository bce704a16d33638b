"""Pages call with a cookie, and only our own pages change anything with it (DESIGN section 5)."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientResponse, ClientSession, CookieJar

from tests.api.calls import Caller, Reply, caller_of, raw_call
from tests.api.conftest import Served
from tests.conftest import Service

COOKIE = "vestibule_token"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


async def token_of(service: Service, user: str = "ada") -> str:
    reply = await caller_of(service)("POST", f"/queue/join/{user}")
    token: str = reply.json["token"]
    return token


@pytest.fixture
async def token(service: Service) -> str:
    return await token_of(service)


@pytest.fixture
async def page(service: Service, token: str) -> AsyncIterator[Caller]:
    """Calls as ada's browser: no key, but the cookie."""
    async with ClientSession(cookies={COOKIE: token}, cookie_jar=CookieJar(unsafe=True)) as http:
        yield Caller(http, service.url, None)


async def opened(call: Caller, path: str, **headers: str) -> int:
    async with call.open("GET", path, headers=headers) as response:
        return response.status


async def redirected(service: Service, path: str, **headers: str) -> ClientResponse:
    """The redirection itself, not where it leads."""
    async with service.http.get(path, headers=headers, allow_redirects=False) as response:
        assert response.status == 303
        return response


async def test_a_link_with_a_token_becomes_a_cookie(service: Service, token: str) -> None:
    redirect = await redirected(service, f"/wait/ada?token={token}&pool=default")
    assert redirect.headers["Location"] == "/wait/ada?pool=default"
    assert redirect.headers["Referrer-Policy"] == "no-referrer"
    name, *attributes = redirect.headers["Set-Cookie"].split("; ")
    assert name == f"{COOKIE}={token}"
    assert {"HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=3600"} == set(attributes)


@pytest.mark.parametrize(
    ("trusted", "secure"), [("127.0.0.0/8", True), ("10.0.0.0/8", False)], ids=["ours", "other"]
)
async def test_the_cookie_is_secure_on_https(served: Served, trusted: str, secure: bool) -> None:
    async with served(VESTIBULE_TRUSTED_PROXIES=trusted) as service:
        path = f"/wait/ada?token={await token_of(service)}"
        redirect = await redirected(service, path, **{"X-Forwarded-Proto": "https"})
        assert ("Secure" in redirect.headers["Set-Cookie"]) is secure


async def test_a_cookie_reads_its_users_stream_and_page(page: Caller) -> None:
    assert await opened(page, "/queue/events/ada") == 200
    assert await opened(page, "/wait/ada") == 200
    assert await opened(page, "/queue/events/bob") == 403


async def test_a_key_beside_the_cookie_comes_first(page: Caller) -> None:
    assert await opened(page.with_key("nobody"), "/queue/events/ada") == 401
    assert await opened(page.with_key("service-key"), "/queue/events/ada") == 200


def origins(service: Service) -> dict[str, bool]:
    """What a browser may say, and whether it is our own page that calls."""
    own = service.url
    return {
        own: True,
        own.upper(): True,
        own.replace("http:", "https:"): False,
        own.rsplit(":", 1)[0]: False,
        f"{own}.evil.example": False,
        "https://evil.example": False,
        "null": False,
        "": False,
    }


async def test_a_websocket_by_cookie_is_for_our_own_pages(page: Caller, service: Service) -> None:
    for origin, ours in origins(service).items():
        headers = {**UPGRADE, "Origin": origin}
        assert await opened(page, "/queue/ws/ada", **headers) == (101 if ours else 403), origin
    assert await opened(page, "/queue/ws/ada", **UPGRADE) == 403


async def test_a_write_by_cookie_is_for_our_own_pages(page: Caller, service: Service) -> None:
    async def leave(**headers: str) -> Reply:
        return await page("POST", "/wait/ada/leave", headers=headers)

    for origin, ours in origins(service).items():
        if not ours:
            assert (await leave(Origin=origin)).status == 403, origin
    assert (await leave()).status == 403
    assert (await page.with_key("service-key")("GET", "/queue/status/ada")).json["reason"] is None
    assert (await leave(Origin=service.url)).status == 200  # the page, after a 303
    ended = await page.with_key("service-key")("GET", "/queue/status/ada")
    assert ended.json["status"] == "disconnected"


async def test_behind_a_trusted_proxy_our_origin_is_the_proxys(served: Served) -> None:
    async with served(VESTIBULE_TRUSTED_PROXIES="127.0.0.0/8") as service:
        page = caller_of(service).with_key(None)
        headers = {
            "Cookie": f"{COOKIE}={await token_of(service)}",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "queue.example.org",
            **UPGRADE,
        }
        ours = await opened(page, "/queue/ws/ada", **headers, Origin="https://queue.example.org")
        direct = await opened(page, "/queue/ws/ada", **headers, Origin=service.url)
    assert (ours, direct) == (101, 403)


async def test_who_is_no_proxy_cannot_say_what_our_origin_is(page: Caller) -> None:
    headers = {**UPGRADE, "X-Forwarded-Host": "evil.example", "Origin": "http://evil.example"}
    assert await opened(page, "/queue/ws/ada", **headers) == 403


async def test_rest_calls_take_no_cookie(page: Caller, service: Service) -> None:
    own = {"Origin": service.url}
    for method, path in [
        ("GET", "/queue/status/ada"),
        ("POST", "/queue/leave/ada"),
        ("POST", "/queue/join/ada"),
        ("GET", "/v1/models"),
    ]:
        assert (await page(method, path, headers=own)).status == 401, path


async def test_only_streams_and_pages_take_a_token_of_the_query(call: Caller, token: str) -> None:
    nobody = call.with_key(None)
    for path, status in [
        ("/queue/events/ada", 200),
        ("/queue/status/ada", 401),
        ("/v1/models", 401),
    ]:
        assert await opened(nobody, f"{path}?token={token}") == status, path
    assert await opened(nobody, f"/queue/ws/ada?token={token}", **UPGRADE) == 101
    for path in ("/queue/join/ada", "/queue/leave/ada", "/chat/stream"):
        assert (await nobody("POST", f"{path}?token={token}", {})).status == 401, path


@pytest.mark.parametrize("key", ["service-key", "admin-key"])
async def test_a_key_is_no_token_of_a_query_or_a_cookie(call: Caller, key: str) -> None:
    nobody = call.with_key(None)
    for path in ("/queue/events/ada", "/wait/ada"):
        assert await opened(nobody, f"{path}?token={key}") == 401
        assert await opened(nobody, path, Cookie=f"{COOKIE}={key}") == 401


@pytest.mark.parametrize("token", [b"\xff.\xfe.\xfd", b"a.b.c", b"..", b"vst_user_\xff"])
async def test_a_cookie_of_nonsense_is_401(service: Service, token: bytes) -> None:
    head = b"GET /queue/events/ada HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    answer = await raw_call(service, head + b"Cookie: vestibule_token=" + token + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401")
