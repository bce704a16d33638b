"""A model in another pool than the default one: what is told of a turn is told of that pool's."""

import pytest

from admission.domain import DEFAULT_POOL, WorkerReport
from admission.store.redis_store import RedisStore
from tests.owui.conftest import MODEL, Chat, Pages, WebUI, until

LARGE, BIG = "large", "big"
FIRST = "You are 1st in line"
LEFT = "Time left in your session: less than a minute"


@pytest.fixture
async def model_served(store: RedisStore) -> None:
    """Two model servers, each in a pool of its own."""
    await store.load()
    await store.configure(LARGE, {"capacity": 1, "session_ms": 1000})
    for pool, model, port in ((DEFAULT_POOL, MODEL, 9), (LARGE, BIG, 10)):
        report = WorkerReport(ready=True, reason=None, models=(model,), slots=1)
        identity = {"url": f"http://127.0.0.1:{port}", "kind": "static", "upstream_key": ""}
        await store.report_worker(pool, f"upstream-{pool}", report, identity=identity)


@pytest.fixture
async def ann(webui: WebUI, pages: Pages) -> Chat:
    """Somebody who has a short session with the large model."""
    pages.open("ann")
    ann = webui.chat("ann", BIG)
    await ann.is_answered()
    assert (await webui.elsewhere.status("ann", pool=LARGE)).status == "active"
    return ann


async def test_the_end_of_a_session_is_told(webui: WebUI, ann: Chat) -> None:
    assert "ticket_id" not in await webui.ticket("ann")  # of the default pool
    await ann.ends()
    await ann.sees(LEFT)
    webui.service.clock.advance_ms(1_001)
    await webui.service.tick()
    await ann.sees("Your session is over.")


async def test_a_place_that_was_kept_is_offered(webui: WebUI, pages: Pages, ann: Chat) -> None:
    webui.set(max_wait_s=1, show_time_left=False)
    pages.open("bob")
    bob = webui.chat("bob", BIG)
    await bob.is_kept()
    await ann.ends()
    await webui.elsewhere.leave("ann", pool=LARGE)
    await until(lambda: len(bob.toasts) == 2)
    again = webui.chat("bob", BIG)
    await again.is_answered()
    assert again.statuses == []


async def test_a_session_in_one_pool_is_none_in_the_other(webui: WebUI, ann: Chat) -> None:
    await webui.chat("bob").is_answered()
    await webui.chat("ann").sees(FIRST)
