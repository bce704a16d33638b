"""Knows where things are on Open WebUI 0.12.4's pages, as its users see them.

Does not know Vestibule: a status is whatever the chat shows in the place of an answer.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, Locator, Page, async_playwright, expect

from tests.e2e.stack import MODEL, User

SIGN_IN_TIMEOUT_S = 60.0  # the first visit of a run compiles the front end's scripts
STEP_TIMEOUT_S = 30.0
NOWHERE = (660, 20)  # a place of the page, in pixels, where there is nothing to point at
STILL = (  # the gleam that runs over a status hides some of its letters at any one moment
    ".shimmer { animation: none !important; background: none !important;"
    " -webkit-text-fill-color: currentColor !important }"
)
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
    expect.set_options(timeout=STEP_TIMEOUT_S * 1000)  # its own 5 s are short for two busy cores
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=FLAGS)
        async with browser:
            yield browser


class ChatPage:
    """One user's browser: a context of its own, signed in, with one tab that shows one chat.

    ``which``: the answer meant, from the top; the last one unless it is named.
    """

    def __init__(self, page: Page, user: User) -> None:
        self.user = user
        self._page = page

    @classmethod
    async def sign_in(cls, browser: Browser, url: str, user: User, locale: str = "en-US") -> Self:
        """Sign in through the form and wait for an empty chat with the model."""
        context = await browser.new_context(base_url=url, locale=locale)
        context.set_default_timeout(STEP_TIMEOUT_S * 1000)
        page = await _tab(context)
        await page.goto("/auth", timeout=SIGN_IN_TIMEOUT_S * 1000)
        await page.locator("#email").fill(user.email, timeout=SIGN_IN_TIMEOUT_S * 1000)
        await page.locator("#password").fill(user.password)
        await page.locator("button[type=submit]").click()
        await page.locator("[data-close-button]").click()  # of the toast that says so
        signed_in = cls(page, user)
        await signed_in._has_chosen(MODEL)
        return signed_in

    async def open_chat(self, *models: str, temporary: bool = False) -> None:
        """Begin a new chat with these models, in the same tab."""
        query = f"models={','.join(models or (MODEL,))}"
        await self._page.goto(f"/?{query}{'&temporary-chat=true' if temporary else ''}")
        await self._has_chosen((models or (MODEL,))[0])

    async def send(self, text: str, answers: int = 1) -> None:
        """Write a message and send it; returns when the chat shows a place for each answer."""
        await self._page.locator("#chat-input").click()
        await self._page.keyboard.type(text)
        before = await self._answers.count()
        await self._page.locator("#send-message-button").click()
        await expect(self._answers).to_have_count(before + answers)

    async def sees_status(
        self, pattern: str, within_s: float = STEP_TIMEOUT_S, which: int = -1
    ) -> str:
        """Wait until the answer's status line matches, and return it as it is shown."""
        status = self._answers.nth(which).locator(".status-description").last
        await expect(status).to_have_text(re.compile(pattern), timeout=within_s * 1000)
        text: str = await status.inner_text()
        return text

    async def sees_answer(
        self, text: str, within_s: float = STEP_TIMEOUT_S, which: int = -1
    ) -> None:
        """Wait until the answer is there in full and the chat takes a new message."""
        answer = self._answers.nth(which).locator("#response-content-container")
        await expect(answer).to_have_text(text, timeout=within_s * 1000)
        await expect(self._stop_button).to_have_count(0)

    async def sees_answer_begin(self, text: str, within_s: float = STEP_TIMEOUT_S) -> None:
        """Wait until the answer is being written and can be stopped."""
        answer = self._answers.last.locator("#response-content-container")
        await expect(answer).to_contain_text(text, timeout=within_s * 1000)
        await expect(self._stop_button).to_be_visible()

    async def sees_answer_end(self, within_s: float = STEP_TIMEOUT_S) -> str:
        """Wait until nothing is being written any more; what the answer says then."""
        await expect(self._stop_button).to_have_count(0, timeout=within_s * 1000)
        text: str = await self._answers.last.locator("#response-content-container").inner_text()
        return text

    async def sees_text(self, pattern: str, within_s: float = STEP_TIMEOUT_S) -> None:
        """Wait for words anywhere in the place of the latest answer: a status, a text, a box."""
        await expect(self._answers.last).to_have_text(re.compile(pattern), timeout=within_s * 1000)

    async def sees_toast(self, pattern: str, within_s: float = STEP_TIMEOUT_S) -> None:
        """Wait for a message in the corner of the page."""
        toast = self._page.locator("[data-sonner-toast]").filter(has_text=re.compile(pattern))
        await expect(toast.first).to_be_visible(timeout=within_s * 1000)

    async def looks_at_status(self) -> None:
        """Scroll to the status of the latest answer, which may be a long one."""
        await self._answers.last.locator(".status-description").last.scroll_into_view_if_needed()

    async def has_no_answer(self) -> bool:
        """Whether the latest answer is still without a word."""
        shown: str = await self._answers.last.locator("#response-content-container").inner_text()
        return not shown.strip()

    async def regenerate(self) -> None:
        """Ask for the latest answer anew: it takes the place of the one that is shown."""
        await self._page.get_by_role("button", name="Regenerate").last.click()
        await self._page.get_by_text("Try Again", exact=True).click()

    async def go_on(self) -> None:
        """Ask the model to continue its latest answer."""
        await self._page.locator("#continue-response-button").click()

    async def write_anew(self) -> None:
        """Change one's latest message and send it again."""
        latest = self._page.locator(".user-message").last
        await latest.hover()
        await latest.locator(".edit-user-message-button").click()
        await self._page.locator("textarea[id^=message-edit-]").fill("Once more.")
        await self._page.locator("#confirm-edit-message-button").click()

    async def is_asked(self, question: str) -> None:
        """Wait until the model's question is there."""
        await expect(self._page.get_by_text(question, exact=True).last).to_be_visible()

    async def chooses(self, label: str) -> None:
        """Answer the model's question."""
        await self._page.get_by_role("button", name=label).click()

    async def stop(self) -> None:
        """Press Stop, and wait until the chat shows that it did."""
        await self._stop_button.click()
        await expect(self._stop_button).to_have_count(0)

    async def reload(self) -> None:
        """Load the page anew."""
        await self._page.reload()
        await expect(self._answers.last).to_be_visible()

    @property
    def chat(self) -> str:
        """The path of the chat that is shown."""
        url: str = self._page.url
        return urlsplit(url).path

    async def another_tab(self, path: str = "/") -> Self:
        """One more tab of the same browser, at this path."""
        page = await _tab(self._page.context)
        await page.goto(path)
        return type(self)(page, self.user)

    async def sees_post(self, pattern: str, within_s: float = STEP_TIMEOUT_S) -> None:
        """Wait until the latest post of a channel's thread matches."""
        post = self._page.locator("[id^=message-] .markdown-prose").last
        await expect(post).to_have_text(re.compile(pattern), timeout=within_s * 1000)

    async def close_tab(self) -> str:
        """Close the only tab; the path of the chat it showed."""
        chat, context = self.chat, self._page.context
        await self._page.close()
        self._page = await _tab(context)  # an empty one, without a word to Open WebUI
        return chat

    async def begin_another_chat(self) -> None:
        """Go to an empty chat within the page, which loads nothing anew."""
        await self._page.locator("#sidebar-new-chat-button").first.dispatch_event("click")
        await expect(self._answers).to_have_count(0)

    async def go_back(self) -> None:
        """Back to where the page was before, within the page."""
        await self._page.go_back()
        await expect(self._answers.last).to_be_visible()

    async def return_to(self, chat: str) -> None:
        """Open a chat by its path."""
        await self._page.goto(chat)
        await expect(self._answers.last).to_be_visible()

    async def screenshot(self, file: Path) -> None:
        """Write what the user sees as PNG."""
        file.parent.mkdir(parents=True, exist_ok=True)
        await self._page.mouse.move(*NOWHERE)  # a button under the mouse would explain itself
        await self._page.screenshot(path=file, animations="disabled", style=STILL)

    async def _has_chosen(self, model: str) -> None:
        chosen = self._page.locator("#model-selector-model-button")
        await expect(chosen).to_have_attribute(
            "aria-label", re.compile(rf": {model}\b"), timeout=SIGN_IN_TIMEOUT_S * 1000
        )

    @property
    def _answers(self) -> Locator:
        return self._page.locator(".chat-assistant")

    @property
    def _stop_button(self) -> Locator:
        return self._page.get_by_role("button", name="Stop", exact=True)


async def _tab(context: BrowserContext) -> Page:
    page = await context.new_page()
    # Release notes and the like cover the page at a first visit, at no fixed moment.
    await page.add_locator_handler(page.get_by_role("dialog"), _close)
    return page


async def _close(dialog: Locator) -> None:
    await dialog.get_by_role("button").first.click()
