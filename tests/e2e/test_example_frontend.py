"""docs/example-frontend.html in a real Chromium: a frontend of another origin, on REST and events.

Needs no Open WebUI and no model; skipped where there is no Playwright or no `chromium`.
"""

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from admission.client import Client
from admission.clock import ManualClock
from tests.api.calls import Caller, caller_of
from tests.api.conftest import served_at
from tests.conftest import DEADLINE_S, Service
from tests.gateway.conftest import make_ready
from tests.gateway.upstream import listening

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

CHROMIUM = shutil.which("chromium")
EXAMPLE = Path(__file__).parent.parent.parent / "docs" / "example-frontend.html"
SHOTS = Path(__file__).parent / "screenshots" / "example_frontend"
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(120),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no `chromium` on the PATH"),
]


@pytest.fixture
async def browser() -> AsyncIterator["Browser"]:
    pytest.importorskip("playwright", reason="Playwright is not installed")
    from tests.e2e.browser import chromium

    assert CHROMIUM is not None
    async with chromium(Path(CHROMIUM)) as running:
        yield running


class Site:
    """The frontend's own server: it shows the page and joins for whoever opens it."""

    def __init__(self) -> None:
        self.origin = ""
        self.service: Service

    async def page(self, _: web.Request) -> web.FileResponse:
        return web.FileResponse(EXAMPLE)

    async def icon(self, _: web.Request) -> web.Response:
        return web.Response(status=204)

    async def turn(self, _: web.Request) -> web.Response:
        url, client = self.service.url, uuid.uuid4().hex
        async with Client(url, self.service.service_key) as vestibule:
            ticket = await vestibule.join("ada@example.org", client=client)
        facts = {"url": url, "user": ticket.user_id, "token": ticket.token, "client": client}
        return web.json_response(facts)


@pytest.fixture
async def site(
    valkey: str, redis: object, clock: ManualClock, places_told_soon: None
) -> AsyncIterator[Site]:
    """With a service of another origin that allows its pages, and a worker."""
    made = Site()
    app = web.Application()
    routes = {"/": made.page, "/turn": made.turn, "/favicon.ico": made.icon}
    app.add_routes([web.get(path, handler) for path, handler in routes.items()])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with (
        served_at(valkey, clock, VESTIBULE_ALLOWED_ORIGINS=made.origin) as made.service,
        listening("w1") as upstream,
    ):
        await make_ready(made.service, "w1", upstream.url, model="vestibule-demo")
        yield made
    await runner.cleanup()


@pytest.fixture
def call(site: Site) -> Caller:
    return caller_of(site.service)


async def opened(browser: "Browser", site: Site) -> tuple["Page", list[str]]:
    """The page, and what the browser complains about."""
    page = await browser.new_page(viewport={"width": 720, "height": 420}, locale="en-GB")
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("console", lambda message: found.append(message.text))
    await page.goto(site.origin)
    return page, found


async def test_the_whole_way(browser: "Browser", site: Site, call: Caller) -> None:
    from playwright.async_api import expect

    await call("POST", "/queue/join/bob", {"auto_confirm": True})
    await call("POST", "/queue/join/cy")
    page, found = await opened(browser, site)
    line = page.get_by_role("status")
    await expect(line).to_contain_text("You are number 2 in line")
    await expect(page.get_by_label("Message")).to_be_hidden()
    await page.screenshot(path=SHOTS / "1-waiting.png")
    await call("POST", "/queue/leave/cy")
    await site.service.tick()
    await expect(line).to_contain_text("You are number 1 in line")
    assert (await call("GET", "/queue/metrics")).json["waiting"] == 1
    await call("POST", "/queue/leave/bob")
    await expect(line).to_contain_text("You are in until")
    await page.get_by_label("Message").fill("What do you serve?")
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator("#answer")).to_have_text("café")
    await page.screenshot(path=SHOTS / "2-active.png")
    await page.get_by_role("button", name="Leave").click()
    await expect(line).to_contain_text("Your turn is over.")
    await expect(page.get_by_label("Message")).to_be_hidden()
    await page.screenshot(path=SHOTS / "3-over.png")
    assert not found


async def test_who_closes_the_page_makes_room(browser: "Browser", site: Site, call: Caller) -> None:
    from playwright.async_api import expect

    await call("POST", "/queue/join/bob")
    page, _ = await opened(browser, site)
    await expect(page.get_by_role("status")).to_contain_text("number 1 in line")
    await page.close()
    # The page says goodbye, but a browser that ends it may lose that; then its presence lapses.
    async with asyncio.timeout(DEADLINE_S):
        while (await call("GET", "/queue/metrics")).json["waiting"]:
            site.service.clock.advance_ms(1_000)
            await site.service.tick()
            await asyncio.sleep(0.05)


async def test_a_reload_keeps_the_session_and_the_place(
    browser: "Browser", site: Site, call: Caller
) -> None:
    from playwright.async_api import expect

    await call("POST", "/queue/join/bob")
    page, _ = await opened(browser, site)
    line = page.get_by_role("status")
    await expect(line).to_contain_text("You are number 1 in line")
    await page.reload()
    await expect(line).to_contain_text("You are number 1 in line")
    await call("POST", "/queue/leave/bob")
    await expect(line).to_contain_text("You are in until")
    await page.reload()
    await expect(line).to_contain_text("You are in until")
    assert (await call("GET", "/queue/metrics")).json["admitted_total"] == 1


async def test_what_is_refused_is_said(browser: "Browser", site: Site, call: Caller) -> None:
    from playwright.async_api import expect

    page, _ = await opened(browser, site)
    await expect(page.get_by_role("status")).to_contain_text("You are in until")
    await call("POST", "/queue/leave/ada@example.org")
    await expect(page.get_by_role("status")).to_contain_text("Your turn is over.")
    await page.evaluate("document.querySelector('form').hidden = false")
    await page.get_by_label("Message").fill("One more")
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator("#answer")).to_contain_text("You have no session now")
