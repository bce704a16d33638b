"""A Lambda execution environment: one event after another through the handler of ``_HANDLER``.

Run as a process; an event is a line of JSON on standard input, its result one on standard output.
As in Lambda the handler is imported before the first event, and its own output goes elsewhere.
"""

import json
import os
import sys
import time
import traceback
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TextIO

INVOCATION_S = 29.0  # API Gateway waits no longer


@dataclass
class Context:
    """What a handler may ask about its invocation (AWS: "Using the Lambda context object")."""

    aws_request_id: str
    function_name: str = "vestibule-admission"
    function_version: str = "$LATEST"
    invoked_function_arn: str = "arn:aws:lambda:eu-central-1:123456789012:function:vestibule"
    memory_limit_in_mb: str = "256"
    log_group_name: str = "/aws/lambda/vestibule-admission"
    log_stream_name: str = "2026/11/21/[$LATEST]0"
    identity: Any = None
    client_context: Any = None
    _ends: float = field(default_factory=lambda: time.monotonic() + INVOCATION_S)

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._ends - time.monotonic()) * 1000))


def _serve(events: TextIO, results: TextIO) -> None:
    module, _, name = os.environ["_HANDLER"].rpartition(".")
    handler = getattr(import_module(module), name)
    for line in events:
        event = json.loads(line)
        context = event.get("requestContext", {})
        try:
            result = handler(event, Context(context.get("requestId", "")))
        except Exception as error:  # noqa: BLE001 - as the runtime does it
            traceback.print_exc()
            result = {"errorType": type(error).__name__, "errorMessage": str(error)}
        results.write(json.dumps(result) + "\n")
        results.flush()


if __name__ == "__main__":
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _serve(sys.stdin, told)
