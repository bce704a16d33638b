"""Reads the environment into settings, once, at start.

Knows names, defaults and ranges; nobody else reads the environment. A bad value, or an unknown
``VESTIBULE_`` name, is an error that lists all problems at once.
"""

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from admission.domain import PoolPolicy
from admission.setting_forms import (
    DatabaseUrl,
    Networks,
    Origins,
    Pem,
    Priorities,
    Rate,
    RedisUrl,
    Seconds,
    Switch,
    Upstreams,
    redis_hosts,
)
from admission.setting_forms import Upstream as Upstream

PREFIX = "VESTIBULE_"

# https://kubernetes.io/docs/concepts/containers/container-environment/#cluster-information and the
# Docker link variables it keeps: NAME_SERVICE_HOST, NAME_PORT=tcp://…, NAME_PORT_8600_TCP_ADDR.
_SERVICE_LINK = re.compile(
    r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?$"
)


class SettingsError(Exception):
    """What is wrong with the environment, one problem a line."""


class Settings(BaseModel):
    """Every setting of the admission service; the alias is the name in the environment."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    redis_url: RedisUrl = Field(
        None,
        alias="REDIS_URL",
        repr=False,  # it may hold a password
        description="Redis to use; none starts the embedded server",
    )
    redis_host: str | None = Field(None, alias="REDIS_HOST", description="instead of REDIS_URL")
    redis_port: int = Field(6379, alias="REDIS_PORT", ge=1, le=65535, description="with REDIS_HOST")
    redis_db: int = Field(0, alias="REDIS_DB", ge=0, description="with REDIS_HOST")
    redis_mode: Literal["single", "sentinel", "cluster"] = Field(
        "single",
        alias="VESTIBULE_REDIS_MODE",
        description="what REDIS_URL names: `single`, or several hosts with commas between them, of"
        " `sentinel` or `cluster`",
    )
    redis_sentinel_master: str | None = Field(
        None,
        alias="VESTIBULE_REDIS_SENTINEL_MASTER",
        description="the name the sentinels know the master by",
    )
    max_active_users: int = Field(
        50, alias="MAX_ACTIVE_USERS", ge=0, le=1_000_000, description="sessions at once"
    )
    session_duration: Seconds = Field(
        1200, alias="SESSION_DURATION", description="seconds a session lasts at most"
    )
    draft_duration: Seconds = Field(
        300, alias="DRAFT_DURATION", description="seconds to confirm an offered slot"
    )
    worker_agent_sha256: str | None = Field(
        None,
        alias="WORKER_AGENT_SHA256",
        pattern="^[0-9a-f]{64}$",
        description="the only agent file that is routed to",
    )
    host: str = Field("127.0.0.1", alias="VESTIBULE_HOST", description="address to listen on")
    port: int = Field(8600, alias="VESTIBULE_PORT", ge=1, le=65535, description="port to listen on")
    processes: int = Field(
        1,
        alias="VESTIBULE_PROCESSES",
        ge=1,
        le=256,
        description="admission processes that share the port",
    )
    state_dir: Path = Field(
        Path(".vestibule"),
        alias="VESTIBULE_STATE_DIR",
        description="keys and the embedded server's data",
    )
    upstreams: Upstreams = Field(
        (),
        alias="VESTIBULE_UPSTREAMS",
        description="model servers to route to, `URL[;slots=N],…`; none starts the demo",
    )
    demo: Switch = Field(
        True,
        alias="VESTIBULE_DEMO",
        description="off: `vestibule up` waits for workers that register, without a demo model",
    )
    fleet: Path | None = Field(
        None,
        alias="VESTIBULE_FLEET",
        description="TOML file that says where machines come from and which pools they follow;"
        " none: only workers that come by themselves",
    )
    auth: Switch = Field(
        True, alias="VESTIBULE_AUTH", description="off only when listening on loopback"
    )
    service_key: SecretStr | None = Field(
        None, alias="VESTIBULE_SERVICE_KEY", description="key of a trusted frontend"
    )
    admin_key: SecretStr | None = Field(
        None, alias="VESTIBULE_ADMIN_KEY", description="key that may do everything"
    )
    worker_token: SecretStr | None = Field(
        None, alias="VESTIBULE_WORKER_TOKEN", description="key that lets a worker register"
    )
    owui_jwt_secret: SecretStr | None = Field(
        None,
        alias="VESTIBULE_OWUI_JWT_SECRET",
        description="Open WebUI's FORWARD_USER_INFO_HEADER_JWT_SECRET: then only its signed JWT"
        " names the user",
    )
    signing_key: Pem | None = Field(
        None,
        alias="VESTIBULE_SIGNING_KEY",
        description="PEM of the Ed25519 key that signs user tokens; more PEMs after it are keys"
        " still accepted; none: made in Redis",
    )
    allowed_origins: Origins = Field(
        (), alias="VESTIBULE_ALLOWED_ORIGINS", description="web origins that may call from a page"
    )
    trusted_proxies: Networks = Field(
        (),
        alias="VESTIBULE_TRUSTED_PROXIES",
        description="networks of the proxies whose X-Forwarded-For, -Proto and -Host are believed",
    )
    rate_key: Rate = Field(
        None,
        alias="VESTIBULE_RATE_KEY",
        description="calls one user key may make, like `60/minute`; none: no limit",
    )
    rate_user: Rate = Field(
        None,
        alias="VESTIBULE_RATE_USER",
        description="calls one user may make with keys and tokens of their own",
    )
    rate_address: Rate = Field(
        None,
        alias="VESTIBULE_RATE_ADDRESS",
        description="calls that may come from one address (IPv6: one /64) without a service or"
        " admin key",
    )
    worker_networks: Networks = Field(
        (ip_network("127.0.0.0/8"), ip_network("::1/128")),
        alias="VESTIBULE_WORKER_NETWORKS",
        description="networks a new worker's address must lie in",
    )
    requeue: Switch = Field(
        False, alias="VESTIBULE_REQUEUE", description="a session that ran out waits again"
    )
    presence_grace: Seconds = Field(
        60, alias="VESTIBULE_PRESENCE_GRACE", description="seconds an absent waiter keeps the place"
    )
    idle_timeout: Seconds = Field(
        300,
        alias="VESTIBULE_IDLE_TIMEOUT",
        description="seconds an unused session lasts while others wait",
    )
    priorities: Priorities = Field(
        {},
        alias="VESTIBULE_PRIORITIES",
        description="classes, `NAME=SECONDS[;weight=N],…`: the head start in the queue, and the"
        " share in a request pool",
    )
    queue_limit: int | None = Field(
        None, alias="VESTIBULE_QUEUE_LIMIT", ge=0, description="how many may wait; none: no limit"
    )
    queue_timeout: Seconds | None = Field(
        None, alias="VESTIBULE_QUEUE_TIMEOUT", description="seconds one may wait; none: no limit"
    )
    when_full: Literal["reject", "wait"] = Field(
        "reject",
        alias="VESTIBULE_WHEN_FULL",
        description="what `/v1` does with a call that has no turn: `reject`, or let it `wait` in"
        " its connection",
    )
    wait_limit: Seconds = Field(
        3600,
        alias="VESTIBULE_WAIT_LIMIT",
        description="seconds a call may wait in its connection; `X-Vestibule-Wait` asks for less",
    )
    session_concurrency: int = Field(
        4,
        alias="VESTIBULE_SESSION_CONCURRENCY",
        ge=1,
        le=1000,
        description="requests of one session at once",
    )
    body_bytes_max: int = Field(
        33_554_432,
        alias="VESTIBULE_BODY_BYTES_MAX",
        ge=1024,
        description="largest `/v1` body; every other body is at most 64 KiB",
    )
    body_timeout: Seconds = Field(
        120,
        alias="VESTIBULE_BODY_TIMEOUT",
        description="seconds in which a `/v1` body must have come",
    )
    head_bytes_max: int = Field(
        8190,
        alias="VESTIBULE_HEAD_BYTES_MAX",
        ge=1024,
        le=1_048_576,
        description="longest line of the head of a request or of a worker's answer",
    )
    keepalive_timeout: Seconds = Field(
        75,
        alias="VESTIBULE_KEEPALIVE_TIMEOUT",
        description="seconds a connection may lie idle, and a request's head may take",
    )
    reader_timeout: Seconds = Field(
        60,
        alias="VESTIBULE_READER_TIMEOUT",
        description="seconds after which a caller who reads nothing of its answer is cut off",
    )
    connect_timeout: Seconds = Field(
        2,
        alias="VESTIBULE_CONNECT_TIMEOUT",
        description="seconds to connect to a worker; then the next one is tried",
    )
    silence_timeout: Seconds = Field(
        600,
        alias="VESTIBULE_SILENCE_TIMEOUT",
        description="seconds a worker may say nothing, also before its first word",
    )
    request_timeout: Seconds = Field(
        3600,
        alias="VESTIBULE_REQUEST_TIMEOUT",
        description="seconds a worker's whole answer may take",
    )
    when_redis_away: Literal["refuse", "pass"] = Field(
        "refuse",
        alias="VESTIBULE_WHEN_REDIS_AWAY",
        description="what `/v1` does while Redis is away: `refuse`, or for at most 10 minutes"
        " `pass` calls without a turn",
    )
    away_concurrency: int = Field(
        16,
        alias="VESTIBULE_AWAY_CONCURRENCY",
        ge=1,
        le=100_000,
        description="calls that pass at once in each process while Redis is away",
    )

    database_url: DatabaseUrl = Field(
        None,
        alias="VESTIBULE_DATABASE_URL",
        repr=False,  # it may hold a password
        description="SQL of the accounting, `sqlite:///PATH` or `postgresql://…`; none: usage.db in"
        " the state folder",
    )
    accounting_redis_url: RedisUrl = Field(
        None,
        alias="VESTIBULE_ACCOUNTING_REDIS_URL",
        repr=False,
        description="a Redis of its own for the accounting, a single one; none: the same",
    )
    accounting_limit: int = Field(
        100_000,
        alias="VESTIBULE_ACCOUNTING_LIMIT",
        ge=100,
        le=100_000_000,
        description="requests Redis keeps until they are in SQL, about 250 bytes each; more are"
        " dropped with an alarm",
    )
    accounting_retention: Seconds = Field(
        2_592_000,
        alias="VESTIBULE_ACCOUNTING_RETENTION",
        description="seconds SQL keeps single requests; their sums stay",
    )
    history_interval: int = Field(
        60,
        alias="VESTIBULE_HISTORY_INTERVAL",
        ge=10,
        le=3600,
        description="seconds between two rows of the history of pools and workers in SQL",
    )
    history_retention: Seconds = Field(
        2_592_000,
        alias="VESTIBULE_HISTORY_RETENTION",
        description="seconds SQL keeps these rows, and the fleet's past",
    )

    def ledger_url(self) -> str:
        """Where the accounting's SQL is."""
        return self.database_url or f"sqlite:///{self.state_dir / 'usage.db'}"

    def redis_address(self) -> str | None:
        """The URL of the Redis to use, or None for the embedded one."""
        if self.redis_url is None and self.redis_host is not None:
            return f"redis://{self.redis_host}:{self.redis_port}/{self.redis_db}"
        return self.redis_url

    def pool_policy(self, *, needs_worker: bool) -> PoolPolicy:
        """What a pool allows unless an admin says otherwise."""
        timeout = self.queue_timeout
        return PoolPolicy(
            capacity=self.max_active_users,
            max_active=self.max_active_users,
            session_ms=self.session_duration * 1000,
            draft_ms=self.draft_duration * 1000,
            grace_ms=self.presence_grace * 1000,
            idle_ms=self.idle_timeout * 1000,
            priorities=self.priorities,
            queue_limit=self.queue_limit,
            queue_timeout_ms=timeout * 1000 if timeout else None,
            requeue=self.requeue,
            needs_worker=needs_worker,
        )


