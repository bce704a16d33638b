"""One GPU machine's voice: what it is, whether its model answers, and the way to that model.

Knows nothing of queues, tickets and users: admission decides who may call, the gateway calls.
Ships alone (needs aiohttp, and pynvml where there is a GPU) and runs beside an OpenAI-compatible
model server such as vLLM:

    VESTIBULE_WORKER_TOKEN=... python agent.py --admission-url http://127.0.0.1:8600

It registers with admission, heartbeats, and relays `/v1/*` to the model server byte for byte.
Sections: settings · the machine · the model server · the worker · the relay · the link to
admission · the application.
"""

import argparse
import asyncio
import contextlib
import hashlib
import hmac
import io
import json
import logging
import os
import random
import re
import shutil
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

try:
    import pynvml
except ImportError:  # a machine without a GPU does not need the bindings
    pynvml = None

AGENT_VERSION = "0.1.0"
AGENT_BUILD_DATE = "2026-11-21"

MAX_BODY_BYTES = 32 * 2**20  # a chat with several images in it
HEARTBEAT_MAX_S = 10.0  # admission may ask for less, never for more
LOOK_INTERVAL_S = (0.25, 1.0)  # how often the model server is asked: unready, ready
ASK_TIMEOUT_S = 10.0  # one question to admission or to the model server
METRICS_TIMEOUT_S = 2.0  # no heartbeat waits longer for a model server's figures
KEY_GRACE_S = 10.0  # gateways learn of a new upstream key within seconds, not at once
CONNECT_TIMEOUT_S = 5.0
UPSTREAM_IDLE_S = 1800.0  # an answer that is not streamed is silent until it is complete
# vLLM closes an idle connection after 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE, 0.32): be earlier, or a
# request could be written into a connection that is just being closed.
UPSTREAM_KEEPALIVE_S = 2.0
BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
MIB = 2**20

log = logging.getLogger("agent")
Json = dict[str, Any]


# --------------------------------------------------------------------------------- settings


class Shape(NamedTuple):
    """What a value must look like, the same in words, and what it becomes."""

    pattern: str
    rule: str
    become: Callable[[str], Any] = str


ADDRESS = Shape(
    r"https?://[^\s/?#@]+(/[^\s?#]*)?",
    "an address such as http://10.0.0.7:9001",
    lambda text: text.rstrip("/").removesuffix("/v1"),
)
COUNT = Shape(r"[1-9]\d{0,4}", "a whole number from 1 to 99999", int)
FILE = Shape(r".+", "a path", Path)
HOST = Shape(r"[\w.:-]+", "a host name or an IP address")
NAME = Shape(r"[\w.-]{1,64}", "1 to 64 of A-Z a-z 0-9 . _ -")
POOL = Shape(r"[a-z0-9-]{1,64}", "1 to 64 of a-z 0-9 -")
PORT = Shape(r"[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5]", "a port", int)
SECONDS = Shape(r"\d{1,5}", "whole seconds from 0 to 99999", int)
SECRET = Shape(r"[!-~]*", "printable characters without spaces")
SHA256 = Shape(r"([0-9A-Fa-f]{64})?", "64 hexadecimal digits", str.lower)


def _option(name: str, shape: Shape, default: str, meaning: str) -> Any:
    """One setting, by its name in the environment."""
    return field(metadata={"option": (name, shape, default, meaning)})


@dataclass(frozen=True)
class Settings:
    """What the operator chose; where there is no default, `read_settings` finds one."""

    admission_url: str = _option(
        "VESTIBULE_ADMISSION_URL", ADDRESS, "http://127.0.0.1:8600", "admission"
    )
    vllm_url: str = _option("VESTIBULE_VLLM_URL", ADDRESS, "http://127.0.0.1:8000", "model server")
    vllm_key: str = _option("VESTIBULE_VLLM_KEY", SECRET, "", "the model server's key, if any")
    host: str = _option("VESTIBULE_WORKER_HOST", HOST, "127.0.0.1", "address to listen on")
    port: int = _option("VESTIBULE_WORKER_PORT", PORT, "9001", "port to listen on")
    worker_id: str = _option("VESTIBULE_WORKER_ID", NAME, "", "a lasting name")
    worker_url: str = _option("VESTIBULE_WORKER_URL", ADDRESS, "", "how the gateway reaches it")
    worker_token: str = _option("VESTIBULE_WORKER_TOKEN", SECRET, "", "registers a new worker")
    state_file: Path = _option("VESTIBULE_WORKER_STATE", FILE, "", "keeps this worker's secrets")
    drain_timeout_s: int = _option("VESTIBULE_WORKER_DRAIN_TIMEOUT", SECONDS, "25", "to finish in")
    slots: int = _option("VESTIBULE_SLOTS", COUNT, "8", "requests the model server takes well")
    pool: str = _option("VESTIBULE_POOL", POOL, "default", "the pool this worker serves")
    expected_checksum: str = _option("WORKER_AGENT_SHA256", SHA256, "", "of this file, to be ready")


