"""The HTTP server: ``create_app`` and ``serve``."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

import services
from errors import LuminaError
from graphs.runs import Runner
from memory.batched_events import BatchedEvents
from memory.fan_out import FanOut
from serving import (
    chat,
    console,
    documentation,
    event_export,
    events,
    graph,
    health,
    masterchat,
    metrics,
    mux,
    openai,
    planner,
    problems,
    tasks,
)
from serving.bodies import MAX_HEADER_BYTES, RequestLimits
from serving.guards import Hosts, Origins
from serving.headers import EXPOSED, AnswerHeaders
from serving.http_metrics import CountRequests, HttpMetrics
from serving.turns import Turns, open_turns
from settings import DEFAULT_OWNER, InvalidSettings, Settings, is_loopback

MAX_MESSAGE_BYTES = 16 * 1024
"""The largest message that a WebSocket client may send; it has only its key to tell."""
STOP_S = 3
"""How long open requests may take to end after Ctrl-C."""


class PortTaken(LuminaError):
    """Somebody else listens on the address."""


Opener = Callable[[Settings], AbstractAsyncContextManager[Runner]]
TurnsOpener = Callable[[Runner], AbstractAsyncContextManager[Turns]]


def create_app(
    settings: Settings,
    *,
    open_runner: Opener = services.open_runner,
    open_turns: TurnsOpener = open_turns,
    host: str | None = None,
) -> FastAPI:
    """The application on these settings; services open with its lifespan.

    Args:
        settings: Which services, and where.
        open_runner: Opens them; another one may hand in models or sources of its own.
        host: The address that it is bound to. Without keys, requests for any other name are refused then.
        open_turns: Opens what runs the turns of conversations; another one may have other times.
    """

    http_metrics = HttpMetrics()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with (
            open_runner(settings) as runner,
            services.open_tasks(runner, settings) as (queue, scheduler),
            BatchedEvents(runner.context.streams) as usage_log,
            open_turns(runner) as turns,
            services.open_fan_out(runner, settings) as fan_out,
            services.open_kafka(runner, settings) as kafka,
            metrics.FiguresReader(runner, queue, turns, fan_out) as figures,
        ):
            yield {
                "runner": runner,
                "turns": turns,
                "fan_out": fan_out,
                "kafka": kafka,
                "cors_origins": settings.cors_origins,
                "tasks": queue,
                "scheduler": scheduler,
                "api_keys": settings.api_keys(),
                "default_owner": DEFAULT_OWNER,
                "http_metrics": http_metrics,
                "figures": figures,
                "model_alias": settings.ollama_model,
                "usage_log": usage_log,
            }

    app = FastAPI(
        title="Lumina",
        version="0.1.0",
        summary="Answers that can be traced.",
        lifespan=lifespan,
        middleware=_middleware(settings, host, http_metrics),
        docs_url=None,
        redoc_url=None,
    )
    problems.install(app)
    documentation.install(app, with_keys=bool(settings.api_keys()))
    openai.install(app)
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(masterchat.router)
    app.include_router(chat.router)
    app.include_router(planner.router)
    app.include_router(events.router)
    app.include_router(event_export.router)
    app.include_router(graph.router)
    app.include_router(mux.router)
    app.include_router(tasks.router)
    console.install(app)
    return app


def _middleware(settings: Settings, host: str | None, http_metrics: HttpMetrics) -> list[Middleware]:
    """What every request passes through, from the outside to the inside."""
    passed = [
        Middleware(AnswerHeaders),
        Middleware(CountRequests, metrics=http_metrics),
        Middleware(openai.errors.OpenAIErrors),
    ]
    if settings.cors_origins:
        cors: dict[str, Any] = {"allow_methods": ["*"], "allow_headers": ["*"], "expose_headers": EXPOSED}
        passed.append(Middleware(CORSMiddleware, allow_origins=settings.cors_origins, **cors))
    passed.append(Middleware(problems.Faults))
    if not settings.api_keys():
        if host is not None:
            passed.append(Middleware(Hosts, names=[host]))
        passed.append(Middleware(Origins, allowed=settings.cors_origins))
    return [*passed, Middleware(RequestLimits, max_body_bytes=settings.max_body_bytes)]


def address_file(data_dir: Path) -> Path:
    """Where a running server leaves its address for the other commands."""
    return data_dir / "server.json"


async def serve(settings: Settings, *, host: str, port: int) -> bool:
    """Serve until a signal comes.

    Raises:
        InvalidSettings: an address that others can reach, and no keys.
        PortTaken: the port is in use.
    """
    if not is_loopback(host) and not settings.api_keys():
        raise InvalidSettings(
            f"--host {host} can be reached from elsewhere: set LUMINA_API_KEYS first, or serve on 127.0.0.1"
        )
    app = create_app(settings, host=host)
    async with app.router.lifespan_context(app) as state:  # not uvicorn's: its start-up errors come as traces
        opened = dict(state or {})
        config = uvicorn.Config(
            _with_state(app, opened),
            host=host,
            port=port,
            lifespan="off",
            log_level="warning",
            log_config=None,  # its own would take its records away from the sinks of logs.py
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,  # it would compress each frame once a client
            timeout_graceful_shutdown=STOP_S,
            server_header=False,
            h11_max_incomplete_event_size=2 * MAX_HEADER_BYTES,
        )
        try:
            await _AnnouncedServer(config, address_file(settings.data_dir), opened["fan_out"]).serve()
        except SystemExit as error:
            raise PortTaken(f"port {port} of {host} is in use; choose another with --port") from error
    return True


def _with_state(app: FastAPI, state: dict[str, Any]) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": dict(state)}, receive, send)

    return asgi


class _AnnouncedServer(uvicorn.Server):
    """Leaves its address in a file while it is up, and sends who follows its events away when it stops."""

    def __init__(self, config: uvicorn.Config, file: Path, fan_out: FanOut) -> None:
        super().__init__(config)
        self._file, self._fan_out = file, fan_out

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            url = f"http://{self.config.host}:{self.config.port}"
            self._file.write_text(json.dumps({"url": url, "pid": os.getpid()}))
            print(f"Lumina serves on {url}  (Ctrl-C ends it; {url}/docs lists the routes)", flush=True)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGINT and SIGTERM.

        uvicorn raises them again at the end; SIGTERM would then end the process before its services are closed and its
        tasks handed back.
        """
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    async def shutdown(self, sockets: Any = None) -> None:
        self._file.unlink(missing_ok=True)
        self._fan_out.close("the server stops; connect again")  # or their streams would hold it up
        await super().shutdown(sockets)
