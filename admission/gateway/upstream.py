"""Sends a request to a worker, up to the head of its answer: what came of it, in our words.

Knows HTTP clients; nothing of turns or callers.
"""

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import ClientError, ServerFingerprintMismatch, hdrs

from admission import logs
from admission.domain import Worker
from admission.errors import AdmissionError, Unavailable
from admission.gateway.connection import (
    Answer,
    Connections,
    Disconnected,
    Limits,
    NotConnected,
)
from admission.gateway.headers import to_caller
from admission.gateway.pick import Saturated, Unreachable
from admission.settings import Settings
from admission.worker_tls import ssl_of

REFUSAL_BYTES_MAX = 1_048_576
REFUSAL_CHARACTERS_MAX = 500  # of what the model server says when it refuses
SATURATED_RETRY_S = 2  # where the model server itself names no time
# Shorter than uvicorn, which serves vLLM, keeps idle connections (timeout_keep_alive, 5 s): a
# request is never sent into one that is just being closed.
IDLE_S = 4

log = logging.getLogger(__name__)


class BadGateway(AdmissionError):
    """The worker broke off, or gave no answer that can be read."""

    status, code = 502, "bad_gateway"


class Silent(AdmissionError):
    """The worker said nothing for too long, or was not done in time."""

    status, code = 504, "upstream_timeout"


class ModelRefused(AdmissionError):
    """The model server does not take this conversation: too long, for one."""

    status, code = 502, "model_refused"


class Full(Unavailable):
    """Every worker of the model said so."""

    code = "saturated"

    def __init__(self) -> None:
        super().__init__("The model server is full: ask again.", retry_after_s=SATURATED_RETRY_S)


def limits(settings: Settings) -> Limits:
    """What every request to a worker keeps to."""
    return Limits(
        connect_s=settings.connect_timeout,
        silence_s=settings.silence_timeout,
        total_s=settings.request_timeout,
        idle_s=IDLE_S,
        head_bytes=settings.head_bytes_max,
    )


async def send(  # noqa: PLR0913 - one request
    connections: Connections,
    worker: Worker,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None = None,
) -> Answer:
    """The answer whose head has come; the caller reads and closes it.

    Args:
        path: with the query, encoded as it came.

    Raises:
        Unreachable: no connection, or it was lost before the head.
        Saturated: 503, which vLLM's admission says (--max-num-queued-reqs): full, not dead.
        Silent: nothing came in time.
        BadGateway: it is not HTTP, or leads elsewhere.
    """
    try:
        answer = await connections.request(
            worker.url, method, path, headers=headers, body=body, trust=ssl_of(worker)
        )
    except (NotConnected, ServerFingerprintMismatch) as error:
        raise Unreachable from error
    except Disconnected as error:
        raise Unreachable(sent=True) from error
    except TimeoutError as error:
        raise silent(worker, error) from None
    except ClientError as error:  # not HTTP
        raise bad_gateway(worker, error) from None
    if answer.status == 503:
        raise await _saturated(answer)
    # Where it leads is past the gateway, and an address of the worker's own network.
    if 300 <= answer.status < 400 and hdrs.LOCATION in answer.headers:
        answer.close()
        raise bad_gateway(worker, f"redirect_{answer.status}")
    return answer


async def _saturated(answer: Answer) -> Saturated:
    async with answer:
        try:
            said = await answer.read(REFUSAL_BYTES_MAX)
        except (ClientError, TimeoutError):
            said = b""
        return Saturated(answer.status, to_caller(answer.headers), said)


async def refusal(worker: Worker, answer: Answer) -> AdmissionError:
    """What the server says of a conversation it does not take goes to its owner, not to the log."""
    if not 400 <= answer.status < 500:
        return bad_gateway(worker, answer.status)
    try:
        said: Any = msgspec.json.decode(await answer.read(REFUSAL_BYTES_MAX))
        message = str(said["error"]["message"])[:REFUSAL_CHARACTERS_MAX]
    except (ClientError, TimeoutError, msgspec.MsgspecError, KeyError, TypeError, RecursionError):
        message = f"it answered {answer.status}"
    return ModelRefused(f"The model server did not take this: {message}")


def bad_gateway(worker: Worker, cause: object) -> BadGateway:
    """Logs the cause by its type only: its text may quote an answer."""
    _log("bad_answer", worker, cause)
    return BadGateway("The model server gave no answer that can be passed on.")


def silent(worker: Worker, cause: object) -> Silent:
    """The worker took too long."""
    _log("worker_silent", worker, cause)
    return Silent("The model server did not answer in time.")


def _log(what: str, worker: Worker, cause: object) -> None:
    named = type(cause).__name__ if isinstance(cause, Exception) else cause
    logs.event(log, what, logging.WARNING, worker_id=worker.worker_id, cause=named)
