"""What to set in Open WebUI's environment: the little that its admin API cannot do.

Knows names of Open WebUI 0.12.4 (``env.py``, ``config.py``) and three ways to write them down.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from infra import environment

FORMS = {
    "docker": ("  -e {name}={value} \\", '"${name}"'),
    "compose": ("      {name}: {value}", '"${{{name}}}"'),
    "pip": ("export {name}={value}", '"${name}"'),
}
"""Where it is written -> a line of it, and how it reads a variable: `docker run`, `environment:` of
a compose file, a shell."""


@dataclass(frozen=True)
class Variable:
    """One of them; ``value`` is a text, or ``$`` and the variable of the shell that has it."""

    name: str
    value: str
    why: str


JWT = (
    Variable("ENABLE_FORWARD_USER_INFO_HEADERS", "true", "Open WebUI says who chats"),
    Variable(
        "FORWARD_USER_INFO_HEADER_JWT_SECRET",
        "$VESTIBULE_OWUI_JWT_SECRET",
        "the very text that Vestibule has in VESTIBULE_OWUI_JWT_SECRET; 32 characters or more",
    ),
)
REPLICAS = (
    Variable("WEBUI_SECRET_KEY", "$WEBUI_SECRET_KEY", "the same text for every replica"),
    Variable("DATABASE_URL", "$DATABASE_URL", "one PostgreSQL for all of them"),
    Variable("REDIS_URL", "$REDIS_URL", "Stop reaches the replica that waits"),
    Variable("WEBSOCKET_MANAGER", "redis", "the place in line reaches every browser, by REDIS_URL"),
)
API_KEYS = (Variable("ENABLE_API_KEYS", "true", "for vestibule owui … --api-key"),)
LEFT_ALONE = (
    "# Leave out SAFE_MODE=true, ENABLE_FUNCTIONS=false and ENABLE_PLUGINS=false: they switch the",
    "# Function off. AIOHTTP_CLIENT_TIMEOUT, if you set it, must outlast your longest answer.",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule owui env``."""
    parser.add_argument("--for", dest="form", choices=list(FORMS), default="docker")
    parser.add_argument("--jwt", action=argparse.BooleanOptionalAction, help="users named by JWT")
    parser.add_argument("--replicas", action="store_true", help="several Open WebUI, one address")
    parser.add_argument("--api-keys", action="store_true", help="install with an API key")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print them: 0."""
    jwt = args.jwt
    if jwt is None:
        jwt = environment.settings().owui_jwt_secret is not None
    chosen = (
        *(JWT if jwt else ()),
        *(REPLICAS if args.replicas else ()),
        *(API_KEYS if args.api_keys else ()),
    )
    if not chosen:
        print("# Open WebUI needs no variable for this. See also --jwt, --replicas, --api-keys.")
    for line in (*LEFT_ALONE, *lines(chosen, args.form)):  # the last ones are to be copied
        print(line)
    return 0


def lines(chosen: Sequence[Variable], form: str) -> Iterator[str]:
    """What each is for, and then all of them ready to be copied."""
    yield from (f"# {one.name}: {one.why}" for one in chosen)
    line, reference = FORMS[form]
    for one in chosen:
        quoted = f'"{one.value}"' if form == "compose" else one.value
        known = one.value.startswith("$")
        value = reference.format(name=one.value[1:]) if known else quoted
        yield line.format(name=one.name, value=value)
