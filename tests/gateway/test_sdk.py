"""OpenAI's own SDK at the gateway, as its users write it."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest
from openai import AsyncOpenAI, NotFoundError, OpenAI, RateLimitError
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

from tests.conftest import DEADLINE_S, Service
from tests.gateway import canned
from tests.gateway.conftest import Chatter
from tests.gateway.shelf import shelf
from tests.gateway.upstream import Upstream

HELLO: Iterable[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
WEATHER: Iterable[ChatCompletionToolParam] = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
]


class Weather(BaseModel):
    city: str
    degrees: int


@pytest.fixture
async def client(service: Service, upstream: Upstream, ada: Chatter) -> AsyncIterator[AsyncOpenAI]:
    """Of a trusted frontend, for somebody who has a session."""
    upstream.act = canned.answer
    async with AsyncOpenAI(
        base_url=f"{service.url}/v1",
        api_key=service.service_key,
        default_headers=ada.headers,
        max_retries=0,
        timeout=DEADLINE_S,
    ) as opened:
        yield opened


async def test_models(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["tiny"]
    assert (await client.models.retrieve("tiny")).id == "tiny"
    with pytest.raises(NotFoundError):
        await client.models.retrieve("other")


async def test_a_chat(client: AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="tiny", messages=HELLO)
    assert whole.choices[0].message.content == "Hello"
    assert whole.usage
    assert whole.usage.total_tokens == 5


async def test_the_sdk_without_async(client: AsyncOpenAI, service: Service, ada: Chatter) -> None:
    def says() -> tuple[str | None, str]:
        with OpenAI(
            base_url=f"{service.url}/v1",
            api_key=service.service_key,
            default_headers=ada.headers,
            timeout=DEADLINE_S,
        ) as blocking:
            whole = blocking.chat.completions.create(model="tiny", messages=HELLO)
            chunks = blocking.chat.completions.create(model="tiny", messages=HELLO, stream=True)
            said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            return whole.choices[0].message.content, said

    assert await asyncio.to_thread(says) == ("Hello", "Hello")


@pytest.mark.parametrize("usage", [False, True])
async def test_a_streamed_chat_has_usage_only_when_it_asked(
    client: AsyncOpenAI, usage: bool
) -> None:
    if usage:
        stream = await client.chat.completions.create(
            model="tiny", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    else:
        stream = await client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
    chunks = [chunk async for chunk in stream]
    said = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(said) == "Hello"
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == ([5] if usage else [])
    assert all(chunk.choices for chunk in chunks) is not usage


@pytest.mark.parametrize("streams", [False, True])
async def test_tools(client: AsyncOpenAI, streams: bool) -> None:
    if streams:
        stream = await client.chat.completions.create(
            model="tiny", messages=HELLO, tools=WEATHER, stream=True
        )
        deltas = [chunk.choices[0].delta async for chunk in stream]
        calls = [call for delta in deltas for call in delta.tool_calls or []]
        assert [call.function.name for call in calls if call.function] == ["weather"]
        return
    whole = await client.chat.completions.create(model="tiny", messages=HELLO, tools=WEATHER)
    (call,) = whole.choices[0].message.tool_calls or []
    assert call.id == "call_1"


async def test_structured_output(client: AsyncOpenAI, upstream: Upstream) -> None:
    parsed = await client.chat.completions.parse(
        model="tiny", messages=HELLO, response_format=Weather
    )
    assert parsed.choices[0].message.parsed == Weather(city="Bern", degrees=21)
    assert b'"json_schema"' in upstream.seen[0].body


async def test_completions_embeddings_and_responses(client: AsyncOpenAI) -> None:
    text = await client.completions.create(model="tiny", prompt="hello")
    assert text.choices[0].text == "Hello"
    vectors = await client.embeddings.create(model="tiny", input="hello", encoding_format="float")
    assert vectors.data[0].embedding == [0.5, 0.25]
    response = await client.responses.create(model="tiny", input="hello")
    assert response.output_text == "Hello"


async def test_a_stored_response(client: AsyncOpenAI, service: Service) -> None:
    async with shelf(service, "w2", "r1"):
        assert (await client.responses.retrieve("r1")).id == "r1"
        events = await client.responses.retrieve("r1", stream=True, starting_after=2)
        await events.close()
        assert (await client.responses.cancel("r1")).status == "cancelled"
        assert [item.id async for item in client.responses.input_items.list("r1")] == ["m1"]
        await client.responses.delete("r1")
        with pytest.raises(NotFoundError):
            await client.responses.retrieve("r1")
        with pytest.raises(NotFoundError, match="names no model"):
            await client.files.list()


async def test_a_refusal_is_the_sdks_own_error(client: AsyncOpenAI) -> None:
    bob = client.with_options(default_headers={"X-OpenWebUI-User-Id": "bob"})
    with pytest.raises(RateLimitError) as caught:
        await bob.chat.completions.create(model="tiny", messages=HELLO)
    assert caught.value.code == "no_session"
    assert caught.value.response.headers["Retry-After"]
