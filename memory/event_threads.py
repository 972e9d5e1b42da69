"""The threads that read the event store: statements run there and can be stopped, the event loop never waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from memory.event_file import EventStoreUnreadable
from memory.event_queries import InvalidQuery, QueryTimeout, one_line

T = TypeVar("T")


class Interruptible(Protocol):
    """What runs statements, for example a connection to DuckDB."""

    def interrupt(self) -> None:
        """Stop the statement that runs now, if one does."""


class ReadingThreads:
    """A few threads, and which connection each of them is busy with."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="events-read")
        self._jobs: dict[asyncio.Future[Any], Interruptible] = {}

    async def run(self, connection: Interruptible, timeout_s: float | None, function: Callable[[], T]) -> T:
        """The result of ``function``; when time is over or the caller is cancelled, stop it and wait until it stopped.

        Raises:
            QueryTimeout: when the time was over; waiting for a free thread does not count.
            InvalidQuery: when the store is closing.
            EventStoreUnreadable: when DuckDB fails.
        """
        import duckdb

        loop = asyncio.get_running_loop()
        started: asyncio.Future[None] = loop.create_future()

        def run() -> T:
            loop.call_soon_threadsafe(started.set_result, None)
            return function()

        work = self._pool.submit(run)
        job = asyncio.wrap_future(work)
        self._jobs[job] = connection
        job.add_done_callback(self._jobs.pop)
        try:
            await asyncio.shield(started)
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(job)
        except TimeoutError:
            await self._interrupt(job)
            raise QueryTimeout(
                f"the query ran longer than {timeout_s:g} s: narrow it, for example with "
                "WHERE ts > now() - INTERVAL 1 HOUR, or allow it more time"
            ) from None
        except asyncio.CancelledError:
            if not work.cancel():
                await self._interrupt(job)
            raise
        except duckdb.InterruptException as error:
            raise InvalidQuery("the query was stopped because the event store is closing: ask again later") from error
        except duckdb.Error as error:
            raise EventStoreUnreadable(f"the event store cannot be read: {one_line(error)}") from error

    async def stop(self) -> None:
        """Stop every statement and let the threads go."""
        while self._jobs:
            await self._interrupt(*self._jobs)
            await asyncio.sleep(0)  # what has ended is dropped by a callback, which needs its turn
        self._pool.shutdown(wait=False)

    async def _interrupt(self, *jobs: asyncio.Future[Any]) -> None:
        while pending := {job for job in jobs if not job.done()}:
            for job in pending:  # an interrupt between two statements has no effect, so it is repeated
                self._jobs[job].interrupt()
            await asyncio.wait(pending, timeout=0.02)
        for job in jobs:
            if not job.cancelled():
                job.exception()  # read, so that nobody is warned of it
