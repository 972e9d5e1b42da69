"""The writing end of a run's log: a run puts its events, and they reach Redis in order, many in one round trip."""

from __future__ import annotations

import asyncio
import json

from loguru import logger
from redis.exceptions import RedisError

from graphs.runs import RunEvent
from memory.run_log import Hold, RunLogs

BUFFER_EVENTS = 2_000
"""A run waits when so many of its events wait for Redis."""
RETRY_S = 0.05
"""What Redis did not take is sent again after so long."""


class EventLog:
    """The writing end of a run's log: events are put at once and written in batches, one round trip after another."""

    def __init__(self, logs: RunLogs, hold: Hold, position: int) -> None:
        self._logs, self._hold, self._position = logs, hold, position
        self._waiting: list[tuple[str, str]] = []
        self._put, self._room = asyncio.Event(), asyncio.Event()
        self._closed = False
        self.news = asyncio.Event()
        """Set when something was written, then replaced: whoever waits reads the log."""

    def put(self, event: RunEvent) -> None:
        """Take an event; it is written as soon as the batch before it is."""
        self._waiting.append((event.kind, json.dumps(event.data, ensure_ascii=False, default=str)))
        self._put.set()

    async def room(self) -> None:
        """Wait while too much waits to be written."""
        while len(self._waiting) > BUFFER_EVENTS:
            self._room.clear()
            await self._room.wait()

    def close(self) -> None:
        """Nothing more comes; ``write`` ends when it has written what is there."""
        self._closed = True
        self._put.set()

    async def write(self) -> None:
        """Write until the log is closed.

        Raises:
            HolderLost: another process holds the run.
        """
        while True:
            await self._put.wait()
            self._put.clear()
            batch, self._waiting = self._waiting, []
            self._room.set()
            if batch:
                await self._append(batch)
                news, self.news = self.news, asyncio.Event()
                news.set()
            if self._closed and not self._waiting:
                return

    async def _append(self, batch: list[tuple[str, str]]) -> None:
        while True:
            try:
                self._position = await self._logs.append(self._hold, self._position, batch)
                return
            except (RedisError, OSError) as error:  # until the hold runs out, which ends the run
                logger.warning("run {}: {} events wait for Redis: {}", self._hold.task_id, len(batch), error)
                await asyncio.sleep(RETRY_S)
