"""One GPU machine's voice: what it is, whether its model answers, and the way to that model.

Knows nothing of queues, tickets and users: admission decides who may call, the gateway calls.
Ships alone (needs aiohttp, and pynvml where there is a GPU) and runs an OpenAI-compatible model
server, or stands beside one that somebody else runs:

    VESTIBULE_WORKER_TOKEN=... python agent.py --model Qwen/Qwen3-8B -- --max-num-seqs 64
    VESTIBULE_WORKER_TOKEN=... VESTIBULE_VLLM_URL=http://127.0.0.1:8000 python agent.py

It registers with admission, heartbeats, and relays `/v1/*` to the model server byte for byte.
Sections: settings · the journal · the machine · the model's files · the engine · the model server ·
the worker · the relay · the certificate · the link to admission · the application.
"""

import argparse
import asyncio
import contextlib
import ctypes
import fcntl
import gzip
import hashlib
import hmac
import io
import json
import logging
import os
import random
import re
import secrets
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import zlib
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from ipaddress import ip_address
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

AGENT_VERSION = "0.2.1"
AGENT_BUILD_DATE = "2026-11-21"

MAX_BODY_BYTES = 32 * 2**20  # a chat with several images in it
HEARTBEAT_MAX_S = 10.0  # admission may ask for less, never for more
LOOK_INTERVAL_S = (0.25, 1.0)  # how often the model server is asked: unready, ready
ASK_TIMEOUT_S = 10.0  # one question to admission or to the model server
METRICS_TIMEOUT_S = 2.0  # no heartbeat waits longer for a model server's figures
PROOF_GOOD_S = 10.0  # how long a token proves that the model answers
PROOF_ASKED_S = 3.0  # the same for whoever asks /readyz
KEY_GRACE_S = 10.0  # gateways learn of a new upstream key within seconds, not at once
CONNECT_TIMEOUT_S = 5.0
UPSTREAM_IDLE_S = 1800.0  # an answer that is not streamed is silent until it is complete
# vLLM closes an idle connection after 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE, 0.32): be earlier, or a
# request could be written into a connection that is just being closed.
UPSTREAM_KEEPALIVE_S = 2.0
BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
RESTART_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)  # a crashed engine is started after so long
STABLE_S = 300.0  # an engine that served for so long starts again as after its first crash
ENGINE_DRAIN_S = 5  # `--shutdown-timeout`; vLLM's own default 0 cuts what runs
ENGINE_STOP_S = 10.0  # on top of that, before it is killed
FETCH_SILENCE_S = 60.0
DISK_RESERVE_BYTES = 2**30  # of a disk that a model is put on, so much stays free
CHUNK_BYTES = 4 * 2**20
LOG_LINES = 10_000
LINE_CHARACTERS = 500
CRASH_LINES = 12
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
    r"https?://([^\s/?#@:\[\]]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/[^\s?#]*)?",
    "an address such as http://10.0.0.7:9001",
    lambda text: text.rstrip("/").removesuffix("/v1"),
)
COUNT = Shape(r"[1-9]\d{0,4}", "a whole number from 1 to 99999", int)
FILE = Shape(r".+", "a path", Path)
HOST = Shape(r"[\w.:-]+", "a host name or an IP address")
MODEL = Shape(r"[!-~ ]*", "a folder, a hub's name or https:// addresses")
NAME = Shape(r"[\w.-]{1,64}", "1 to 64 of A-Z a-z 0-9 . _ -")
LABEL = Shape(r"[!-~]{0,256}", "at most 256 printable characters without spaces")
POOL = Shape(r"[a-z0-9-]{1,64}", "1 to 64 of a-z 0-9 -")
PORT = Shape(r"[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5]", "a port", int)
PROGRAM = Shape(r".+", "a program")
SECONDS = Shape(r"\d{1,5}", "whole seconds from 0 to 99999", int)
SECRET = Shape(r"[!-~]*", "printable characters without spaces")
SHA256 = Shape(r"([0-9A-Fa-f]{64})?", "64 hexadecimal digits", str.lower)
SHA256S = Shape(
    r"([0-9A-Fa-f]{64}( |$))*", "64 hexadecimal digits for each address", lambda t: t.lower()
)
SWITCH = Shape(r"auto|on|off", "auto, on or off")
WORDS = Shape(r"(?s).*", "words as in a shell", lambda text: tuple(shlex.split(text)))


def _option(name: str, shape: Shape, default: str, meaning: str) -> Any:
    """One setting, by its name in the environment."""
    return field(metadata={"option": (name, shape, default, meaning)})


@dataclass(frozen=True)
class Settings:
    """What the operator chose; where there is no default, `read_settings` finds one."""

    admission_url: str = _option(
        "VESTIBULE_ADMISSION_URL", ADDRESS, "http://127.0.0.1:8600", "admission"
    )
    model: str = _option("VESTIBULE_MODEL", MODEL, "", "what vLLM is started with, if by the agent")
    model_sha256: str = _option("VESTIBULE_MODEL_SHA256", SHA256S, "", "of what is at its address")
    model_cache: Path = _option("VESTIBULE_MODEL_CACHE", FILE, "", "keeps what was at an address")
    vllm: str = _option("VESTIBULE_VLLM", PROGRAM, "vllm", "the vllm executable")
    vllm_arguments: tuple[str, ...] = _option(
        "VESTIBULE_VLLM_ARGUMENTS", WORDS, "", "more words for vllm serve"
    )
    vllm_url: str = _option("VESTIBULE_VLLM_URL", ADDRESS, "http://127.0.0.1:8000", "model server")
    vllm_key: str = _option("VESTIBULE_VLLM_KEY", SECRET, "", "the model server's key, if any")
    host: str = _option("VESTIBULE_WORKER_HOST", HOST, "127.0.0.1", "address to listen on")
    port: int = _option("VESTIBULE_WORKER_PORT", PORT, "9001", "port to listen on")
    tls: str = _option("VESTIBULE_WORKER_TLS", SWITCH, "auto", "https; auto: off loopback")
    worker_id: str = _option("VESTIBULE_WORKER_ID", NAME, "", "a lasting name")
    worker_url: str = _option("VESTIBULE_WORKER_URL", ADDRESS, "", "how the gateway reaches it")
    worker_token: str = _option("VESTIBULE_WORKER_TOKEN", SECRET, "", "registers a new worker")
    instance_id: str = _option("VESTIBULE_INSTANCE_ID", LABEL, "", "its provider's name for it")
    state_file: Path = _option("VESTIBULE_WORKER_STATE", FILE, "", "keeps this worker's secrets")
    drain_timeout_s: int = _option("VESTIBULE_WORKER_DRAIN_TIMEOUT", SECONDS, "25", "to finish in")
    slots: int = _option("VESTIBULE_SLOTS", COUNT, "8", "requests the model server takes well")
    pool: str = _option("VESTIBULE_POOL", POOL, "default", "the pool this worker serves")
    expected_checksum: str = _option("WORKER_AGENT_SHA256", SHA256, "", "of this file, to be ready")

    @property
    def with_tls(self) -> bool:
        return _with_tls(self.tls, self.host)

    @property
    def addresses(self) -> list[str]:
        """Where the model's files are to be fetched; none for a folder or a hub's name."""
        words = self.model.split()
        return words if words and all(re.match("https?://", word) for word in words) else []


OPTIONS: dict[str, tuple[str, Shape, str, str]] = {
    f.name: f.metadata["option"] for f in fields(Settings)
}


