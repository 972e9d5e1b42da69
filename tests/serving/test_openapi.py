"""The description of the routes against the routes: schemathesis calls every one with good and with bad input."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from graphs.runs import Runner
from server import create_app
from settings import load_settings

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]

SECONDS = 30
"""How long schemathesis may call."""

NOT_CHECKED = (
    "positive_data_acceptance",  # what fits the schema may still be refused: an unknown mode, a task without a topic
    "ignored_auth",  # it takes the key that it is told to send for one of its own making; see test_owners
    "use_after_free",  # DELETE on a task cancels it; it can be looked at afterwards
)


class ShortStreams:
    """Breaks off a stream of events that never ends after its first part, as a client does that goes away."""

    def __init__(self, app: FastAPI, state: dict[str, Any]) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endless = False

        async def send_first(message: Any) -> None:
            nonlocal endless
            if message["type"] == "http.response.start":
                types = [value for name, value in message["headers"] if name == b"content-type"]
                endless = scope["method"] == "GET" and any(b"event-stream" in value for value in types)
            elif endless:
                await send({**message, "more_body": False})
                raise OSError("the client has gone")
            await send(message)

        with contextlib.suppress(OSError):
            await self._app({**scope, "state": dict(self._state)}, receive, send_first)


@contextlib.asynccontextmanager
async def live(app: FastAPI) -> AsyncIterator[str]:
    """The application on a port of its own; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with app.router.lifespan_context(app) as state:
            config = uvicorn.Config(ShortStreams(app, dict(state or {})), lifespan="off", log_level="warning")
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            try:
                yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            finally:
                server.should_exit = True
                await serving


@pytest.mark.slow
async def test_no_route_breaks_or_answers_what_is_not_described(
    lumina: Lumina, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CRAWL_RATE_LIMIT", "SUMMARISE_RATE_LIMIT", "QA_RATE_LIMIT"):
        monkeypatch.setenv(name, "6000")  # or nearly every answer would be 429
    app = create_app(
        load_settings(data_dir=tmp_path / "data", lumina_api_keys="ada:k1"), open_runner=lambda _: lumina()
    )
    async with live(app) as url:
        options = ["--max-time", str(SECONDS), "--max-examples", "10", "--generation-deterministic", "--no-color"]
        options += ["--request-timeout", "30", "--workers", "1"]
        options += ["-H", "X-API-Key: k1", "--exclude-checks", ",".join(NOT_CHECKED)]
        run = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{url}/openapi.json",
            *options,
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "120"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await run.communicate()
    text = output.decode()
    print(text)
    assert run.returncode == 0, text
    operations = sum(len(methods) for methods in app.openapi()["paths"].values())
    assert f"Selected: {operations}/{operations}" in text, text
