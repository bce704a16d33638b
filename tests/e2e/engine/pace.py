"""Runs inside vLLM: a request with `vllm_xargs: {"pause_ms": N}` gets a token every N ms or more.

A tiny model talks faster than a page can draw. On a GPU that is the other way round, and so are
the cases that look at a long answer. (The interface: vLLM 0.32, v1/sample/logits_processor.)
"""
# mypy: disable-error-code="import-not-found"
# vLLM lives in an environment of its own.

import time
from collections.abc import Callable
from typing import Any

from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

Step = Callable[[list[int], Any], Any]


class Pace(AdapterLogitsProcessor):  # type: ignore[misc]  # its types are not there either
    """Sleeps in the engine's step; whoever is answered at the same time waits along."""

    def is_argmax_invariant(self) -> bool:
        return False  # else it is left out where the likeliest token is taken

    def new_req_logits_processor(self, params: Any) -> Step | None:
        """What is done before each token of this request; None: nothing."""
        pause_s = float((params.extra_args or {}).get("pause_ms", 0)) / 1000

        def step(_said: list[int], logits: Any) -> Any:
            time.sleep(pause_s)
            return logits

        return step if pause_s else None
