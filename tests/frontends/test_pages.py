"""The waiting page as a browser without scripts sees it, in each state and language."""

import re

import pytest
from yarl import URL

from admission.domain import Status, Ticket
from admission.pages.waiting import Reader, refresh_s, ticket_page
from admission.pages.words import DEFAULT, LANGUAGES, choose, words
from tests.api.calls import Reply, caller_of
from tests.conftest import Service

WAIT = "/wait/ada"


class Browser:
    """Follows no redirect by itself, keeps the cookie, and says where a form comes from."""

    def __init__(self, service: Service, token: str) -> None:
        self._service = service
        self.token = token
        self.cookie: str | None = None

    async def get(self, path: str, **headers: str) -> Reply:
        return await self._send("GET", path, headers)

    async def post(self, path: str, origin: str | None = None) -> Reply:
        return await self._send("POST", path, {"Origin": origin or self._service.url})

    async def open(self) -> Reply:
        """The page, by the link with the token."""
        reply = await self.get(f"{WAIT}?token={self.token}")
        assert reply.status == 303
        self.cookie = reply.headers["Set-Cookie"].split(";")[0]
        return await self.get(reply.headers["Location"])

    async def press(self, page: Reply, action: str) -> Reply:
        """Send the form whose action this is, and follow where it leads."""
        found = re.search(rf'action="([^"]*/{action}[^"]*)"', page.text)
        assert found, f"no form for {action}"
        reply = await self.post(found[1].replace("&amp;", "&"))
        assert reply.status == 303
        return await self.get(reply.headers["Location"])

    async def _send(self, method: str, path: str, headers: dict[str, str]) -> Reply:
        cookie = {"Cookie": self.cookie} if self.cookie else {}
        async with self._service.http.request(
            method,
            URL(self._service.url + path, encoded=True),
            headers={**headers, **cookie},
            allow_redirects=False,
        ) as response:
            return Reply(response.status, response.headers, await response.text())


@pytest.fixture
async def ada(service: Service) -> Browser:
    """A browser with a link to ada's page; bob has the only slot, ada waits."""
    trusted = caller_of(service)
    await trusted("POST", "/queue/join/bob", {"auto_confirm": True})
    token = (await trusted("POST", "/queue/join/ada")).json["token"]
    return Browser(service, token)


def status_in(page: Reply) -> str:
    found = re.search(r'data-status="(\w+)"', page.text)
    assert found, page.text
    return found[1]


async def test_the_whole_way_without_scripts(service: Service, ada: Browser) -> None:
    page = await ada.open()
    assert status_in(page) == "waiting"
    assert '<strong id="position">1</strong>' in page.text
    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in page.text
    await service.store.leave("default", "bob")
    page = await ada.get(WAIT)
    assert (status_in(page), "5:00" in page.text) == ("draft", True)
    page = await ada.press(page, "confirm")
    assert (status_in(page), "20:00" in page.text) == ("active", True)
    page = await ada.press(page, "leave")
    assert status_in(page) == "disconnected"
    assert "You left." in page.text
    page = await ada.press(page, "join")
    assert status_in(page) == "draft"


async def test_the_token_stays_in_no_address(service: Service, ada: Browser) -> None:
    reply = await ada.get(f"{WAIT}?lang=fr&token={ada.token}&pool=default")
    assert (reply.status, reply.headers["Location"]) == (303, f"{WAIT}?lang=fr&pool=default")
    assert reply.headers["Referrer-Policy"] == "no-referrer"
    cookie = reply.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


async def test_every_page_lets_nothing_in_from_elsewhere(ada: Browser) -> None:
    for page in (await ada.get(WAIT), await ada.open(), await ada.get("/wait/b%20b")):
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert page.headers["Referrer-Policy"] == "same-origin"
        assert page.headers["Cache-Control"] == "no-store"
        assert "Accept-Language" in page.headers["Vary"]
        assert not re.search(r"<script(?![^>]*src=)|<style| style=| on\w+=", page.text)


async def test_a_page_shown_is_presence(service: Service, ada: Browser) -> None:
    await service.capacity(0)
    await service.store.heartbeat("default", "ada")  # from now on she is skipped when she is away
    await service.store.join("default", "carol", ticket="t3")
    await ada.open()
    for _ in range(8):
        service.clock.advance_ms(20_000)
        await service.tick()
        assert status_in(await ada.get(WAIT)) == "waiting"
    carol = await service.store.status("default", "carol")
    assert isinstance(carol, Ticket)
    assert carol.position == 2