class SettingsError(Exception):
    """Everything that is wrong with the settings, one line each."""


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Flags win over the environment, which wins over the defaults. Raises `SettingsError`."""
    flags, words = list(arguments), []
    if "--" in flags:
        flags, words = flags[: flags.index("--")], flags[flags.index("--") + 1 :]
    given = vars(_parser().parse_args(flags))
    # Kubernetes sets VESTIBULE_WORKER_PORT=tcp://... by itself for a service of that name.
    named = {name: value for name, value in environment.items() if value[:6] != "tcp://"}
    chosen = {
        key: given.get(key) or named.get(name) or "" for key, (name, _, _, _) in OPTIONS.items()
    }
    chosen["vllm_arguments"] = shlex.join(words) or chosen["vllm_arguments"]
    _find_out(chosen, environment.get("VESTIBULE_STATE_DIR") or ".vestibule")
    values = {key: chosen[key] or default for key, (_, _, default, _) in OPTIONS.items()}
    if wrong := _wrong(values):
        raise SettingsError("\n".join(wrong))
    return Settings(**{key: OPTIONS[key][1].become(values[key]) for key in OPTIONS})


def _find_out(chosen: dict[str, str], folder: str) -> None:
    """Fill in what has no fixed default."""
    host = chosen["host"] or OPTIONS["host"][2]
    port = chosen["port"] or OPTIONS["port"][2]
    scheme = "https" if _with_tls(chosen["tls"] or "auto", host) else "http"
    name = f"[{host}]" if ":" in host else host
    kept = Path(chosen["state_file"]).parent if chosen["state_file"] else Path(folder)
    chosen["worker_id"] = chosen["worker_id"] or _kept_id(kept, port)
    chosen["worker_url"] = chosen["worker_url"] or f"{scheme}://{name}:{port}"
    chosen["state_file"] = chosen["state_file"] or f"{folder}/worker-{chosen['worker_id']}.json"
    chosen["model_cache"] = chosen["model_cache"] or f"{folder}/models"
    if chosen["model"]:  # ours to start: on a port nobody has, behind a key nobody knows
        chosen["vllm_key"] = chosen["vllm_key"] or secrets.token_urlsafe(32)
        if not chosen["vllm_url"]:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                chosen["vllm_url"] = f"http://127.0.0.1:{listener.getsockname()[1]}"


def _kept_id(folder: Path, port: str) -> str:
    """The name under which this worker ran before; else a new one, which `main` keeps.

    A host name alone is no name: rented machines are often all called alike.
    """
    with contextlib.suppress(OSError):
        if kept := (folder / f"worker-{port}.id").read_text().strip():
            return kept
    host = re.sub(r"[^\w.-]", "-", socket.gethostname(), flags=re.ASCII)[:48] or "worker"
    return f"{host}-{port}-{secrets.token_hex(3)}"


def _with_tls(switch: str, host: str) -> bool:
    if switch != "auto":
        return switch == "on"
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agent.py",
        description="Vestibule's worker agent: runs one model server, or stands beside one.",
        usage="agent.py [options] [-- words for vllm serve]",
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
        f"{name}{'' if shape in {SECRET, MODEL} else f'={values[key]!r}'} must be {shape.rule}"
        for key, (name, shape, _, _) in OPTIONS.items()
        if not re.fullmatch(shape.pattern, values[key], re.ASCII)
    ]
    if re.match(r"https?://(0\.0\.0\.0|\[::\])", values["worker_url"]):
        wrong.append("VESTIBULE_WORKER_URL is missing: gateways cannot call every address")
    elif values["worker_url"][:5] == "http:" and _with_tls(values["tls"], values["host"]):
        wrong.append("VESTIBULE_WORKER_URL must begin with https://, or VESTIBULE_WORKER_TLS=off")
    if not values["worker_token"] and not Path(values["state_file"]).exists():
        wrong.append("VESTIBULE_WORKER_TOKEN is missing: a new worker registers with it")
    try:
        shlex.split(values["vllm_arguments"])
    except ValueError as error:
        wrong.append(f"VESTIBULE_VLLM_ARGUMENTS must be words as in a shell: {error}")
    return [*wrong, *_wrong_model(values)]


def _wrong_model(values: Mapping[str, str]) -> Iterator[str]:
    ours = rf"http://(127\.0\.0\.1|localhost):({PORT.pattern})(/v1)?/?"
    if values["model"] and not re.fullmatch(ours, values["vllm_url"], re.ASCII):
        yield (
            "VESTIBULE_VLLM_URL must be on loopback, as http://127.0.0.1:8000: vLLM is the agent's"
            " alone to call"
        )
    hashes, addresses = values["model_sha256"].split(), values["model"].split()
    if hashes and len(hashes) != len(addresses):
        yield f"VESTIBULE_MODEL_SHA256 must be {SHA256S.rule} of VESTIBULE_MODEL"
    if all(re.match("https?://", word) for word in addresses):
        try:
            names = {URL(word).name for word in addresses}
        except ValueError:
            yield "VESTIBULE_MODEL must be addresses: one of them is none"
        else:
            if len(names) < len(addresses):  # they come to lie beside each other
                yield "VESTIBULE_MODEL must be addresses of files with different names"


# ------------------------------------------------------------------------------ the journal

_KNOWN_SHAPES = (  # of secrets, wherever they stand
    (re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+"), r"\1?[removed]"),  # a presigned address
    (re.compile(r"(https?://)[^\s/@]+@"), r"\1[removed]@"),
    (
        re.compile(r"(?i)(bearer\s+|(?:token|key|password|secret)\"?'?[=:]\s*)[^\s,)}]+"),
        r"\1[removed]",
    ),
    (re.compile(r"\b(?:hf|sk)[_-]\w{8,}"), "[removed]"),
)


class Journal(logging.Handler):
    """The newest lines of the agent and of its model server, for `/logs`; no secret is in them."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[Json] = deque(maxlen=LOG_LINES)
        self._secrets: set[str] = set()

    def hide(self, *texts: str) -> None:
        """Texts that must not be read anywhere; what has less than 8 characters is no secret."""
        self._secrets.update(text for text in texts if len(text) >= 8)

    def clean(self, text: str) -> str:
        """Without secrets, and not endless."""
        for known in self._secrets:
            text = text.replace(known, "[removed]")
        for shape, instead in _KNOWN_SHAPES:
            text = shape.sub(instead, text)
        return text if len(text) <= LINE_CHARACTERS else f"{text[:LINE_CHARACTERS]}…"

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean a record for every handler that comes after this one."""
        record.msg, record.args = self.clean(record.getMessage()), ()
        return True

    def emit(self, record: logging.LogRecord) -> None:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"at": at[:-6] + "Z", "level": record.levelname, "source": record.name}
        self._lines.append({**line, "text": record.getMessage()})

    def newest(self, tail: int, since: datetime | None) -> list[Json]:
        """At most `tail` lines, the oldest first; none before `since`."""
        lines = list(self._lines)[-tail:]
        return [line for line in lines if not since or datetime.fromisoformat(line["at"]) >= since]


# A line of vLLM 0.32's log: "(EngineCore pid=7) ERROR 11-21 10:00:00 [core.py:12] text".
_LINE = re.compile(
    r"(?:\([\w ]+ pid=\d+\) )?"
    r"(?:(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:.]+ (?P<place>\[[\w./]+:\d+\]) ?)?"
    r"(?P<text>.*)"
)
_FRAME = re.compile(r'\s*File "[^"]+", line \d+, in [\w<>]+')
_OF_ITSELF = re.compile(  # vLLM 0.32, multiproc_executor.py, core.py
    r"Worker proc [\w-]+ died unexpectedly \(exit code: -?\d+\)"
    r"|EngineCore encountered a fatal error"
    r"|\[shutdown\] [\w :=]*"
)
_UNSAID = "…"
_EXCEPTION = re.compile(r"\s*((?:\w+\.)*\w+(?:Error|Exception|Interrupt|Exit|Killed))\b")


def engine_line(line: str, *, served: bool) -> tuple[int, str] | None:
    """Level and text of one line of the engine's output as it may be read; None for nothing.

    Until it serves nobody has told it anything, so every line may be read. From then on a line may
    hold a prompt: of those only figures, places in the code and the names of exceptions are kept.
    """
    found = _LINE.fullmatch(line.rstrip())
    if not found or not found["text"].strip():
        return None
    level = logging.getLevelNamesMapping()[found["level"] or "INFO"]
    place, text = f"{found['place']} " if found["place"] else "", found["text"]
    if not served or place.startswith("[loggers.py"):
        return level, f"{place}{text}"
    if kept := _FRAME.match(text) or _EXCEPTION.match(text) or _OF_ITSELF.match(text):
        return level, f"{place}{kept[0]}"
    return (level, f"{place}{_UNSAID}") if place else None


# ------------------------------------------------------------------------------ the machine


class Gpus:
    """NVIDIA's cards by NVML; none where there is no driver. What a card refuses is None."""

    def __init__(self) -> None:
        _nvml("nvmlInit")
        count = _nvml("nvmlDeviceGetCount") or 0
        handles = [_nvml("nvmlDeviceGetHandleByIndex", index) for index in range(count)]
        self._cards = [handle for handle in handles if handle is not None]

    def cards(self) -> list[Json]:
        """What is built in."""
        return [
            {
                "name": _text(_nvml("nvmlDeviceGetName", card)) or "unknown",
                "uuid": _text(_nvml("nvmlDeviceGetUUID", card)),
                "memory_total_mb": _memory_of(card)[1] or 0,
            }
            for card in self._cards
        ]

    def load(self) -> list[Json]:
        """What is in use: load as a fraction, memory in MiB, degrees Celsius, watts."""
        return [_load_of(card) for card in self._cards]


