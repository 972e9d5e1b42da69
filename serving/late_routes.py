"""Routes that are made when somebody first asks for one of them, or for the list of all.

Describing LangServe's hundred routes is a tenth of a server's start, and most servers are never asked for one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

MakeRouter = Callable[[], APIRouter]


class LateApplication(FastAPI):
    """An application of which some routes are made late.

    A request for one waits until they are made, in a thread, and goes on: ``AwaitRoutes`` must be among its middleware.
    Whoever reads ``routes`` gets them all.
    """

    def __init__(self, **options: Any) -> None:
        self._late: list[tuple[str, MakeRouter]] = []
        self._making = threading.Lock()
        super().__init__(**options)

    def include_late(self, prefix: str, make: MakeRouter) -> None:
        """Make the routes below a prefix when they are first asked for."""
        self._late.append((prefix, make))

    def awaits_routes(self, path: str) -> bool:
        """Whether routes must be made before a request for this path can be answered."""
        wanted = (self.openapi_url, *(prefix for prefix, _ in self._late))
        return bool(self._late) and any(part in path for part in wanted if part)  # a proxy may put a path before it

    def make_routes(self) -> None:
        """Make what is not made yet. May be called in any thread, and by several at once."""
        with self._making:
            while self._late:
                self.include_router(self._late[0][1]())
                del self._late[0]  # only now: a request that comes meanwhile has to wait, too

    @property
    def routes(self) -> list[BaseRoute]:
        """All routes."""
        self.make_routes()
        return super().routes


class AwaitRoutes:
    """ASGI middleware that has the routes made which a request asks for; the event loop goes on meanwhile."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on when its routes are there."""
        if scope["type"] == "http":
            application: LateApplication = scope["app"]
            if application.awaits_routes(scope["path"]):
                await asyncio.to_thread(application.make_routes)
        await self._app(scope, receive, send)
