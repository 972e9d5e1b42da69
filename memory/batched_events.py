"""Events that nobody waits for, put on their streams in batches.

An event of its own for every answer or turn would cost more than the turn: a round trip to Redis, a wake-up of the
consumer, and a transaction of the event store. Half a second of them is one of each.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import Self

from loguru import logger
from redis.exceptions import RedisError

from memory.streams import Event, Streams

DELAY_S = 0.5
"""How long the first event of a batch waits for others; a process that is killed loses so much of its log."""


class BatchedEvents:
    """Collects events and publishes them; closing publishes what is left."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._waiting: list[Event] = []
        self._flushing: asyncio.Task[None] | None = None

    def add(self, *events: Event) -> None:
        """Take events; they are published within ``DELAY_S``."""
        self._waiting += events
        if self._flushing is None and self._waiting:
            # In a context of its own: whoever adds may hold a lease that is over by then.
            context = contextvars.Context()
            self._flushing = asyncio.create_task(self._flush_later(), name="batched events", context=context)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._flushing
        await self._flush()

    async def _flush_later(self) -> None:
        await asyncio.sleep(DELAY_S)
        self._flushing = None
        await self._flush()

    async def _flush(self) -> None:
        events, self._waiting = self._waiting, []
        if not events:
            return
        try:
            await self._streams.publish(events)
        except (RedisError, OSError) as error:
            kinds = ", ".join(sorted({event.type for event in events}))
            logger.error("{} events ({}) are missing from the event store: {}", len(events), kinds, error)