def _load_of(card: Any) -> Json:
    rates = _nvml("nvmlDeviceGetUtilizationRates", card)  # a MIG slice tells none
    used, total = _memory_of(card)
    milliwatts = _nvml("nvmlDeviceGetPowerUsage", card)
    return {
        "uuid": _text(_nvml("nvmlDeviceGetUUID", card)),
        "load": rates.gpu / 100 if rates else None,
        "memory_used_mb": used,
        "memory_total_mb": total,
        "temperature_c": _nvml("nvmlDeviceGetTemperature", card, 0),  # 0: NVML_TEMPERATURE_GPU
        "power_w": milliwatts / 1000 if milliwatts is not None else None,
    }


def _memory_of(card: Any) -> tuple[int | None, int | None]:
    """Used and total, MiB; none for a card that shares the machine's memory."""
    seen = _nvml("nvmlDeviceGetMemoryInfo", card)
    return (seen.used // MIB, seen.total // MIB) if seen else (None, None)


def _nvml(function: str, *arguments: object) -> Any:
    """NVIDIA's answer; None where there is no GPU, no driver, or no such figure."""
    if pynvml is None:
        return None
    try:
        return getattr(pynvml, function)(*arguments)
    except pynvml.NVMLError:
        return None


def _text(value: Any) -> str | None:
    """Older bindings give bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


class Machine:
    """CPU, memory, disk and GPUs, read when asked. Sizes in MiB, loads as fractions of 1."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder  # whose disk counts
        self._gpus = Gpus()

    def load(self) -> Json:
        """What is in use now; null where the machine does not tell."""
        total, available = _memory()
        cards = self._gpus.load()
        rates = [card["load"] for card in cards if card["load"] is not None]
        sizes = [card for card in cards if card["memory_total_mb"] is not None]
        return {
            "gpu_load": sum(rates) / len(rates) if rates else None,
            "gpu_memory_used_mb": sum(c["memory_used_mb"] for c in sizes) if sizes else None,
            "gpu_memory_total_mb": sum(c["memory_total_mb"] for c in sizes) if sizes else None,
            # Load average of the last minute per CPU: above 1, work waits for a CPU.
            "cpu_load": round(os.getloadavg()[0] / (os.cpu_count() or 1), 4),
            "memory_used_mb": total - available if total and available else None,
            "gpus": cards,
        }

    def hardware(self) -> Json:
        """What is built in, and how much of the disk is free."""
        disk = shutil.disk_usage(_existing(self._folder))
        return {
            "cpu_count": os.cpu_count() or 1,
            "memory_total_mb": _memory()[0],
            "disk_total_mb": disk.total // MIB,
            "disk_free_mb": disk.free // MIB,
            "gpus": self._gpus.cards(),
        }


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _memory() -> tuple[int | None, int | None]:
    """Total and available; unknown outside Linux."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None, None
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return kib["MemTotal"] // 1024, kib["MemAvailable"] // 1024


# ------------------------------------------------------------------------- the model's files


class FetchError(Exception):
    """The model cannot be had; the text says why and may be read by operators."""


class ModelFiles:
    """Gets the model onto this machine before vLLM is started, and keeps it there."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        settings: Settings,
        tell: Callable[[int | None], None],
    ) -> None:
        """`tell` hears how much has come, in percent; None when that cannot be known."""
        self._session, self._settings, self._tell = session, settings, tell

    async def fetch(self) -> list[str]:
        """The words of `vllm serve` that name the model. Raises `FetchError`."""
        model = self._settings.model
        if self._settings.addresses:
            return await self._from_addresses()
        if model.startswith(("/", ".", "~")):
            return [_present(model)]
        await Hub(self._settings, self._tell).fetch()
        return [model]

    async def _from_addresses(self) -> list[str]:
        """Each address is one file, or a tar of files; together they are one folder."""
        urls = [URL(word) for word in self._settings.addresses]
        names = [_file_name(url) for url in urls]
        wanted = self._settings.model_sha256.split() or [""] * len(urls)
        title = re.sub(r"\.(tar|tar\.gz|tgz|safetensors)$", "", names[0])
        # Without the query: a presigned address is another one each time.
        identity = hashlib.sha256("\n".join(map(_open_part, urls)).encode())
        folder = self._settings.model_cache / f"{title}-{identity.hexdigest()[:12]}"
        words = [str(folder)]
        if _value(self._settings.vllm_arguments, "--served-model-name") is None:
            words += ["--served-model-name", title]
        sources = folder / ".sources.json"
        if await asyncio.to_thread(_says, sources, wanted):
            return words
        parts = folder.with_name(f"{folder.name}.parts")
        try:
            parts.mkdir(mode=0o700, parents=True, exist_ok=True)
            for index, (url, name, sha256) in enumerate(zip(urls, names, wanted, strict=True)):
                share = _Share(self._tell, index, len(urls))
                await Download(self._session, url, parts / name, sha256, share).run()
            await asyncio.to_thread(_put_together, parts, names, folder, sources.name, wanted)
        except OSError as error:
            raise FetchError(f"{folder}: {error.strerror or type(error).__name__}") from error
        return words


def _present(path: str) -> str:
    folder = Path(path).expanduser()
    if not folder.exists():
        raise FetchError(f"{folder}: there is no such folder")
    return str(folder)


def _value(words: Sequence[str], option: str) -> str | None:
    """What a command line gives an option, as "--a b" or "--a=b"; None when it is not there."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        if name == option:
            return value if equals else following
    return None


class _Share:
    """One file's part in the whole, in percent."""

    def __init__(self, tell: Callable[[int | None], None], index: int, count: int) -> None:
        self._tell, self._index, self._count = tell, index, count

    def __call__(self, done: int, total: int) -> None:
        self._tell(int(100 * (self._index + (done / total if total else 1)) / self._count))


def _file_name(url: URL) -> str:
    if not re.fullmatch(r"\w[\w.-]{0,200}", url.name, re.ASCII):
        raise FetchError(f"{_open_part(url)} does not end with a file's name")
    return url.name


def _open_part(url: URL) -> str:
    """What of an address is no secret."""
    return str(url.with_user(None).with_query(None))


def _says(sources: Path, wanted: list[str]) -> bool:
    """Whether a complete folder is there that was checked against the same hashes."""
    try:
        kept = json.loads(sources.read_bytes())
    except (OSError, ValueError):
        return False
    return bool(not any(wanted) or kept == wanted)


def _put_together(
    parts: Path, names: list[str], folder: Path, mark: str, wanted: list[str]
) -> None:
    """Unpack what is packed, and give the folder its name once it is complete."""
    draft = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    for name in names:
        if re.search(r"\.(tar|tar\.gz|tgz)$", name):
            _unpack(parts / name, draft)
        else:
            os.link(parts / name, draft / name)
    inside = [path for path in draft.iterdir() if not path.is_symlink()]
    # The tar of a folder, or of its files.
    whole = inside[0] if len(inside) == 1 and inside[0].is_dir() else draft
    (whole / mark).write_text(json.dumps(wanted))
    shutil.rmtree(folder, ignore_errors=True)
    whole.rename(folder)
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(parts, ignore_errors=True)


