"""One request as it is accounted for. Never a word of its prompt or answer."""

from enum import StrEnum

import msgspec

DIMENSIONS = ("project", "user", "key", "model")
"""By which what was used is told apart, each a field of Record."""
SPANS = ("hour", "day", "week")
"""In which it is summed up."""


class Outcome(StrEnum):
    """How a request that reached a worker ended."""

    OK = "ok"
    REFUSED = "refused"  # the model server said 4xx: costs nothing
    FAILED = "failed"  # it said 5xx, or gave no answer that can be passed on: costs nothing
    CANCELLED = "cancelled"  # its caller went away
    CUT = "cut"  # the answer broke off: the worker's fault, or its right to run ended


class Record(msgspec.Struct, array_like=True, kw_only=True):
    """One request that reached a worker, whatever came of it.

    In Redis it is a MessagePack array, so fields are only ever added, at the end and with a
    default: an older scheduler skips them, a newer one fills them in. Times are ms, never below 0.
    """

    id: str = ""  # of this record alone; the journal gives it
    at_ms: int = 0  # when it ended, since 1970; the journal's clock
    kind: str = "other"  # of endpoint: Meter.kind
    user: str = ""
    key: str = ""  # the key's id; "" for a user token and for keys of the environment
    project: str = ""
    model: str = ""
    pool: str = ""
    worker: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False  # the tokens are no count of the model server (Meter.tokens)
    queued_ms: int = 0  # from the call to its turn
    first_token_ms: int | None = None  # from the turn to the first piece of the answer
    total_ms: int = 0  # from the call to the answer's end
    outcome: Outcome = Outcome.OK

    @property
    def tokens_per_s(self) -> float | None:
        """How fast the answer came: tokens after the first piece by the time after it. None for
        fewer than two tokens, and for an answer that came in one piece."""
        if self.first_token_ms is None or self.completion_tokens < 2:
            return None
        took_ms = self.total_ms - self.queued_ms - self.first_token_ms
        return (self.completion_tokens - 1) * 1000 / took_ms if took_ms > 0 else None
