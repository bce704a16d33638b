"""Crowds at the real service with the demo model behind it, and what is seen of a lie."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import ClientSession, TCPConnector, web
from aiohttp.test_utils import TestServer

from admission import client_events, client_turn
from infra.demo_model import MODEL, DemoModel
from infra.errors import CommandError
from infra.load_test import crowd, person, rehearsal, report
from infra.load_test.crowd import Coming, Crowd, Manners
from infra.load_test.rehearsal import Rehearsal, Target
from tests.api.calls import caller_of, until
from tests.client.wire import wired
from tests.conftest import DEADLINE_S, Service
from tests.gateway.conftest import make_ready
from tests.load_test.test_command import saw


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """People and looks take moments, not seconds."""
    monkeypatch.setattr(client_events, "REOPEN_S", (0.02, 0.05))
    monkeypatch.setattr(client_events, "STREAM_AGAIN_S", (0.2, 0.2))
    monkeypatch.setattr(client_events, "pause_s", lambda _: 0.05)
    monkeypatch.setattr(client_turn, "BEAT_S", (0.2, 0.2))
    monkeypatch.setattr(crowd, "PATIENCE_S", (0.1, 0.2))
    monkeypatch.setattr(person, "CONFIRM_S", (0.0, 0.01))
    monkeypatch.setattr(rehearsal, "LOOK_EVERY_S", 0.05)


@pytest.fixture
async def target(service: Service) -> AsyncIterator[Target]:
    """Three slots, and a model that answers at once."""
    await service.capacity(3)
    async with TestServer(DemoModel(pause_s=0).application()) as model:
        await make_ready(service, "w1", str(model.make_url("")).rstrip("/"), model=MODEL)
        yield Target(service.url, service.service_key, "default", local=False)


def _nothing(_: Rehearsal) -> None:
    pass


async def _done(target: Target, plans: list[Coming], limit_s: float = DEADLINE_S) -> Rehearsal:
    one = Rehearsal(target, plans, limit_s)
    async with asyncio.timeout(DEADLINE_S):
        await one.run(look_on=_nothing)
    return one


def _crowd(**manners: Any) -> Crowd:
    return Crowd("load-x", replace(Manners(messages=2, think_s=0.02), **manners), 1)


async def _metrics(service: Service) -> dict[str, int]:
    found: dict[str, int] = (await caller_of(service)("GET", "/queue/metrics")).json
    return {name: found[name] for name in ("waiting", "draft", "active")}


NOBODY = {"waiting": 0, "draft": 0, "active": 0}


async def test_a_group_takes_its_turns_and_goes(target: Target, service: Service) -> None:
    done = await _done(target, _crowd(confirm=0.3, think_s=0.1).group(12))
    found = report.as_json(done)
    assert found["ok"], found["broken"]
    assert found["people"] == {"planned": 12, "came": 12, "left": 12}
    assert found["answers"]["whole"] == 24
    assert not found["errors"]
    assert found["wait"]["n"] >= 6
    assert found["slots"]["most_held"] <= 3
    assert found["slots"]["most_waiting"] >= 3
    assert await _metrics(service) == NOBODY


async def test_one_person_has_a_slot_at_once(target: Target) -> None:
    found = report.as_json(await _done(target, _crowd().single("ada")))
    assert found["admission"]["n"] == 1
    assert found["wait"]["n"] == 0
    assert (found["model"], found["answers"]["whole"]) == (MODEL, 2)


async def test_who_vanishes_or_stops_is_out_at_the_end(target: Target, service: Service) -> None:
    done = await _done(target, _crowd(vanish=0.5, stop=0.5).group(8))
    ended = Counter(visit.ended for visit in done.visits)
    assert set(ended) == {"vanished", "stopped"}
    assert not done.watch.broken
    assert await _metrics(service) == NOBODY


async def test_stop_at_the_first_words(target: Target) -> None:
    done = await _done(target, _crowd(stop=1.0).single("ada"))
    (visit,) = done.visits
    assert [answer.code for answer in visit.answers] == ["", "stopped"]
    assert visit.ended == "stopped"


async def test_its_limit_ends_it_and_nobody_stays(target: Target, service: Service) -> None:
    done = await _done(target, _crowd(think_s=60.0).group(5), limit_s=0.6)
    assert done.cut == "limit"
    assert {visit.ended for visit in done.visits} == {"cut"}
    assert await _metrics(service) == NOBODY


async def test_told_to_stop_it_stops(target: Target, service: Service) -> None:
    one = Rehearsal(target, _crowd(think_s=60.0).group(2), 60.0)

    async def chatted() -> bool:
        return bool(one.visits and all(visit.answers for visit in one.visits))

    running = asyncio.create_task(one.run(look_on=_nothing))
    await until(chatted)
    one.told_to_stop.set()
    async with asyncio.timeout(DEADLINE_S):
        await running
    assert one.cut == "told"
    assert await _metrics(service) == NOBODY


async def test_a_service_that_refuses_is_told(target: Target, service: Service) -> None:
    await caller_of(service, service.admin_key)("PUT", "/admin/pools/default", {"paused": True})
    found = report.as_json(await _done(target, _crowd().group(2)))
    assert found["people"]["refused"] == 2
    assert found["refusals"] == {"pool_paused": 2}
    assert found["ok"]


async def test_where_people_wait_it_does_not_begin(target: Target, service: Service) -> None:
    for user in ("a", "b", "c", "d"):
        await caller_of(service)("POST", f"/queue/join/{user}")
    with pytest.raises(CommandError, match="1 wait at"):
        await _done(target, _crowd().single("ada"))


async def test_a_wrong_key_is_told(target: Target) -> None:
    with pytest.raises(CommandError, match="401, Nobody knows this key"):
        await _done(replace(target, key="wrong"), _crowd().single("ada"))


async def test_a_model_that_is_not_served_is_told(target: Target) -> None:
    with pytest.raises(CommandError, match=f"--model: other is not served; there is {MODEL}"):
        await _done(replace(target, model="other"), _crowd().single("ada"))


async def test_nobody_there() -> None:
    nowhere = Target("http://127.0.0.1:1", "k", "default")
    with pytest.raises(CommandError, match=r"nobody answers there \(connection refused\)"):
        await _done(nowhere, _crowd().single("ada"))


@pytest.mark.parametrize("body", [{}, [], None])
async def test_something_else_there(body: object) -> None:
    async def act(_: web.Request) -> web.Response:
        return web.json_response(body)

    async with _standing(act) as url:
        with pytest.raises(CommandError, match=r"no answer of Vestibule \(without 'waiting'\)"):
            await _done(Target(url, "k", "default"), _crowd().single("ada"))


async def test_nobody_is_sent_to_another_machine(target: Target) -> None:
    asked: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response({"waiting": 0})

    async with _standing(elsewhere) as other:

        async def act(request: web.Request) -> web.Response:
            raise web.HTTPFound(other + request.path)

        async with _standing(act) as url:
            with pytest.raises(CommandError, match="GET /queue/metrics.*: 302"):
                await _done(replace(target, url=url), _crowd().single("ada"))
    assert asked == []


@asynccontextmanager
async def _standing(act: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """The URL of somebody who does so with every call."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", act)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