OPTIONS: dict[str, tuple[str, Shape, str, str]] = {
    f.name: f.metadata["option"] for f in fields(Settings)
}


class SettingsError(Exception):
    """Everything that is wrong with the settings, one line each."""


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Flags win over the environment, which wins over the defaults. Raises `SettingsError`."""
    given = vars(_parser().parse_args(arguments))
    # Kubernetes sets VESTIBULE_WORKER_PORT=tcp://... by itself for a service of that name.
    named = {name: value for name, value in environment.items() if value[:6] != "tcp://"}
    values = {
        key: given.get(key) or named.get(name) or default
        for key, (name, _, default, _) in OPTIONS.items()
    }
    host, port = values["host"], values["port"]
    folder = environment.get("VESTIBULE_STATE_DIR") or ".vestibule"
    there = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    values["worker_id"] = values["worker_id"] or f"{socket.gethostname()[:56]}-{port}"
    values["worker_url"] = values["worker_url"] or there
    values["state_file"] = values["state_file"] or f"{folder}/worker-{values['worker_id']}.json"
    if wrong := _wrong(values):
        raise SettingsError("\n".join(wrong))
    return Settings(**{key: OPTIONS[key][1].become(values[key]) for key in OPTIONS})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agent.py", description="Vestibule's worker agent: runs beside one model server."
    )
    parser.add_argument("--version", action="version", version=AGENT_VERSION)
    hidden = []
    for key, (name, shape, default, meaning) in OPTIONS.items():
        if shape in {SECRET, SHA256}:  # a command line is no place for them
            hidden.append(f"{name} ({meaning})")
            continue
        flag = name.removeprefix("VESTIBULE_").removeprefix("WORKER_").lower().replace("_", "-")
        text = f"{meaning} [{name}{default and f', default {default}'}]"
        parser.add_argument(f"--{flag}", dest=key, metavar="VALUE", help=text)
    parser.epilog = f"Only from the environment: {', '.join(hidden)}."
    return parser


def _wrong(values: Mapping[str, str]) -> list[str]:
    wrong = [
        f"{name}{'' if shape is SECRET else f'={values[key]!r}'} must be {shape.rule}"
        for key, (name, shape, _, _) in OPTIONS.items()
        if not re.fullmatch(shape.pattern, values[key], re.ASCII)
    ]
    if re.match(r"https?://(0\.0\.0\.0|\[::\])", values["worker_url"]):
        wrong.append("VESTIBULE_WORKER_URL is missing: gateways cannot call every address")
    if not values["worker_token"] and not Path(values["state_file"]).exists():
        wrong.append("VESTIBULE_WORKER_TOKEN is missing: a new worker registers with it")
    return wrong


# ------------------------------------------------------------------------------ the machine


class Machine:
    """CPU, memory, disk and GPUs, read when asked. Sizes in MiB, loads as fractions of 1."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder  # whose disk counts
        _nvml("nvmlInit")
        count = _nvml("nvmlDeviceGetCount") or 0
        self._gpus = [_nvml("nvmlDeviceGetHandleByIndex", index) for index in range(count)]

    def load(self) -> Json:
        """What is in use now; null where the machine does not tell."""
        total, available = _memory()
        # A MIG slice tells no load, and a GPU that shares the machine's memory no memory.
        rates = [
            seen for gpu in self._gpus if (seen := _nvml("nvmlDeviceGetUtilizationRates", gpu))
        ]
        sizes = [seen for gpu in self._gpus if (seen := _nvml("nvmlDeviceGetMemoryInfo", gpu))]
        return {
            "gpu_load": sum(rate.gpu for rate in rates) / 100 / len(rates) if rates else None,
            "gpu_memory_used_mb": sum(size.used for size in sizes) // MIB if sizes else None,
            "gpu_memory_total_mb": sum(size.total for size in sizes) // MIB if sizes else None,
            # Load average of the last minute per CPU: above 1, work waits for a CPU.
            "cpu_load": round(os.getloadavg()[0] / (os.cpu_count() or 1), 4),
            "memory_used_mb": total - available if total and available else None,
        }

    def hardware(self) -> Json:
        """What is built in, and how much of the disk is free."""
        disk, gpus = shutil.disk_usage(self._folder if self._folder.exists() else "/"), []
        for gpu in self._gpus:
            memory = _nvml("nvmlDeviceGetMemoryInfo", gpu)
            size = memory.total // MIB if memory else 0
            gpus.append({"name": str(_nvml("nvmlDeviceGetName", gpu)), "memory_total_mb": size})
        return {
            "cpu_count": os.cpu_count() or 1,
            "memory_total_mb": _memory()[0],
            "disk_total_mb": disk.total // MIB,
            "disk_free_mb": disk.free // MIB,
            "gpus": gpus,
        }


