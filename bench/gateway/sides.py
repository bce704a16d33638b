"""How each gateway is started, on one core, in front of the same two model servers."""

import json
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from psutil import Process

from admission.clock import RedisClock
from admission.domain import DEFAULT_POOL, PoolPolicy
from admission.store.connection import open_redis
from admission.store.redis_store import RedisStore
from bench.gateway import peers
from bench.gateway.callers import PER_USER, STREAMS_MAX, user
from bench.gateway.upstream import MODEL
from bench.processes import Family, cores, module, running, until_answers
from bench.scripts import server

PORT, BESIDE_PORT = 18_700, 18_703  # the second: a peer's own metrics, which nobody asks
UPSTREAM_PORTS = (18_701, 18_702)
UPSTREAMS = tuple(f"http://127.0.0.1:{port}" for port in UPSTREAM_PORTS)
KEY = "bench-service-key"
USERS = STREAMS_MAX // PER_USER + 1
NGINX = """
worker_processes 1;
worker_rlimit_nofile 65536;
daemon off;
pid {folder}/pid;
error_log /dev/null;
events {{ worker_connections 32768; }}
http {{
  access_log off;
  client_body_temp_path {folder};
  proxy_temp_path {folder};
  fastcgi_temp_path {folder};
  uwsgi_temp_path {folder};
  scgi_temp_path {folder};
  keepalive_requests 1000000000;
  upstream models {{
    least_conn;
    {servers}
    keepalive 4096;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    client_body_buffer_size 1m;
    location / {{
      proxy_pass http://models;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""
LITELLM_CONFIG = {
    "model_list": [
        {
            "model_name": MODEL,
            "litellm_params": {"model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": "x"},
        }
        for url in UPSTREAMS
    ]
}


@dataclass(frozen=True)
class Started:
    """A side that answers: on these ports, and what it is made of. ``beside``: the Valkey that ours
    needs, which has its core elsewhere. ``patience``: so many times longer it is looked at, and how
    many streams it carries is not tried when that is more than once."""

    ports: tuple[int, ...]
    family: Family | None
    beside: Family | None = None
    patience: float = 1.0


Start = Callable[[], AbstractAsyncContextManager[Started]]


@asynccontextmanager
async def upstreams() -> AsyncIterator[None]:
    """The two model servers, on the cores that the gateway does not have."""
    async with AsyncExitStack() as stack:
        for port, url in zip(UPSTREAM_PORTS, UPSTREAMS, strict=True):
            command = module("bench.gateway.upstream", str(port))
            family = await stack.enter_async_context(running(*command, on=cores()[0]))
            await until_answers(f"{url}/v1/models", family=family)
        yield


@asynccontextmanager
async def _alone() -> AsyncIterator[Started]:
    yield Started(UPSTREAM_PORTS, None)


@asynccontextmanager
async def _gated(
    *command: str | Path,
    environment: Mapping[str, str] | None = None,
    path: str = "/v1/models",
    text: str = "",
    beside: Family | None = None,
    port: int = PORT,
) -> AsyncIterator[Started]:
    """``command`` on the core of what is measured."""
    async with running(*command, on=[cores()[1]], environment=environment) as family:
        headers = {"Authorization": f"Bearer {KEY}"}
        await until_answers(f"http://127.0.0.1:{port}{path}", text, headers, family)
        yield Started((port,), family, beside)


def _bare() -> AbstractAsyncContextManager[Started]:
    port = PORT + 10  # it runs beside ours
    return _gated(*module("bench.gateway.bare", str(port), *UPSTREAMS), port=port)


@asynccontextmanager
async def _ours() -> AsyncIterator[Started]:
    """``vestibule gateway`` with everything on, and a session for every user. Valkey, which writes
    to disk, and the scheduler are on the other cores."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(server())
        valkey = await _fill(url)
        environment = {
            "REDIS_URL": url,
            "MAX_ACTIVE_USERS": str(USERS),
            "VESTIBULE_SERVICE_KEY": KEY,
            "VESTIBULE_PORT": str(PORT),
            "VESTIBULE_STATE_DIR": str(Path(url.removeprefix("unix://").split("?")[0]).parent),
            "VESTIBULE_UPSTREAMS": ",".join(f"{url};slots=4096" for url in UPSTREAMS),
        }
        scheduler = module("infra.cli", "scheduler")
        await stack.enter_async_context(running(*scheduler, on=cores()[0], environment=environment))
        yield await stack.enter_async_context(
            _gated(
                *module("infra.cli", "gateway"),
                environment=environment,
                path="/readyz",
                text='"ready": 2',
                beside=valkey,
            )
        )


