"""The admin API of one Open WebUI (0.12.4), with an error for everything that can be in its way.

Knows HTTP and how Open WebUI reports errors; not what is changed there.
"""

from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from infra.errors import CommandError

TIMEOUT_S = 30.0
TRIED = (0, 12)
"""The versions this was tried on begin so (0.12.4)."""

WHERE = "--url is the address you open in the browser, without the page: http://localhost:8080"

Json = dict[str, Any]


class OpenWebUI:
    """One Open WebUI; ``version`` and ``features`` are known once it was ``found``."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.version = ""
        self.features: Json = {}
        self._http = requests.Session()

    def __enter__(self) -> "OpenWebUI":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def find(self) -> None:
        """Make sure that an Open WebUI answers here, and under this very address.

        Raises:
            CommandError: nobody answers, somebody else does, or it redirects elsewhere.
        """
        reply = self.call("GET", "/api/version")
        there = reply.url.removesuffix("/api/version")
        try:
            facts = reply.json()
            self.version, _ = str(facts["version"]), facts["deployment_id"]
        except (ValueError, LookupError, TypeError) as error:
            raise CommandError(
                f"what answers at {there} is not an Open WebUI (asked for /api/version it says:"
                f" {detail(reply)}). {WHERE}"
            ) from error
        if reply.history:  # a POST would lose its body on the way
            raise CommandError(f"{self.url} redirects to {there}: give that one to --url")
        self.look()

    def look(self) -> None:
        """Read what is switched on there, as far as the caller may see it."""
        reply = self.call("GET", "/api/config")
        if reply.status_code == 200:  # not so with an API key, and nothing hangs on it
            self.features = content(reply).get("features") or {}

    def carry(self, token: str) -> None:
        """Act as the owner of this token or API key from now on."""
        self._http.auth = Bearer(token)

    def call(
        self, method: str, path: str, body: Json | None = None, within_s: float = TIMEOUT_S
    ) -> requests.Response:
        """One call, whatever its status.

        Raises:
            CommandError: no answer came; says why.
        """
        try:
            return self._http.request(method, f"{self.url}{path}", json=body, timeout=within_s)
        except requests.exceptions.SSLError as error:
            said = reason(error)
            if "version number" in said or "unknown protocol" in said:  # OpenSSL's word for HTTP
                raise CommandError(f"{self.url} speaks http, not https") from error
            raise CommandError(
                f"the certificate of {self.url} is not trusted: {said}. Name the file of its"
                " authority in REQUESTS_CA_BUNDLE"
            ) from error
        except requests.exceptions.ProxyError as error:
            raise CommandError(
                f"the proxy on the way to {self.url} does not let it pass: {reason(error)}. To go"
                f" without one: NO_PROXY={urlsplit(self.url).hostname}"
            ) from error
        except requests.Timeout as error:
            raise Unanswered(f"no answer from {self.url} within {within_s:.0f} s") from error
        except (requests.RequestException, ValueError) as error:  # a header that cannot be sent
            raise CommandError(
                f"no Open WebUI answers at {self.url}: {reason(error)}. {WHERE}"
            ) from error

    def read(self, path: str) -> Json:
        """The JSON object at this path; empty where Open WebUI has nothing yet."""
        return answer(self.call("GET", path), f"{self.url}{path} cannot be read")

    def write(self, path: str, body: Json | None, failure: str) -> Json:
        """Change something, and how it is then; ``failure`` begins the sentence when it cannot be
        done."""
        return answer(self.call("POST", path, body), failure)

    def try_connection(self, url: str, key: str, config: Json) -> requests.Response:
        """GET ``url``/models as Open WebUI's server does with such a connection
        (``routers/openai.py`` verify). 500 when it does not get there."""
        return self.call("POST", "/openai/verify", {"url": url, "key": key, "config": config})


class Bearer(AuthBase):
    """A token or API key with each request; as a mere header it would give way to a ``.netrc``."""

    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """As requests asks for it."""
        request.headers["Authorization"] = self._header
        return request


class Unanswered(CommandError):
    """The call went out, but no answer came in time."""


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
    """What is said about an error, as one line: by Open WebUI, or by us through it."""
    try:
        said = reply.json()
    except ValueError:
        said = None
    if isinstance(said, dict):
        inner = said.get("error")
        said = said.get("detail") or (inner.get("message") if isinstance(inner, dict) else inner)
    return " ".join(str(said or f"status {reply.status_code}").split())[:300]


def reason(error: BaseException) -> str:
    """The innermost cause in the system's own words: "Connection refused"."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(getattr(error, "strerror", None) or error).split("] ")[-1]