def _nvml(function: str, *arguments: object) -> Any:
    """NVIDIA's answer; None where there is no GPU, no driver, or no such figure."""
    if pynvml is None:
        return None
    try:
        return getattr(pynvml, function)(*arguments)
    except pynvml.NVMLError:
        return None


def _memory() -> tuple[int | None, int | None]:
    """Total and available; unknown outside Linux."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None, None
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return kib["MemTotal"] // 1024, kib["MemAvailable"] // 1024


# ------------------------------------------------------------------------- the model server


class ModelServer:
    """What the model server says of itself."""

    def __init__(self, session: aiohttp.ClientSession, settings: Settings) -> None:
        self._session, self._settings = session, settings

    async def models(self) -> tuple[list[str], str | None]:
        """The names it serves, and why it cannot be used (None when it can)."""
        try:
            status, body = await self._get("/v1/models", ASK_TIMEOUT_S)
            if status != 200:
                return [], f"the model server answers {status} to /v1/models"
            names = [str(model["id"]) for model in json.loads(body)["data"]]
        except (aiohttp.ClientError, TimeoutError):
            return [], f"the model server at {self._settings.vllm_url} does not answer"
        except (ValueError, KeyError, TypeError):
            return [], "the model server's /v1/models is not a list of models"
        return names, None if names else "the model server serves no model"

    async def load(self) -> tuple[int | None, int | None]:
        """Requests it runs and requests that wait inside it; None where it has no such metric.

        Source of the names: vLLM 0.33, `/metrics`. Several engines are summed.
        """
        try:
            status, body = await self._get("/metrics", METRICS_TIMEOUT_S)
        except (aiohttp.ClientError, TimeoutError):
            return None, None
        text = body.decode(errors="replace") if status == 200 else ""
        return _sum(text, "vllm:num_requests_running"), _sum(text, "vllm:num_requests_waiting")

    async def _get(self, path: str, timeout_s: float) -> tuple[int, bytes]:
        url, headers = f"{self._settings.vllm_url}{path}", bearer(self._settings.vllm_key)
        async with (
            asyncio.timeout(timeout_s),
            self._session.get(url, headers=headers, allow_redirects=False) as reply,
        ):
            return reply.status, await reply.read()


def _sum(metrics: str, name: str) -> int | None:
    found = re.findall(rf"^{name}(?:\{{.*\}})? (\d+(?:\.\d+)?)$", metrics, re.MULTILINE)
    return round(sum(map(float, found))) if found else None


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key; none for no key."""
    return {"Authorization": f"Bearer {key}"} if key else {}


# ------------------------------------------------------------------------------- the worker


