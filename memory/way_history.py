"""The history of the ways as a snapshot in Redis: the process that holds the event store writes it, all may read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict

from loguru import logger
from redis.asyncio import Redis
from redis.exceptions import RedisError

from errors import LuminaError
from memory.events import EventStore, WayHistory
from memory.keys import WAY_HISTORY
from memory.streams import Delivered

RUNS = 200
"""Runs of each way that count, the older ones less and less (``memory.event_history``)."""
REST = 10
"""Times as long as a reading took that the next one waits, so that a long log costs a tenth of a thread at most."""

Handler = Callable[[Sequence[Delivered]], Awaitable[None]]


async def save_history(redis: Redis, history: dict[str, WayHistory]) -> None:
    """Replace the snapshot."""
    await redis.set(WAY_HISTORY, json.dumps({way: asdict(past) for way, past in history.items()}))


async def load_history(redis: Redis) -> dict[str, WayHistory]:
    """The latest snapshot; empty before the first."""
    stored = json.loads(await redis.get(WAY_HISTORY) or "{}")
    return {way: WayHistory(**past) for way, past in stored.items()}


class HistoryKeeper:
    """Writes the snapshot at the start, and again after runs have ended."""

    def __init__(self, redis: Redis, events: EventStore) -> None:
        self._redis, self._events = redis, events
        self._wake = asyncio.Event()

    def watching(self, ingest: Handler) -> Handler:
        """The same handler of the planner's stream; the end of a run in what it took in wakes the keeper."""

        async def take(delivered: Sequence[Delivered]) -> None:
            await ingest(delivered)
            if any(entry.event.type == "plan.done" for entry in delivered):
                self._wake.set()

        return take

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the snapshot until ``stop`` is set."""
        while not stop.is_set():
            self._wake.clear()
            started = time.monotonic()
            try:
                await save_history(self._redis, await self._events.run_history(RUNS))
            except (LuminaError, RedisError, OSError) as error:
                logger.warning("the costs of ways were not brought up to date: {}", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REST * (time.monotonic() - started)):
                    await stop.wait()
            await _either(stop, self._wake)


async def _either(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
