"""Chats through the gateway: one message said, its answer streamed, and how long that took."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import ClientError, ClientSession, ClientTimeout

ANSWER_S = 300.0  # longer answers than that are errors
_TAIL = 64  # bytes; the last event of a stream is shorter


@dataclass(frozen=True)
class Said:
    """A message, by its sizes: words of the prompt, and tokens of the answer at most."""

    words: int = 20
    answer: int = 64


@dataclass(frozen=True)
class Answer:
    """What came of a message; seconds since it was sent, None for what did not come.

    ``code`` is "" for a whole answer, "stopped" for one that its reader broke off, else why there
    is none: the gateway's code, ``cut_short``, or what happened to the connection (status 0).
    """

    status: int
    code: str
    first_s: float | None = None
    whole_s: float | None = None


class Chats:
    """Talks to the gateway at ``url``."""

    def __init__(self, http: ClientSession, url: str, model: str) -> None:
        self._http, self._url, self._model = http, url.rstrip("/"), model

    async def say(self, said: Said, headers: Mapping[str, str], *, stops: bool = False) -> Answer:
        """Say something in a turn; who ``stops`` presses Stop at the first words of the answer."""
        body = {
            "model": self._model,
            "stream": True,
            "max_tokens": said.answer,
            "messages": [{"role": "user", "content": " ".join(["word"] * said.words)}],
        }
        began_s, first_s, tail = _now_s(), None, b""
        try:
            async with self._http.post(
                f"{self._url}/v1/chat/completions",
                json=body,
                headers=headers,
                timeout=ClientTimeout(total=ANSWER_S),
                allow_redirects=False,
            ) as answer:
                if answer.status != 200:
                    return Answer(answer.status, _code(await answer.read()))
                async for part in answer.content.iter_any():
                    if first_s is None:
                        first_s = _now_s() - began_s
                    if stops:
                        return Answer(200, "stopped", first_s)
                    tail = (tail + part)[-_TAIL:]
        except (ClientError, TimeoutError) as error:
            return Answer(0, type(error).__name__, first_s)
        code = "" if tail.rstrip().endswith(b"[DONE]") else "cut_short"
        return Answer(200, code, first_s, _now_s() - began_s)


def _code(raw: bytes) -> str:
    """The code in OpenAI's error envelope."""
    try:
        return str(json.loads(raw)["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return "not_vestibule"


def _now_s() -> float:
    return asyncio.get_running_loop().time()
