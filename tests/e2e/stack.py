"""Knows the three servers of the whole path and how they are told about each other.

Does not know the browser, nor what is tested; starting and stopping is `server.py`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import requests

from tests.e2e.build import CONTEXT_TOKENS, Components
from tests.e2e.server import HTTP_TIMEOUT_S, Server

MODEL = "tiny"
INSTALL_TIMEOUT_S = 60


class VllmServer(Server):
    """vLLM on CPU with the tiny model."""

    name = "vllm"
    ready_within_s = 240  # 30 to 55 s on two idle cores

    def __init__(self, folder: Path, components: Components) -> None:
        super().__init__(folder)
        self._components = components

    def command(self) -> Sequence[str | Path]:
        engine = ("--dtype", "bfloat16", "--max-model-len", str(CONTEXT_TOKENS), "--enforce-eager")
        # Open WebUI sends `tools` with each chat; without these two vLLM answers 400 to that.
        tools = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
        listen = ("--host", "127.0.0.1", "--port", str(self.port), "--served-model-name", MODEL)
        serve = (self._components.vllm / "bin" / "vllm", "serve", self._components.model)
        return (*serve, *listen, *engine, *tools)

    def environment(self) -> Mapping[str, str]:
        return {
            "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }


@dataclass(frozen=True)
class User:
    """Someone who may sign in to Open WebUI."""

    user_id: str
    name: str
    email: str
    password: str


class OpenWebUI(Server):
    """Open WebUI with an empty database, one admin and no connection to any model."""

    name = "open-webui"
    ready_within_s = 120  # 11 s on two idle cores
    admin_email = "admin@example.org"
    admin_password = "only-for-this-test"

    def __init__(self, folder: Path, components: Components) -> None:
        super().__init__(folder)
        self._components = components
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
            "BYPASS_MODEL_ACCESS_CONTROL": "true",  # plain users see the models
            "ENABLE_TITLE_GENERATION": "false",
            "ENABLE_TAGS_GENERATION": "false",
            "ENABLE_FOLLOW_UP_GENERATION": "false",
        }

    def __enter__(self) -> Self:
        super().__enter__()
        credentials = {"email": self.admin_email, "password": self.admin_password}
        self._token = self.call("POST", "/api/v1/auths/signin", body=credentials)["token"]
        self.connect()
        return self

    def connect(self, *base_urls: str) -> None:
        """Make these the only OpenAI connections; a new server comes with the vendor's."""
        settings = {
            "ENABLE_OPENAI_API": True,
            "OPENAI_API_BASE_URLS": base_urls,
            "OPENAI_API_KEYS": [""] * len(base_urls),
            "OPENAI_API_CONFIGS": {},
        }
        self.call("POST", "/openai/config/update", key=self._token, body=settings)

    def add_user(self, name: str) -> User:
        """A new plain user of that name, in each case another one."""
        self._users += 1
        account = {
            "name": name,
            "email": f"{name.lower()}{self._users}@example.org",
            "password": f"{name}-has-a-long-password",
        }
        body = {**account, "role": "user"}
        made = self.call("POST", "/api/v1/auths/add", key=self._token, body=body)
        return User(user_id=made["id"], **account)

    def straight_to_the_model(self, user: User) -> requests.Response:
        """A chat by the proxy route of Open WebUI's own API, which no filter Function sees."""
        credentials = {"email": user.email, "password": user.password}
        token = self.call("POST", "/api/v1/auths/signin", body=credentials)["token"]
        return requests.post(
            f"{self.url}/openai/chat/completions",
            json={"model": MODEL, "messages": [{"role": "user", "content": "Me first!"}]},
            headers={"Authorization": f"Bearer {token}"},
            timeout=HTTP_TIMEOUT_S,
        )


class Vestibule(Server):
    """`vestibule up` with one turn at a time, in front of vLLM."""

    name = "vestibule"
    ready_path = "/readyz"
    ready_within_s = 30
    executable = Path(sys.executable).with_name("vestibule")

    def __init__(self, folder: Path, port: int, upstream: str, session_duration_s: int) -> None:
        super().__init__(folder, port)
        self._upstream = upstream
        self._session_duration_s = session_duration_s

    def command(self) -> Sequence[str | Path]:
        return (self.executable, "up")

    def environment(self) -> Mapping[str, str]:
        return {
            "VESTIBULE_STATE_DIR": str(self.folder / "state"),
            "VESTIBULE_PORT": str(self.port),
            "VESTIBULE_UPSTREAMS": self._upstream,
            "MAX_ACTIVE_USERS": "1",
            "SESSION_DURATION": str(self._session_duration_s),
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
        command = (self.executable, "owui", "install", *where, "--password", webui.admin_password)
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
            headers={"Authorization": f"Bearer {self._service_key()}"},
            timeout=HTTP_TIMEOUT_S,
        )
        if reply.status_code == 404:
            return {"status": None}
        if not reply.ok:
            raise self.error(f"status of a user answered {reply.status_code}: {reply.text[:500]}")
        view: dict[str, Any] = reply.json()
        return view

    def join(self, user: User) -> None:
        """Take a turn for the user, or a place in line."""
        body = {"auto_confirm": True}
        self.call("POST", f"/queue/join/{user.user_id}", key=self._service_key(), body=body)

    def leave(self, user: User) -> None:
        """End the user's turn, as a frontend with the service key does."""
        self.call("POST", f"/queue/leave/{user.user_id}", key=self._service_key())

    def _service_key(self) -> str:
        key: str = json.loads((self.folder / "state" / "keys.json").read_text())["service_key"]
        return key