class Worker:
    """The one place that knows whether requests may come here, and how many run."""

    def __init__(self, settings: Settings, checksum: str) -> None:
        self.settings, self.checksum = settings, checksum
        self.models: list[str] = []
        self.upstream_keys: list[str] = []  # none before registration: then nobody may call
        self.in_flight = 0
        self.finished: Counter[str] = Counter()  # by status, or `aborted`
        self.idle = asyncio.Event()
        self.idle.set()
        self.changed = asyncio.Event()  # readiness or models: admission should hear of it
        self._problem: str | None = "the model server was not asked yet"
        self._drain: str | None = None
        self._admission_drains = False
        self._noted: tuple[str | None, list[str]] = self._problem, []

    @property
    def draining(self) -> bool:
        return self._drain is not None or self._admission_drains

    @property
    def reason(self) -> str | None:
        """Why no request may come here; None when ready."""
        expected = self.settings.expected_checksum
        if expected and expected != self.checksum:
            return f"agent_checksum {self.checksum} is not WORKER_AGENT_SHA256 {expected}"
        if self.draining:
            return f"draining: {self._drain or 'admission said so'}"
        return self._problem

    @property
    def info(self) -> Json:
        """`agent_info` as admission takes it."""
        named = {"version": AGENT_VERSION, "build_date": AGENT_BUILD_DATE}
        return {**named, "checksum": self.checksum}

    def saw(self, models: list[str], problem: str | None) -> None:
        """What the model server answered just now."""
        self.models, self._problem = models, problem
        self._note()

    def drain(self, why: str) -> None:
        """Be unready until the next start; what runs goes on."""
        self._drain = why
        self._note()

    def admission_says(self, *, draining: bool) -> None:
        """Admission's own wish to drain, which it may take back."""
        self._admission_drains = draining
        self._note()

    def take_key(self, key: str) -> None:
        """A new upstream key; the one before stays good for `KEY_GRACE_S`."""
        former, self.upstream_keys = self.upstream_keys, [key, *self.upstream_keys]
        asyncio.get_running_loop().call_later(KEY_GRACE_S, self._retire, former)

    def _retire(self, former: list[str]) -> None:
        newest, *others = self.upstream_keys
        self.upstream_keys = [newest, *(key for key in others if key not in former)]

    def may_call(self, key: str) -> bool:
        """Whether this is an upstream key; compared in constant time."""
        given = key.encode(errors="replace")
        return any([hmac.compare_digest(given, right.encode()) for right in self.upstream_keys])

    def began(self) -> None:
        self.in_flight += 1
        self.idle.clear()

    def ended(self, outcome: str) -> None:
        self.in_flight -= 1
        self.finished[outcome] += 1
        if not self.in_flight:
            self.idle.set()

    def _note(self) -> None:
        if (now := (self.reason, self.models)) == self._noted:
            return
        self._noted = now
        self.changed.set()
        log.info("worker ready=%s reason=%s models=%s", now[0] is None, now[0], now[1])


# -------------------------------------------------------------------------------- the relay

# RFC 9110 section 7.6.1, and the older Proxy-Connection.
HOP_BY_HOP = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"),
    *("te", "trailer", "transfer-encoding", "upgrade"),
}
# Said anew to the model server: who is called, with which key, how long the body is.
REPLACED = {"host", "authorization", "content-length", "expect"}


