"""Chat models by their own names: OpenAI's client against the live server, whose provider really listens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from graphs.runs import Runner
from models.prices import Price

Live = Callable[..., AbstractAsyncContextManager[tuple[str, Runner]]]
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is red?"}]
WEATHER: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def client(url: str, key: str = "any", **options: Any) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, **options)


async def test_a_whole_answer_is_the_providers_own(live: Live, upstream: Any) -> None:
    async with live() as (url, _), client(url) as api:
        answer = await api.chat.completions.create(model="local-model", messages=HELLO, seed=3, top_p=0.5, stop=["x"])
    assert answer.choices[0].message.content == "Red is a colour."
    assert answer.id == "chatcmpl-up"
    assert answer.usage
    assert answer.usage.total_tokens == 12
    sent = upstream.bodies[0]
    assert (sent["seed"], sent["top_p"], sent["stop"]) == (3, 0.5, ["x"])
    assert upstream.authorization == ["Bearer sk-upstream"]


@pytest.mark.parametrize("boundary", ["\n\n", "\r\n\r\n"])
@pytest.mark.parametrize("wanted", [True, False])
async def test_a_stream_has_the_providers_usage_only_when_asked(
    live: Live, upstream: Any, wanted: bool, boundary: str
) -> None:
    upstream.boundary = boundary
    options: Any = {"include_usage": True} if wanted else openai.omit
    async with live() as (url, _), client(url) as api:
        stream = await api.chat.completions.create(
            model="local-model", messages=HELLO, stream=True, stream_options=options
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Red is a colour."
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    usages = [c.usage for c in chunks if c.usage]
    assert [usage.prompt_tokens for usage in usages] == ([7] if wanted else [])
    assert [c for c in chunks if not c.choices] == ([chunks[-1]] if wanted else [])


async def test_every_byte_of_a_stream_arrives_up_to_done(live: Live) -> None:
    body = {"model": "local-model", "messages": HELLO, "stream": True}
    async with live() as (url, _), httpx.AsyncClient(base_url=url, timeout=60) as http:
        answer = await http.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")
    assert answer.headers["x-lumina-model"] == "local-model"


async def test_tools_formats_and_choices_go_through(live: Live, upstream: Any) -> None:
    upstream.tool_call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    async with live() as (url, _), client(url) as api:
        answer = await api.chat.completions.create(
            model="local-model",
            messages=HELLO,
            tools=[WEATHER],
            tool_choice="required",
            response_format={"type": "json_object"},
            n=2,
            max_completion_tokens=9,
        )
    assert len(answer.choices) == 2
    calls = answer.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls if call.type == "function"] == ["weather"]
    assert answer.choices[0].finish_reason == "tool_calls"
    sent = upstream.bodies[0]
    assert sent["tool_choice"] == "required"
    assert sent["response_format"] == {"type": "json_object"}
    assert sent["max_tokens"] == 9, "what servers on this protocol all know"


async def test_the_synchronous_client_streams_too(live: Live) -> None:
    def ask(url: str) -> str:
        with OpenAI(base_url=f"{url}/v1", api_key="any") as api:
            stream = api.chat.completions.create(model="local-model", messages=HELLO, stream=True)
            return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    async with live() as (url, _):
        assert await asyncio.to_thread(ask, url) == "Red is a colour."


async def test_the_clients_own_streaming_and_raw_helpers_work(live: Live) -> None:
    async with live() as (url, _), client(url) as api:
        async with api.chat.completions.stream(model="local-model", messages=HELLO) as stream:
            whole = await stream.get_final_completion()
        raw = await api.chat.completions.with_raw_response.create(model="local-model", messages=HELLO)
    assert whole.choices[0].message.content == "Red is a colour."
    assert raw.headers["x-lumina-model"] == "local-model"
    assert raw.parse().choices[0].message.content == "Red is a colour."


async def test_langchain_invokes_and_streams_with_usage(live: Live) -> None:
    async with live() as (url, _), openai.DefaultAsyncHttpxClient() as http:
        model = ChatOpenAI(
            model="local-model",
            base_url=f"{url}/v1",
            api_key=lambda: "any",
            stream_usage=True,
            http_async_client=http,
        )
        whole = await model.ainvoke("What is red?")
        pieces = [piece async for piece in model.astream("What is red?")]
    assert whole.text == "Red is a colour."
    assert whole.usage_metadata
    assert whole.usage_metadata["total_tokens"] == 12
    assert "".join(piece.text for piece in pieces) == "Red is a colour."
    assert [piece.usage_metadata["input_tokens"] for piece in pieces if piece.usage_metadata] == [7]


async def test_the_ollama_model_always_resolves(live: Live, upstream: Any) -> None:
    async with live() as (url, _), client(url) as api:
        answer = await api.chat.completions.create(model="llama3.2", messages=HELLO)
        listed = {model.id async for model in api.models.list()}
    assert answer.choices[0].message.content == "Red is a colour."
    assert upstream.bodies[0]["model"] == "local-model"
    assert "llama3.2" in listed


async def test_the_next_provider_answers_when_one_fails_before_its_first_byte(
    live: Live, upstream: Any, second: Any
) -> None:
    upstream.status = 500
    both = {
        "provider": "auto",
        "ollama_url": upstream.url,
        "ollama_model": "first",
        "openai_base_url": f"{second.url}/v1",
    }
    async with live(chat=both) as (url, _), client(url) as api:
        raw = await api.chat.completions.with_raw_response.create(model="first", messages=HELLO)
        upstream.status, upstream.cut_after = 200, 0
        stream = await api.chat.completions.create(model="first", messages=HELLO, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert raw.headers["x-lumina-fallbacks"] == "ollama"
    assert raw.parse().model == "local-model"
    assert text == "Red is a colour."


async def test_an_answer_that_is_cut_ends_with_an_error_the_client_raises(live: Live, upstream: Any) -> None:
    upstream.cut_after = 2
    async with live() as (url, _), client(url) as api:
        stream = await api.chat.completions.create(model="local-model", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError, match="in the middle of its answer"):
            [chunk async for chunk in stream]


async def test_the_providers_refusal_is_told_with_its_reason(live: Live, upstream: Any) -> None:
    upstream.status = 400
    async with live() as (url, _), client(url) as api:
        with pytest.raises(openai.BadRequestError, match="no luck today") as refused:
            await api.chat.completions.create(model="local-model", messages=HELLO)
    assert (refused.value.code, refused.value.param) == ("c", "p")


async def test_the_client_tries_again_when_no_provider_answers(live: Live, upstream: Any) -> None:
    upstream.status = 500
    async with live() as (url, _), AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=1) as api:
        with pytest.raises(openai.InternalServerError) as down:
            await api.chat.completions.create(model="local-model", messages=HELLO)
    assert down.value.status_code == 503
    assert down.value.code == "no_model_answers"
    assert len(upstream.bodies) == 2


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_goes_away_hangs_up_on_the_provider_at_once(
    live: Live, upstream: Any, streamed: bool
) -> None:
    upstream.hold_after = 1 if streamed else 0
    body = {"model": "local-model", "messages": HELLO, "stream": streamed}
    async with live() as (url, _):
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            asking = asyncio.create_task(http.post("/v1/chat/completions", json=body))
            await asyncio.wait_for(upstream.began.wait(), 20)
            asking.cancel()
        async with asyncio.timeout(10):  # half of what the server would wait for the provider
            await upstream.hung_up.wait()


async def test_a_paid_answer_is_put_on_the_budget_and_on_the_log(live: Live, upstream: Any) -> None:
    upstream.usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    async with live(price=Price(1.0, 2.0)) as (url, runner), client(url) as api:
        stream = await api.chat.completions.create(model="local-model", messages=HELLO, stream=True)
        [chunk async for chunk in stream]
        assert runner.context.events
        query = "SELECT data->>'usd', data->>'input_tokens', data->>'model' FROM events WHERE type = 'llm.usage'"
        async with asyncio.timeout(20):
            while not (rows := (await runner.context.events.query(query)).rows):
                await asyncio.sleep(0.05)
    assert float(rows[0][0]) == pytest.approx((100 * 1.0 + 50 * 2.0) / 1e6)
    assert tuple(rows[0][1:]) == ("100", "local-model")
    assert upstream.bodies[0]["max_tokens"] == 1024, "a paid answer has a bound"


async def test_a_call_that_the_budget_does_not_cover_is_refused_and_not_repeated(live: Live, upstream: Any) -> None:
    async with live(price=Price(9e6, 9e6)) as (url, runner), client(url) as api:
        runner.context.chat.model.spare = None
        with pytest.raises(openai.RateLimitError) as refused:
            await api.chat.completions.create(model="local-model", messages=HELLO)
    assert refused.value.code == "insufficient_quota"
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert upstream.bodies == []


async def test_instructions_of_developers_reach_servers_that_do_not_know_the_role(live: Live, upstream: Any) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "developer", "content": "Be brief."}, *HELLO]
    async with live() as (url, _), client(url) as api:
        await api.chat.completions.create(model="local-model", messages=messages, metadata={"a": "b"})
    assert upstream.bodies[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "metadata" not in upstream.bodies[0]