def setting_names() -> list[str]:
    """The environment names of all settings, in the order of the README's table."""
    return [str(field.alias) for field in Settings.model_fields.values()]


def read_settings(environ: Mapping[str, str], also_known: Iterable[str] = ()) -> Settings:
    """Settings from the environment.

    Args:
        also_known: ``VESTIBULE_`` names that other parts of the same process read.

    Raises:
        SettingsError: lists every bad value and every unknown name.
    """
    names = set(setting_names())
    given = {
        name: value
        for name, value in environ.items()
        if name in names and value and not _service_link(name, value)
    }
    problems = _unknown(environ, names.union(also_known))
    settings = None
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        problems += [f"{'.'.join(map(str, p['loc'][:1]))}: {_said(p)}" for p in error.errors()]
    if settings is not None and not settings.auth and not _is_loopback(settings.host):
        problems.append(
            f"VESTIBULE_AUTH: off is refused while listening on {settings.host}, not on loopback"
        )
    if settings is not None:
        problems += _redis_problems(settings)
    if problems or settings is None:
        raise SettingsError("\n".join(problems))
    return settings


def _redis_problems(settings: Settings) -> list[str]:
    """What does not fit together of the settings that say which Redis."""
    mode, url = settings.redis_mode, settings.redis_address()
    problems = []
    if mode == "sentinel" and settings.redis_sentinel_master is None:
        problems.append("VESTIBULE_REDIS_SENTINEL_MASTER: needed with sentinel")
    if mode == "single":
        if url and len(redis_hosts(url)) > 1:
            problems.append("REDIS_URL: several hosts need VESTIBULE_REDIS_MODE")
    elif url is None:
        problems.append(f"VESTIBULE_REDIS_MODE: {mode} needs REDIS_URL")
    elif url.startswith("unix"):
        problems.append(f"REDIS_URL: {mode} needs redis:// or rediss://")
    elif mode == "cluster" and urlsplit(url).path.strip("/") not in ("", "0"):
        problems.append("REDIS_URL: a cluster has only database 0")
    return problems


def _said(problem: Any) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _unknown(environ: Mapping[str, str], names: set[str]) -> list[str]:
    return [
        f"{name}: unknown setting"
        for name, value in environ.items()
        if name.startswith(PREFIX) and name not in names and not _service_link(name, value)
    ]


def _service_link(name: str, value: str) -> bool:
    """Kubernetes adds variables of its own for a service that is called vestibule."""
    named = _SERVICE_LINK.search(name) is not None
    return named or (name.endswith("_PORT") and value.startswith(("tcp://", "udp://")))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
