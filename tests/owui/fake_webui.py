"""An Open WebUI as `vestibule owui` sees it: the admin API of 0.12.4, kept in memory.

Knows only what the commands call. `tests/e2e/test_install.py` holds the real one to the same
expectations (`installs.py`).
"""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import requests
from pydantic import ValidationError

from infra.owui import function

Json = dict[str, Any]
ADMIN = ("admin@example.org", "only-for-this-test")


class FakeWebUI:
    """Functions, valves and connections; and the gateways its server reaches."""

    def __init__(self, gateways: dict[str, str]) -> None:
        self.gateways = gateways  # address -> the key it accepts
        self.offers: dict[str, list[str]] = {}  # address -> models; by default one of its own
        self.strangers: dict[str, Any] = {}  # address -> what it says instead of its models
        self.ollama: list[str] = []  # what an Ollama connection offers
        self.wants_jwt: set[str] = set()
        self.wait_limit = 3600  # of all gateways
        self.functions: dict[str, Json] = {}
        self.valves: dict[str, Json] = {}
        self.pipelines: list[Json] = []
        self.version = "0.12.4"
        self.features: Json = {"auth": True, "enable_functions": True}
        self.writes: list[str] = []
        self.openai: Json = {
            "ENABLE_OPENAI_API": True,
            "OPENAI_API_BASE_URLS": ["https://elsewhere.example/v1"],
            "OPENAI_API_KEYS": ["theirs"],
            "OPENAI_API_CONFIGS": {"0": {"prefix_id": "x"}},
        }

    def request(self, session: Any, method: str, url: str, **given: Any) -> requests.Response:
        """In place of `requests.Session.request`."""
        parts = urlsplit(url)
        if parts.path == "/readyz":
            return reply(url, 200, {"workers": {"ready": 1}})
        body, signed = given.get("json"), session.auth
        if parts.path not in ("/api/version", "/api/config", "/api/v1/auths/signin") and not signed:
            return reply(url, 401, {"detail": "Not authenticated"})
        status, said = self._answer(method, parts.path, body)
        return reply(url, status, said)

    def snapshot(self) -> Json:
        """All that an admin could tell a difference by."""
        kept = json.dumps([self.openai, self.functions, self.valves], sort_keys=True)
        return {"everything": kept}

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        steps = path.strip("/").split("/")
        if path.startswith("/api/v1/functions/id/"):
            return self._function(method, steps[4], "/".join(steps[5:]), body)
        answers: dict[str, Callable[[], tuple[int, Any]]] = {
            "/api/version": lambda: (200, {"version": self.version, "deployment_id": ""}),
            "/api/config": lambda: (200, {"features": self.features}),
            "/api/v1/auths/signin": lambda: self._sign_in(body),
            "/api/v1/functions/": lambda: (200, list(self.functions.values())),
            "/api/v1/functions/create": lambda: self._create(body),
            "/api/v1/pipelines/list": lambda: (200, {"data": [{"url": "http://pipes", "idx": 0}]}),
            "/api/v1/pipelines/": lambda: (200, {"data": self.pipelines}),
            "/openai/config": lambda: (200, json.loads(json.dumps(self.openai))),
            "/openai/config/update": lambda: self._configure(body),
            "/openai/verify": lambda: self._verify(body["url"], body["key"]),
            "/api/models/base": lambda: (200, {"data": self._models()}),
            "/openai/chat/completions": lambda: self._chat(body["model"], body["metadata"]),
        }
        return answers.get(path, lambda: (404, {"detail": "Not Found"}))()

    def _sign_in(self, body: Json) -> tuple[int, Any]:
        known = (body["email"], body["password"]) == ADMIN
        return (200, {"token": "t"}) if known else (400, {"detail": "Wrong password."})

    def _configure(self, body: Json) -> tuple[int, Any]:
        self.writes.append("connections")
        self.openai = json.loads(json.dumps(body))
        return 200, body

    def _offered(self, url: str) -> list[str]:
        base = url.removesuffix("/v1")
        return self.offers.get(base, [f"model of {base}"])

    def _models(self) -> list[Json]:
        """Of the same name the first connection's, and then those of Ollama."""
        found: dict[str, Json] = {}
        for i, url in enumerate(self.openai["OPENAI_API_BASE_URLS"]):
            config = self.openai["OPENAI_API_CONFIGS"].get(str(i)) or {}
            prefix = f"{config['prefix_id']}." if config.get("prefix_id") else ""
            for name in self._offered(url) if config.get("enable", True) else ():
                found.setdefault(prefix + name, {"id": prefix + name, "urlIdx": i})
        local = [{"id": name, "owned_by": "ollama"} for name in self.ollama]
        return [*found.values(), *local]

    def _create(self, form: Json) -> tuple[int, Any]:
        self.writes.append("create")
        switches = {"is_active": False, "is_global": False}
        self.functions[form["id"]] = {**form, "meta": self._meta(form), **switches}
        self.valves[form["id"]] = {}
        return 200, {}

    def _meta(self, form: Json) -> Json:
        text = form["content"]
        author = text.split("author: ")[1].split("\n")[0]
        manifest = {"author": author, "version": function.version(text)}
        return {**form["meta"], "manifest": manifest}

    def _function(self, method: str, name: str, call: str, body: Any) -> tuple[int, Any]:
        if name not in self.functions:
            return 401, {"detail": "We could not find what you're looking for :/"}
        found = self.functions[name]
        if method == "GET":
            return 200, dict(self.valves[name] if call == "valves" else found)
        self.writes.append(call)
        match call:
            case "toggle":
                found["is_active"] = not found["is_active"]
            case "toggle/global":
                found["is_global"] = not found["is_global"]
            case "delete":
                del self.functions[name], self.valves[name]
                return 200, True
            case "update":
                return self._update(name, body)
            case "valves/update":
                kind = function.valves_of(found["content"])
                self.valves[name] = kind(**body).model_dump(exclude_unset=True)
        return 200, dict(self.functions[name])

    def _update(self, name: str, form: Json) -> tuple[int, Any]:
        try:
            function.valves_of(form["content"])(**self.valves[name])
        except ValidationError as error:
            return 400, {"detail": f"Current Valves are incompatible with this code: {error}"}
        self.functions[name] |= {**form, "meta": self._meta(form)}
        return 200, {}

    def _verify(self, url: str, key: str) -> tuple[int, Any]:
        base = url.split("/queue/")[0].removesuffix("/v1")
        if base not in self.gateways:
            return 500, {"detail": "Open WebUI: Server Connection Error"}
        if key != self.gateways[base]:
            return 401, {"error": {"message": "Nobody knows this key."}}
        if "/queue/" in url:
            return 200, {"capacity": 1}
        models = {"data": [{"id": name} for name in self._offered(url)]}
        return 200, self.strangers.get(base, models)

    def _chat(self, model: str, metadata: Json) -> tuple[int, Any]:
        assert metadata["task"], "this would take somebody's turn"
        place = next(one["urlIdx"] for one in self._models() if one["id"] == model)
        base = self.openai["OPENAI_API_BASE_URLS"][place].removesuffix("/v1")
        headers = (self.openai["OPENAI_API_CONFIGS"].get(str(place)) or {}).get("headers") or {}
        if base in self.wants_jwt:
            return 400, {"error": {"message": "X-OpenWebUI-User-Jwt is missing."}}
        if int(headers.get("X-Vestibule-Wait", "0")) > self.wait_limit:
            return 400, {"error": {"message": "X-Vestibule-Wait: whole seconds from 0 to 60"}}
        named = headers.get("X-OpenWebUI-User-Id") == "{{USER_ID}}"
        return (429, {}) if named else (400, {"error": {"message": "No user is named."}})


def reply(url: str, status: int, said: Any) -> requests.Response:
    """What `requests` would have returned."""
    made = requests.Response()
    made.url, made.status_code = url, status
    made._content = json.dumps(said).encode()
    return made
