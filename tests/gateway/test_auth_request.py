"""``/auth``, and the real nginx that asks it: who has a session is relayed, all others are not."""

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession

from admission.domain import DEFAULT_POOL, WorkerReport
from tests.api.calls import Caller, caller_of, until
from tests.api.fleet import look_again
from tests.conftest import Service
from tests.gateway.conftest import CHAT, Chatter, Start, make_ready
from tests.gateway.upstream import ANSWER, CHUNKS, Upstream, chat, listening
from tests.infra.conftest import ROOT
from tests.ports import free_port

CONFIGURATION = ROOT / "infra" / "nginx" / "vestibule.conf"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
MAIN = """
daemon off;
pid {folder}/pid;
error_log stderr crit;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  include {folder}/vestibule.conf;
}}
"""
PROXY = {"X-Vestibule-Proxy-Key": "service-key"}
ADA = {"X-OpenWebUI-User-Id": "ada", **PROXY}
needs_nginx = pytest.mark.skipif(
    NGINX is None, reason="no nginx here (Debian: apt-get install nginx-light)"
)


@pytest.fixture
async def keyed(service: Service) -> AsyncIterator[Upstream]:
    """A worker that has a key."""
    async with listening("w1") as one:
        identity = {"url": one.url, "kind": "static", "upstream_key": "the-workers-key"}
        report = WorkerReport(ready=True, reason=None, models=("tiny",), slots=4)
        await service.store.report_worker(DEFAULT_POOL, "w1", report, identity=identity)
        await look_again(service)
        yield one


@pytest.fixture
def address(service: Service, tmp_path: Path) -> Iterator[str]:
    """A running nginx with the documented configuration."""
    assert NGINX
    tmp_path.chmod(0o755)  # started by root, its worker is somebody else
    port = free_port()
    text = CONFIGURATION.read_text()
    for shown, ours in {
        "127.0.0.1:8600": service.url.removeprefix("http://"),
        "listen 8080": f"listen 127.0.0.1:{port}",
        "YOUR-SERVICE-KEY": service.service_key,
    }.items():
        assert text.count(shown) == 1, shown
        text = text.replace(shown, ours)
    (tmp_path / "vestibule.conf").write_text(text)
    (tmp_path / "nginx.conf").write_text(MAIN.format(folder=tmp_path))
    process = subprocess.Popen([NGINX, "-c", str(tmp_path / "nginx.conf")])
    yield f"http://127.0.0.1:{port}"
    assert process.poll() is None, "nginx has ended"
    process.terminate()
    process.wait()


@pytest.fixture
async def nginx(service: Service, address: str) -> AsyncIterator[Caller]:
    """Calls through it."""
    async with ClientSession() as http:
        call = Caller(http, address, service.service_key)

        async def listens() -> bool:
            with suppress(ClientError):
                return (await call("GET", "/healthz")).status == 200
            return False

        await until(listens)
        yield call


async def test_a_session_passes_and_the_answer_names_the_worker(
    service: Service, keyed: Upstream, ada: Chatter
) -> None:
    call = caller_of(service)
    for method, path in (("GET", "/auth"), ("POST", f"/auth{CHAT}"), ("GET", "/auth?model=tiny")):
        passed = await call(method, path, headers=ADA)
        assert passed.status == 200, passed.text
        assert passed.headers["X-Vestibule-Upstream"] == keyed.url
        assert passed.headers["X-Vestibule-Worker"] == "w1"
        assert passed.headers["X-Vestibule-Upstream-Authorization"] == "Bearer the-workers-key"


async def test_without_a_session_the_answer_says_why(service: Service, keyed: Upstream) -> None:
    refused = await caller_of(service)("GET", "/auth", headers=ADA)
    assert (refused.status, refused.json["code"]) == (429, "no_session")
    assert "Retry-After" in refused.headers


async def test_a_session_that_ended_is_refused_within_a_second(
    service: Service, keyed: Upstream, ada: Chatter
) -> None:
    call = caller_of(service)
    assert (await call("GET", "/auth", headers=ADA)).status == 200  # from now on from memory
    assert (await call("POST", "/queue/leave/ada")).status == 200

    async def refused() -> bool:
        return (await call("GET", "/auth", headers=ADA)).status == 429

    await until(refused)


@pytest.mark.parametrize(
    ("key", "headers", "status"),
    [
        ("service-key", {}, 403),  # a caller who found the way
        ("service-key", {"X-Vestibule-Proxy-Key": "guessed"}, 403),
        ("service-key", {"X-Vestibule-Proxy-Key": "worker-token"}, 403),
        ("unknown", PROXY, 401),
        ("service-key", PROXY, 400),  # nobody is named
    ],
)
async def test_only_a_proxy_learns_where_the_workers_are(
    service: Service,
    keyed: Upstream,
    ada: Chatter,
    key: str,
    headers: dict[str, str],
    status: int,
) -> None:
    user = {} if status == 400 else {"X-OpenWebUI-User-Id": "ada"}
    refused = await caller_of(service, key)("GET", "/auth", headers={**headers, **user})
    assert refused.status == status
    assert not [name for name in refused.headers if name.startswith("X-Vestibule-Up")]


