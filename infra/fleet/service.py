"""A running service as the fleet's commands call it, with an error for all that can be in the way.

Knows HTTP and where the key is; not what is asked.
"""

import argparse
import json
import queue
import re
import secrets
import threading
import time
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import requests

from infra import environment
from infra.addresses import callable_url
from infra.errors import CommandError
from infra.state import kept_key

TIMEOUT_S = 30.0
SILENCE_S = 40.0  # the service pings its streams every 15 s
TRIES = 3  # of a call whose answer did not come
AGAIN_S = 1.0

Json = dict[str, Any]


def add_words(parser: argparse.ArgumentParser) -> None:
    """What every command needs to find the service."""
    parser.add_argument("--url", help="the service (VESTIBULE_HOST and VESTIBULE_PORT)")
    where = "default: VESTIBULE_ADMIN_KEY, else keys.json of the state folder"
    parser.add_argument("--admin-key", metavar="KEY", help=where)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def of(args: argparse.Namespace) -> "Service":
    """The service that the words name.

    Raises:
        CommandError: no key, or no URL.
    """
    settings = environment.settings()
    url = args.url or callable_url(settings.host, settings.port)
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise CommandError(f"--url: {url} is no http:// or https:// URL")
    key = args.admin_key or kept_key(settings, "admin_key")
    if not key:
        where = "--admin-key, VESTIBULE_ADMIN_KEY, or keys.json in VESTIBULE_STATE_DIR"
        raise CommandError(f"the admin key is needed: {where}")
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise CommandError("--admin-key: not a key; keys are printable ASCII without spaces")
    return Service(url.rstrip("/"), key)


class Unanswered(CommandError):
    """Nobody answers."""


class Refused(CommandError):
    """The service said no. ``status`` is HTTP's, ``code`` the problem's own."""

    def __init__(self, status: int, code: str, words: str) -> None:
        super().__init__(words)
        self.status, self.code = status, code


class News(NamedTuple):
    """What a stream of events tells. ``event`` None: look anew, some of it may have been missed."""

    event: Json | None


class Service:
    """One service, asked with an admin key."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.now = datetime.now(UTC)  # the service's, by its last answer
        self._headers = {"Authorization": f"Bearer {key}"}

    def get(self, path: str, **query: str | int) -> Json:
        return self._call("GET", path, query=query)

    def instance(self, name: str) -> Json:
        """One machine, whole.

        Raises:
            Unanswered.
            Refused: there is none.
        """
        found = self.get(f"/admin/instances/{quote(name, safe='')}")
        if "instance_id" not in found:  # the name of something else there
            words = f"instance_id: there is no instance {name!r}"
            raise Refused(404, "instance_unknown", words)
        return found

    def post(self, path: str, body: Json) -> Json:
        return self._call("POST", path, body=body)

    def delete(self, path: str, **query: str | int) -> Json:
        return self._call("DELETE", path, query=query)

    def _call(
        self, method: str, path: str, *, query: Json | None = None, body: Json | None = None
    ) -> Json:
        """One call. It is the same call when it is said again: nothing is done twice.

        Raises:
            Unanswered: says why.
            Refused.
        """
        headers = {**self._headers, "Idempotency-Key": secrets.token_hex(16)}
        for more in reversed(range(TRIES)):
            try:
                reply = requests.request(
                    method,
                    f"{self.url}{path}",
                    params=query,
                    json=body,
                    headers=headers,
                    timeout=TIMEOUT_S,
                    allow_redirects=False,
                )
                return self._read(reply)
            except requests.RequestException as error:
                if not more:
                    raise Unanswered(f"nobody answers at {self.url}: {_reason(error)}") from error
                time.sleep(AGAIN_S)
        raise AssertionError

    def _read(self, reply: requests.Response) -> Json:
        try:
            self.now = parsedate_to_datetime(reply.headers["Date"])
            found = reply.json()
        except (KeyError, TypeError, ValueError):
            found = None
        if reply.ok and isinstance(found, dict):
            return found
        said = found if isinstance(found, dict) else {}
        words = str(said.get("detail") or f"{reply.status_code} {reply.reason}")
        if reply.status_code in (401, 403):
            words = f"the admin key is not accepted: {words}"
        elif not said:
            words = f"what answers at {self.url} is no Vestibule that knows this call: {words}"
        raise Refused(reply.status_code, str(said.get("code", "")), words)

    def follow(self, look_s: float) -> Generator[News | None, None, None]:
        """What happens to the fleet from now on, as it happens; None after ``look_s`` without news.

        Where no stream passes, each ``look_s`` says to look anew. It never ends by itself.
        """
        told: queue.SimpleQueue[News] = queue.SimpleQueue()
        over = threading.Event()
        threading.Thread(target=self._listen, args=(told, over), daemon=True).start()
        try:
            while True:
                try:
                    yield told.get(timeout=look_s)
                except queue.Empty:
                    yield None
        finally:
            over.set()

    def _listen(self, told: "queue.SimpleQueue[News]", over: threading.Event) -> None:
        last = ""
        while not over.is_set():
            told.put(News(None))
            try:
                with requests.get(
                    f"{self.url}/admin/events",
                    headers={**self._headers, **({"Last-Event-ID": last} if last else {})},
                    stream=True,
                    timeout=(TIMEOUT_S, SILENCE_S),
                ) as reply:
                    if reply.ok:
                        told.put(News(None))  # what came before the stream began
                        for entry, event in _events(reply):
                            last = entry or last
                            told.put(News(event))
                            if over.is_set():
                                return
            except requests.RequestException:
                pass  # the next look says what is wrong, if it lasts
            over.wait(AGAIN_S)


def _events(reply: requests.Response) -> Iterator[tuple[str, Json | None]]:
    """(entry, event) of each block; None for one that says that some are gone."""
    block: dict[str, str] = {}
    for line in reply.iter_lines(chunk_size=1):  # more would be waited for
        if line:
            name, _, value = line.decode(errors="replace").partition(":")
            block[name] = value.strip()
            continue
        match block.get("event"):
            case "fleet":
                yield block.get("id", ""), json.loads(block["data"])
            case "gap":
                yield block.get("id", ""), None
        block = {}


def _reason(error: BaseException) -> str:
    """The innermost words of what requests wraps several times."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
