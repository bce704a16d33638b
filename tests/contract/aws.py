"""API Gateway and Lambda on this machine: HTTP in front, execution environments behind.

An environment is a process that handles one event at a time and is frozen (SIGSTOP) before and
after, as in Lambda; a request for which none is idle waits.
"""

import asyncio
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from aiohttp import web

from tests.contract.events import FORMS, Asked, Event, Form
from tests.infra.conftest import ROOT, clean_environment

HANDLER = "admission.functions.handler"
CHECKOUT = (sys.executable, "-m", "tests.contract.environment")
"""The words that start an execution environment of the code that lies here."""
ENVIRONMENTS = 2
LINE_BYTES_MAX = 16 * 2**20
BODY_BYTES_MAX = 10 * 2**20  # API Gateway's own
ANSWER_S = 29.0


class Environment:
    """One process of the function."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def invoke(self, event: Event) -> Mapping[str, Any]:
        """The handler's result for one event; frozen again after it."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        self._send(signal.SIGCONT)
        stdin.write(json.dumps(event).encode() + b"\n")
        await stdin.drain()
        async with asyncio.timeout(ANSWER_S):
            line = await stdout.readline()
        assert line, "the execution environment ended"
        self._send(signal.SIGSTOP)
        result: Mapping[str, Any] = json.loads(line)
        return result

    def _send(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()  # Lambda does not ask, either
        await self._process.communicate()


class Api:
    """Turns each HTTP request into an event of one form, and the result into an answer."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self.idle: asyncio.Queue[Environment] = asyncio.Queue()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        assert path.startswith(self._form.stage), path
        asked = Asked(
            request.method,
            path.removeprefix(self._form.stage),
            query,
            [*_texts(request), ("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-Proto", "https")],
            await request.read(),
            request.headers.get("Host", ""),
            "127.0.0.1",
            str(uuid.uuid4()),
        )
        environment = await self.idle.get()
        try:
            result = await environment.invoke(self._form.event(asked))
        finally:
            self.idle.put_nowait(environment)
        if "errorType" in result:
            return web.json_response({"message": "Internal Server Error"}, status=502)
        status, headers, body = self._form.read(result)
        answer = web.Response(status=status, body=body)
        answer.headers.clear()
        for name, value in headers:
            if name.lower() not in ("content-length", "connection"):
                answer.headers.add(name, value)
        return answer


def _texts(request: web.BaseRequest) -> list[tuple[str, str]]:
    hop_by_hop = ("connection", "transfer-encoding", "upgrade")
    raw = [(name.decode(), value.decode(errors="replace")) for name, value in request.raw_headers]
    return [(name, value) for name, value in raw if name.lower() not in hop_by_hop]


@asynccontextmanager
async def functions(
    form: str, environment: Mapping[str, str], words: Sequence[str] = CHECKOUT
) -> AsyncIterator[str]:
    """The URL of an API in front of the functions, with these settings, until the block ends."""
    api = Api(FORMS[form])
    async with AsyncExitStack() as stack:
        for _ in range(ENVIRONMENTS):
            process = await asyncio.create_subprocess_exec(
                *words,
                cwd=ROOT,
                env={**clean_environment(), "_HANDLER": HANDLER, **environment},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LINE_BYTES_MAX,
            )
            one = Environment(process)
            stack.push_async_callback(one.end)
            api.idle.put_nowait(one)
        runner = web.ServerRunner(web.Server(api))
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}{FORMS[form].stage}"
