"""What passed-through answers used, put on the event stream in batches.

An event of its own for every answer would cost more than the answer: a round trip to Redis, a wake-up of the consumer,
and a transaction of the event store. Half a second of them is one of each. The money is settled with the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

from loguru import logger
from redis.exceptions import RedisError

from memory.streams import Event, Streams

DELAY_S = 0.5
"""How long the first event of a batch waits for others; a process that is killed loses so much of its log."""


class UsageLog:
    """Collects events and publishes them; closing publishes what is left."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._waiting: list[Event] = []
        self._flushing: asyncio.Task[None] | None = None

    def add(self, event: Event) -> None:
        """Take an event; it is published within ``DELAY_S``."""
        self._waiting.append(event)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush_later(), name="usage log")

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
            logger.error("{} answers are missing from the log of usage: {}", len(events), error)
