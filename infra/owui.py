"""``vestibule owui``: puts the filter Function and the gateway connection into an Open WebUI.

Knows Open WebUI's admin API (0.12.4: ``routers/functions.py``, ``routers/openai.py``); not what the
Function does.

What an administrator changed there stays: valves and connection settings are read, completed and
written back, and running it again changes nothing.
"""

import argparse
import getpass
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import requests

from admission.settings import Settings
from infra import environment
from infra.addresses import callable_url
from infra.errors import CommandError
from infra.state import kept_key

TIMEOUT_S = 30.0
PASSWORD_VARIABLE = "OWUI_PASSWORD"
API_KEY_VARIABLE = "OWUI_API_KEY"

MARK = "X-Vestibule-Message"
IDENTITY_HEADERS = {
    "X-OpenWebUI-User-Id": "{{USER_ID}}",
    MARK: "{{MESSAGE_ID}}",
    "X-Vestibule-Task": "{{TASK}}",
}
"""Sent with each request of our connection; Open WebUI fills them in (``utils/headers.py``)."""

Json = dict[str, Any]


def configure(owui: argparse.ArgumentParser) -> None:
    """The words of ``vestibule owui``."""
    actions = owui.add_subparsers(title="actions", metavar="ACTION", required=True)
    parser = actions.add_parser(
        "install",
        help="add or update the filter Function and the gateway connection",
        description="Add or update the filter Function, its valves and the connection to the"
        " gateway, over Open WebUI's admin API. May be run again at any time.",
    )
    parser.add_argument("--url", required=True, help="where Open WebUI is, http://host:port")
    parser.add_argument("--email", help="an administrator of Open WebUI")
    parser.add_argument(
        "--password", help=f"better: the variable {PASSWORD_VARIABLE}, or typed when asked"
    )
    parser.add_argument(
        "--api-key", help=f"instead of email and password (also {API_KEY_VARIABLE})"
    )
    where = "as Open WebUI's server reaches it (http://127.0.0.1:8600)"
    parser.add_argument("--admission-url", help=f"Vestibule, {where}")
    parser.add_argument("--gateway-url", help="the same for models, when it runs apart")
    parser.add_argument("--service-key", help="the service_key of keys.json in the state folder")
    parser.add_argument("--function-id", default="vestibule", help="its id in Open WebUI")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Install, one line for each item: 0."""
    target = Target.of(args, environment.settings())
    with OpenWebUI(address(args.url, "--url"), args.dry_run) as webui:
        sign_in(webui, args)
        for line in install(webui, target):
            print(line, flush=True)
    return 0


@dataclass(frozen=True)
class Target:
    """What to point Open WebUI at. An address is None when none was named: then the one that
    stands in Open WebUI is kept, and `here` is used where none does."""

    function_id: str
    admission: str | None
    gateway: str | None
    here: str
    key: str = field(repr=False)

    @classmethod
    def of(cls, args: argparse.Namespace, settings: Settings) -> "Target":
        """From the command line and, where that is silent, from the settings of ``up``."""
        admission = args.admission_url and address(args.admission_url, "--admission-url")
        gateway = args.gateway_url and address(args.gateway_url, "--gateway-url")
        return cls(
            function_id=args.function_id.lower(),
            admission=admission or gateway,
            gateway=gateway or admission,
            here=callable_url(settings.host, settings.port),
            key=args.service_key or service_key(settings),
        )


def address(url: str, option: str) -> str:
    """The URL without what Open WebUI or people add at its end."""
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise CommandError(f"{option}: {url!r} is not an address like http://127.0.0.1:8600")
    return url.rstrip("/").removesuffix("/v1")


def service_key(settings: Settings) -> str:
    """The key of the settings, or the one `vestibule up` keeps in its state folder."""
    key = kept_key(settings, "service_key")
    if key is None:
        raise CommandError(
            f"there is no service_key in {settings.state_dir / 'keys.json'}: start `vestibule up`"
            " once, name its folder in VESTIBULE_STATE_DIR, or give --service-key"
        )
    return key


# ---- Open WebUI -----------------------------------------------------------------------------


class OpenWebUI:
    """The admin API of one Open WebUI; in a dry run it only reads."""

    def __init__(self, url: str, dry_run: bool) -> None:
        self.url, self.dry_run = url, dry_run
        self._http = requests.Session()

    def __enter__(self) -> "OpenWebUI":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def carry(self, token: str) -> None:
        """Act as the owner of this token or API key from now on."""
        self._http.headers["Authorization"] = f"Bearer {token}"

    def call(self, method: str, path: str, body: Json | None = None) -> requests.Response:
        """One call, whatever its status."""
        try:
            return self._http.request(method, f"{self.url}{path}", json=body, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            raise CommandError(f"no Open WebUI answers at {self.url}") from error

    def read(self, path: str) -> Json:
        """The JSON object at this path; empty where Open WebUI has nothing yet."""
        return answer(self.call("GET", path), f"{self.url}{path} cannot be read")

    def write(self, path: str, body: Json | None, failure: str) -> None:
        """Change something; `failure` begins the sentence when it cannot be done."""
        if not self.dry_run:
            answer(self.call("POST", path, body), failure)

    def done(self, item: str, change: str | None) -> str:
        """The line to print for an item."""
        if change is None:
            return f"{item}: unchanged"
        return f"{item}: {'would be ' if self.dry_run else ''}{change}"


def answer(reply: requests.Response, failure: str) -> Json:
    """The JSON of a good reply; empty for null."""
    if reply.status_code != 200:
        raise CommandError(f"{failure}: {detail(reply)}")
    return content(reply)


def content(reply: requests.Response) -> Json:
    """The JSON object in a reply; empty for null."""
    try:
        facts = reply.json()
    except ValueError as error:
        site = "{0.scheme}://{0.netloc}".format(urlsplit(reply.url))
        raise CommandError(f"what answers at {site} is not an Open WebUI") from error
    return facts if isinstance(facts, dict) else {}


def detail(reply: requests.Response) -> str:
    """What Open WebUI says about an error, as one line."""
    said = content(reply).get("detail", f"status {reply.status_code}")
    return " ".join(str(said).split())[:300]


def sign_in(webui: OpenWebUI, args: argparse.Namespace) -> None:
    """Become the administrator, and make sure to be one."""
    api_key = args.api_key or os.environ.get(API_KEY_VARIABLE)
    if not api_key and not args.email:
        raise CommandError("name an administrator: --email (and a password), or --api-key")
    webui.carry(api_key or token(webui, args.email, password(args)))
    reply = webui.call("GET", "/openai/config")
    if reply.status_code in (401, 403):
        who = "the API key" if api_key else args.email
        raise CommandError(f"{who} may not change this Open WebUI: {detail(reply)}")


def password(args: argparse.Namespace) -> str:
    """From the command line, the environment, or the person at the keyboard."""
    known: str | None = args.password or os.environ.get(PASSWORD_VARIABLE)
    if known is None and not sys.stdin.isatty():
        raise CommandError(f"give the password in {PASSWORD_VARIABLE} or with --password")
    return known or getpass.getpass(f"Open WebUI password of {args.email}: ")


def token(webui: OpenWebUI, email: str, secret: str) -> str:
    """What a browser would get for this email and password."""
    reply = webui.call("POST", "/api/v1/auths/signin", {"email": email, "password": secret})
    if reply.status_code == 400:
        raise CommandError(f"Open WebUI knows no {email} with this password")
    facts = answer(reply, "Open WebUI does not let you sign in with a password")
    if not facts.get("token"):  # a second factor is asked for
        raise CommandError("Open WebUI wants more than a password here; use --api-key")
    return str(facts["token"])


# ---- the items ------------------------------------------------------------------------------


def install(webui: OpenWebUI, target: Target) -> Iterator[str]:
    """Do each item; a line for each says what became of it."""
    yield from install_function(webui, target.function_id)
    yield install_valves(webui, target)
    yield from install_connection(webui, target)


def install_function(webui: OpenWebUI, function_id: str) -> Iterator[str]:
    """Create or update the Function, and switch it on for every model."""
    source = resources.files("owui_pipeline").joinpath("vestibule_filter.py").read_text("utf-8")
    item, path = f"function {function_id}", f"/api/v1/functions/id/{function_id}"
    # Open WebUI answers 401, not 404, when there is none; that we are an admin is known by now.
    reply = webui.call("GET", path)
    found = answer(reply, f"{item} cannot be read") if reply.status_code != 401 else {}
    form = function_form(function_id, source, found)
    if not found:
        webui.write("/api/v1/functions/create", form, f"{item} is refused")
        yield webui.done(item, "created")
    else:
        changed = found["content"] != source
        if changed:
            webui.write(f"{path}/update", form, f"{item} is refused")
        yield webui.done(item, "updated" if changed else None)
    for flag, call in (("is_active", "toggle"), ("is_global", "toggle/global")):
        stands = bool(found.get(flag))
        if not stands:  # the call flips the switch
            webui.write(f"{path}/{call}", None, f"{item} cannot be switched on")
        yield webui.done(f"{item} {flag.removeprefix('is_')}", None if stands else "switched on")


def function_form(function_id: str, source: str, found: Json) -> Json:
    """The Function as Open WebUI wants it; a name or description changed there stays."""
    manifest = (found.get("meta") or {}).get("manifest") or {}
    if found and manifest.get("author") != "Vestibule":
        raise CommandError(
            f"the id {function_id} belongs to another function there; choose --function-id"
        )
    description = "Shows each chat its place in line and lets it through when its turn comes."
    return {
        "id": function_id,
        "name": found.get("name") or "Vestibule",
        "content": source,
        "meta": found.get("meta") or {"description": description},
    }


def install_valves(webui: OpenWebUI, target: Target) -> str:
    """Tell the Function where admission is and the key."""
    path = f"/api/v1/functions/id/{target.function_id}/valves"
    reply = webui.call("GET", path)
    absent = reply.status_code == 401  # a dry run did not create the Function
    current = {} if absent else answer(reply, "the valves cannot be read")
    wanted = merged_valves(current, target)
    names = sorted(name for name in wanted if wanted[name] != current.get(name))
    if names:
        # The call replaces them all: what is not sent falls back to its default.
        webui.write(f"{path}/update", wanted, "the valves are refused")
    return webui.done("valves", f"set ({', '.join(names)})" if names else None)


def merged_valves(current: Json, target: Target) -> Json:
    """The valves to write: what an administrator set stays, but for what was named now."""
    url = target.admission or current.get("admission_url") or target.here
    return current | {"admission_url": url, "service_key": target.key}


def install_connection(webui: OpenWebUI, target: Target) -> Iterator[str]:
    """Add or update the gateway among the OpenAI connections, and let Open WebUI try it."""
    current = webui.read("/openai/config")
    wanted, index = merged_connections(current, target)
    url = wanted["OPENAI_API_BASE_URLS"][index]
    known = index < len(current["OPENAI_API_BASE_URLS"])
    changed = wanted != current
    if changed:
        webui.write("/openai/config/update", wanted, "the connection is refused")
    yield webui.done(f"connection {url}", ("updated" if known else "added") if changed else None)
    trial = {"url": url, "key": target.key, "config": wanted["OPENAI_API_CONFIGS"][str(index)]}
    reply = webui.call("POST", "/openai/verify", trial)
    if reply.status_code == 200:
        yield f"models: {len(content(reply).get('data', []))} offered by the gateway"
    else:
        yield (
            f"warning: Open WebUI's server gets no models from {url}; is Vestibule running? Inside"
            " Docker it may need --admission-url http://host.docker.internal:8600"
        )


def merged_connections(current: Json, target: Target) -> tuple[Json, int]:
    """The OpenAI settings to write and which of the connections is ours; the others stay."""
    urls = list(current["OPENAI_API_BASE_URLS"])
    keys = [*current["OPENAI_API_KEYS"], *[""] * len(urls)][: len(urls)]
    stored = current["OPENAI_API_CONFIGS"]
    # An entry filed under its address, as older versions did, is dropped when written back.
    configs = {str(i): stored.get(str(i), stored.get(url)) for i, url in enumerate(urls)}
    configs = {i: config for i, config in configs.items() if config is not None}
    index = our_connection(urls, configs, target)
    if index is None:
        index = len(urls)
        urls.append("")
        keys.append("")
    if target.gateway or not urls[index]:
        urls[index] = f"{target.gateway or target.here}/v1"
    keys[index] = target.key
    ours = configs.get(str(index)) or {"auth_type": "bearer"}
    configs[str(index)] = ours | {
        "enable": True,
        "headers": (ours.get("headers") or {}) | IDENTITY_HEADERS,
    }
    wanted = {
        "ENABLE_OPENAI_API": True,
        "OPENAI_API_BASE_URLS": urls,
        "OPENAI_API_KEYS": keys,
        "OPENAI_API_CONFIGS": configs,
    }
    return wanted, index


def our_connection(urls: list[str], configs: Json, target: Target) -> int | None:
    """The connection that has our address or, when the gateway moved, our headers."""
    here = f"{target.gateway or target.here}/v1"
    for index, url in enumerate(urls):
        if url.rstrip("/") == here:
            return index
    for index in range(len(urls)):
        if MARK in ((configs.get(str(index)) or {}).get("headers") or {}):
            return index
    return None
