"""The filter Function: its source, and what of it stands in Open WebUI (``routers/functions.py``).

Knows what is read and written there; not in which order an install does so.
"""

import difflib
import hashlib
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from infra.errors import CommandError
from infra.owui.change import Facts
from infra.owui.webui import OpenWebUI, answer, detail
from owui_pipeline import assemble

AUTHOR = "Vestibule"
DESCRIPTION = "Shows each chat its place in line and lets it through when its turn comes."
SWITCHES = {"active": ("is_active", "toggle"), "global": ("is_global", "toggle/global")}
"""Name -> the field that says how it stands, and the call that flips it."""
FLIPS = 3

Json = dict[str, Any]


def source() -> str:
    """The text that is installed."""
    return assemble.function()


def version(text: str) -> str:
    """Of the frontmatter, as Open WebUI reads it (``utils/plugin.py``)."""
    found = re.search(r"^version:\s*(\S+)", text, re.MULTILINE)
    return found[1] if found else "unknown"


def valves_of(text: str, kind: str = "Valves") -> type[BaseModel]:
    """The class of its valves, or of its ``UserValves``, found as Open WebUI finds it: by running
    the text."""
    module = types.ModuleType("vestibule_function")
    sys.modules[module.__name__] = module  # pydantic looks names up there
    try:
        exec(compile(text, "<the Function>", "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    found: type[BaseModel] = getattr(module.__dict__["Filter"], kind)
    return found


@dataclass(frozen=True)
class Installed:
    """What of the Function stands there; ``found`` is empty where nothing does."""

    function_id: str
    found: Json
    valves: Json

    @classmethod
    def read(cls, webui: OpenWebUI, function_id: str) -> "Installed":
        """Raises CommandError when it cannot be read or is somebody else's."""
        # Open WebUI answers 401, not 404, when there is none; that we are an admin is known by now.
        reply = webui.call("GET", f"/api/v1/functions/id/{function_id}")
        if reply.status_code == 401:
            return cls(function_id, {}, {})
        found = answer(reply, f"the function {function_id} cannot be read")
        manifest = (found.get("meta") or {}).get("manifest") or {}
        if found and manifest.get("author") != AUTHOR:
            raise CommandError(
                f"the id {function_id} belongs to another function there; choose --function-id"
            )
        return cls(function_id, found, webui.read(f"/api/v1/functions/id/{function_id}/valves"))

    @property
    def exists(self) -> bool:
        """Whether it is there at all."""
        return bool(self.found)

    @property
    def text(self) -> str:
        """Its source; empty where there is none."""
        return str(self.found.get("content") or "")

    def stands(self, switch: str) -> bool:
        """How "active" or "global" stands."""
        return bool(self.found.get(SWITCHES[switch][0]))

    def facts(self) -> Facts | None:
        """As a person reads it; None where there is none."""
        if not self.exists:
            return None
        return text_facts(self.text) | {name: self.stands(name) for name in SWITCHES}

    def write_text(self, webui: OpenWebUI, text: str) -> None:
        """Create it, switched off, or bring it to this text."""
        item, path = f"the function {self.function_id}", f"/api/v1/functions/id/{self.function_id}"
        if not self.exists:
            webui.write("/api/v1/functions/create", self._form(text), f"{item} is refused")
        elif text != self.text:
            webui.write(f"{path}/update", self._form(text), f"{item} is refused")

    def switch_on(self, webui: OpenWebUI) -> None:
        """For every model. Open WebUI flips switches: somebody who flips it in the same moment has
        it off again, so the answer counts.

        Raises:
            CommandError: refused, or off again after each of ``FLIPS``.
        """
        item, path = f"the function {self.function_id}", f"/api/v1/functions/id/{self.function_id}"
        for switch, (field, call) in SWITCHES.items():
            failure = f"{item} cannot be switched to {switch}"
            on, flips = self.stands(switch), 0
            while not on and flips < FLIPS:
                on = bool(webui.write(f"{path}/{call}", None, failure).get(field))
                flips += 1
            if not on:
                raise CommandError(f"{failure}: somebody switches it off again. Install again")

    def write_valves(self, webui: OpenWebUI, valves: Json) -> None:
        """All at once: what is not among them falls back to its default."""
        path = f"/api/v1/functions/id/{self.function_id}/valves/update"
        webui.write(path, valves, "the valves are refused")

    def delete(self, webui: OpenWebUI) -> None:
        """With its valves and its history."""
        path = f"/api/v1/functions/id/{self.function_id}/delete"
        reply = webui.call("DELETE", path)
        if reply.status_code != 200 or reply.json() is not True:
            raise CommandError(f"the function {self.function_id} stays: {detail(reply)}")

    def _form(self, text: str) -> Json:
        """As Open WebUI wants it; a name or description changed there stays."""
        return {
            "id": self.function_id,
            "name": self.found.get("name") or "Vestibule",
            "content": text,
            "meta": self.found.get("meta") or {"description": DESCRIPTION},
        }


def wanted() -> Facts:
    """What a Function that is as it should be looks like."""
    return text_facts(source()) | dict.fromkeys(SWITCHES, True)


def text_facts(text: str) -> dict[str, object]:
    """The version, and what tells two texts of one version apart."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {"version": version(text), "source": f"sha256 {digest[:12]}"}


def text_notes(old: str, new: str, verbose: bool) -> Iterator[str]:
    """How much of the source differs, or all of it."""
    if old == new:
        return
    diff = list(difflib.unified_diff(old.splitlines(), new.splitlines(), "old", "new", lineterm=""))
    added = sum(line.startswith("+") for line in diff[2:])
    removed = sum(line.startswith("-") for line in diff[2:])
    show = "" if verbose else " (--verbose shows them)"
    yield f"  source: {added} lines added, {removed} removed{show}"
    if verbose:
        yield from (f"    {line}" for line in diff)