async def test_what_needs_the_gateway_is_sent_there(
    service: Service, keyed: Upstream, ada: Chatter
) -> None:
    call, admin = caller_of(service), caller_of(service, service.admin_key)
    task = await call("GET", "/auth", headers={**ADA, "X-Vestibule-Task": "title_generation"})
    assert (task.status, task.json["code"]) == (409, "through_the_gateway")
    assert (await call("GET", "/auth?pool=none", headers=ADA)).status == 404
    assert (await call("GET", "/auth?model=none", headers=ADA)).status == 404
    await make_ready(service, "w2", keyed.url, model="other")
    which = await call("GET", "/auth", headers=ADA)
    assert (which.status, which.fields) == (422, {"model"})
    limits = {"requests_per_minute": 10}
    assert (await admin("PUT", "/admin/limits/user", limits)).status == 200
    counted = await call("GET", "/auth?model=tiny", headers=ADA)
    assert (counted.status, counted.json["code"]) == (409, "through_the_gateway")


async def test_a_chat_stays_with_its_worker(service: Service, start: Start, ada: Chatter) -> None:
    for name in ("w1", "w2", "w3"):
        await start(name)
    call, chosen = caller_of(service), set()
    for chat_id in range(20):
        headers = {**ADA, "X-OpenWebUI-Chat-Id": f"c{chat_id}"}
        asked = [await call("GET", "/auth", headers=headers) for _ in range(2)]
        names = {one.headers["X-Vestibule-Worker"] for one in asked}
        assert len(names) == 1
        chosen |= names
    assert len(chosen) > 1


@needs_nginx
async def test_nginx_relays_who_has_a_session_straight_to_the_worker(
    nginx: Caller, keyed: Upstream, ada: Chatter
) -> None:
    headers = {
        **ada.headers,
        "Cookie": "a=b",
        "X-Vestibule-Upstream": "http://127.0.0.1:1",
        "Content-Type": "application/json",
    }
    reply = await nginx("POST", CHAT, data=chat(), headers=headers)
    assert (reply.status, reply.text.encode()) == (200, ANSWER)
    (seen,) = keyed.seen
    assert (seen.path, seen.body) == (CHAT, chat())
    assert seen.headers["Authorization"] == "Bearer the-workers-key"
    assert not [n for n in seen.headers if n.lower().startswith(("x-openwebui", "x-vestibule"))]
    assert "Cookie" not in seen.headers
    assert not [n for n in reply.headers if n.lower().startswith("x-vestibule")]


@needs_nginx
async def test_nginx_passes_each_chunk_as_it_comes(
    nginx: Caller, keyed: Upstream, ada: Chatter
) -> None:
    body = chat(stream=True)
    async with nginx.open("POST", CHAT, data=body, headers=ada.headers) as answer:
        assert await answer.content.readany() == CHUNKS[0]  # the others wait for this
        keyed.go.set()
        assert await answer.read() == b"".join(CHUNKS[1:])


@needs_nginx
async def test_whom_nginx_does_not_relay_the_gateway_answers(
    nginx: Caller, keyed: Upstream, service: Service
) -> None:
    eve = {"X-OpenWebUI-User-Id": "eve"}
    refused = await nginx("POST", CHAT, data=chat(), headers=eve)
    assert (refused.status, refused.json["error"]["code"]) == (429, "no_session")
    assert "Retry-After" in refused.headers
    waited = await nginx("POST", CHAT, data=chat(), headers={**eve, "X-Vestibule-Wait": "5"})
    assert (waited.status, waited.text.encode()) == (200, ANSWER)
    assert (await nginx.with_key(None)("POST", CHAT, data=chat())).status == 401
    assert (await nginx("GET", "/v1/models")).json["data"][0]["id"] == "tiny"
    assert len(keyed.seen) == 1


@needs_nginx
async def test_nginx_keeps_auth_for_itself(nginx: Caller, keyed: Upstream, ada: Chatter) -> None:
    for path in ("/auth", "/auth/", "/AUTH", "/auth/v1/x", "/vestibule-auth", "//auth", "/%61uth"):
        answer = await nginx("GET", path, headers=ADA)
        assert answer.status in (403, 404), path
        assert not [name for name in answer.headers if name.startswith("X-Vestibule-Up")]


@needs_nginx
async def test_a_worker_that_is_gone_is_passed_over_by_the_gateway(
    nginx: Caller, service: Service, start: Start, ada: Chatter
) -> None:
    await make_ready(service, "gone", f"http://127.0.0.1:{free_port()}")
    await start("w1")
    for chat_id in range(8):
        headers = {**ada.headers, "X-OpenWebUI-Chat-Id": f"c{chat_id}"}
        assert (await nginx("POST", CHAT, data=chat(), headers=headers)).status == 200
