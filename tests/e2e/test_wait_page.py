"""The waiting page in a real Chromium: live with scripts, whole without, light, dark and narrow.

Needs no Open WebUI and no model; skipped where there is no Playwright or no `chromium`.
"""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from admission.pages.words import LANGUAGES, words
from tests.api.calls import caller_of
from tests.conftest import Service

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

CHROMIUM = shutil.which("chromium")
SHOTS = Path(__file__).parent / "screenshots" / "wait_page"
SOON_MS = 20_000  # a page without scripts looks again after 5 s
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(120),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no `chromium` on the PATH"),
]


@pytest.fixture
async def browser() -> AsyncIterator["Browser"]:
    pytest.importorskip("playwright", reason="Playwright is not installed")
    from playwright.async_api import expect

    from tests.e2e.browser import chromium

    expect.set_options(timeout=SOON_MS)
    assert CHROMIUM is not None
    async with chromium(Path(CHROMIUM)) as running:
        yield running


class Line:
    """Bob has the only slot, carol and ada wait, in this order."""

    def __init__(self, service: Service, link: str) -> None:
        self.service, self.link = service, link

    async def goes(self, user: str) -> None:
        await self.service.store.leave("default", user)
        await self.service.tick()


@pytest.fixture
async def line(service: Service) -> Line:
    call = caller_of(service)
    await call("POST", "/queue/join/bob", {"auto_confirm": True})
    await call("POST", "/queue/join/carol")
    token = (await call("POST", "/queue/join/ada")).json["token"]
    return Line(service, f"{service.url}/wait/ada?token={token}")


async def opened(browser: "Browser", link: str, **options: Any) -> "Page":
    """The page in a context of its own."""
    context = await browser.new_context(**{"locale": "en-US", **options})
    context.set_default_timeout(SOON_MS)
    page = await context.new_page()
    await page.goto(link)
    return page


def complaints(page: "Page") -> list[str]:
    """What the browser will complain about from now on: broken scripts, refused content."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("console", lambda message: found.append(message.text))
    return found


async def test_numbers_move_without_a_reload_and_are_said_politely(
    browser: "Browser", line: Line
) -> None:
    from playwright.async_api import expect

    page = await opened(browser, line.link)
    assert "token" not in page.url
    await expect(page.locator("#position")).to_have_text("2")
    await page.evaluate("window.kept = true")
    await line.goes("carol")
    await expect(page.locator("#position")).to_have_text("1")
    await expect(page.get_by_role("status")).to_contain_text("You are 1st in line")
    await expect(page).to_have_title("1 in line")
    assert await page.evaluate("window.kept")


async def test_the_whole_way_with_scripts(browser: "Browser", line: Line) -> None:
    from playwright.async_api import expect

    page = await opened(browser, line.link)
    found = complaints(page)
    await page.reload()
    await page.evaluate("window.kept = true")
    await line.goes("carol")
    await line.goes("bob")
    await expect(page.get_by_role("heading")).to_have_text("It is your turn")
    await expect(page.get_by_role("status")).to_have_text("It is your turn")
    await expect(page.get_by_role("timer")).to_have_text("4:59")
    assert await page.evaluate("window.kept")
    await page.get_by_role("button", name="Start now").click()
    await expect(page.get_by_role("heading")).to_have_text("You are in")
    await page.get_by_role("button", name="End my session").click()
    await expect(page.get_by_role("heading")).to_have_text("Your turn is over")
    await page.get_by_role("button", name="Join the line again").click()
    await expect(page.get_by_role("heading")).to_have_text("It is your turn")
    assert not found


async def test_the_whole_way_without_scripts(browser: "Browser", line: Line) -> None:
    from playwright.async_api import expect

    said = words("de")
    page = await opened(browser, line.link, java_script_enabled=False, locale="de-DE")
    await expect(page.locator("#position")).to_have_text("2")
    await line.goes("carol")
    await expect(page.locator("#position")).to_have_text("1")  # it loaded itself again
    await line.goes("bob")
    await expect(page.get_by_role("heading")).to_have_text(said["draft"]["heading"])
    await page.get_by_role("button", name=said["draft"]["confirm"]).click()
    await expect(page.get_by_role("heading")).to_have_text(said["active"]["heading"])
    await page.get_by_role("button", name=said["active"]["leave"]).click()
    await expect(page.get_by_role("heading")).to_have_text(said["disconnected"]["heading"])


async def test_a_link_on_another_site_works(browser: "Browser", line: Line) -> None:
    from playwright.async_api import expect

    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(text=f'<a href="{line.link}">go</a>', content_type="text/html")

    app = web.Application()
    app.router.add_get("/", elsewhere)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    # `localhost` is another site than 127.0.0.1, so the strict cookie stays behind at first.
    page = await opened(browser, f"http://localhost:{runner.addresses[0][1]}/")
    await page.get_by_role("link", name="go").click()
    await expect(page.locator("#position")).to_have_text("2")
    await runner.cleanup()


@pytest.mark.parametrize("language", LANGUAGES)
async def test_nothing_is_cut_off_on_a_phone(browser: "Browser", line: Line, language: str) -> None:
    page = await opened(
        browser, f"{line.link}&lang={language}", viewport={"width": 320, "height": 640}
    )
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320
    assert await page.evaluate("document.documentElement.lang") == language


@pytest.mark.parametrize(
    ("look", "options"),
    [
        ("light", {}),
        ("dark", {"color_scheme": "dark"}),
        ("phone", {"viewport": {"width": 360, "height": 740}, "locale": "fr-FR"}),
    ],
)
async def test_how_it_looks_in_each_state(
    browser: "Browser", line: Line, look: str, options: dict[str, Any]
) -> None:
    from playwright.async_api import expect

    page = await opened(browser, line.link, reduced_motion="reduce", **options)
    main = page.locator("main")

    async def shot(status: str) -> None:
        await expect(main).to_have_attribute("data-status", status)
        await page.screenshot(path=SHOTS / f"{look}-{status}.png", animations="disabled")

    await shot("waiting")
    await line.goes("carol")
    await line.goes("bob")
    await shot("draft")
    await page.get_by_role("button").first.click()
    await shot("active")
    await page.get_by_role("button").first.click()
    await shot("disconnected")
    await page.goto(f"{line.service.url}/wait/eve")
    await shot("problem")
