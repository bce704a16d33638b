"""What else in an Open WebUI can be in the Function's way; one sentence for each.

Knows Open WebUI's other parts; changes nothing.
"""

import re
from collections.abc import Iterator

from infra.errors import CommandError
from infra.owui.function import AUTHOR, Installed
from infra.owui.webui import TRIED, OpenWebUI, content

NEEDED = (0, 12, 4)
"""The first version that is known to do: the one it was tried on."""


def check_functions(webui: OpenWebUI) -> None:
    """Raises CommandError when this Open WebUI runs no Functions at all."""
    if webui.features.get("enable_functions") is False:
        raise CommandError(
            "this Open WebUI runs no Functions: ENABLE_FUNCTIONS or ENABLE_PLUGINS is false in its"
            " environment. Take that out and restart it"
        )


def warnings(webui: OpenWebUI, installed: Installed, admission: str) -> Iterator[str]:
    """What an administrator should know."""
    is_ = _numbers(webui.version)
    if is_ < NEEDED:  # 0.9 sends {{TASK}} as it is written: each chat would be a background task
        yield (
            f"this Open WebUI is {webui.version}, and the Function needs 0.12.4 or newer: chats may"
            " be refused, or not wait. Update Open WebUI first"
        )
    elif is_[:2] > TRIED:
        yield (
            f"this Open WebUI is {webui.version}; the Function was tried on 0.12.4. Send a chat"
            " while no slot is free and see that it waits"
        )
    if installed.exists and not installed.stands("active"):
        yield (
            "the Function stood switched off: by an administrator, by SAFE_MODE=true, or because"
            " Open WebUI could not load it (its log says). With SAFE_MODE it is off again after"
            " the next start"
        )
    yield from _copies(webui, installed.function_id, admission)
    yield from _pipelines(webui)


def _numbers(version: str) -> tuple[int, ...]:
    """Its first three, or as many as there are: (0, 13) of "0.13.dev2", none of "main"."""
    found = re.search(r"\d+(\.\d+){0,2}", version)
    return tuple(int(number) for number in found[0].split(".")) if found else ()


def _copies(webui: OpenWebUI, function_id: str, admission: str) -> Iterator[str]:
    reply = webui.call("GET", "/api/v1/functions/")
    for one in reply.json() if reply.status_code == 200 else ():
        manifest = (one.get("meta") or {}).get("manifest") or {}
        other = one["id"] != function_id and manifest.get("author") == AUTHOR
        if not (other and one.get("is_active")):
            continue
        valves = webui.read(f"/api/v1/functions/id/{one['id']}/valves")
        if valves.get("admission_url") == admission:
            yield (
                f"the function {one['id']} is Vestibule too, for the same admission: a chat would"
                f" wait twice. Remove it: vestibule owui uninstall --function-id {one['id']}"
                " --function-only"
            )


def _pipelines(webui: OpenWebUI) -> Iterator[str]:
    reply = webui.call("GET", "/api/v1/pipelines/list")
    servers = content(reply).get("data") or [] if reply.status_code == 200 else []
    for server in servers:
        reply = webui.call("GET", f"/api/v1/pipelines/?urlIdx={server['idx']}")
        filters = content(reply).get("data") or [] if reply.status_code == 200 else []
        for one in filters:
            if "vestibule" in f"{one.get('id')} {one.get('name')}".lower():
                yield (
                    f"the Pipelines server {server['url']} runs Vestibule too"
                    f" ({one.get('name') or one['id']}): a chat would wait twice. Use one of the"
                    " two; the Function can do more"
                )