# What a tar leads to that was cut, damaged or made by an enemy; TarError does not cover it all.
_NO_TAR = (tarfile.TarError, EOFError, ValueError, zlib.error, gzip.BadGzipFile)


def _unpack(file: Path, folder: Path) -> None:
    try:
        with tarfile.open(file) as archive:
            check_room(folder, sum(member.size for member in archive))
            # "data" refuses what would land outside, devices, and links that lead away.
            archive.extractall(folder, filter="data")
    except _NO_TAR as error:
        file.unlink()
        raise FetchError(f"{file.name} cannot be unpacked: {type(error).__name__}") from error


def check_room(folder: Path, size: int) -> None:
    """Raises `FetchError` unless so many bytes fit on the disk, with a reserve."""
    free = shutil.disk_usage(_existing(folder)).free
    if size + DISK_RESERVE_BYTES > free:
        raise FetchError(
            f"the disk of {folder} has {free // MIB} MiB free, {size // MIB} MiB are needed"
            f" and {DISK_RESERVE_BYTES // MIB} MiB are to stay free"
        )


class Download:
    """One file over HTTP; what an earlier attempt brought is not fetched again."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: URL,
        file: Path,
        sha256: str,
        tell: Callable[[int, int], None],
    ) -> None:
        """`sha256`: of the whole file, or ""; `tell` hears bytes done and in all."""
        self._session, self._url, self._file, self._sha256 = session, url, file, sha256
        self._tell = tell
        self._part = file.with_name(f"{file.name}.part")
        self._mark = file.with_name(f"{file.name}.etag")  # which version the part is of

    async def run(self) -> None:
        """Raises `FetchError`; what has come by then is kept for the next attempt."""
        if self._file.exists():
            return
        try:
            await self._get()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise FetchError(f"{self._file.name} broke off: {type(error).__name__}") from error
        if self._sha256:
            found = await asyncio.to_thread(_sha256, self._part)
            if found != self._sha256:
                self._part.unlink()
                raise FetchError(f"{self._file.name} has SHA-256 {found}, not {self._sha256}")
        self._part.rename(self._file)

    async def _get(self) -> None:
        have = self._part.stat().st_size if self._part.exists() else 0
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": self._mark.read_text()}
        silence = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=FETCH_SILENCE_S
        )
        async with self._session.get(self._url, headers=headers, timeout=silence) as answer:
            if answer.status not in {200, 206}:
                self._part.unlink(missing_ok=True)
                raise FetchError(f"{self._file.name}: its address answers {answer.status}")
            if answer.status == 200:  # all of it, as it is another version or cannot be cut
                have = 0
            length = answer.content_length
            if length is None:
                raise FetchError(f"{self._file.name}: its address does not tell the size")
            check_room(self._part, length)
            # Only a strong tag says that the bytes are the same; without one, begin anew.
            tag = answer.headers.get("ETag", "")
            self._mark.write_text(tag if tag[:1] == '"' else '"none"')
            await self._write(answer, have, have + length)

    async def _write(self, answer: aiohttp.ClientResponse, have: int, total: int) -> None:
        with self._part.open("ab" if have else "wb") as file:
            async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                await asyncio.to_thread(file.write, chunk)
                have += len(chunk)
                self._tell(have, total)
        if have != total:
            raise FetchError(f"{self._file.name} ended after {have} of {total} bytes")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


# Run by the interpreter that has huggingface_hub. It says first what is to come and where it is
# put, so that progress can be seen on the disk; vLLM then finds the files in the same place.
_HUB_SCRIPT = """
import json, os, sys
from huggingface_hub import HfApi, constants, snapshot_download
name = sys.argv[1]
try:
    files = HfApi().model_info(name, files_metadata=True, timeout=10).siblings
except Exception as error:  # no such model, or no way to the hub: vLLM may still have it on disk
    sys.exit(f"{type(error).__name__}: {error}")
def named(*ends):
    return [file for file in files if file.rfilename.endswith(ends)]
weights = named(".safetensors") or named(".bin", ".pt")
ends = ("json", "txt", "model", "jinja", "py", "tiktoken")
chosen = weights + named(*("." + end for end in ends))
folder = os.path.join(constants.HF_HUB_CACHE, "models--" + name.replace("/", "--"))
print(json.dumps({"bytes": sum(f.size or 0 for f in chosen), "folder": folder}), flush=True)
sys.stdin.readline()
snapshot_download(name, allow_patterns=[file.rfilename for file in chosen])
"""


class Hub:
    """A model of the hub, by `huggingface_hub` where it is installed; else vLLM fetches it."""

    def __init__(self, settings: Settings, tell: Callable[[int | None], None]) -> None:
        self._settings, self._tell = settings, tell

    async def fetch(self) -> None:
        """Raises `FetchError`."""
        if os.environ.get("HF_HUB_OFFLINE", "0").lower() not in {"", "0", "false", "no"}:
            return
        for python in _interpreters(self._settings.vllm):
            if await asyncio.to_thread(_has_hub, python):
                await self._run(python)
                return

    async def _run(self, python: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *(python, "-c", _HUB_SCRIPT, self._settings.model),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=childs_environment(),
            preexec_fn=_end_with_parent,
        )
        assert process.stdin
        assert process.stdout
        watching: asyncio.Task[None] | None = None
        try:
            if first := await process.stdout.readline():
                plan = json.loads(first)
                folder, size = Path(plan["folder"]), plan["bytes"]
                check_room(folder, max(0, size - await asyncio.to_thread(_size, folder)))
                process.stdin.write(b"go\n")
                watching = asyncio.create_task(self._watch(folder, size))
            _, errors = await process.communicate()
        finally:
            if watching:
                watching.cancel()
            if process.returncode is None:
                process.kill()
                await process.wait()
        said = errors.decode(errors="replace").strip().splitlines() or ["no reason given"]
        if process.returncode and watching:
            raise FetchError(f"the hub: {said[-1]}")
        if process.returncode:
            log.warning("the hub cannot be asked, vLLM is to find the model: %s", said[-1])

    async def _watch(self, folder: Path, total: int) -> None:
        while True:
            have = await asyncio.to_thread(_size, folder)
            self._tell(min(99, int(100 * have / total)) if total else None)
            await asyncio.sleep(1)


def _has_hub(python: str) -> bool:
    look = [python, "-c", "import huggingface_hub"]
    try:
        return subprocess.run(look, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _interpreters(vllm: str) -> Iterator[str]:
    """The one that runs vLLM, which depends on huggingface_hub; then our own."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        with Path(shutil.which(vllm) or vllm).open("rb") as script:
            line = script.readline(1024).decode()
        if line.startswith("#!") and "python" in line:
            yield line[2:].split()[0]
    yield sys.executable


def _size(folder: Path) -> int:
    """Bytes on the disk; links count nothing."""
    paths = (path for path in folder.rglob("*") if not path.is_symlink())
    total = 0
    for path in paths:
        with contextlib.suppress(OSError):  # it was just given its final name
            total += path.stat().st_size if path.is_file() else 0
    return total


# ------------------------------------------------------------------------------- the engine

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1  # prctl(2)
# Every process of the engine inherits this, so that a later agent finds what a killed one left.
# vLLM names its processes with setproctitle, which would write over it but for the second.
ENGINE_MARK = "WORKER_ENGINE_OF"
KEEP_ENVIRONMENT = {"SPT_NOENV": "1"}


