"""The waiting page: what it says of a ticket, in the reader's language. Knows nothing of HTTP."""

import json
import math
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from admission.domain import DEFAULT_POOL, Status, Ticket
from admission.pages.words import GROUPED_FROM, LANGUAGES, words

NEAR, CLOSE = 3, 20  # places from the front
RETRY_S = 5  # for a page that could not be made now


@cache
def asset(name: str) -> tuple[bytes, str]:
    """The content and version of one of ASSETS."""
    content = (files("admission.pages") / "assets" / name).read_bytes()
    return content, sha256(content).hexdigest()[:12]


def asset_link(name: str) -> str:
    """Its address, which changes with its content, so that browsers may keep it for good."""
    return f"/assets/{name}?v={asset(name)[1]}"


templates = Environment(
    loader=PackageLoader("admission.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.globals["asset"] = asset_link


@dataclass(frozen=True)
class Reader:
    """Whose page it is, and how they read it. ``lang`` is kept in links only when it was ``chosen``
    by hand."""

    user: str
    pool: str
    language: str
    chosen: bool

    def link(self, action: str = "", language: str | None = None, **query: str) -> str:
        """The address of this page, or of one of its actions."""
        if self.pool != DEFAULT_POOL:
            query["pool"] = self.pool
        if language or self.chosen:
            query["lang"] = language or self.language
        tail = f"?{urlencode(query)}" if query else ""
        return f"/wait/{quote(self.user, safe='')}{action}{tail}"


def refresh_s(ticket: Ticket, grace_s: int) -> int | None:
    """How soon a page without scripts loads again: sooner near the front, always well within the
    grace after which an absent waiter is skipped; None when nothing will change."""
    match ticket.status:
        case Status.WAITING:
            place = ticket.position or 1
            wanted = 5 if place <= NEAR else 10 if place <= CLOSE else 20
        case Status.DRAFT:
            wanted = 10
        case Status.ACTIVE:
            wanted = 30
        case _:
            return None
    return max(1, min(wanted, grace_s // 3))


def ticket_page(reader: Reader, ticket: Ticket, grace_s: int) -> str:
    """The page of a ticket in any state."""
    said = words(reader.language)
    status = ticket.status.value
    again, text = "", ""
    if ticket.status is Status.DISCONNECTED:
        text = said["disconnected"].get(ticket.reason, said["disconnected"]["left"])
        again = said["disconnected"]["again"]
    return _rendered(
        "wait.html",
        reader,
        status=status,
        ticket_id=ticket.ticket_id,
        w=said[status],
        title=_title(reader, ticket),
        text=text,
        again=again,
        refresh=refresh_s(ticket, grace_s),
        link=lambda action: reader.link(action, ticket=ticket.ticket_id),
        events="" if ticket.status is Status.DISCONNECTED else _events(reader),
        script_words=_script_words(reader.language),
        **_waiting(reader, ticket),
        **_left(ticket),
    )


def unknown_page(reader: Reader) -> str:
    """The page of somebody without a ticket."""
    said = words(reader.language)
    section = said["unknown"]
    return _rendered(
        "wait.html",
        reader,
        status="unknown",
        ticket_id="",
        w=section,
        title=said["title"],
        text=section["text"],
        again=section["join"],
        refresh=None,
        link=reader.link,
        events="",
        script_words="{}",
    )


def problem_page(reader: Reader, code: str, *, back: bool, retry: bool) -> str:
    """A page that says what went wrong. ``code`` of an AdmissionError; ``retry``: load it again."""
    said = words(reader.language)["problem"]
    return _rendered(
        "problem.html",
        reader,
        title=said["heading"],
        heading=said["heading"],
        text=said.get(code, said["other"]),
        back=reader.link() if back else "",
        back_label=said["back"],
        refresh=RETRY_S if retry else None,
    )


def moment_page(reader: Reader) -> str:
    """A page that loads itself again at once, from our own site."""
    moment = words(reader.language)["problem"]["moment"]
    return _rendered(
        "problem.html",
        reader,
        title=moment,
        heading=moment,
        text="",
        back="",
        back_label="",
        refresh="0",
    )


def _rendered(template: str, reader: Reader, **given: Any) -> str:
    languages = [(code, words(code)["language"], reader.link(language=code)) for code in LANGUAGES]
    return templates.get_template(template).render(
        lang=reader.language,
        languages=languages,
        languages_label=words(reader.language)["languages"],
        **given,
    )


def _title(reader: Reader, ticket: Ticket) -> str:
    said = words(reader.language)
    if ticket.status is Status.WAITING and ticket.position is not None:
        return str(said["waiting"]["tab"]).format(n=said.number(ticket.position))
    return str(said[ticket.status.value]["heading"])


def _waiting(reader: Reader, ticket: Ticket) -> dict[str, Any]:
    said = words(reader.language)
    wait = None if ticket.wait_ms is None else _seconds(ticket.wait_ms)
    high = None if ticket.wait_high_ms is None else _seconds(ticket.wait_high_ms)
    return {
        "position": "–" if ticket.position is None else said.number(ticket.position),
        "people": said.counted(said["waiting"]["people"], ticket.queue_length),
        "wait": said["time"]["unknown"] if wait is None else said.about(wait),
        "high": "" if wait is None or high is None else said.at_most(high, wait),
        "may_be_passed": ticket.may_be_passed,
    }


def _left(ticket: Ticket) -> dict[str, Any]:
    left = max(0, _seconds((ticket.expires_ms or ticket.now_ms) - ticket.now_ms))
    return {"left": left, "left_text": f"{left // 60}:{left % 60:02}"}


def _events(reader: Reader) -> str:
    return f"/queue/events/{quote(reader.user, safe='')}?{urlencode({'pool': reader.pool})}"


@cache
def _script_words(language: str) -> str:
    """What the script needs to say the same as the server."""
    said = words(language)
    names = ("people", "tab", "ordinal", "place", "place_time")
    given = {name: said["waiting"][name] for name in names}
    return json.dumps({"time": said["time"], "grouped_from": GROUPED_FROM, **given})


def _seconds(ms: float) -> int:
    return math.ceil(ms / 1000)
