"""What the tests of the gateway share: upstreams, and a user who has a session."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientResponse

from admission.domain import DEFAULT_POOL, WorkerReport
from admission.store.calls import Calls
from tests.api.calls import Caller, Reply, caller_of
from tests.api.fleet import look_again
from tests.conftest import Service
from tests.gateway.upstream import Upstream, chat, listening

Start = Callable[[str], Awaitable[Upstream]]
CHAT = "/v1/chat/completions"


class Chatter:
    """One user at the gateway, with a frontend's service key."""

    def __init__(self, call: Caller, user: str) -> None:
        self._call, self.user = call, user
        self.headers = {"X-OpenWebUI-User-Id": user}

    async def join(self) -> None:
        """Take a session."""
        path = f"/queue/join/{self.user}"
        assert (await self._call("POST", path, {"auto_confirm": True})).status == 200

    async def says(self, body: bytes, path: str = CHAT, **headers: str) -> Reply:
        return await self._call("POST", path, data=body, headers={**self.headers, **headers})

    @asynccontextmanager
    async def streams(self, path: str = CHAT, **headers: str) -> AsyncIterator[ClientResponse]:
        """A streamed answer, not read yet."""
        given = {**self.headers, **headers}
        body = chat(stream=True)
        async with self._call.open("POST", path, data=body, headers=given) as response:
            yield response


@pytest.fixture
async def start(service: Service) -> AsyncIterator[Start]:
    """Starts an upstream and makes it a ready worker for the model tiny."""
    async with AsyncExitStack() as stack:

        async def begin(name: str) -> Upstream:
            upstream = await stack.enter_async_context(listening(name))
            await make_ready(service, name, upstream.url)
            return upstream

        yield begin


async def make_ready(
    service: Service, name: str, url: str, *, model: str = "tiny", ready: bool = True
) -> None:
    """Report a static worker."""
    report = WorkerReport(ready=ready, reason=None, models=(model,), slots=4)
    identity = {"url": url, "kind": "static"}
    await service.store.report_worker(DEFAULT_POOL, name, report, identity=identity)
    await look_again(service)


@pytest.fixture
async def upstream(start: Start) -> Upstream:
    """The only worker."""
    return await start("w1")


@pytest.fixture
async def ada(service: Service) -> Chatter:
    """A user with a session."""
    user = Chatter(caller_of(service), "ada")
    await user.join()
    return user


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each script was called."""
    counts: Counter[str] = Counter()
    run = Calls.run

    async def counted(self: Calls, name: str, pool: str, **given: Any) -> Any:
        counts[name] += 1
        return await run(self, name, pool, **given)

    monkeypatch.setattr(Calls, "run", counted)
    return counts
