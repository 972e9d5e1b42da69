"""A member of a group that takes whole batches, and reads on while they are handled."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from errors import LuminaError
from memory.consumers import Consumer, Entries, Handler
from memory.event_columns import RawEntry

IN_HAND = 2
"""Batches handled at once: one is made a table while the one before is written."""

BulkHandler = Callable[[Sequence[RawEntry]], Awaitable[None]]


class BulkConsumer(Consumer):
    """A ``Consumer`` with a short cut for batches in which every entry is as it should be.

    The short cut gets the entries as the server sent them. What it refuses, with a ``LuminaError``, goes to the handler
    in the way that ``Consumer`` describes, and so does what was handed out before. It may get a batch while it is busy
    with the one before, and reading goes on beside it; for members that share a group's work that would be greed, so
    this is for a group with one member.
    """

    def __init__(
        self,
        redis: Redis,
        stream: str,
        group: str,
        name: str,
        handler: Handler,
        bulk: BulkHandler,
        *,
        batch: int = 5_000,
        block_ms: int = 1000,
    ) -> None:
        """Take everything; nothing is sent before ``run``.

        Args:
            redis: see ``Consumer``, as all that is not explained here.
            stream: what to read.
            group: on whose behalf.
            name: this member.
            handler: for what ``bulk`` refuses.
            bulk: awaited with each batch, ``IN_HAND`` at a time. When it returns, all of the batch is acknowledged;
                when it raises, nothing of it may have happened that the handler cannot do once more.
            batch: most entries at once.
            block_ms: how long one read waits for new entries.
        """
        super().__init__(redis, stream, group, name, handler, batch=batch, block_ms=block_ms)
        self._bulk = bulk
        self._singly = asyncio.Lock()
        self._in_hand: deque[asyncio.Task[None]] = deque()

    async def _read(self) -> None:
        try:
            await super()._read()
            while self._in_hand:
                await self._in_hand.popleft()
        finally:
            for task in self._in_hand:
                task.cancel()
            if self._in_hand:
                await asyncio.wait(self._in_hand)
                self._in_hand.clear()

    async def _turn(self) -> None:
        if entries := await self._next():
            self._in_hand.append(asyncio.create_task(self._take(entries)))
        while len(self._in_hand) >= IN_HAND or (self._in_hand and not entries):
            await self._in_hand.popleft()

    async def _next(self) -> Sequence[RawEntry]:
        reply: Any = await self._until_stopped(
            self._redis.execute_command(  # type: ignore[no-untyped-call]  # redis-py's has no types
                # As redis-py writes commands of two words: so it knows no parser that makes a dict of each entry.
                "XREADGROUP GROUP", self._group, self._name, "COUNT", self._batch, "BLOCK", self._block_ms,
                "STREAMS", self.stream, ">",
            )
        )  # fmt: skip
        if not reply:
            return ()
        entries: Sequence[RawEntry] = reply[self.stream.encode()] if isinstance(reply, dict) else reply[0][1]
        return entries

    async def _take(self, entries: Sequence[RawEntry]) -> None:
        ids = [id_.decode() for id_, _ in entries]
        try:
            async with self._kept(ids):
                await self._bulk(entries)
        except LuminaError:
            await self._handle([(id_, dict(zip(f[::2], f[1::2], strict=True))) for id_, f in entries], {})
        else:
            await self._acknowledge(ids)

    async def _handle(self, entries: Entries, counts: Mapping[bytes, int]) -> None:
        async with self._singly:
            await super()._handle(entries, counts)