class Relay:
    """Passes `/v1/*` on and the answer back, each byte as it comes.

    asyncio sets TCP_NODELAY on every connection, so no token waits for the next one.
    """

    def __init__(self, session: aiohttp.ClientSession, worker: Worker) -> None:
        self._session, self._worker = session, worker

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; it is cancelled, and the upstream with it, when its client goes."""
        outcome = "aborted"
        self._worker.began()
        try:
            response = await self._relay(request)
            # A connection closed by now is one that was cut in the middle of an answer.
            if request.transport and not request.transport.is_closing():
                outcome = str(response.status)
            return response
        finally:
            self._worker.ended(outcome)

    async def _relay(self, request: web.Request) -> web.StreamResponse:
        settings = self._worker.settings
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return envelope(413, "body_too_large", f"More than {MAX_BODY_BYTES} bytes.")
        url = URL(f"{settings.vllm_url}{request.rel_url.raw_path_qs}", encoded=True)
        headers = end_to_end(request.headers, REPLACED)
        headers.extend(bearer(settings.vllm_key))
        try:
            # A BytesIO is sent piece by piece: a large body must not hold up everybody's tokens.
            data = io.BytesIO(body) if body else None
            async with self._session.request(
                request.method, url, headers=headers, data=data, allow_redirects=False
            ) as upstream:
                return await self._pass_on(request, upstream)
        except aiohttp.SocketTimeoutError:
            return envelope(504, "model_server_silent", "The model server said nothing in time.")
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("relay failed reason=%s", type(error).__name__)
            return envelope(502, "model_server_away", "The model server does not answer.")

    async def _pass_on(
        self, request: web.Request, upstream: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            status=upstream.status,
            reason=upstream.reason,
            headers=end_to_end(upstream.headers, set()),
        )
        try:
            await response.prepare(request)
            while chunk := await upstream.content.readany():
                await response.write(chunk)
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            # The status has gone out: only a broken connection can still say that it failed.
            if request.transport:
                request.transport.close()
        return response


def end_to_end(headers: CIMultiDictProxy[str], replaced: set[str]) -> CIMultiDict[str]:
    """The headers that are meant for the other end, in their order, repeated ones included."""
    listed = ",".join(headers.getall("Connection", ())).lower().split(",")
    dropped = HOP_BY_HOP | replaced | {name.strip() for name in listed}
    first: dict[str, str] = {}  # aiohttp's client keeps repeated names in one spelling only
    return CIMultiDict(
        (first.setdefault(name.lower(), name), value)
        for name, value in headers.items()
        if name.lower() not in dropped
    )


def envelope(status: int, code: str, message: str) -> web.Response:
    """An error as OpenAI's clients read it."""
    kinds = {401: "authentication_error", 403: "permission_error", 413: "invalid_request_error"}
    kind = kinds.get(status, "server_error")
    error = {"message": message, "type": kind, "param": None, "code": code}
    return web.json_response({"error": error}, status=status)


# -------------------------------------------------------------------- the link to admission


class Refused(Exception):
    """Admission does not take this worker's keys: a person has to act."""