async def test_a_service_that_goes_away_for_good_ends_it(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "AWAY_S", 0.3)
    monkeypatch.setattr(rehearsal, "LEAVE_S", 0.1)
    monkeypatch.setattr(client_turn, "LEAVE_S", 0.1)
    async with ClientSession(connector=TCPConnector(limit=0)) as http, wired(http, target.url) as w:
        running = asyncio.create_task(
            _done(replace(target, url=w.url), _crowd(think_s=60.0).single("ada"), limit_s=60.0)
        )
        await until(lambda: saw(w, "chat"))
        w.acts.update({verb: w.is_gone for verb in ("metrics", "status", "models", "leave")})
        done = await running
    found = report.as_json(done)
    assert (found["cut"], found["people"]["cut"]) == ("away", 1)
    assert found["missed_looks"] > 2
    assert "nobody answered" in "\n".join(report.told(found))


# --- lies ---------------------------------------------------------------------------------------


def _a_slot_less(body: dict[str, Any]) -> None:
    body["capacity"] = 2


def _all_are_first(body: dict[str, Any]) -> None:
    for item in body["queue_items"]:
        item["position"] = 1


def _one_ticket_for_all(body: dict[str, Any]) -> None:
    body["ticket_id"] = "t1"


@pytest.mark.parametrize(
    ("verb", "lie", "rule"),
    [
        ("metrics", _a_slot_less, "never more than capacity"),
        ("status", _all_are_first, "places are 1, 2, 3 and nobody's twice"),
        ("join", _one_ticket_for_all, "a ticket is one user's"),
    ],
)
async def test_a_lie_is_seen(
    target: Target, verb: str, lie: Callable[[dict[str, Any]], None], rule: str
) -> None:
    async with ClientSession(connector=TCPConnector(limit=0)) as http, wired(http, target.url) as w:

        async def lies(request: web.Request) -> web.Response:
            headers, sent = {"Authorization": f"Bearer {target.key}"}, await request.read()
            url = target.url + request.path_qs
            async with http.request(request.method, url, headers=headers, data=sent) as true:
                body = await true.json()
            lie(body)
            return web.json_response(body)

        w.acts[verb] = lies
        done = await _done(replace(target, url=w.url), _crowd(think_s=0.3).group(6), limit_s=0.7)
    assert rule in {broken.rule for broken in done.watch.broken}
    assert not report.as_json(done)["ok"]
