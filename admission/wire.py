"""JSON in: bodies, and what stands in the path and the query, checked; errors name the field."""

import re
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)

from admission.asked import Asked
from admission.domain import (
    DEFAULT_POOL,
    POOL_NAME,
    PRIORITY_NAME,
    USER_ID,
    WORKER_ID,
)
from admission.errors import BadInput

BODY_BYTES_MAX = 65_536  # /v1 has its own limit, a setting

Name = Annotated[str, Field(min_length=1, max_length=256)]
ClientId = Annotated[str, Field(min_length=1, max_length=128)]
Megabytes = Annotated[int, Field(ge=0, le=2**53)]
RequestCount = Annotated[int, Field(ge=0, le=1_000_000)]
ClassName = Annotated[str, Field(pattern=f"^{PRIORITY_NAME.pattern}$")]
Duration = Annotated[int, Field(ge=1, le=31_536_000)]
Reason = Annotated[str, Field(max_length=1024)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
PoolName = Annotated[str, Field(pattern=f"^{POOL_NAME.pattern}$")]
UserId = Annotated[str, Field(pattern=f"^{USER_ID.pattern}$")]


class Body(BaseModel):
    """A request body: strict, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class JoinBody(Body):
    auto_confirm: bool = False
    will_return: bool = False
    model: Name | None = None
    priority: ClassName | None = None
    client: ClientId | None = None
    request_id: ClientId | None = None  # of a request pool; a session pool has no use for it


class ConfirmBody(Body):
    ticket_id: ClientId | None = None


class LeaveBody(Body):
    client: ClientId | None = None
    ticket_id: ClientId | None = None


class HeartbeatBody(Body):
    client: ClientId | None = None
    ticket_id: ClientId | None = None  # in a request pool


class CancelBody(Body):
    ticket_id: ClientId | None = None


def _capacity(value: object) -> object:
    """One validator, so that a problem names the field and not a member of a union."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value in (None, "auto") or (whole and 0 <= value <= 1_000_000):  # type: ignore[operator]
        return value
    raise ValueError('a whole number from 0 to 1000000, "auto" or null')


class PriorityBody(Body):
    """A class of tickets: seconds of head start in a session pool (below 0 lets others pass), and
    the weight of its users in a request pool."""

    head_start: Annotated[int, Field(ge=-86_400, le=86_400)] = 0
    weight: Annotated[float, Field(ge=0.01, le=100)] = 1


class PoolBody(Body):
    """Settings of a pool; null gives one back to the environment."""

    kind: Literal["session", "request"] | None = None
    capacity: Annotated[int | str | None, PlainValidator(_capacity)] = None
    paused: bool | None = None
    needs_worker: bool | None = None
    sessions_per_slot: Annotated[int, Field(ge=1, le=1000)] | None = None
    session_duration: Duration | None = None
    draft_duration: Duration | None = None
    lease_duration: Duration | None = None
    queue_timeout: Duration | None = None
    queue_limit: Annotated[int, Field(ge=0, le=1_000_000_000)] | None = None
    user_concurrency: Annotated[int, Field(ge=1, le=100_000)] | None = None
    priorities: dict[ClassName, PriorityBody] | None = Field(None, max_length=32)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("name at least one setting")
        return self

    def changes(self) -> dict[str, Any]:
        """As the store keeps them: names of PoolPolicy, times in ms."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        for seconds, ms in _IN_MS.items():
            if seconds in given:
                value = given.pop(seconds)
                given[ms] = None if value is None else value * 1000
        if self.priorities is not None:
            given["priorities"] = {
                name: {"head_start_ms": each.head_start * 1000, "weight": each.weight}
                for name, each in self.priorities.items()
            }
        return given


_IN_MS = {
    "session_duration": "session_ms",
    "draft_duration": "draft_ms",
    "lease_duration": "lease_ms",
    "queue_timeout": "queue_timeout_ms",
}


class AgentInfo(Body):
    version: Name
    build_date: Name
    checksum: Sha256


class GpuLoad(Body):
    """One card; null where it does not tell."""

    uuid: Name | None = None
    load: Annotated[float, Field(ge=0, le=1)] | None = None
    memory_used_mb: Megabytes | None = None
    memory_total_mb: Megabytes | None = None
    temperature_c: Annotated[int, Field(ge=-100, le=1000)] | None = None
    power_w: Annotated[float, Field(ge=0, le=100_000)] | None = None


class Load(Body):
    """What is in use on a worker's machine; null where it does not tell. Loads are fractions."""

    gpu_load: Annotated[float, Field(ge=0, le=1)] | None = None
    gpu_memory_used_mb: Megabytes | None = None
    gpu_memory_total_mb: Megabytes | None = None
    cpu_load: Annotated[float, Field(ge=0, le=1e6)] | None = None
    memory_used_mb: Megabytes | None = None
    running: RequestCount | None = None  # in the model server, of those it took in
    waiting: RequestCount | None = None
    kv_cache_usage: Annotated[float, Field(ge=0, le=1)] | None = None
    gpus: list[GpuLoad] = Field(default=[], max_length=64)


class Gpu(Body):
    name: Name
    uuid: Name | None = None
    memory_total_mb: Megabytes


class Hardware(Body):
    cpu_count: Annotated[int, Field(ge=1, le=100_000)]
    memory_total_mb: Megabytes | None = None
    disk_total_mb: Megabytes
    disk_free_mb: Megabytes
    gpus: list[Gpu] = Field(default=[], max_length=64)


class Crash(Body):
    """How a model server ended that was to go on; ``lines``: its last, without prompts."""

    at: Name
    reason: Reason
    exit_code: Annotated[int, Field(ge=-255, le=255)]  # below 0: the signal
    lines: list[Annotated[str, Field(max_length=1024)]] = Field(default=[], max_length=50)


class Engine(Body):
    """How a worker's model server is; ``external``: not the agent's to start."""

    state: Literal["external", "fetching", "starting", "serving", "crashed", "stopped"]
    percent: Annotated[int, Field(ge=0, le=100)] | None = None  # of the model that is fetched
    version: Name | None = None
    restarts: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    last_crash: Crash | None = None


class WorkerBody(Body):
    """What a worker says of itself whenever it speaks."""

    worker_id: Annotated[str, Field(pattern=f"^{WORKER_ID.pattern}$")]
    pool: PoolName = DEFAULT_POOL
    models: list[Name] = Field(default=[], max_length=1000)
    slots: Annotated[int, Field(ge=1, le=100_000)] = 1
    agent_info: AgentInfo
    hardware: Hardware | None = None
    instance_id: Name | None = None


class RegisterBody(WorkerBody):
    url: Annotated[str, Field(pattern=r"^https?://[^/\s?#@]+$", max_length=512)]
    fingerprint: Sha256 | None = None  # of its certificate, which is then the only one believed

    @model_validator(mode="after")
    def _pins_a_certificate(self) -> Self:
        if self.fingerprint and not self.url.startswith("https:"):
            raise ValueError("a fingerprint belongs to an https:// url")
        return self


class WorkerHeartbeatBody(WorkerBody):
    ready: bool
    reason: Reason | None = None
    in_flight: RequestCount = 0
    queue_depth: RequestCount = 0
    load: Load | None = None
    engine: Engine | None = None


AnyBody = TypeVar("AnyBody", bound=Body)


async def read_body(request: Asked, model: type[AnyBody]) -> AnyBody:
    """The request's JSON body, checked; an empty one stands for ``{}``.

    Raises:
        BadInput: names each wrong field.
        aiohttp.web.HTTPRequestEntityTooLarge: above the application's limit.
    """
    raw = await request.read() if request.can_read_body else b""
    try:
        return model.model_validate_json(raw or b"{}")
    except ValidationError as error:
        problems = [
            (_field(p["loc"]), p["msg"].removeprefix("Value error, ")) for p in error.errors()
        ]
        raise BadInput(
            "; ".join(f"{field}: {message}" for field, message in problems),
            field=problems[0][0],
            extra={"errors": [{"field": f, "message": m} for f, m in problems]},
        ) from error


def read_user(request: Asked) -> str:
    """The user in the path.

    Raises:
        BadInput: not a user id.
    """
    return user_id(request.match_info["user_id"])


def user_id(text: str) -> str:
    """``text``, when it is a user id.

    Raises:
        BadInput: it is none.
    """
    if not USER_ID.fullmatch(text):
        raise BadInput("user_id: 1 to 128 characters of A-Z a-z 0-9 . _ - @ : | +", field="user_id")
    return text


def read_pool(request: Asked, given: str | None = None) -> str:
    """The pool in the path or the query, ``default`` without one.

    Raises:
        BadInput: not a pool's name.
    """
    pool = given if given is not None else request.query.get("pool", DEFAULT_POOL)
    if not POOL_NAME.fullmatch(pool):
        raise BadInput("pool: 1 to 64 characters of a-z 0-9 -", field="pool")
    return pool


def read_number(request: Asked, name: str, default: int, high: int) -> int:
    """A whole number of the query, 0 to ``high``.

    Raises:
        BadInput: anything else.
    """
    text = request.query.get(name, str(default))
    if not re.fullmatch("[0-9]{1,18}", text) or int(text) > high:
        raise BadInput(f"{name}: a whole number from 0 to {high}", field=name)
    return int(text)


def _field(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "body"
