"""What is refused under /v1, and how; embeddings and the list of models."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from openai import AsyncOpenAI, OpenAI
from pydantic import SecretStr

from graphs.runs import Runner

Live = Callable[..., AbstractAsyncContextManager[tuple[str, Runner]]]
HELLO = [{"role": "user", "content": "Hello!"}]
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
NO_JSON = (b"", b"{", b"[]", b"null", b'{"a": "\xff"}', b'{"a": "\\ud800"}', b"[" * 100_000, b'{"n": NaN}')
CHAT: dict[str, Any] = {"model": "lumina", "messages": HELLO}


def said(content: Any, role: str = "user") -> dict[str, Any]:
    return {**CHAT, "messages": [{"role": role, "content": content}]}


BAD: list[tuple[dict[str, Any], int, str | None, str | None]] = [
    ({"messages": HELLO}, 400, "model", "missing_required_parameter"),
    ({"model": "lumina"}, 400, "messages", "missing_required_parameter"),
    ({**CHAT, "messages": []}, 400, "messages", "empty_array"),
    ({**CHAT, "messages": "Hello!"}, 400, "messages", "invalid_type"),
    ({**CHAT, "messages": [None]}, 400, "messages[0]", "invalid_type"),
    ({**CHAT, "messages": [{"role": "wizard", "content": "x"}]}, 400, "messages[0].role", "invalid_value"),
    ({**CHAT, "messages": [{"role": "user"}]}, 400, "messages", "invalid_value"),
    (said(None), 400, "messages", "invalid_value"),
    (said("  "), 400, "messages", "invalid_value"),
    (said(7), 400, "messages[0].content", "invalid_type"),
    (
        {**CHAT, "messages": [{"role": "user", "content": [{"type": "x"}]}]},
        400,
        "messages[0].content[0].type",
        "invalid_value",
    ),
    (
        {**CHAT, "messages": [{"role": "user", "content": [IMAGE]}]},
        400,
        "messages[0].content[0]",
        "unsupported_parameter",
    ),
    (said("x" * 20_001), 400, "messages", "string_above_max_length"),
    ({**CHAT, "messages": [{"role": "assistant", "content": "Hi"}]}, 400, "messages", "invalid_value"),
    ({**CHAT, "n": -1}, 400, "n", "integer_below_min_value"),
    ({**CHAT, "n": 2}, 400, "n", "unsupported_parameter"),
    ({**CHAT, "n": "2"}, 400, "n", "invalid_type"),
    ({**CHAT, "stop": list("abcde")}, 400, "stop", "array_above_max_length"),
    ({**CHAT, "temperature": 2.5}, 400, "temperature", "decimal_above_max_value"),
    ({**CHAT, "max_tokens": 0}, 400, "max_tokens", "integer_below_min_value"),
    ({**CHAT, "tools": [{"type": "function"}]}, 400, "tools", "unsupported_parameter"),
    ({**CHAT, "response_format": {"type": "json_object"}}, 400, "response_format", "unsupported_parameter"),
    ({**CHAT, "stream": "yes"}, 400, "stream", "invalid_type"),
    ({**CHAT, "hops": 9}, 400, "hops", "integer_above_max_value"),
    ({**CHAT, "model": "gpt-9"}, 404, "model", "model_not_found"),
    ({**CHAT, "model": "lumina-fly"}, 404, "model", "model_not_found"),
    ({**CHAT, "model": "words"}, 400, "model", "model_not_supported"),
]


async def test_bad_requests_are_refused_in_openais_form(live: Live) -> None:
    async with live() as (url, runner), httpx.AsyncClient(base_url=url, timeout=30) as http:
        for body, status, param, code in BAD:
            answer = await http.post("/v1/chat/completions", json=body)
            error = answer.json()["error"]
            assert (answer.status_code, error["param"], error["code"]) == (status, param, code), (body, error)
            assert error["type"] == "invalid_request_error"
            assert error["message"]
        for raw in (
            b"",
            b"{",
            b"[]",
            b"null",
            b'{"model": "\xff"}',
            b'{"model": "\\ud800"}',
            b"[" * 100_000,
            b'{"n": NaN}',
        ):
            answer = await http.post("/v1/chat/completions", content=raw)
            assert answer.status_code == 400, raw[:20]
            assert "JSON" in answer.json()["error"]["message"]
        for method, path, status, code in (
            ("GET", "/v1/chat/completions", 405, "method_not_supported"),
            ("DELETE", "/v1/models", 405, "method_not_supported"),
            ("POST", "/v1/responses", 404, "unknown_url"),
            ("GET", "/v1", 404, "unknown_url"),
            ("GET", "/v1/models/nobody/at-all", 404, "model_not_found"),
        ):
            answer = await http.request(method, path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), path
        elsewhere = await http.get("/v2")
        assert elsewhere.headers["content-type"] == "application/problem+json"
        assert (await runner.context.conversations.page("local")).conversations == []


async def test_odd_but_valid_requests_are_answered(live: Live, upstream: Any) -> None:
    odd: list[dict[str, Any]] = [
        {**CHAT, "tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "n": 1, "user": "u", "x": {}},
        {**CHAT, "temperature": 1, "max_tokens": 5, "stop": None, "metadata": None, "logit_bias": {}, "store": False},
        {
            **CHAT,
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo!"}]}
            ],
        },
        {**CHAT, "messages": [{"role": "assistant", "content": None, "tool_calls": []}, *HELLO]},
        {"model": "local-model", "messages": [{"role": "user", "content": "é" * 1_000_000}]},
        {"model": "local-model", "messages": [{"role": "user", "content": [IMAGE]}]},
    ]
    async with live() as (url, _), httpx.AsyncClient(base_url=url, timeout=60) as http:
        for body in odd:
            answer = await http.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            assert answer.json()["choices"][0]["message"]["content"] == "Red is a colour."
    assert len(upstream.bodies[-2]["messages"][0]["content"]) == 1_000_000


async def test_models_are_listed_and_retrieved(live: Live) -> None:
    async with live() as (url, _), AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as api:
        listed = [model async for model in api.models.list()]
        for model in listed:
            assert await api.models.retrieve(model.id) == model
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await api.models.retrieve("gpt-9")
        with pytest.raises(openai.NotFoundError, match="There are: POST /v1/chat/completions"):
            await api.responses.create(model="lumina", input="Hello!")
        with (
            pytest.warns(DeprecationWarning, match="deprecated"),
            pytest.raises(openai.NotFoundError, match="Unknown request URL"),
        ):
            await api.beta.assistants.list()
    ids = [model.id for model in listed]
    assert {"lumina", "lumina-crawl", "lumina-qa", "lumina-summarise", "local-model", "llama3.2", "words"} <= set(ids)
    assert len(ids) == len(set(ids))
    assert ids[0] == "lumina"


async def test_embeddings_keep_their_order_in_both_encodings(live: Live) -> None:
    texts = ["The Mandelbrot set.", "A Julia set.", "The Mandelbrot set."]
    async with (
        live() as (url, runner),
        AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as api,
        openai.DefaultAsyncHttpxClient() as client,
    ):
        packed = await api.embeddings.create(model="words", input=texts)
        plain = await api.embeddings.create(model="words", input=texts, encoding_format="float")
        one = await api.embeddings.create(model="words", input=texts[1], dimensions=64)
        langchain = OpenAIEmbeddings(
            model="words",
            openai_api_base=f"{url}/v1",
            openai_api_key=SecretStr("any"),
            check_embedding_ctx_length=False,
            http_async_client=client,
        )
        vectors = await langchain.aembed_documents(texts)
        expected = await runner.context.embedder.encode(texts)
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            asked = {"model": "words", "input": texts[0], "encoding_format": "base64"}
            raw = (await http.post("/v1/embeddings", json=asked)).json()["data"][0]["embedding"]
        refusals: list[tuple[dict[str, Any], str | None, str | None]] = [
            ({"input": [[1, 2]]}, "input", "invalid_value"),
            ({"input": [1, 2]}, "input", "invalid_value"),
            ({"input": ""}, "input[0]", "empty_string"),
            ({"input": []}, "input", "empty_array"),
            ({"input": ["x"] * 2049}, "input", "array_above_max_length"),
            ({"input": "x", "dimensions": 3}, "dimensions", "invalid_value"),
            ({"input": "x", "model": "lumina"}, "model", "model_not_supported"),
        ]
        for body, param, code in refusals:
            with pytest.raises(openai.BadRequestError) as refused:
                await api.embeddings.create(**{"model": "words", "encoding_format": "float", **body})
            assert (refused.value.param, refused.value.code) == (param, code), body
    for found in ([item.embedding for item in packed.data], [item.embedding for item in plain.data], vectors):
        assert np.allclose(found, expected, atol=1e-6)
    assert [item.index for item in packed.data] == [0, 1, 2]
    assert np.frombuffer(base64.b64decode(raw), "<f4") == pytest.approx(expected[0])
    assert one.usage.prompt_tokens == 3
    assert len(one.data) == 1


async def test_the_synchronous_client_embeds(live: Live) -> None:
    import asyncio

    def embed(url: str) -> int:
        with OpenAI(base_url=f"{url}/v1", api_key="any") as api:
            return len(api.embeddings.create(model="words", input=["a", "b"]).data)

    async with live() as (url, _):
        assert await asyncio.to_thread(embed, url) == 2


async def test_the_routes_stand_in_the_openapi_document(live: Live) -> None:
    async with live() as (url, _), httpx.AsyncClient(base_url=url, timeout=60) as http:
        document = (await http.get("/openapi.json")).json()
    schema = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "$ref" not in json.dumps(schema)
    assert {"model", "messages"} <= set(schema["required"])
