"""A conversation of one user with a model, as `/chat/stream` keeps it. No I/O."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Message:
    """One message; ``role`` is "user" or "assistant"."""

    role: str
    content: str
    at_ms: int


@dataclass(frozen=True)
class Thread:
    """A conversation; it is forgotten at ``expires_ms`` unless it is used again."""

    thread_id: str
    created_ms: int
    used_ms: int
    expires_ms: int
    size_bytes: int  # of its messages
    cleared: int  # how often
    system: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    messages: tuple[Message, ...] = ()
