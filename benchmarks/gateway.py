"""Passing a chat completion through: Lumina's /v1, thin FastAPI proxies, LiteLLM's proxy, the upstream itself.

    python -m benchmarks.gateway [--short] [--requests 96]

A fake upstream sends 64 tokens. Every server is a process of its own; the load comes from this one. Each round asks
all of them in turn, streaming and not, one at a time and 32 at a time. The thin proxies ask the upstream through httpx
and through aiohttp; they and Lumina run under the same uvicorn, with asyncio's event loop and h11. LiteLLM is measured
after ``make bench-peers``, or when ``--litellm`` names its program.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import uvicorn
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.figures import Figures
from benchmarks.harness import finish, options, peer_python, rounds_of

TOKENS = 64
KEY = f"sk-{secrets.token_hex(24)}"
"""LiteLLM does not start without a key; the others do not look at it."""
ROOT = Path(__file__).parents[1]
BODY: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "Say something."}], "max_tokens": 64}
MODES = [(streamed, together) for streamed in (True, False) for together in (1, 32)]


def upstream_app() -> Starlette:
    """Sends its tokens as fast as they are taken."""
    head = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1, "model": "fake"}
    usage = {"prompt_tokens": 10, "completion_tokens": TOKENS, "total_tokens": 10 + TOKENS}

    def event(delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"

    pieces = [event({"role": "assistant", "content": ""}), *(event({"content": " token"}) for _ in range(TOKENS))]
    pieces.append(event({}, "stop"))
    last = b"data: " + json.dumps({**head, "choices": [], "usage": usage}).encode() + b"\n\n"
    message = {"role": "assistant", "content": " token" * TOKENS}
    whole = {
        **head,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage,
    }

    async def chat(request: Request) -> Response:
        body = await request.json()
        if not body.get("stream"):
            return JSONResponse(whole)

        async def events() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece
                await asyncio.sleep(0)
            if body.get("stream_options"):
                yield last
            yield b"data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": []})

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"]), Route("/v1/models", models)])


def thin_app(upstream: str) -> FastAPI:
    """The limit: the same bytes with nothing of Lumina in it."""
    app = FastAPI()
    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=1000, max_keepalive_connections=100), timeout=60)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await request.body()
        sent = client.build_request(
            "POST", f"{upstream}/v1/chat/completions", content=body, headers={"content-type": "application/json"}
        )
        answer = await client.send(sent, stream=True)

        async def pieces() -> AsyncIterator[bytes]:
            try:
                async for piece in answer.aiter_raw():
                    yield piece
            finally:
                await answer.aclose()

        return StreamingResponse(pieces(), answer.status_code, media_type=answer.headers["content-type"])

    return app


def thin_app_on_aiohttp(upstream: str) -> FastAPI:
    """The same on the client that Lumina uses."""
    app = FastAPI()
    clients: list[aiohttp.ClientSession] = []

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await request.body()
        if not clients:  # it belongs to an event loop
            clients.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1000, keepalive_timeout=4)))
        answer = await clients[0].post(
            f"{upstream}/v1/chat/completions", data=body, headers={"content-type": "application/json"}
        )

        async def pieces() -> AsyncIterator[bytes]:
            try:
                async for piece in answer.content.iter_any():
                    yield piece
            finally:
                answer.release()

        return StreamingResponse(pieces(), answer.status, media_type=answer.headers["content-type"])

    return app


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], url: str, **environment: str) -> Iterator[str]:
    """A server in a process of its own, up when its list of models answers."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 120
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    httpx.get(
                        f"{url}/v1/models", headers={"authorization": f"Bearer {KEY}"}, timeout=5, trust_env=False
                    )
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"{command[0]} did not start: {log.read()[-2000:].decode(errors='replace')}")
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()
            process.wait(20)