def _end_with_parent() -> None:
    """In the child, before it becomes another program: the kernel ends it when we die."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def childs_environment(**added: str) -> dict[str, str]:
    """Ours without our settings: the model's own code has no business with our secrets."""
    ours = ("VESTIBULE_", "WORKER_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    if kept.get("VLLM_PORT", "").startswith("tcp://"):  # set by Kubernetes for a service "vllm"
        del kept["VLLM_PORT"]
    return {**kept, **added}


@dataclass(frozen=True)
class Crash:
    """How the engine ended that was to go on; `lines` may be read by operators."""

    at: str
    reason: str
    exit_code: int
    lines: list[str]


class Engine:
    """`vllm serve` as a child: fetched for, started, started again, ended with all it started."""

    def __init__(
        self, settings: Settings, journal: Journal, session: aiohttp.ClientSession
    ) -> None:
        self._settings, self._journal = settings, journal
        self._files = ModelFiles(session, settings, self._fetched)
        self._process: asyncio.subprocess.Process | None = None
        self._lines: deque[str] = deque(maxlen=CRASH_LINES)
        self._stopping = False
        self._failures = 0
        self._served_at: float | None = None
        self._again_s = 0.0
        self.state = "fetching"
        self.percent: int | None = None
        self.restarts = 0
        self.last_crash: Crash | None = None
        self.changed = asyncio.Event()  # it is down, or comes up: look at once

    @property
    def down(self) -> bool:
        """Whether nobody is there who could be asked."""
        return self.state in {"fetching", "crashed", "stopped"}

    @property
    def words(self) -> str:
        """The state, for people."""
        if self.state == "fetching":
            return f"the model is fetched{'' if self.percent is None else f' ({self.percent} %)'}"
        if self.state == "crashed" and self.last_crash:
            return f"{self.last_crash.reason}; next start in {self._again_s:.0f} s"
        return "vLLM is stopped" if self.state == "stopped" else "vLLM is starting"

    def serves(self) -> None:
        """The model answered."""
        if self.state == "starting":
            self.state, self._served_at = "serving", asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Until `stop`."""
        self._kill_survivors()
        while not self._stopping:
            try:
                self.state = "fetching"
                words = await self._files.fetch()
                if not self._stopping:
                    await self._run_once(words)
            except FetchError as error:
                self._crashed(f"the model cannot be fetched: {error}", 0)
            except OSError as error:
                self._crashed(f"{self._settings.vllm} cannot be started: {error.strerror}", 0)
            if not self._stopping:
                await asyncio.sleep(self._again_s)
                self.restarts += 1
        self.state = "stopped"

    async def stop(self) -> None:
        """End it: asked first, so that what still runs may finish, killed in the end."""
        self._stopping = True
        process = self._process
        if process and process.returncode is None:
            log.info("vLLM is stopped")
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._drain_s() + ENGINE_STOP_S):
                    await process.wait()
        self.kill()
        self.state = "stopped"

    def kill(self) -> None:
        """End it and whatever it started, at once."""
        if self._process:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._kill_survivors()

    def report(self) -> Json:
        """For the heartbeat."""
        crash = vars(self.last_crash) if self.last_crash else None
        about = {"percent": self.percent, "restarts": self.restarts, "last_crash": crash}
        return {"state": self.state, **about}

    async def _run_once(self, words: list[str]) -> None:
        self.state, self.percent, self._served_at = "starting", None, None
        self._lines.clear()
        command = self._command(words)
        executable = Path(command[0])
        path = f"{executable.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        mark = {ENGINE_MARK: str(self._settings.state_file.absolute()), **KEEP_ENVIRONMENT}
        # A pipe of our own: asyncio's would keep `wait` from returning while vLLM's workers, which
        # inherit it, outlive vLLM (Python before 3.12.4).
        ours, theirs = os.pipe()
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *command,
                env=childs_environment(PATH=path, VLLM_API_KEY=self._settings.vllm_key, **mark),
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        log.info("vLLM starts pid=%d model=%s", process.pid, words[0])
        reading = asyncio.create_task(self._read(ours))
        try:
            status = await process.wait()
            self.kill()  # its workers are processes of their own, and hold the GPU
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await reading
        finally:
            reading.cancel()
            self.kill()
        if not self._stopping:
            how = f"ended with status {status}" if status >= 0 else f"was ended by signal {-status}"
            self._crashed(f"vLLM {how}{self._last_words()}", status)

    def _command(self, words: list[str]) -> list[str]:
        settings = self._settings
        executable = shutil.which(settings.vllm)
        if executable is None:
            raise FileNotFoundError(2, "there is no such executable")
        given = _value(settings.vllm_arguments, "--shutdown-timeout") is not None
        drain = [] if given else ["--shutdown-timeout", str(ENGINE_DRAIN_S)]
        # Ours come last, and win: only the agent may be reached from outside. It looks every
        # second, which would fill the log with access lines.
        address = ["--host", "127.0.0.1", "--port", settings.vllm_url.rpartition(":")[2]]
        ours = [*drain, "--disable-uvicorn-access-log", *address]
        return [str(Path(executable).absolute()), "serve", *words, *settings.vllm_arguments, *ours]

    def _drain_s(self) -> float:
        given = _value(self._settings.vllm_arguments, "--shutdown-timeout") or ""
        return float(given) if given.isdecimal() else ENGINE_DRAIN_S

    async def _read(self, pipe: int) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb")
        )
        rest = b""
        try:
            while chunk := await reader.read(2**16):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._heard(line)
                rest = rest[-(2**16) :]
            self._heard(rest)
        finally:
            transport.close()

    def _heard(self, line: bytes) -> None:
        text = line.decode(errors="replace")
        if kept := engine_line(text, served=self._served_at is not None):
            logging.getLogger("vllm").log(kept[0], kept[1])
            if not kept[1].endswith(_UNSAID):
                self._lines.append(self._journal.clean(kept[1]))

    def _last_words(self) -> str:
        """The last exception it named, which says more than a status."""
        said = [line for line in self._lines if _EXCEPTION.match(re.sub(r"^\[\S+\] ", "", line))]
        return f": {said[-1].strip()}" if said else ""

    def _crashed(self, reason: str, exit_code: int) -> None:
        now = asyncio.get_running_loop().time()
        if self._served_at is not None and now - self._served_at > STABLE_S:
            self._failures = 0
        self._failures += 1
        # Many workers must not all ask the hub again in the same moment.
        pause_s = RESTART_S[min(self._failures, len(RESTART_S)) - 1]
        self._again_s = pause_s * random.uniform(0.75, 1.25)
        at = datetime.now(UTC).isoformat(timespec="seconds")[:-6] + "Z"
        reason = self._journal.clean(reason)
        self.last_crash = Crash(at, reason, exit_code, list(self._lines))
        self.state, self.percent = "crashed", None
        self.changed.set()
        log.error("engine crashed reason=%s", self.words)

    def _fetched(self, percent: int | None) -> None:
        self.percent = percent

    def _kill_survivors(self) -> None:
        """What a killed agent's engine, or a killed engine's workers, left behind."""
        mark = f"{ENGINE_MARK}={self._settings.state_file.absolute()}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    os.kill(int(folder.name), signal.SIGKILL)


# ------------------------------------------------------------------------- the model server


class Figures(NamedTuple):
    """What the model server's `/metrics` say; None where it has no such metric.

    Source of the names: vLLM 0.33 (`gpu_cache_usage_perc` before 0.10). Requests of several
    engines are summed; `kv_cache_usage` is the fullest engine's, 0 to 1.
    """

    text: str = ""
    running: int | None = None
    waiting: int | None = None
    kv_cache_usage: float | None = None

    @classmethod
    def read(cls, text: str) -> "Figures":
        running = _values(text, "vllm:num_requests_running")
        waiting = _values(text, "vllm:num_requests_waiting")
        usage = _values(text, "vllm:(?:kv|gpu)_cache_usage_perc")
        return cls(
            text,
            round(sum(running)) if running else None,
            round(sum(waiting)) if waiting else None,
            min(1.0, max(usage)) if usage else None,
        )


def _values(metrics: str, name: str) -> list[float]:
    number = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"
    return [
        float(value)
        for value in re.findall(rf"^{name}(?:\{{.*\}})? ({number})$", metrics, re.MULTILINE)
    ]


# One token, asked in the way the model knows; a server that knows none of them cannot be tried.
# A sentence, as vLLM 0.32 on a CPU dies of a prompt of one token (seen with a tiny Llama).
_SENTENCE = "Please answer this with one single word."
_TRIES: tuple[tuple[str, Json], ...] = (
    (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": _SENTENCE}], "max_tokens": 1},
    ),
    ("/v1/completions", {"prompt": _SENTENCE, "max_tokens": 1}),
    ("/v1/embeddings", {"input": _SENTENCE}),
)
_NOT_THAT_WAY = {400, 404, 405, 422, 501}
_TOO_BUSY = {429, 503}  # vLLM's own queue limits: saturated, not dead


class ModelServer:
    """What the model server says of itself, and whether the model answers."""

    def __init__(
        self, session: aiohttp.ClientSession, settings: Settings, busy: Callable[[], bool]
    ) -> None:
        """`busy`: whether requests run; then one more may wait long without that being a fault."""
        self._session, self._settings, self._busy = session, settings, busy
        self._trying = asyncio.Lock()
        self._spoke_at, self._tried_at = float("-inf"), float("-inf")
        self._problem: str | None = None
        self._way = 0
        self.version: str | None = None

    def spoke(self) -> None:
        """A token passed by just now: no better proof is needed."""
        self._spoke_at = asyncio.get_running_loop().time()

    def ended(self) -> None:
        """What it proved holds no longer: its process is gone."""
        self._spoke_at, self.version = float("-inf"), None

    async def look(self, proof_good_s: float) -> tuple[list[str], str | None]:
        """The names it serves, and why it cannot be used (None when it can).

        The model makes one token unless it made one in the last `proof_good_s` seconds.
        """
        names, problem = await self._models()
        if problem is None:
            problem = await self._prove(names[0], proof_good_s)
        if problem is None and self.version is None:
            self.version = await self._version()
        return names, problem

    async def figures(self) -> Figures:
        """Of this moment; all None when it does not tell."""
        try:
            status, body = await self._ask("GET", "/metrics", METRICS_TIMEOUT_S)
        except (aiohttp.ClientError, TimeoutError):
            return Figures()
        return Figures.read(body.decode(errors="replace") if status == 200 else "")

    async def _models(self) -> tuple[list[str], str | None]:
        try:
            status, body = await self._ask("GET", "/v1/models", ASK_TIMEOUT_S)
            if status != 200:
                return [], f"the model server answers {status} to /v1/models"
            names = [str(model["id"]) for model in json.loads(body)["data"]]
        except (aiohttp.ClientError, TimeoutError):
            return [], f"the model server at {self._settings.vllm_url} does not answer"
        except (ValueError, KeyError, TypeError):
            return [], "the model server's /v1/models is not a list of models"
        return names, None if names else "the model server serves no model"

    async def _version(self) -> str:
        try:
            status, body = await self._ask("GET", "/version", METRICS_TIMEOUT_S)
            return str(json.loads(body)["version"])[:64] if status == 200 else ""
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError):
            return ""

    async def _prove(self, model: str, good_s: float) -> str | None:
        async with self._trying:  # many may ask at once, one token answers all
            now = asyncio.get_running_loop().time()
            if now - self._spoke_at < good_s:
                return None
            if now - self._tried_at < LOOK_INTERVAL_S[1]:
                return self._problem
            self._problem = await self._try(model)
            self._tried_at = asyncio.get_running_loop().time()
            if self._problem is None:
                self._spoke_at = self._tried_at
            return self._problem

    async def _try(self, model: str) -> str | None:
        for way in [self._way, *(n for n in range(len(_TRIES)) if n != self._way)]:
            path, body = _TRIES[way]
            try:
                status, _ = await self._ask("POST", path, ASK_TIMEOUT_S, {"model": model, **body})
            except TimeoutError:
                return None if self._busy() else f"the model says nothing in {ASK_TIMEOUT_S:.0f} s"
            except aiohttp.ClientError as error:
                return f"the model server breaks off: {type(error).__name__}"
            if status in _NOT_THAT_WAY:
                continue
            self._way = way
            good = status < 300 or status in _TOO_BUSY
            return None if good else f"the model server answers {status} to {path}"
        return None

    async def _ask(
        self, method: str, path: str, timeout_s: float, body: Json | None = None
    ) -> tuple[int, bytes]:
        url, headers = f"{self._settings.vllm_url}{path}", bearer(self._settings.vllm_key)
        headers["User-Agent"] = f"vestibule-agent/{AGENT_VERSION}"
        async with (
            asyncio.timeout(timeout_s),
            self._session.request(
                method, url, headers=headers, json=body, allow_redirects=False
            ) as reply,
        ):
            return reply.status, await reply.read()


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
        self._revoked = False
        self._retiring = False
        self._noted: tuple[str | None, list[str]] = self._problem, []

    @property
    def draining(self) -> bool:
        return self._drain is not None or self._admission_drains

    @property
    def answers(self) -> bool:
        """Whether the model does, drained or not."""
        return self._problem is None

    @property
    def reason(self) -> str | None:
        """Why no request may come here; None when ready."""
        expected = self.settings.expected_checksum
        if expected and expected != self.checksum:
            return f"agent_checksum {self.checksum} is not WORKER_AGENT_SHA256 {expected}"
        if self._revoked:
            return "admission revoked this worker"
        if self.draining:
            return f"draining: {self._drain or 'admission said so'}"
        return self._problem

    @property
    def turns_away(self) -> str | None:
        """Why a request that comes all the same is not passed on; None while draining, as those
        were sent before everybody knew. A model server that was not seen to answer may still
        write prompts into the log.
        """
        return self._problem or (None if self.draining else self.reason)

    @property
    def info(self) -> Json:
        """`agent_info` as admission takes it."""
        named = {"version": AGENT_VERSION, "build_date": AGENT_BUILD_DATE}
        return {**named, "checksum": self.checksum}

    def saw(self, models: list[str], problem: str | None) -> None:
        """What the model server answered just now; what it served it is still to serve."""
        self.models, self._problem = models or self.models, problem
        self._note()

    def drain(self, why: str) -> None:
        """Be unready until the next start; what runs goes on."""
        self._drain = self._drain or why
        self._note()

    def admission_says(self, *, draining: bool) -> None:
        """Admission's own wish to drain, which it may take back."""
        self._admission_drains = draining
        self._note()

    def revoked(self, *, yes: bool) -> None:
        """Admission took the secrets away, or gave new ones: nobody may call by the former."""
        if yes:
            self.upstream_keys = []
        self._revoked = yes
        self._note()

    def take_key(self, key: str) -> None:
        """A new upstream key; those before stay good until `KEY_GRACE_S` after `settle_keys`."""
        self.upstream_keys = [key, *(other for other in self.upstream_keys if other != key)]

    def settle_keys(self) -> None:
        """Admission gives the newest key to gateways from now on."""
        if len(self.upstream_keys) > 1 and not self._retiring:
            self._retiring = True
            former = self.upstream_keys[1:]
            asyncio.get_running_loop().call_later(KEY_GRACE_S, self._retire, former)

    def _retire(self, former: list[str]) -> None:
        self._retiring = False
        self.upstream_keys = [key for key in self.upstream_keys if key not in former]

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
        # How far a fetch is changes all the time and is told by the next heartbeat.
        now = re.sub(r" \(\d+ %\)$", "", self.reason) if self.reason else None, self.models
        if now == self._noted:
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

    def __init__(self, session: aiohttp.ClientSession, worker: Worker, model: ModelServer) -> None:
        self._session, self._worker, self._model = session, worker, model

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
        if why := self._worker.turns_away:
            return _elsewhere("not_ready", f"This worker is not ready: {why}")
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
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return _elsewhere("model_server_away", "The model server does not answer.")
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("relay failed reason=%s", type(error).__name__)
            if isinstance(error, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
                # It went away with the request: so do we, and the gateway asks another once.
                _cut(request)
            return envelope(502, "model_server_away", "The model server gave no answer.")

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
                if upstream.status == 200 and request.method == "POST":
                    self._model.spoke()
                await response.write(chunk)
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            # The status has gone out: only a broken connection can still say that it failed.
            _cut(request)
        return response


def _cut(request: web.Request) -> None:
    if request.transport:
        request.transport.close()


def _elsewhere(code: str, message: str) -> web.Response:
    """Nothing was done with the request: the gateway takes a 503 as leave to ask another worker."""
    response = envelope(503, code, message)
    response.headers["Retry-After"] = "2"
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


# -------------------------------------------------------------------------- the certificate


class Certificate(NamedTuple):
    """What this worker shows; admission believes the fingerprint it registered, nobody's word."""

    context: ssl.SSLContext
    fingerprint: str  # SHA-256 of the certificate in DER, hexadecimal


def own_certificate(file: Path, name: str) -> Certificate:
    """The key and certificate of `file`, made at the first start. Raises `OSError`.

    The `openssl` program makes them: the agent needs no library that only the first start uses.
    Another certificate may be put there; it is pinned all the same.
    """
    if not file.exists():
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
        command += ["ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650"]
        command += ["-subj", f"/CN={name}", "-keyout", "-", "-out", "-"]
        try:
            made = subprocess.run(command, capture_output=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            raise OSError(f"openssl makes no certificate ({type(error).__name__})") from error
        _keep_private(file, made.stdout)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(file)
    text = file.read_text()
    begin = text.index("-----BEGIN CERTIFICATE")
    end = "-----END CERTIFICATE-----"
    der = ssl.PEM_cert_to_DER_cert(text[begin : text.index(end, begin) + len(end)])
    return Certificate(context, hashlib.sha256(der).hexdigest())


def _keep_private(file: Path, content: bytes) -> None:
    """Replace a file at once, for its owner's eyes only. Raises `OSError`."""
    draft = file.with_name(f"{file.name}.new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_bytes(content)
    draft.replace(file)


# -------------------------------------------------------------------- the link to admission


class Refused(Exception):
    """Admission does not take this worker's keys: a person has to act."""


class Link:
    """Registers, heartbeats, and keeps the two secrets that registration yields."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        worker: Worker,
        machine: Machine,
        model: ModelServer,
        engine: Engine | None,
        journal: Journal,
    ) -> None:
        self._session, self._worker, self._machine, self._model = session, worker, machine, model
        self._engine, self._journal = engine, journal
        self._settings = worker.settings
        self._token = ""
        self._interval_s = HEARTBEAT_MAX_S
        self.fingerprint: str | None = None
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
                    async with asyncio.timeout(self._interval_s):
                        await self._worker.changed.wait()

    async def tell_drain(self) -> None:
        """Ask admission to send nothing new; it is no loss when it cannot hear."""
        if self.registered:
            path = f"/workers/{self._settings.worker_id}/drain?pool={self._settings.pool}"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await self._post(path, self._token, {})

    async def _register(self) -> str | None:
        """One attempt; what went wrong, or None. A known worker comes with its own token."""
        settings = self._settings
        named = {"worker_id": settings.worker_id, "url": settings.worker_url}
        body = {**named, "fingerprint": self.fingerprint, **await self._facts()}
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
        """Both secrets are new; the former hold until a heartbeat has used the new token."""
        try:
            token, key = str(reply["token"]), str(reply["upstream_key"])
            asked_s = float(reply["heartbeat_interval"])
        except (KeyError, ValueError, TypeError):
            return "admission's reply to the registration is not understood"
        self._journal.hide(token, key)
        self._token = token
        self._worker.take_key(key)
        self._worker.revoked(yes=False)
        self._interval_s = min(max(asked_s, 0.1), HEARTBEAT_MAX_S)
        self.registered = self._was_registered = True
        self._keep()
        return None

    async def _beat(self) -> str | None:
        """One heartbeat; what went wrong, or None."""
        worker, figures = self._worker, await self._model.figures()
        load = await asyncio.to_thread(self._machine.load)
        facts = await self._facts()
        body = {
            "worker_id": self._settings.worker_id,
            "ready": worker.reason is None,
            "reason": worker.reason,
            "in_flight": worker.in_flight,
            "queue_depth": figures.waiting or 0,
            "load": {
                **load,
                "running": figures.running,
                "waiting": figures.waiting,
                "kv_cache_usage": figures.kv_cache_usage,
            },
            "engine": self._engine_facts(),
            **facts,
        }
        status, reply = await self._post("/workers/heartbeat", self._token, body)
        if status == 200:
            worker.settle_keys()
            worker.admission_says(draining=reply.get("draining") is True)
            return await self._rotate() if reply.get("rotate") is True else None
        if status in {401, 403, 404}:  # forgotten or released: introduce ourselves again
            self.registered = False
            worker.revoked(yes=reply.get("code") == "worker_revoked")
        return _told(status, reply)

    async def _rotate(self) -> str | None:
        """New secrets, wanted by an admin; the next heartbeat, at once, puts them in force."""
        if problem := await self._register():
            return problem
        log.info("the secrets are new, as admission asked")
        self._worker.changed.set()
        return None

    def _engine_facts(self) -> Json:
        version = {"version": self._model.version or None}
        return {**(self._engine.report() if self._engine else {"state": "external"}), **version}

    async def _facts(self) -> Json:
        return {
            "pool": self._settings.pool,
            "slots": self._settings.slots,
            "models": self._worker.models,
            "agent_info": self._worker.info,
            "hardware": await asyncio.to_thread(self._machine.hardware),
            "instance_id": self._settings.instance_id or None,
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
                for key in reversed(kept["upstream_keys"]):
                    self._worker.take_key(str(key))
                self._journal.hide(self._token, *self._worker.upstream_keys)
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("state ignored file=%s reason=%s", file, type(error).__name__)

    def _keep(self) -> None:
        """With the key before the newest: gateways use it until the next heartbeat."""
        file, keys = self._settings.state_file, self._worker.upstream_keys[:2]
        kept = {"worker_id": self._settings.worker_id, "token": self._token, "upstream_keys": keys}
        try:
            _keep_private(file, json.dumps(kept).encode())
        except OSError as error:
            log.warning("state not kept file=%s reason=%s", file, error)


def _told(status: int, reply: Json) -> str:
    """Admission's answer in one line; its detail names the fields."""
    text = " ".join(str(reply.get("detail") or "no reason given").split())
    return f"{text} ({status})" if status else text


# -------------------------------------------------------------------------- the application


class Agent:
    """The HTTP surface, and the order in which the worker winds down."""

    def __init__(
        self,
        worker: Worker,
        machine: Machine,
        model: ModelServer,
        engine: Engine | None,
        link: Link,
        journal: Journal,
    ) -> None:
        self._worker, self._machine, self._model = worker, machine, model
        self._engine, self._link, self._journal = engine, link, journal
        self._winding_down: asyncio.Task[None] | None = None

    def application(
        self, relay: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.Application:
        """All routes; `/v1/*`, `/drain` and `/logs` behind the upstream key."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guard])
        app.router.add_get("/info", self._info)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/logs", self._logs)
        app.router.add_post("/drain", self._drain)
        app.router.add_route("*", "/v1/{path:.*}", relay)
        return app

    @property
    def ready(self) -> bool:
        return self._worker.reason is None

    async def look(self, proof_good_s: float) -> None:
        """See how the model server is, and let the worker know."""
        engine = self._engine
        models: list[str] = []
        problem: str | None = None
        if not (engine and engine.down):
            models, problem = await self._model.look(proof_good_s)
        if engine and engine.down:
            self._model.ended()
            problem = engine.words
        elif engine and problem is None:
            engine.serves()
        elif engine and engine.state == "starting":
            problem = engine.words
        self._worker.saw(models, problem)

    async def wind_down(self, why: str) -> None:
        """Nothing new; what runs may finish until the deadline; then vLLM is ended."""
        self._worker.drain(why)
        await self._link.tell_drain()
        await asyncio.shield(self._begin_the_end())

    def _begin_the_end(self) -> asyncio.Task[None]:
        """Once: who asks again waits for the same deadline."""
        self._winding_down = self._winding_down or asyncio.create_task(self._finish())
        return self._winding_down

    async def _finish(self) -> None:
        worker = self._worker
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(worker.settings.drain_timeout_s):
                await worker.idle.wait()
        if self._engine:
            await self._engine.stop()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse wrong keys, and put every refusal in the shape its reader expects."""
        for_models = request.path.startswith("/v1/")
        refuse = envelope if for_models else problem
        if for_models or request.path in {"/drain", "/logs"}:
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
        worker, engine = self._worker, self._engine
        return web.json_response(
            {
                **{f"agent_{name}": value for name, value in worker.info.items()},
                "worker_id": worker.settings.worker_id,
                "instance_id": worker.settings.instance_id or None,
                "models": worker.models,
                "vllm_version": self._model.version or None,
                "vllm_ready": worker.answers,
                "vllm_state": engine.state if engine else "external",
                "vllm_restarts": engine.restarts if engine else 0,
                "model_percent": engine.percent if engine else None,
            }
        )

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _readyz(self, _: web.Request) -> web.Response:
        worker = self._worker
        await self.look(PROOF_ASKED_S)
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
        """At once: what runs is waited for behind the caller's back."""
        why = "asked for by POST /drain"
        self._worker.drain(why)
        await self._link.tell_drain()
        self._begin_the_end()
        return web.json_response({"draining": True, "in_flight": self._worker.in_flight})

    async def _logs(self, request: web.Request) -> web.Response:
        """JSON lines, the oldest first: `tail` of them (1000), none before the instant `since`."""
        tail, since = request.query.get("tail", "1000"), request.query.get("since")
        if not re.fullmatch(r"[1-9]\d{0,5}", tail, re.ASCII):
            return problem(422, "bad_input", "tail: a whole number from 1 to 999999")
        try:
            instant = datetime.fromisoformat(since) if since else None
        except ValueError:
            return problem(422, "bad_input", "since: an instant in ISO 8601")
        if instant and instant.tzinfo is None:
            instant = instant.replace(tzinfo=UTC)
        lines = [json.dumps(line) + "\n" for line in self._journal.newest(int(tail), instant)]
        return web.Response(text="".join(lines), content_type="application/jsonl")

    async def _metrics(self, _: web.Request) -> web.Response:
        """Prometheus text format 0.0.4: ours, then the model server's own as they came."""
        figures = await self._model.figures()
        load = await asyncio.to_thread(self._machine.load)
        lines = [*self._gauges(figures, load), *_of_cards(load["gpus"]), *self._requests()]
        theirs = "".join(
            f"{line}\n" for line in figures.text.splitlines() if "vestibule_worker_" not in line
        )
        kind = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=("\n".join([*lines, ""]) + theirs).encode(), headers=kind)

    def _gauges(self, figures: Figures, load: Json) -> Iterator[str]:
        """A figure that is not known is left out."""
        worker, engine = self._worker, self._engine
        gauges = {
            "up": 1,
            "ready": int(worker.reason is None),
            "draining": int(worker.draining),
            "slots": worker.settings.slots,
            "requests_running": worker.in_flight,
            "model_requests_running": figures.running,
            "model_queue_depth": figures.waiting,
            "model_kv_cache_usage": figures.kv_cache_usage,
            "model_fetched_percent": engine.percent if engine else None,
            "model_restarts": engine.restarts if engine else None,
            **{name: value for name, value in load.items() if name != "gpus"},
        }
        for name, value in gauges.items():
            if value is not None:
                yield f"# TYPE vestibule_worker_{name} gauge"
                yield f"vestibule_worker_{name} {value}"

    def _requests(self) -> Iterator[str]:
        full = "vestibule_worker_requests_total"
        yield f"# TYPE {full} counter"
        for key, count in sorted(self._worker.finished.items()):
            yield f'{full}{{status="{key}"}} {count}'


def _of_cards(cards: list[Json]) -> Iterator[str]:
    """One gauge per figure, one line per card that tells it."""
    for name in ("load", "memory_used_mb", "memory_total_mb", "temperature_c", "power_w"):
        full = f"vestibule_worker_card_{name}"
        told = [(i, card) for i, card in enumerate(cards) if card[name] is not None]
        if told:
            yield f"# TYPE {full} gauge"
        for index, card in told:
            yield f'{full}{{gpu="{index}",uuid="{card["uuid"] or ""}"}} {card[name]}'


def problem(status: int, code: str, message: str) -> web.Response:
    """An error as RFC 9457 shapes it."""
    body = {"type": "about:blank", "title": code, "status": status, "detail": message}
    kind = "application/problem+json"
    return web.Response(text=json.dumps(body), status=status, content_type=kind)


async def serve(settings: Settings, checksum: str, journal: Journal) -> int:
    """Run until a signal comes; the process's exit status. A second signal ends it at once."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    journal.hide(settings.worker_token, settings.vllm_key)
    worker, machine = Worker(settings, checksum), Machine(settings.state_file.parent)
    asked_for = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=asked_for) as asking, _relaying() as relaying:
        model = ModelServer(asking, settings, lambda: worker.in_flight > 0)
        engine = Engine(settings, journal, asking) if settings.model else None
        link = Link(asking, worker, machine, model, engine, journal)
        agent = Agent(worker, machine, model, engine, link, journal)
        runner = web.AppRunner(
            agent.application(Relay(relaying, worker, model)),
            access_log=None,
            auto_decompress=False,  # a compressed body is passed on as it is
            handler_cancellation=True,  # client gone: the relay is cancelled with it
            shutdown_timeout=0.1,
        )
        await runner.setup()
        try:
            context = None
            if settings.with_tls:
                file = settings.state_file.with_suffix(".pem")
                context, link.fingerprint = await asyncio.to_thread(
                    own_certificate, file, settings.worker_id
                )
            await web.TCPSite(runner, settings.host, settings.port, ssl_context=context).start()
            log.info("agent listens url=%s id=%s", settings.worker_url, settings.worker_id)
            await _work(stop, agent, engine, link)
        finally:
            if engine:
                await engine.stop()
            await runner.cleanup()
    log.info("agent stopped")
    return 0


async def _work(stop: asyncio.Event, agent: Agent, engine: Engine | None, link: Link) -> None:
    """Watch, heartbeat and keep vLLM running until told to stop, then wind down."""
    stopping = asyncio.create_task(stop.wait())
    changed = engine.changed if engine else asyncio.Event()
    duties = {asyncio.create_task(_watch(agent, changed)), asyncio.create_task(link.run())}
    running = asyncio.create_task(engine.run()) if engine else None
    try:
        waited = {stopping, *duties, *([running] if running else [])}
        ended: set[asyncio.Task[Any]] = set()
        while ended <= {running}:  # a drained worker's vLLM is gone, and the agent still tells so
            ended, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, _end_at_once, number, engine)
        await agent.wind_down("the worker stops")
    finally:
        tasks = [task for task in (stopping, *duties, running) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _end_at_once(number: signal.Signals, engine: Engine | None) -> None:
    """A second signal: whoever sent it does not want to wait."""
    if engine:
        engine.kill()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


async def _watch(agent: Agent, changed: asyncio.Event) -> None:
    while True:
        await agent.look(PROOF_GOOD_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_INTERVAL_S[agent.ready]):
                await changed.wait()
        changed.clear()


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


def _journal() -> Journal:
    """Everything that is logged goes to standard error and into the journal, cleaned before."""
    journal, screen = Journal(), logging.StreamHandler()
    screen.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    screen.addFilter(journal.filter)
    logging.basicConfig(level=logging.INFO, handlers=[screen, journal])
    return journal


def main() -> int:
    """Exit status 0 after a signal, 1 when it cannot work, 2 when its settings are wrong."""
    journal = _journal()
    try:
        settings = read_settings(sys.argv[1:], os.environ)
        settings.state_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(settings):
            _keep_id(settings)
            checksum = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
            return asyncio.run(serve(settings, checksum, journal))
    except SettingsError as error:
        sys.stderr.write(f"agent: these settings are wrong:\n{error}\n")
        return 2
    except (OSError, Refused) as error:
        sys.stderr.write(f"agent: {error}\n")
        return 1


@contextlib.contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Two agents with one state would end each other's vLLM. Raises `OSError`."""
    with settings.state_file.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(f"another agent runs with {settings.state_file}") from error
        yield


def _keep_id(settings: Settings) -> None:
    """So that the next start has the same name, whatever the machine is called by then."""
    file = settings.state_file.parent / f"worker-{settings.port}.id"
    _keep_private(file, settings.worker_id.encode())


if __name__ == "__main__":
    sys.exit(main())
