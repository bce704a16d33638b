"""What Open WebUI's own server gets from Vestibule. That counts: it may see another network than
this machine.

Knows a connection and how it answers; not what is installed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests

from infra.owui.connections import MARK, WAIT, Connection, base
from infra.owui.webui import Json, OpenWebUI, Unanswered, content, detail

IDENTITY_WITHIN_S = 3.0  # one who is not known is refused at once
HERE_WITHIN_S = 5.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Trial:
    """How something answered; ``problem`` says what to do when it did not as it should."""

    models: tuple[str, ...] | None = None
    problem: str | None = None


def models_of(webui: OpenWebUI, one: Connection) -> Trial:
    """Which models Open WebUI's server is offered there, as it names them."""
    reply = webui.try_connection(one.url, one.key, one.config)
    if reply.status_code == 200:
        models = content(reply).get("data")
        listed = _named(models)
        if not isinstance(models, list) or len(listed) < len(models):
            return Trial(None, f"what answers at {one.url} is not Vestibule: check --gateway-url")
        prefix = f"{one.config['prefix_id']}." if one.config.get("prefix_id") else ""
        names = one.config.get("model_ids") or [model["id"] for model in listed]
        offered = tuple(f"{prefix}{name}" for name in names)
        return Trial(offered, None if offered else f"{one.url} offers no models yet: is a model"
                     " server of Vestibule's ready?")  # fmt: skip
    if reply.status_code in (401, 403):
        return Trial(None, f"{one.url} does not accept the key ({detail(reply)}): --service-key"
                     " takes the service_key of Vestibule's keys.json")  # fmt: skip
    return Trial(None, unreachable(one.url))


def sources(webui: OpenWebUI) -> dict[str, Json]:
    """Each model by the name under which Open WebUI offers it, with what answers it there: of the
    same name the first OpenAI connection does (``routers/openai.py``, as ``urlIdx``), unless an
    Ollama one does (``main.py``, ``get_models``: the last of the list)."""
    reply = webui.call("GET", "/api/models/base")
    listed = _named(content(reply).get("data")) if reply.status_code == 200 else []
    return {model["id"]: model for model in listed}


def _named(models: object) -> list[Json]:
    """The models of a list that have a name. Anybody may have answered, and Open WebUI hands such
    lists on as they are."""
    listed = models if isinstance(models, list) else []
    return [one for one in listed if isinstance(one, dict) and isinstance(one.get("id"), str)]


def diverted(
    known: Mapping[str, Json], place: int, all_: Sequence[Connection], offered: Sequence[str]
) -> str | None:
    """Which models of the connection at ``place`` Open WebUI takes from somewhere else: from a
    connection that is not ours, where nobody is asked for a turn. ``place`` may be yet to come."""
    elsewhere: dict[str, list[str]] = {}
    for name in offered:
        source = known.get(name, {})
        other = source.get("urlIdx")
        if source.get("owned_by") == "ollama":
            elsewhere.setdefault("an Ollama connection", []).append(name)
        elif other is not None and other < place and not all_[other].ours:
            elsewhere.setdefault(all_[other].url, []).append(name)
    if not elsewhere:
        return None
    told = "; ".join(f"{_some(names)} from {where}" for where, names in elsewhere.items())
    return (
        f"Open WebUI takes {told}, not from {all_[place].url}: such chats go past the queue. Switch"
        " that connection off (Admin Panel, Settings, Connections), or tell the two apart with"
        " --prefix-id"
    )


def _some(names: list[str]) -> str:
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")


def identity_of(webui: OpenWebUI, known: Mapping[str, Json], index: int, url: str) -> Trial:
    """Whether the gateway knows who chats: asks for one token in the administrator's name, past
    the Function. As a background task this joins no queue; it is dropped, or runs beside a turn
    that the administrator has."""
    mine = [name for name, model in known.items() if model.get("urlIdx") == index]
    if not mine:
        return Trial()
    body = {
        "model": mine[0],
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 1,
        "metadata": {"task": "identity_check"},  # fills in {{TASK}} (`utils/headers.py`)
    }
    try:
        reply = webui.call("POST", "/openai/chat/completions", body, IDENTITY_WITHIN_S)
    except Unanswered:  # a task waits a little for its user's turn, so the user is known
        return Trial()
    if reply.status_code == 400 and WAIT in detail(reply):
        return Trial(None, f"{url} refuses each chat: {detail(reply)}. Lower that header in Open"
                     " WebUI's connection, or raise VESTIBULE_WAIT_LIMIT")  # fmt: skip
    if reply.status_code in (400, 401, 403):
        return Trial(None, f"{url} does not know who chats: {detail(reply)}")
    if reply.status_code not in (200, 429):
        return Trial(None, f"a chat fails at {url}: {detail(reply)}")
    return Trial()


def admission(webui: OpenWebUI, url: str, key: str) -> Trial:
    """Whether the Function, which runs in Open WebUI's server, gets on with admission.

    What Open WebUI can be asked to fetch ends in ``/models``; in the query that is ignored.
    """
    reply = webui.try_connection(f"{url}/queue/metrics?asked_by=", key, {"auth_type": "bearer"})
    if reply.status_code == 200 and "capacity" in content(reply):
        return Trial()
    if reply.status_code in (401, 403):
        return Trial(None, f"admission at {url} does not accept the service_key of the valves"
                     f" ({detail(reply)}): install again with the right --service-key")  # fmt: skip
    if reply.status_code == 200:
        return Trial(None, f"what answers at {url} is not Vestibule: check --admission-url")
    return Trial(None, unreachable(url))


def from_here(url: str) -> str:
    """What ``/readyz`` of admission says to this machine."""
    try:
        reply = requests.get(f"{url}/readyz", timeout=HERE_WITHIN_S)
        ready = reply.json()["workers"]["ready"]
    except (requests.RequestException, ValueError, LookupError, TypeError):
        return "not reachable from here, which matters only if Open WebUI runs here"
    return f"ready, {ready} model server{'' if ready == 1 else 's'} behind it"


def unreachable(url: str) -> str:
    """What to do when Open WebUI's server does not get there."""
    url = base(url)
    parts = urlsplit(url)
    hint = "is Vestibule running, and does a firewall stand between them?"
    if parts.scheme == "https":
        hint += " Does that server trust the certificate (SSL_CERT_FILE in its environment)?"
    if parts.hostname in LOOPBACK:
        hint = (
            "is Vestibule running? Inside Docker that address is the container itself: start"
            " Vestibule with VESTIBULE_HOST=0.0.0.0 and install with --admission-url"
            f" http://host.docker.internal:{parts.port or 80}"
        )
    return f"Open WebUI's server gets nothing from {url}: {hint}"


def header_problem(one: Connection, wanted: dict[str, str]) -> str | None:
    """Which of our headers a connection lacks."""
    # How long a chat waits is for an administrator to choose.
    wanted = wanted | {WAIT: one.headers.get(WAIT, wanted[WAIT])}
    lacking = [name for name, value in wanted.items() if one.headers.get(name) != value]
    if not lacking or MARK not in one.headers:
        return None
    return f"{one.url} lacks {', '.join(lacking)}: install again"
