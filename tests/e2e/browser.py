"""Knows where things are on Open WebUI 0.12.4's pages, as its users see them.

Does not know Vestibule: a status is whatever the chat shows in the place of an answer.
"""
# mypy: disable-error-code="import-not-found"
# Playwright is installed for this tier only (infra/lock/e2e.txt); the linter runs without it too.

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from tests.e2e.stack import MODEL, User

SIGN_IN_TIMEOUT_S = 60.0  # the first visit of a run compiles the front end's scripts
STEP_TIMEOUT_S = 30.0
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@asynccontextmanager
async def chromium(executable: Path) -> AsyncIterator[Browser]:
    """A headless Chromium that runs as long as the block does."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=FLAGS)
        async with browser:
            yield browser


class ChatPage:
    """One user's browser: a context of its own, signed in, with one chat."""

    def __init__(self, page: Page, user: User) -> None:
        self.user = user
        self._page = page

    @classmethod
    async def sign_in(cls, browser: Browser, url: str, user: User) -> Self:
        """Sign in through the form and wait for an empty chat with the model."""
        context = await browser.new_context(base_url=url)
        context.set_default_timeout(STEP_TIMEOUT_S * 1000)
        page = await context.new_page()
        # Release notes and the like cover the page at a first visit, at no fixed moment.
        dialog = page.get_by_role("dialog")
        await page.add_locator_handler(dialog, _close)
        await page.goto("/auth", timeout=SIGN_IN_TIMEOUT_S * 1000)
        await page.locator("#email").fill(user.email, timeout=SIGN_IN_TIMEOUT_S * 1000)
        await page.locator("#password").fill(user.password)
        await page.get_by_role("button", name="Sign in").click()
        chosen = page.locator("#model-selector-model-button")
        label = f"Selected model: {MODEL}"  # the only one there is, so it needs no choosing
        await expect(chosen).to_have_attribute(
            "aria-label", label, timeout=SIGN_IN_TIMEOUT_S * 1000
        )
        return cls(page, user)

    async def send(self, text: str) -> None:
        """Write a message and send it; returns when the chat shows a place for the answer."""
        await self._page.locator("#chat-input").click()
        await self._page.keyboard.type(text)
        before = await self._answers.count()
        await self._page.locator("#send-message-button").click()
        await expect(self._answers).to_have_count(before + 1)

    async def sees_status(self, pattern: str, within_s: float = STEP_TIMEOUT_S) -> str:
        """Wait until the latest answer's status line matches, and return it as it is shown."""
        status = self._latest.locator(".status-description").last
        await expect(status).to_have_text(re.compile(pattern), timeout=within_s * 1000)
        text: str = await status.inner_text()
        return text

    async def sees_answer(self, text: str, within_s: float = STEP_TIMEOUT_S) -> None:
        """Wait until the latest answer is there in full and the chat takes a new message."""
        answer = self._latest.locator("#response-content-container")
        await expect(answer).to_have_text(text, timeout=within_s * 1000)
        await expect(self._stop_button).to_have_count(0)

    async def has_no_answer(self) -> bool:
        """Whether the latest answer is still without a word."""
        shown: str = await self._latest.locator("#response-content-container").inner_text()
        return not shown.strip()

    async def stop(self) -> None:
        """Press Stop, and wait until the chat shows that it did."""
        await self._stop_button.click()
        await expect(self._stop_button).to_have_count(0)

    async def screenshot(self, file: Path) -> None:
        """Write what the user sees as PNG."""
        file.parent.mkdir(parents=True, exist_ok=True)
        await self._page.screenshot(path=file, animations="disabled")

    @property
    def _answers(self) -> Locator:
        return self._page.locator(".chat-assistant")

    @property
    def _latest(self) -> Locator:
        return self._answers.last

    @property
    def _stop_button(self) -> Locator:
        return self._page.get_by_role("button", name="Stop", exact=True)


async def _close(dialog: Locator) -> None:
    await dialog.get_by_role("button", name="Close").first.click()
