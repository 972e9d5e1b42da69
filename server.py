"""The HTTP server: ``create_app`` and ``serve``."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

import services
from errors import LuminaError
from graphs.application import load_application
from graphs.runs import Runner
from serving import console, events, health, langserve, masterchat, planner, problems, tasks
from settings import DEFAULT_OWNER, InvalidSettings, Settings, is_loopback

STOP_S = 3
"""How long open requests may take to end after Ctrl-C."""


class PortTaken(LuminaError):
    """Somebody else listens on the address."""


Opener = Callable[[Settings], AbstractAsyncContextManager[Runner]]


def create_app(settings: Settings, *, open_runner: Opener = services.open_runner) -> FastAPI:
    """The application on these settings; services open with its lifespan.

    Args:
        settings: Which services, and where.
        open_runner: Opens them; another one may hand in models or sources of its own.

    Raises:
        LuminaError: the goal file, or the agents that it names, cannot be loaded.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with open_runner(settings) as runner, services.open_tasks(runner, settings) as (queue, scheduler):
            yield {
                "runner": runner,
                "tasks": queue,
                "scheduler": scheduler,
                "api_keys": settings.api_keys(),
                "default_owner": DEFAULT_OWNER,
            }

    app = FastAPI(title="Lumina", version="0.1.0", summary="Answers that can be traced.", lifespan=lifespan)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["*"], allow_headers=["*"]
        )
    problems.install(app)
    app.include_router(health.router)
    app.include_router(masterchat.router)
    app.include_router(planner.router)
    app.include_router(events.router)
    app.include_router(tasks.router)
    app.include_router(langserve.build_router(*load_application(settings.goal_file)))
    console.install(app)
    return app


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
    app = create_app(settings)
    async with app.router.lifespan_context(app) as state:  # not uvicorn's: its start-up errors come as traces
        config = uvicorn.Config(
            _with_state(app, dict(state or {})),
            host=host,
            port=port,
            lifespan="off",
            log_level="warning",
            timeout_graceful_shutdown=STOP_S,
        )
        try:
            await _AnnouncedServer(config, address_file(settings.data_dir)).serve()
        except SystemExit as error:
            raise PortTaken(f"port {port} of {host} is in use; choose another with --port") from error
    return True


def _with_state(app: FastAPI, state: dict[str, Any]) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": dict(state)}, receive, send)

    return asgi


class _AnnouncedServer(uvicorn.Server):
    """Leaves its address in a file while it is up."""

    def __init__(self, config: uvicorn.Config, file: Path) -> None:
        super().__init__(config)
        self._file = file

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            url = f"http://{self.config.host}:{self.config.port}"
            self._file.write_text(json.dumps({"url": url, "pid": os.getpid()}))
            print(f"Lumina serves on {url}  (Ctrl-C ends it; {url}/docs lists the routes)", flush=True)

    async def shutdown(self, sockets: Any = None) -> None:
        self._file.unlink(missing_ok=True)
        await super().shutdown(sockets)
