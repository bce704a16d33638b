"""What can go wrong, as seen by a caller.

AdmissionError              status, code, and the seconds after which to try again, if that helps
├── BadInput          422   a field is wrong; names it
├── Unauthorized      401   no key, or one nobody knows
├── Forbidden         403   a key of the wrong kind, or for another user
├── NotFound          404   no such ticket, model, worker
├── Conflict          409   right call, wrong moment
├── Busy              429   no turn yet, or too many requests of one session
├── NotHere           501   the service has it, a function has not
└── Unavailable       503   nothing to change: try again later
    ├── StoreUnavailable    Redis is away
    ├── QueueFull, PoolPaused
    └── NoWorker            nobody could answer

Everyday answers of the store are values (``outcomes``); these are for the edge to raise.
"""


class AdmissionError(Exception):
    """An answer other than success: rendered as problem+json, or in the OpenAI envelope."""

    status = 500
    code = "internal"
    final = False
    """Trying again at once would only do harm: the SDKs of OpenAI and Anthropic, which do so by
    themselves, are told not to (``x-should-retry`` in their ``_base_client.py``)."""

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        field: str | None = None,
        retry_after_s: int | None = None,
        extra: dict[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.field = field
        self.retry_after_s = retry_after_s
        self.extra = extra or {}


class BadInput(AdmissionError):
    status, code = 422, "bad_input"


class Unauthorized(AdmissionError):
    status, code = 401, "unauthorized"


class Forbidden(AdmissionError):
    status, code = 403, "forbidden"


class NotFound(AdmissionError):
    status, code = 404, "not_found"


class Conflict(AdmissionError):
    status, code = 409, "conflict"


class Busy(AdmissionError):
    status, code = 429, "no_session"


class NotHere(AdmissionError):
    status, code = 501, "no_streams_here"


class Unavailable(AdmissionError):
    status, code = 503, "unavailable"


class StoreUnavailable(Unavailable):
    code = "store_unavailable"

    def __init__(self) -> None:
        super().__init__(
            "The queue's store does not answer. Try again: repeating a call is safe.",
            retry_after_s=1,
        )


class QueueFull(Unavailable):
    code = "queue_full"


class PoolPaused(Unavailable):
    code = "pool_paused"


class NoWorker(Unavailable):
    code = "no_ready_worker"

    def __init__(self, detail: str = "No worker is ready for this model.") -> None:
        super().__init__(detail, retry_after_s=5)  # a worker reports at least every 10 s
