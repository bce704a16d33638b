"""One answer to who is no OpenAI client: metered, and accounted for when it is over."""

import asyncio
from types import TracebackType
from typing import Self

from admission.accounting.allowances import Grant
from admission.accounting.journal import Journal
from admission.accounting.meter import Meter
from admission.accounting.record import Outcome, Record


class Bill:
    """What one request costs; at the block's end it is on record, if a worker was asked.

    ``begin`` when its turn has come, then ``ask``, ``answered`` and ``feed`` as things happen.
    """

    def __init__(self, journal: Journal, grant: Grant, record: Record) -> None:
        """``record``: whose request it is, and for which model. It has come now."""
        self._journal, self._grant, self._record = journal, grant, record
        self._came_s = self._turn_s = _now_s()
        self._meter: Meter | None = None
        self._status: int | None = None
        self._whole = False

    def __enter__(self) -> Self:
        return self

    def begin(self) -> None:
        """Its turn has come."""
        self._turn_s = _now_s()

    def ask(self, worker_id: str, path: str, body: bytes) -> bytes:
        """A worker is asked for a stream; with which body."""
        self._record.worker, self._status = worker_id, None
        self._meter = Meter(path, body, streams=True)
        return self._meter.body

    def answered(self, status: int, content_type: str) -> None:
        """The head of its answer has come."""
        assert self._meter is not None, "ask comes first"
        self._meter.begin(status, content_type)
        self._status = status

    def feed(self, chunk: bytes) -> bytes:
        """A piece of the answer, without what only the meter asked for."""
        assert self._meter is not None, "ask comes first"
        if self._record.first_token_ms is None:
            self._record.first_token_ms = _ms(_now_s() - self._turn_s)
        return self._meter.feed(chunk)

    def rest(self) -> bytes:
        """What ``feed`` held back, when nothing more comes."""
        assert self._meter is not None, "ask comes first"
        return self._meter.end()

    def whole(self) -> None:
        """The answer has come to its end."""
        self._whole = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._meter is None:
            return
        tokens, record = self._meter.tokens, self._record
        if self._status is not None and self._status < 400:
            self._grant.spend(tokens.total)
        record.kind = self._meter.kind
        record.prompt_tokens, record.completion_tokens, record.estimated = tokens
        record.queued_ms = _ms(self._turn_s - self._came_s)
        record.total_ms = _ms(_now_s() - self._came_s)
        record.outcome = self._ended(error)
        self._journal.note(record)

    def _ended(self, error: BaseException | None) -> Outcome:
        if self._status is not None and self._status >= 400:
            return Outcome.REFUSED if self._status < 500 else Outcome.FAILED
        if self._whole:
            return Outcome.OK
        if isinstance(error, asyncio.CancelledError | ConnectionError):
            return Outcome.CANCELLED
        return Outcome.FAILED if self._status is None else Outcome.CUT


def _ms(seconds: float) -> int:
    return max(0, round(1000 * seconds))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