class Link:
    """Registers, heartbeats, and keeps the two secrets that registration yields."""

    def __init__(
        self, session: aiohttp.ClientSession, worker: Worker, machine: Machine, model: ModelServer
    ) -> None:
        self._session, self._worker, self._machine, self._model = session, worker, machine, model
        self._settings = worker.settings
        self._token = ""
        self._interval_s = HEARTBEAT_MAX_S
        self.registered = self._was_registered = False
        self.state = "not asked yet"
        self._remember()

    async def run(self) -> None:
        """Never ends by itself. Raises `Refused` when the first registration is refused."""
        failures = 0
        while True:
            self._worker.changed.clear()
            beats = self.registered
            problem = await (self._beat() if beats else self._register())
            self._say(problem or "registered")
            failures = failures + 1 if problem else 0
            if problem:
                # Many workers that lost one admission must not all return in the same moment.
                pause_s = BACKOFF_S[min(failures, len(BACKOFF_S)) - 1]
                await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))
            elif beats:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._worker.changed.wait(), self._interval_s)

    async def tell_drain(self) -> None:
        """Ask admission to send nothing new; it is no loss when it cannot hear."""
        if self.registered:
            path = f"/workers/{self._settings.worker_id}/drain?pool={self._settings.pool}"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._post(path, self._token, {}), 2)

    async def _register(self) -> str | None:
        """One attempt; what went wrong, or None. A known worker comes with its own token."""
        settings = self._settings
        named = {"worker_id": settings.worker_id, "url": settings.worker_url}
        body = {**named, **await self._facts()}
        status, reply = 0, Json()
        for key in filter(None, (self._token, settings.worker_token)):
            status, reply = await self._post("/workers/register", key, body)
            if status not in {401, 403}:
                break
        if status == 200:
            return self._accept(reply)
        if status in {401, 403} and not self._was_registered:
            raise Refused(f"admission refuses this worker: {_told(status, reply)}")
        return _told(status, reply)

    def _accept(self, reply: Json) -> str | None:
        try:
            token, key = str(reply["token"]), str(reply["upstream_key"])
            asked_s = float(reply["heartbeat_interval"])
        except (KeyError, ValueError, TypeError):
            return "admission's reply to the registration is not understood"
        self._token = token
        self._worker.take_key(key)
        self._interval_s = min(max(asked_s, 0.1), HEARTBEAT_MAX_S)
        self.registered = self._was_registered = True
        self._keep(key)
        return None

    async def _beat(self) -> str | None:
        """One heartbeat; what went wrong, or None."""
        worker, (_, waiting) = self._worker, await self._model.load()
        load = await asyncio.to_thread(self._machine.load)
        facts = await self._facts()
        body = {
            "worker_id": self._settings.worker_id,
            "ready": worker.reason is None,
            "reason": worker.reason,
            "in_flight": worker.in_flight,
            "queue_depth": waiting or 0,
            "load": load,
            **facts,
        }
        status, reply = await self._post("/workers/heartbeat", self._token, body)
        if status == 200:
            worker.admission_says(draining=reply.get("draining") is True)
            return None
        if status in {401, 403, 404}:  # forgotten or released: introduce ourselves again
            self.registered = False
        return _told(status, reply)

    async def _facts(self) -> Json:
        return {
            "pool": self._settings.pool,
            "slots": self._settings.slots,
            "models": self._worker.models,
            "agent_info": self._worker.info,
            "hardware": await asyncio.to_thread(self._machine.hardware),
        }

    async def _post(self, path: str, key: str, body: Json) -> tuple[int, Json]:
        """Status and reply; status 0 when nobody answers as admission would."""
        url = f"{self._settings.admission_url}{path}"
        try:
            async with self._session.post(
                url, json=body, headers=bearer(key), allow_redirects=False
            ) as answer:
                status, reply = answer.status, json.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError):
            return 0, {"detail": f"admission at {self._settings.admission_url} does not answer"}
        except ValueError:
            return 0, {"detail": f"{url} does not answer as admission would"}
        return status, reply if isinstance(reply, dict) else {}

    def _say(self, state: str) -> None:
        if state != self.state:
            self.state = state
            log.info("admission state=%s", state)

    def _remember(self) -> None:
        """Take up the secrets of an earlier run of this worker."""
        file = self._settings.state_file
        try:
            kept = json.loads(file.read_bytes())
            if kept["worker_id"] == self._settings.worker_id:
                self._token = str(kept["token"])
                self._worker.take_key(str(kept["upstream_key"]))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("state ignored file=%s reason=%s", file, type(error).__name__)

    def _keep(self, upstream_key: str) -> None:
        file = self._settings.state_file
        kept = {"worker_id": self._settings.worker_id, "token": self._token}
        text = json.dumps({**kept, "upstream_key": upstream_key})
        draft = file.with_name(f"{file.name}.new")
        try:
            draft.unlink(missing_ok=True)
            draft.touch(mode=0o600)
            draft.write_text(text)
            draft.replace(file)
        except OSError as error:
            log.warning("state not kept file=%s reason=%s", file, error)


def _told(status: int, reply: Json) -> str:
    """Admission's answer in one line; its detail names the fields."""
    text = " ".join(str(reply.get("detail") or "no reason given").split())
    return f"{text} ({status})" if status else text


# -------------------------------------------------------------------------- the application


