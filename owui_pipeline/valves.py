"""What an administrator may set in both variants, the Function and the Pipelines filter."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator

from owui_pipeline.words import own_texts

Language = Literal["auto", "en", "fr", "it", "de", "es"]
ADDRESS = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")
RULE = re.compile(r"\s*(role|group):([^=]+?)\s*=\s*([a-z0-9-]{1,32})\s*")


class SharedValves(BaseModel):
    """The defaults refuse rather than overload."""

    admission_url: str = Field(
        default="http://127.0.0.1:8600",
        description="Vestibule's address as this server reaches it: http://127.0.0.1:8600, from"
        " inside Docker often http://host.docker.internal:8600.",
    )
    service_key: str = Field(
        default="",
        description="The service_key in keys.json, in Vestibule's state folder.",
        json_schema_extra={"input": {"type": "password"}},
    )
    priority: int = Field(
        default=100,
        description="Its place among the filters: lower ones run first. Keep it high, so that those"
        " that may refuse a chat come before the wait.",
    )
    language: Language = Field(
        default="auto",
        description="The language people read. auto: that of their page or browser.",
    )
    priorities: str = Field(
        default="",
        description="Who goes ahead in line, by role or group; the first that fits counts:"
        " role:admin=staff, group:Teachers=staff. The classes (staff) are those of"
        " VESTIBULE_PRIORITIES.",
    )
    show_waited: bool = Field(
        default=True, description="Leave 'Your turn. Waited 42 s.' above answers that had to wait."
    )
    show_time_left: bool = Field(
        default=True,
        description="Tell users when their session is about to end, and when it is over:"
        " with VESTIBULE_REQUEUE also their new place in line and its turn.",
    )
    api_max_wait_s: int = Field(
        default=50,
        ge=1,
        description="How long an API call may wait, in seconds (1 or more). It hears nothing"
        " meanwhile: stay under the time limit of the proxies on its way (often 60).",
    )
    when_admission_is_away: Literal["refuse", "pass"] = Field(
        default="refuse",
        description="When Vestibule does not answer: refuse chats, or let them pass without a"
        " turn.",
    )
    away_grace_s: int = Field(
        default=20,
        ge=0,
        description="How long to keep trying before a chat is refused or passes, in seconds (0 or"
        " more).",
    )
    texts: str = Field(
        default="",
        description="Your own words as JSON, for all languages or for one:"
        ' {"paused": "Closed until Monday."} or {"fr": {"paused": "Fermé."}}.'
        " `vestibule owui file --for texts` prints all of them.",
    )

    @field_validator("admission_url")
    @classmethod
    def _can_be_called(cls, text: str) -> str:
        return address(text)

    @field_validator("service_key")
    @classmethod
    def _as_it_was_made(cls, text: str) -> str:
        return text.strip()  # what is pasted has a line's end

    @field_validator("priorities")
    @classmethod
    def _rules_can_be_read(cls, text: str) -> str:
        priority_rules(text)
        return text

    @field_validator("texts")
    @classmethod
    def _texts_can_be_read(cls, text: str) -> str:
        own_texts(text)
        return text


def address(text: str) -> str:
    """Vestibule's address, also where it is written as a connection's, with ``/v1``.

    Raises:
        ValueError: it is none.
    """
    found = text.strip().rstrip("/").removesuffix("/v1")
    if not ADDRESS.fullmatch(found):
        raise ValueError(f"admission_url: {text!r} is not an address like http://127.0.0.1:8600")
    return found


def priority_rules(text: str) -> list[tuple[str, str, str]]:
    """The valve `priorities` as (role or group, its name, class).

    Raises:
        ValueError: names the part that cannot be read.
    """
    rules = []
    for part in filter(str.strip, re.split(r"[,\n]", text)):
        found = RULE.fullmatch(part)
        if not found:
            raise ValueError(
                f"priorities: {part.strip()!r} is not role:NAME=CLASS or group:NAME=CLASS"
            )
        rules.append((found[1], found[2].strip(), found[3]))
    return rules


async def priority_of(
    user: dict[str, Any], text: str, groups_of: Callable[[str], Awaitable[list[str]]]
) -> str | None:
    """The class of the first rule of the valve `priorities` that fits this user."""
    rules = priority_rules(text)
    needs_groups = any(kind == "group" for kind, _, _ in rules)
    groups = await groups_of(str(user.get("id"))) if needs_groups else []
    for kind, name, priority in rules:
        if name == user.get("role") if kind == "role" else name in groups:
            return priority
    return None