async def test_a_form_from_another_site_changes_nothing(service: Service, ada: Browser) -> None:
    page = await ada.open()
    for origin in ("https://evil.example", "null"):
        reply = await ada.post(f"{WAIT}/leave", origin)
        assert (reply.status, status_in(reply)) == (403, "problem")
    assert status_in(await ada.get(WAIT)) == status_in(page) == "waiting"


async def test_an_old_page_leaves_no_newer_turn(service: Service, ada: Browser) -> None:
    old = await ada.open()
    await service.store.leave("default", "ada")
    await service.store.join("default", "ada", ticket="t2")
    assert status_in(await ada.press(old, "leave")) == "waiting"


async def test_a_link_from_another_site_comes_back_with_the_cookie(ada: Browser) -> None:
    strict = await ada.get(WAIT, **{"Sec-Fetch-Site": "cross-site"})
    assert strict.status == 200
    assert 'http-equiv="refresh" content="0"' in strict.text
    again = await ada.get(WAIT, **{"Sec-Fetch-Site": "same-origin"})
    assert again.status == 401


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("path", "status", "section", "key"),
    [
        ("/wait/ada", 401, "problem", "unauthorized"),
        ("/wait/ada?token=x", 401, "problem", "unauthorized"),
        ("/wait/a%20a", 422, "problem", "bad_input"),
        ("/wait/eve", 403, "problem", "forbidden"),
        ("/wait/ada?pool=none", 404, "problem", "pool_unknown"),
    ],
)
async def test_refusals_are_pages_in_the_readers_language(
    ada: Browser, language: str, path: str, status: int, section: str, key: str
) -> None:
    if status in (403, 404):
        await ada.open()
    page = await ada.get(path, **{"Accept-Language": f"{language};q=0.9, ja"})
    assert (page.status, page.kind) == (status, "text/html")
    assert f'<html lang="{language}">' in page.text
    assert _escaped(words(language)[section][key]) in page.text


async def test_who_has_no_ticket_may_join(service: Service, ada: Browser) -> None:
    await service.store.leave("default", "ada")
    service.clock.advance_ms(400_000)
    page = await ada.open()
    assert (page.status, status_in(page)) == (404, "unknown")
    assert status_in(await ada.press(page, "join")) == "draft"


async def test_too_early_too_late_and_no_place(service: Service, ada: Browser) -> None:
    await ada.open()
    assert (await ada.post(f"{WAIT}/confirm")).status == 409
    await service.store.leave("default", "ada")
    assert (await ada.post(f"{WAIT}/confirm")).status == 404
    await service.store.configure("default", {"paused": True})
    full = await ada.post(f"{WAIT}/join")
    assert (full.status, status_in(full), full.headers["Retry-After"]) == (503, "problem", "30")


async def test_the_language_asked_for_stays(ada: Browser) -> None:
    await ada.open()
    page = await ada.get(f"{WAIT}?lang=de", **{"Accept-Language": "fr"})
    assert '<html lang="de">' in page.text
    assert re.search(r'action="/wait/ada/leave\?ticket=\w+&amp;lang=de"', page.text)
    assert '<a href="/wait/ada?lang=es" lang="es" hreflang="es">Español</a>' in page.text


@pytest.mark.parametrize(
    ("name", "kind"), [("page.css", "text/css"), ("wait.js", "text/javascript")]
)
async def test_assets_are_ours_and_kept_by_browsers(service: Service, name: str, kind: str) -> None:
    reply = await caller_of(service).with_key(None)("GET", f"/assets/{name}")
    assert (reply.status, reply.kind) == (200, kind)
    assert "immutable" in reply.headers["Cache-Control"]
    assert "http://" not in reply.text.replace("http://www.w3.org", "")
    assert (await caller_of(service)("GET", "/assets/other.js")).status == 404


# --- words --------------------------------------------------------------------------------


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("'", "&#39;")


def _shape(value: object) -> object:
    """Keys and placeholders, all the way down."""
    if isinstance(value, dict):
        return {key: _shape(inner) for key, inner in value.items()}
    return sorted(re.findall(r"{\w+}", str(value)))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_same_words(language: str) -> None:
    assert _shape(words(language).all) == _shape(words(DEFAULT).all)


@pytest.mark.parametrize(
    ("asked", "header", "language"),
    [
        (None, "", "en"), (None, "de", "de"), (None, "de-CH, fr;q=0.9", "de"),
        (None, "ja, it;q=0.3, fr;q=0.5", "fr"), (None, "fr;q=0", "en"), (None, "*", "en"),
        (None, "ES-419", "es"), (None, "fr;q=x,;;,,", "en"), ("it", "de", "it"), ("xx", "de", "de"),
    ],
)  # fmt: skip
def test_the_language_a_reader_gets(asked: str | None, header: str, language: str) -> None:
    assert choose(asked, header) == language


