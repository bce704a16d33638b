"""Answers as real servers send them, and what each is expected to come to. Data only.

vLLM: 0.32 with the tiny model of ``tests/e2e``, asked by hand. OpenAI, Azure, Ollama and SGLang: as
their documentation shows them.
"""

from typing import NamedTuple


class Shape(NamedTuple):
    """``hidden``: the event that only the gateway asked for, which stands somewhere in ``sent``."""

    path: str
    media: str
    sent: bytes
    hidden: bytes
    tokens: tuple[int, int]


CHAT, COMPLETION, RESPONSE = "/v1/chat/completions", "/v1/completions", "/v1/responses"
SSE = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"
_VLLM = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"tiny",'
    b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,'
    b'"finish_reason":null}],"prompt_token_ids":null,"prompt_text":null}\n\n'
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"tiny",'
    b'"choices":[{"index":0,"delta":{"content":"The \\"usage\\": {"},"logprobs":null,'
    b'"finish_reason":null,"token_ids":null}]}\n\n'
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"tiny",'
    b'"choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"stop",'
    b'"stop_reason":null,"token_ids":null}]}\n\n'
)
_VLLM_USAGE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"tiny",'
    b'"choices":[],"usage":{"prompt_tokens":9,"total_tokens":12,"completion_tokens":3},'
    b'"system_fingerprint":"vllm-0.32.0-29d78f57"}\n\n'
)
_COMPLETION = (
    b'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"tiny","choices":'
    b'[{"index":0,"text":"The","logprobs":null,"finish_reason":null,"stop_reason":null}]}\n\n'
)
_COMPLETION_USAGE = (
    b'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"tiny","choices":[],'
    b'"usage":{"prompt_tokens":4,"total_tokens":5,"completion_tokens":1}}\n\n'
)
_OPENAI = (
    b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":'
    b'{"content":"Hi"},"finish_reason":null}],"usage":null}\n\n'
)
_OPENAI_USAGE = (
    b'data: {"id":"c","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":19,'
    b'"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":0}}}\n\n'
)
_FILTERED = b'data: {"choices":[],"prompt_filter_results":[{"prompt_index":0}],"usage":null}\n\n'
_LAST_WITH_CHOICE = (
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":2,"completion_tokens":7}}\n\n'
)
_RESPONSES = (
    b'event: response.created\ndata: {"type":"response.created","response":{"id":"r","usage":null}'
    b"}\n\n"
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"Hi"}'
    b"\n\n"
    b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"r","tools":'
    b'[{"parameters":{"usage":{"input_tokens":0}}}],"usage":{"input_tokens":36,"output_tokens":87,'
    b'"total_tokens":123}}}\n\n'
)
_OLLAMA = (
    b'{"model":"m","message":{"role":"assistant","content":"Hi"},"done":false}\n'
    b'{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop",'
    b'"total_duration":1,"prompt_eval_count":26,"prompt_eval_duration":1,"eval_count":298}\n'
)


def _crlf(events: bytes) -> bytes:
    return events.replace(b"\n", b"\r\n")


SHAPES = {
    "vLLM chat": Shape(CHAT, SSE, _VLLM + _VLLM_USAGE + DONE, _VLLM_USAGE, (9, 3)),
    "vLLM completion": Shape(
        COMPLETION, SSE, _COMPLETION + _COMPLETION_USAGE + DONE, _COMPLETION_USAGE, (4, 1)
    ),
    "OpenAI, usage null before": Shape(
        CHAT, SSE, _OPENAI * 2 + _OPENAI_USAGE + DONE, _OPENAI_USAGE, (19, 10)
    ),
    "Azure, a filter's result first": Shape(
        CHAT, SSE, _FILTERED + _OPENAI + _OPENAI_USAGE + DONE, _OPENAI_USAGE, (19, 10)
    ),
    "usage beside the last choice": Shape(
        CHAT, SSE, _OPENAI + _LAST_WITH_CHOICE + DONE, b"", (2, 7)
    ),
    "CRLF and comments": Shape(
        CHAT,
        SSE,
        b": ping\r\n\r\n" + _crlf(_VLLM + _VLLM_USAGE + DONE),
        _crlf(_VLLM_USAGE),
        (9, 3),
    ),
    "no blank line at the end": Shape(
        CHAT, SSE, _VLLM + _VLLM_USAGE + b"data: [DONE]", _VLLM_USAGE, (9, 3)
    ),
    "responses": Shape(RESPONSE, SSE, _RESPONSES, b"", (36, 87)),
    "Ollama": Shape("/api/chat", "application/x-ndjson", _OLLAMA, b"", (26, 298)),
    "chat in one piece": Shape(
        CHAT,
        "application/json",
        b'{"id":"x","choices":[{"message":{"content":"\\"usage\\":{}"}}],"usage":'
        b'{"prompt_tokens":5,"total_tokens":8,"completion_tokens":3},"prompt_logprobs":null}',
        b"",
        (5, 3),
    ),
    "embedding": Shape(
        "/v1/embeddings",
        "application/json",
        b'{"object":"list","data":[{"embedding":[0.1,0.2]}],"usage":{"prompt_tokens":8,'
        b'"total_tokens":8}}',
        b"",
        (8, 0),
    ),
    "a long embedding": Shape(
        "/v1/embeddings",
        "application/json",
        b'{"data":[{"embedding":[' + b"0.125," * 300_000 + b'0]}],"usage":{"prompt_tokens":8}}',
        b"",
        (8, 0),
    ),
    "response in one piece": Shape(
        RESPONSE,
        "application/json",
        b'{"id":"r","usage":{"input_tokens":3,"output_tokens":4},"user":null}',
        b"",
        (3, 4),
    ),
    "Ollama in one piece": Shape(
        "/api/generate",
        "application/json; charset=utf-8",
        b'{"response":"Hi","done":true,"prompt_eval_count":7,"eval_count":2}',
        b"",
        (7, 2),
    ),
}