@contextlib.contextmanager
def servers(litellm: str | None) -> Iterator[dict[str, str]]:
    """The URL of everything that is measured."""
    me = [sys.executable, __file__]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def start(name: str, command: list[str], port: int, **environment: str) -> None:
            found[name] = stack.enter_context(running(command, f"http://127.0.0.1:{port}", **environment))

        found: dict[str, str] = {}
        port = free_port()
        start("upstream", [*me, "--serve", "upstream", "--port", str(port)], port)
        up = found["upstream"]
        for name, served in (("thin proxy", "thin"), ("thin proxy on aiohttp", "thin-aiohttp")):
            port = free_port()
            start(name, [*me, "--serve", served, "--upstream", up, "--port", str(port)], port)
        port = free_port()
        start(
            "lumina",
            [sys.executable, "cli.py", "serve", "--port", str(port)],
            port,
            OPENAI_BASE_URL=f"{up}/v1",
            OPENAI_MODEL="fake",
            LLM_PROVIDER="openai",
            DATA_DIR=str(folder / "data"),
        )
        if litellm:
            config = folder / "litellm.yaml"
            model = {"model": "openai/fake", "api_base": f"{up}/v1", "api_key": "any"}
            models = [{"model_name": "fake", "litellm_params": model}]
            config.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": KEY}}))
            port = free_port()
            start("litellm", [litellm, "--config", str(config), "--port", str(port), "--host", "127.0.0.1"], port)
        yield found


async def ask(client: httpx.AsyncClient, url: str, streamed: bool) -> tuple[float, float]:
    """Seconds to the first byte and to the last; the answer is checked."""
    began = time.perf_counter()
    first, seen = 0.0, b""
    async with client.stream("POST", f"{url}/v1/chat/completions", json={**BODY, "stream": streamed}) as answer:
        async for piece in answer.aiter_raw():
            first = first or time.perf_counter() - began
            seen += piece
    if answer.status_code != 200 or seen.count(b" token") != TOKENS:
        raise RuntimeError(f"{url} answered {answer.status_code}: {seen[:300]!r}")
    return first, time.perf_counter() - began


async def load(url: str, streamed: bool, together: int, requests: int) -> dict[str, float]:
    """Requests a second, and the median seconds to the first byte."""
    limits = httpx.Limits(max_connections=together, max_keepalive_connections=together)
    headers = {"authorization": f"Bearer {KEY}", "accept-encoding": "identity"}
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False, headers=headers) as client:
        await asyncio.gather(*(ask(client, url, streamed) for _ in range(together)))
        left = iter(range(requests))
        firsts: list[float] = []

        async def one() -> None:
            for _ in left:
                first, _ = await ask(client, url, streamed)
                firsts.append(first)

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(together)))
        seconds = time.perf_counter() - began
    return {"per_s": requests / seconds, "first_ms": 1000 * statistics.median(firsts)}


async def measure(figures: Figures, urls: dict[str, str], requests: int, rounds: int) -> None:
    """Every server in every mode, in turn, round after round."""
    for _ in range(rounds):
        for streamed, together in MODES:
            label = f"{'streaming' if streamed else 'whole'}, {together} at a time"
            for name, url in urls.items():
                count = requests if together > 1 else max(16, requests // 4)
                found = await load(url, streamed, together, count)
                figures.note(f"{label}: req/s", name, found["per_s"])
                figures.note(f"{label}: first byte, ms", name, found["first_ms"])


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--requests", type=int, help="96; short: 48")
    parser.add_argument(
        "--litellm", help="the litellm program of another venv; by default that of the peers, empty: none"
    )
    parser.add_argument("--serve", choices=["upstream", "thin", "thin-aiohttp"], help=argparse.SUPPRESS)
    parser.add_argument("--upstream", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        thin = thin_app if asked.serve == "thin" else thin_app_on_aiohttp
        app = upstream_app() if asked.serve == "upstream" else thin(asked.upstream)
        uvicorn.run(app, host="127.0.0.1", port=asked.port, log_level="warning", loop="asyncio", http="h11")
        return
    python = peer_python()
    figures = Figures("gateway")
    of_peers = str(python.with_name("litellm")) if python else None
    with servers(of_peers if asked.litellm is None else asked.litellm) as urls:
        asyncio.run(measure(figures, urls, asked.requests or (48 if asked.short else 96), rounds_of(asked)))
    finish(figures, asked)


if __name__ == "__main__":
    main()