@pytest.mark.parametrize(
    ("language", "seconds", "said"),
    [
        ("en", 59, "less than a minute"), ("en", 60, "about 1 minute"),
        ("en", 240, "about 4 minutes"), ("en", 5399, "about 90 minutes"),
        ("en", 5400, "about 2 hours"), ("fr", 89, "environ 1 minute"),
        ("fr", 90, "environ 2 minutes"), ("it", 60, "circa 1 minuto"),
        ("de", 150, "etwa 3 Minuten"), ("es", 7200, "unas 2 horas"),
    ],
)  # fmt: skip
def test_a_time_to_come(language: str, seconds: int, said: str) -> None:
    assert words(language).about(seconds) == said


@pytest.mark.parametrize(
    ("language", "n", "said"),
    [
        ("en", 0, "0 people are waiting"), ("fr", 0, "0 personne attend"),
        ("en", 1, "1 person is waiting"), ("fr", 1, "1 personne attend"),
        ("fr", 2, "2 personnes attendent"), ("de", 1234, "1234 Personen warten"),
        ("de", 12345, "12.345 Personen warten"), ("en", 12345, "12,345 people are waiting"),
        ("fr", 12345, "12\u202f345 personnes attendent"),
    ],
)  # fmt: skip
def test_plurals_and_numbers(language: str, n: int, said: str) -> None:
    said_words = words(language)
    assert said_words.counted(said_words["waiting"]["people"], n) == said


def ticket(**changes: object) -> Ticket:
    given: dict[str, object] = {
        "now_ms": 0, "ticket_id": "t", "user_id": "ada", "pool": "default",
        "status": Status.WAITING, "queue_length": 9, "joined_ms": 0, "session_ms": 0,
        "position": 5, **changes,
    }  # fmt: skip
    return Ticket(**given)  # type: ignore[arg-type]


READER = Reader("ada", "default", "en", chosen=False)


@pytest.mark.parametrize(
    ("changes", "shown", "hidden"),
    [
        ({}, "not known yet", "rarely"),
        ({"wait_ms": 240_000.0, "wait_high_ms": 540_000.0}, "rarely more than 9 minutes", "yet"),
        ({"wait_ms": 10_000.0, "wait_high_ms": 20_000.0}, "less than a minute", "rarely"),
        ({"wait_ms": 240_000.0, "wait_high_ms": 250_000.0}, "about 4 minutes", "rarely"),
        ({"may_be_passed": True}, "People with priority may pass you.", "!"),
        ({"may_be_passed": False}, "9 people are waiting", "priority"),
        ({"position": None}, "–", "None"),
    ],
)
def test_what_a_waiting_ticket_says(changes: dict[str, object], shown: str, hidden: str) -> None:
    body = ticket_page(READER, ticket(**changes), 60).split("<main")[1].split("data-words")[1]
    body = body.split(">", 1)[1]
    assert shown in body
    assert hidden not in body


@pytest.mark.parametrize(
    "reason",
    ["left", "session_timeout", "draft_timeout", "queue_timeout", "abandoned", "idle", "removed",
     "pool_closed"],
)  # fmt: skip
def test_every_end_has_its_words(reason: str) -> None:
    text = ticket_page(READER, ticket(status=Status.DISCONNECTED, reason=reason), 60)
    assert words("en")["disconnected"][reason] in text


def test_a_hostile_user_id_is_only_text() -> None:
    page = ticket_page(Reader('"><script>', "default", "en", chosen=False), ticket(), 60)
    assert "<script>" not in page


@pytest.mark.parametrize(
    ("changes", "grace_s", "seconds"),
    [
        ({"position": 1}, 60, 5), ({"position": 4}, 60, 10), ({"position": 500}, 60, 20),
        ({"position": 500}, 6, 2), ({"status": Status.DRAFT}, 60, 10),
        ({"status": Status.DISCONNECTED}, 60, None),
    ],
)  # fmt: skip
def test_a_page_without_scripts_looks_again_in_time(
    changes: dict[str, object], grace_s: int, seconds: int | None
) -> None:
    assert refresh_s(ticket(**changes), grace_s) == seconds


async def test_a_class_of_other_pools_is_no_hindrance(service: Service, ada: Browser) -> None:
    admin = caller_of(service, service.admin_key)
    await admin("PUT", "/admin/priorities/ada", {"priority": "vip"})
    await service.store.leave("default", "ada")
    page = await ada.press(await ada.open(), "join")
    assert status_in(page) == "waiting"
