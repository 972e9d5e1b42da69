"""The HTTP server: ``create_app`` and ``serve``."""

from __future__ import annotations

import contextlib
import gc
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

import services
from errors import LuminaError
from graphs.application import Application, load_application
from graphs.runs import Runner
from memory.batched_events import BatchedEvents
from memory.fan_out import FanOut
from serving import console, documentation, metrics, openai, problems
from serving.bodies import MAX_HEADER_BYTES, RequestLimits
from serving.guards import Hosts, Origins
from serving.headers import EXPOSED, AnswerHeaders
from serving.http_metrics import CountRequests, HttpMetrics
from serving.late_routes import AwaitRoutes, LateApplication
from serving.roles import ALL, Role
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
    role: Role = ALL,
    open_runner: Opener | None = None,
    open_turns: TurnsOpener = open_turns,
    host: str | None = None,
) -> FastAPI:
    """The application on these settings; services open with its lifespan.

    Args:
        settings: Which services, and where.
        role: The part of Lumina that it is.
        open_runner: Opens them, those of the role when left out; another one may hand in models or sources of its own.
        host: The address that it is bound to. Without keys, requests for any other name are refused then.
        open_turns: Opens what runs the turns of conversations; another one may have other times.

    Raises:
        LuminaError: the goal file, or the agents that it names, cannot be loaded.
    """

    http_metrics = HttpMetrics()
    application = load_application(settings.goal_file) if role.chats else None
    opener = open_runner or partial(services.open_runner, role=role, application=application)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            runner = await stack.enter_async_context(opener(settings))
            yield {**await _open_parts(stack, runner, settings, role, open_turns), "http_metrics": http_metrics}

    app = LateApplication(
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
    for router in role.routers:
        app.include_router(router)
    if application:
        app.include_late("/runnables", partial(_runnables, application))
        console.install(app)
    return app


def _runnables(application: Application) -> APIRouter:
    from serving import langserve  # heavy: langserve and a hundred routes, see serving/late_routes.py

    return langserve.build_router(*application)


async def _open_parts(
    stack: AsyncExitStack, runner: Runner, settings: Settings, role: Role, open_turns: TurnsOpener
) -> dict[str, Any]:
    """What the routes of a role find in the state of a request; None or missing is what its process does not do."""
    queue, scheduler = await stack.enter_async_context(services.open_tasks(runner, settings, role))
    state: dict[str, Any] = {
        "runner": runner,
        "cors_origins": settings.cors_origins,
        "tasks": queue,
        "scheduler": scheduler,
        "kafka": None,
        "fan_out": None,
        "api_keys": settings.api_keys(),
        "default_owner": DEFAULT_OWNER,
        "model_alias": settings.ollama_model,
    }
    if role.chats:
        state["usage_log"] = await stack.enter_async_context(BatchedEvents(runner.context.streams))
        state["turns"] = await stack.enter_async_context(open_turns(runner))
    if role.tells:
        state["fan_out"] = await stack.enter_async_context(services.open_fan_out(runner, settings))
    if role.events:
        state["kafka"] = await stack.enter_async_context(services.open_kafka(runner, settings))
    figures = metrics.FiguresReader(runner, queue, state.get("turns"), state["fan_out"])
    state["figures"] = await stack.enter_async_context(figures)
    return state


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
    return [*passed, Middleware(RequestLimits, max_body_bytes=settings.max_body_bytes), Middleware(AwaitRoutes)]


def address_file(data_dir: Path, role: str = ALL.name) -> Path:
    """Where a running server leaves its address for the other commands."""
    return data_dir / ("server.json" if role == ALL.name else f"server-{role}.json")


def port_of(settings: Settings, role: Role) -> int:
    """The port of a role where none is given."""
    return settings.ws_port if role.name == "event-mux" else role.port


async def serve(settings: Settings, *, host: str, port: int | None = None, role: Role = ALL) -> bool:
    """Serve until a signal comes.

    Args:
        settings: Which services, and where.
        host: Address to listen on.
        port: Port to listen on; None for the role's own.
        role: The part of Lumina to serve.

    Raises:
        InvalidSettings: an address that others can reach, and no keys; or what the role lacks.
        PortTaken: the port is in use.
    """
    if not is_loopback(host) and not settings.api_keys():
        raise InvalidSettings(
            f"--host {host} can be reached from elsewhere: set LUMINA_API_KEYS first, or serve on 127.0.0.1"
        )
    services.check_role(settings, role)
    port = port or port_of(settings, role)
    app = create_app(settings, role=role, host=host)
    async with app.router.lifespan_context(app) as state:  # not uvicorn's: its start-up errors come as traces
        opened = dict(state or {})
        config = uvicorn.Config(
            _with_state(app, opened),
            host=host,
            port=port,
            lifespan="off",
            log_config=None,  # its records go where all go: logs.py
            access_log=False,  # requests are logged with their route, see serving/http_metrics.py
            http="h11",  # also where httptools is installed: that one does not bound a header which has not ended
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,  # it would compress each frame once a client
            timeout_graceful_shutdown=STOP_S,
            server_header=False,
            h11_max_incomplete_event_size=2 * MAX_HEADER_BYTES,
        )
        try:
            file = address_file(settings.data_dir, role.name)
            does = role.describe(settings.qdrant_url is not None)
            await _AnnouncedServer(config, file, role, does, opened["fan_out"]).serve()
        except SystemExit as error:
            raise PortTaken(f"port {port} of {host} is in use; choose another with --port") from error
    return True


def _with_state(app: FastAPI, state: dict[str, Any]) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": dict(state)}, receive, send)

    return asgi


class _AnnouncedServer(uvicorn.Server):
    """Leaves its address in a file while it is up, and sends who follows its events away when it stops."""

    def __init__(self, config: uvicorn.Config, file: Path, role: Role, does: str, fan_out: FanOut | None) -> None:
        super().__init__(config)
        self._file, self._role, self._does, self._fan_out = file, role, does, fan_out

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            gc.freeze()  # what stays until the end is in no collection, which would stop every stream for its time
            gc.enable()
            url = f"http://{self.config.host}:{self.config.port}"
            self._file.write_text(json.dumps({"url": url, "pid": os.getpid()}))
            who = "Lumina" if self._role is ALL else f"Lumina's {self._role.name}"
            print(f"{who} serves on {url}  (Ctrl-C ends it; {url}/docs lists the routes)", flush=True)
            if self._does and self._role is not ALL:
                print(f"It {self._does}.", flush=True)

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
        if self._fan_out:
            self._fan_out.close("the server stops; connect again")  # or their streams would hold it up
        await super().shutdown(sockets)
