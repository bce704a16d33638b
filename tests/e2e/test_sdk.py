"""OpenAI's SDK and vLLM's own benchmark client at the gateway, with the real vLLM behind it.

Knows no Open WebUI and no browser.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI, RateLimitError

from tests.e2e.build import ANSWER, Components
from tests.e2e.server import free_port
from tests.e2e.stack import MODEL, Vestibule, VllmServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PROMPTS, AT_ONCE = 12, 4


@pytest.fixture
def vestibule(vllm: VllmServer, tmp_path: Path) -> Iterator[Vestibule]:
    """One slot, and calls that wait for it."""
    with Vestibule(tmp_path, free_port(), vllm.url, VESTIBULE_WHEN_FULL="wait") as running:
        yield running


def sdk(vestibule: Vestibule, user: str, **headers: str) -> OpenAI:
    return OpenAI(
        base_url=f"{vestibule.url}/v1",
        api_key=vestibule.service_key(),
        default_headers={"X-OpenWebUI-User-Id": user, **headers},
        max_retries=0,
        timeout=120,
    )


def test_the_sdk_is_answered_by_the_real_model_in_its_users_turn(vestibule: Vestibule) -> None:
    with sdk(vestibule, "ada") as ada, sdk(vestibule, "bob", **{"X-Vestibule-Wait": "0"}) as bob:
        assert [model.id for model in ada.models.list()] == [MODEL]
        whole = ada.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "hello"}]
        )
        assert whole.choices[0].message.content == ANSWER
        stream = ada.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "hello"}], stream=True
        )
        chunks = list(stream)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
        assert not any(chunk.usage for chunk in chunks)
        text = ada.completions.create(model=MODEL, prompt="hello there", max_tokens=4)
        assert text.usage
        assert 1 <= text.usage.completion_tokens <= 4
        response = ada.responses.create(model=MODEL, input="hello")
        assert response.output_text == ANSWER
        with pytest.raises(RateLimitError) as refused:
            bob.chat.completions.create(model=MODEL, messages=[])
        assert refused.value.code == "no_session"


def test_vllms_own_benchmark_client_completes_every_request(
    vestibule: Vestibule, vllm: VllmServer, components: Components, tmp_path: Path
) -> None:
    before = vllm.requests()
    command = [
        str(components.vllm / "bin" / "vllm"), "bench", "serve", "--backend", "openai-chat",
        "--base-url", vestibule.url, "--endpoint", "/v1/chat/completions",
        "--model", str(components.model), "--served-model-name", MODEL,
        "--dataset-name", "random", "--random-input-len", "32", "--random-output-len", "16",
        "--num-prompts", str(PROMPTS), "--max-concurrency", str(AT_ONCE),
        "--header", "X-OpenWebUI-User-Id=bench",
        "--save-result", "--result-dir", str(tmp_path), "--result-filename", "result.json",
    ]  # fmt: skip
    environment = {**os.environ, "OPENAI_API_KEY": vestibule.service_key()}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["completed"], result.get("failed", 0)) == (PROMPTS, 0)
    assert result["total_output_tokens"] > 0
    assert vllm.requests() - before >= PROMPTS