async def _fill(url: str) -> Family:
    """A session for each user; the server's process."""
    redis = open_redis(url)
    store = RedisStore(redis, RedisClock(), PoolPolicy(capacity=USERS, max_active=USERS))
    await store.load()
    for number in range(0, USERS * PER_USER, PER_USER):
        await store.join(DEFAULT_POOL, user(number), ticket=f"t{number}")
        await store.confirm(DEFAULT_POOL, user(number))
    pid = (await redis.info("server"))["process_id"]
    await redis.aclose()
    Process(pid).cpu_affinity(cores()[0])
    return Family(pid)


@asynccontextmanager
async def _nginx() -> AsyncIterator[Started]:
    with tempfile.TemporaryDirectory(prefix="vst-") as folder:
        file = _nginx_conf(Path(folder))
        async with _gated(peers.nginx() or "nginx", "-c", str(file)) as started:
            yield started


def _nginx_conf(folder: Path) -> Path:
    folder.chmod(0o755)  # started by root, its worker is somebody else
    servers = " ".join(f"server {url.removeprefix('http://')};" for url in UPSTREAMS)
    file = folder / "nginx.conf"
    file.write_text(NGINX.format(folder=folder, port=PORT, servers=servers))
    return file


def _vllm_router() -> AbstractAsyncContextManager[Started]:
    return _router("vllm-router", "vllm_router.launch_router")


def _sglang_router() -> AbstractAsyncContextManager[Started]:
    return _router("sglang-router", "sglang_router.launch_router")


def _router(name: str, launched: str) -> AbstractAsyncContextManager[Started]:
    words = ("--policy", "round_robin", "--host", "127.0.0.1", "--port", str(PORT))
    beside = ("--prometheus-port", str(BESIDE_PORT), "--max-concurrent-requests", "32768")
    return _gated(
        *(_python(name), "-m", launched, "--worker-urls", *UPSTREAMS, *words, *beside),
        path="/health",
    )


@asynccontextmanager
async def _litellm() -> AsyncIterator[Started]:
    with tempfile.TemporaryDirectory(prefix="vst-") as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(json.dumps(LITELLM_CONFIG))  # JSON is YAML
        words = ("--config", str(file), "--host", "127.0.0.1", "--port", str(PORT))
        environment = {
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
        }
        program = peers.binary("litellm", "litellm") or ""
        async with _gated(
            *(program, *words), environment=environment, path="/health/liveliness"
        ) as started:
            yield replace(started, patience=6.0)


def _python(name: str) -> Path | str:
    return peers.binary(name, "python") or sys.executable


STARTS: dict[str, Start] = {
    "alone": _alone,
    "bare": _bare,
    "ours": _ours,
    "nginx": _nginx,
    "vllm-router": _vllm_router,
    "sglang-router": _sglang_router,
    "litellm": _litellm,
}
"""Name -> how it is started. The first three run side by side and are measured in turn."""


def missing(name: str) -> str | None:
    """The line that installs what this side lacks; None when it is there."""
    if name == "nginx":
        return None if peers.nginx() else "apt-get install nginx-light"
    if name in peers.PACKAGES and peers.binary(name, "python") is None:
        return f"{Path(sys.executable).name} -m bench.gateway.peers {name}"
    return None
