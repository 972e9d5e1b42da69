"""What LangGraph's own server opens: ``langgraph dev`` and Studio run the same graph on the same services.

``langgraph.json`` names two things of this module: ``masterchat``, a factory that the server calls for every request,
and ``app``, whose lifespan keeps the services open from the first request to the last. Both must come from one import
(``studio:…``, not ``./studio.py:…``, which would make a second copy of the module), for they share what is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from langchain_core.runnables import RunnableConfig
from starlette.applications import Starlette

from graphs.masterchat import Graph, build_masterchat
from graphs.runs import Runner
from services import open_runner
from settings import load_settings


class SharedRunner:
    """One set of open services for everybody who uses it at the same time: the first opens it, the last closes it.

    DuckDB's file and Qdrant's folder can be opened once only, and a server has many requests at a time.
    """

    def __init__(self, open_: Callable[[], AbstractAsyncContextManager[Runner]]) -> None:
        self._open = open_
        self._lock = asyncio.Lock()
        self._users = 0
        self._stack = AsyncExitStack()
        self._runner: Runner | None = None

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Runner]:
        """The open services; they stay open as long as this block, or an overlapping one, lasts."""
        self._users += 1
        try:
            async with self._lock:
                if self._runner is None:
                    self._runner = await self._stack.enter_async_context(self._open())
            yield self._runner
        finally:
            self._users -= 1
            async with self._lock:
                if self._users == 0 and self._runner is not None:
                    self._runner = None
                    await self._stack.aclose()


_SHARED = SharedRunner(lambda: open_runner(load_settings()))


@asynccontextmanager
async def masterchat(config: RunnableConfig) -> AsyncIterator[Graph]:
    """The compiled graph with its services bound, so that whoever runs it passes no context.

    Args:
        config: What the server knows of the run; the graph is the same for every run.

    Yields:
        A graph that takes ``{"request": {"intent": "wiki_qa", "message": "…"}}`` and a ``configurable.thread_id``.
    """
    async with _SHARED.use() as runner:
        context = runner.context
        yield build_masterchat(runner.registry, runner.goals, checkpoints=context.checkpoints, context=context)


@asynccontextmanager
async def _open_while_served(app: Starlette) -> AsyncIterator[None]:
    async with _SHARED.use():
        yield


app = Starlette(lifespan=_open_while_served)
"""Has no routes: its lifespan, which LangGraph's server runs as its own, holds the services."""
