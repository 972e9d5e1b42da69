"""A live server on a real socket, and a provider behind it that really listens."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from pydantic import SecretStr
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from graphs.runs import Runner
from models.budget import Budget
from models.chat import ChatConfig, open_chat
from models.prices import Price, PriceTable
from server import create_app
from settings import load_settings

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]
Body = dict[str, Any]


class Upstream:
    """An OpenAI-like server on loopback, with faults."""

    def __init__(self) -> None:
        self.words = ["Red", " is", " a", " colour."]
        self.status = 200
        self.error: Body = {"error": {"message": "no luck today", "type": "t", "param": "p", "code": "c"}}
        self.cut_after: int | None = None
        """Break the connection after so many words."""
        self.hold_after: int | None = None
        """Say nothing more after so many words."""
        self.usage: Body = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        self.tool_call: Body | None = None
        self.boundary = "\n\n"
        self.bodies: list[Body] = []
        self.authorization: list[str | None] = []
        self.began = asyncio.Event()
        self.hung_up = asyncio.Event()
        self.url = ""

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.authorization.append(request.headers.get("authorization"))
        if self.status != 200:
            return JSONResponse(self.error, self.status)
        if not body.get("stream"):
            message: Body = {"role": "assistant", "content": "".join([word async for word in self._said(request)])}
            if self.tool_call:
                message = {"role": "assistant", "content": None, "tool_calls": [self.tool_call]}
            reason = "tool_calls" if self.tool_call else "stop"
            choices = [{"index": i, "message": message, "finish_reason": reason} for i in range(body.get("n", 1))]
            return JSONResponse({**self._head(body), "choices": choices, "usage": self.usage})
        return StreamingResponse(self._events(request, body), media_type="text/event-stream")

    async def models(self, request: Request) -> Response:
        return JSONResponse({"data": []})

    def _head(self, body: Body) -> Body:
        kind = "chat.completion.chunk" if body.get("stream") else "chat.completion"
        return {"id": "chatcmpl-up", "object": kind, "created": 1, "model": body["model"]}

    async def _events(self, request: Request, body: Body) -> AsyncIterator[str]:
        def event(choices: list[Body], **more: Any) -> str:
            return f"data: {json.dumps({**self._head(body), 'choices': choices, **more})}{self.boundary}"

        yield event([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
        async for word in self._said(request):
            yield event([{"index": 0, "delta": {"content": word}, "finish_reason": None}])
        yield event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
        if body.get("stream_options", {}).get("include_usage"):
            yield event([], usage=self.usage)
        yield f"data: [DONE]{self.boundary}"

    async def _said(self, request: Request) -> AsyncIterator[str]:
        watch = asyncio.create_task(self._watch(request))
        try:
            for number, word in enumerate(self.words):
                if number == self.cut_after:
                    raise ConnectionAbortedError("the test cuts the answer here")
                if number == self.hold_after:
                    self.began.set()
                    await self.hung_up.wait()
                yield word
        finally:
            watch.cancel()

    async def _watch(self, request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.hung_up.set()


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI application on a free port; its URL."""
    config = uvicorn.Config(app, log_level="critical", lifespan="off", ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


async def _open_upstream(stack: AsyncExitStack) -> Upstream:
    fake = Upstream()
    routes = [Route("/v1/chat/completions", fake.chat, methods=["POST"]), Route("/v1/models", fake.models)]
    fake.url = await stack.enter_async_context(listening(Starlette(routes=routes)))
    return fake


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """The provider that is asked first."""
    async with AsyncExitStack() as stack:
        yield await _open_upstream(stack)


@pytest.fixture
async def second() -> AsyncIterator[Upstream]:
    """Another one."""
    async with AsyncExitStack() as stack:
        yield await _open_upstream(stack)


Live = Callable[..., AbstractAsyncContextManager[tuple[str, Runner]]]


@pytest.fixture
def live(lumina: Lumina, upstream: Upstream, redis: Redis, tmp_path: Path) -> Live:
    """Opens the application on a real socket, with the upstream as its chat model ``local-model``.

    Args of ``live()``: ``keys`` sets LUMINA_API_KEYS, ``goal_file`` another application, ``price`` makes the model a
    paid one with a budget of one dollar, ``chat`` changes fields of its ``ChatConfig``.
    """

    @asynccontextmanager
    async def open_app(
        *, keys: str | None = None, price: Price | None = None, chat: Body | None = None, **overrides: Any
    ) -> AsyncIterator[tuple[str, Runner]]:
        config = ChatConfig(
            provider="openai",
            openai_base_url=f"{upstream.url}/v1",
            openai_api_key=SecretStr("sk-upstream"),
            openai_model="local-model",
            data_dir=tmp_path,
            read_timeout_s=20.0,
        )
        prices = PriceTable({"local-model": price} if price else None)
        budget = Budget(redis, limit_usd=1.0, prices=prices)
        async with AsyncExitStack() as stack:
            model = await stack.enter_async_context(open_chat(replace(config, **(chat or {})), budget=budget))
            settings = load_settings(data_dir=tmp_path / "data", lumina_api_keys=keys)
            app = create_app(settings, open_runner=lambda _: lumina(chat=model, **overrides))
            state = await stack.enter_async_context(app.router.lifespan_context(app))
            runner: Runner = dict(state or {})["runner"]

            async def asgi(scope: Any, receive: Any, send: Any) -> None:
                await app({**scope, "state": dict(state or {})}, receive, send)

            yield await stack.enter_async_context(listening(asgi)), runner

    return open_app


async def eventually(condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """Wait until a condition holds; what it returned."""
    async with asyncio.timeout(timeout_s):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)