class Agent:
    """The HTTP surface."""

    def __init__(self, worker: Worker, machine: Machine, model: ModelServer, link: Link) -> None:
        self._worker, self._machine, self._model, self._link = worker, machine, model, link

    def application(self, relay: Relay) -> web.Application:
        """All routes; `/v1/*` and `/drain` behind the upstream key."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guard])
        app.router.add_get("/info", self._info)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/drain", self._drain)
        app.router.add_route("*", "/v1/{path:.*}", relay)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse wrong keys, and put every refusal in the shape its reader expects."""
        for_models = request.path.startswith("/v1/")
        refuse = envelope if for_models else problem
        if for_models or request.path == "/drain":
            kind, _, key = request.headers.get("Authorization", "").partition(" ")
            if kind.lower() != "bearer" or not key:
                return refuse(401, "no_key", "The upstream key is missing.")
            if not self._worker.may_call(key):
                return refuse(403, "wrong_key", "This is not this worker's upstream key.")
        try:
            return await handler(request)
        except web.HTTPException as error:
            return refuse(error.status, "refused", f"{request.method} is not answered here.")

    async def _info(self, _: web.Request) -> web.Response:
        facts = {f"agent_{name}": value for name, value in self._worker.info.items()}
        return web.json_response({**facts, "worker_id": self._worker.settings.worker_id})

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _readyz(self, _: web.Request) -> web.Response:
        worker = self._worker
        worker.saw(*await self._model.models())
        body = {
            "ready": worker.reason is None,
            "reason": worker.reason,
            "draining": worker.draining,
            "registered": self._link.registered,
            "admission": self._link.state,
            "models": worker.models,
        }
        return web.json_response(body, status=200 if worker.reason is None else 503)

    async def _drain(self, _: web.Request) -> web.Response:
        self._worker.drain("asked for by POST /drain")
        await self._link.tell_drain()
        return web.json_response({"draining": True, "in_flight": self._worker.in_flight})

    async def _metrics(self, _: web.Request) -> web.Response:
        """Prometheus text format 0.0.4; a figure that is not known is left out."""
        worker, (running, waiting) = self._worker, await self._model.load()
        gauges = {
            "up": 1,
            "ready": int(worker.reason is None),
            "slots": worker.settings.slots,
            "requests_running": worker.in_flight,
            "model_requests_running": running,
            "model_queue_depth": waiting,
            **await asyncio.to_thread(self._machine.load),
        }
        lines = []
        for name, value in gauges.items():
            if value is not None:
                full = f"vestibule_worker_{name}"
                lines += [f"# TYPE {full} gauge", f"{full} {value}"]
        full = "vestibule_worker_requests_total"
        lines.append(f"# TYPE {full} counter")
        lines += [f'{full}{{status="{key}"}} {n}' for key, n in sorted(worker.finished.items())]
        kind = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body="\n".join([*lines, ""]).encode(), headers=kind)


def problem(status: int, code: str, message: str) -> web.Response:
    """An error as RFC 9457 shapes it."""
    body = {"type": "about:blank", "title": code, "status": status, "detail": message}
    kind = "application/problem+json"
    return web.Response(text=json.dumps(body), status=status, content_type=kind)


async def serve(settings: Settings, checksum: str) -> int:
    """Run until a signal comes; the process's exit status. A second signal ends it at once."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    worker, machine = Worker(settings, checksum), Machine(settings.state_file.parent)
    asked_for = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=asked_for) as asking, _relaying() as relaying:
        model = ModelServer(asking, settings)
        link = Link(asking, worker, machine, model)
        runner = web.AppRunner(
            Agent(worker, machine, model, link).application(Relay(relaying, worker)),
            access_log=None,
            auto_decompress=False,  # a compressed body is passed on as it is
            handler_cancellation=True,  # client gone: the relay is cancelled with it
            shutdown_timeout=0.1,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, settings.host, settings.port).start()
            log.info("agent listens url=%s id=%s", settings.worker_url, settings.worker_id)
            await _work(stop, worker, model, link)
        finally:
            await runner.cleanup()
    log.info("agent stopped")
    return 0


async def _work(stop: asyncio.Event, worker: Worker, model: ModelServer, link: Link) -> None:
    """Watch and heartbeat until told to stop, then let the running requests finish."""
    stopping = asyncio.create_task(stop.wait())
    duties = {asyncio.create_task(_watch(model, worker)), asyncio.create_task(link.run())}
    try:
        ended, _ = await asyncio.wait({stopping, *duties}, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        worker.drain("the worker stops")
        await link.tell_drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(worker.idle.wait(), worker.settings.drain_timeout_s)
    finally:
        for task in (stopping, *duties):
            task.cancel()
        await asyncio.gather(stopping, *duties, return_exceptions=True)


async def _watch(model: ModelServer, worker: Worker) -> None:
    while True:
        worker.saw(*await model.models())
        await asyncio.sleep(LOOK_INTERVAL_S[worker.reason is None])


def _relaying() -> aiohttp.ClientSession:
    """A client that adds nothing, keeps no cookies and opens as many connections as asked for."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=UPSTREAM_KEEPALIVE_S),
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=UPSTREAM_IDLE_S
        ),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
    )


def main() -> int:
    """Exit status 0 after a signal, 1 when it cannot work, 2 when its settings are wrong."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        settings = read_settings(sys.argv[1:], os.environ)
        settings.state_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        checksum = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
        return asyncio.run(serve(settings, checksum))
    except SettingsError as error:
        sys.stderr.write(f"agent: these settings are wrong:\n{error}\n")
        return 2
    except (OSError, Refused) as error:
        sys.stderr.write(f"agent: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
