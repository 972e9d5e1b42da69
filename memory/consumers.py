"""The one way in which a group reads a stream: in batches, again after a crash, and never stuck on a bad entry."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from loguru import logger
from redis import exceptions
from redis.asyncio import Redis

from errors import LuminaError
from memory import keys
from memory.stream_scripts import KEEP, LEAVE
from memory.streams import Delivered, Event, create_group, max_length, now_ms

LEASE_S = 15.0
"""An entry whose consumer shows no sign of life for so long is given to another."""
FORGET_AFTER_S = 3600.0
"""A consumer name that holds nothing and has been silent for so long is removed."""
SINGLE_FAILURES = 8
"""So many entries of a batch fail one by one, and none succeeds: then the fault is not theirs."""
MAX_ERROR_CHARS = 2_000

Handler = Callable[[list[Delivered]], Awaitable[None]]
Entries = Sequence[tuple[bytes, Mapping[bytes, bytes]]]


class NotReady(LuminaError):
    """A handler raises it when the fault is not the entries': a full disk, a store that is away.

    The batch is kept, nothing is counted against it, and the handler gets it again after a pause.
    """


NOT_READY = (NotReady, exceptions.ConnectionError, exceptions.TimeoutError)
"""A handler that writes to a Redis that is away is not ready either."""


class Consumer:
    """One member of a group, that hands a stream's entries to a handler.

    An entry is acknowledged after the handler has returned, so it is handled at least once; the handler makes it
    exactly once by its own means (the stream id is the key). A handler that fails on a batch gets it again in
    halves, until the entries that make it fail are alone; those come again after ``lease_s``, and with their
    ``max_attempts``-th failure go to ``<stream>:dead``. An entry that is not an event goes there at once.
    """

    def __init__(
        self,
        redis: Redis,
        stream: str,
        group: str,
        name: str,
        handler: Handler,
        *,
        batch: int = 500,
        block_ms: int = 1000,
        lease_s: float = LEASE_S,
        max_attempts: int = 5,
    ) -> None:
        """Take everything; nothing is sent before ``run``.

        Args:
            redis: a client whose values are bytes, with a socket timeout longer than ``block_ms``.
            stream: what to read.
            group: on whose behalf; it is created at the beginning of the stream when it is not there.
            name: this member. No other may have the same name at the same time; a process that comes back under its old
                name takes up at once what it had not acknowledged.
            handler: awaited with one batch after the other, never two at a time.
            batch: most entries at once.
            block_ms: how long one read waits for new entries, and so how long a stop may take while nothing arrives.
            lease_s: see ``LEASE_S``.
            max_attempts: see above.
        """
        self._redis = redis
        self.stream, self._group, self._name = stream, group, name
        self._handler = handler
        self._batch, self._block_ms = batch, block_ms
        self._lease_ms = int(lease_s * 1000)
        self._max_attempts = max_attempts
        self._errors: dict[str, str] = {}
        self._stop = asyncio.Event()
        self._keep = redis.register_script(KEEP)
        self._leave = redis.register_script(LEAVE)

    async def run(self, stop: asyncio.Event) -> None:
        """Read until ``stop`` is set, finish the batch in hand, and leave the group when nothing is left to this name.

        A Redis that is away or restarts is waited for. Cancelling stops at once; what was in hand is handed out again.
        """
        self._stop = stop
        pause_s = 0.1
        while not stop.is_set():
            began = time.monotonic()
            try:
                await self._read()
            except (exceptions.RedisError, OSError) as error:
                logger.warning("{} cannot read {}: {}; trying again", self._name, self.stream, error)
                pause_s = 0.1 if time.monotonic() - began > 10 else min(pause_s * 2, 5.0)
                await self._pause(pause_s)
        with contextlib.suppress(exceptions.RedisError, OSError):
            await self._leave([self.stream], [self._group, self._name, int(FORGET_AFTER_S * 1000)])

    async def _read(self) -> None:
        await create_group(self._redis, self.stream, self._group)
        await self._leave([self.stream], [self._group, "", int(FORGET_AFTER_S * 1000)])
        await self._resume()
        next_claim = 0.0
        while not self._stop.is_set():
            if time.monotonic() >= next_claim:
                await self._take_over()
                next_claim = time.monotonic() + self._lease_ms / 5000
            await self._turn()

    async def _turn(self) -> None:
        reply = await self._until_stopped(
            self._redis.xreadgroup(self._group, self._name, {self.stream: ">"}, count=self._batch, block=self._block_ms)
        )
        for _, entries in reply or ():
            await self._handle(entries, {})

    async def _until_stopped(self, read: Awaitable[Any]) -> Any:
        """What was read; a stop ends the wait at once. What arrives in that moment stays pending, for who is next."""
        reading = asyncio.ensure_future(read)
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({reading, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else None
        finally:
            for task in (reading, stopped):
                task.cancel()
            await asyncio.wait({reading, stopped})

    async def _resume(self) -> None:
        """What this name was given in an earlier life, or before the connection broke."""
        position = "0"
        while not self._stop.is_set():
            reply: Any = await self._redis.xreadgroup(
                self._group, self._name, {self.stream: position}, count=self._batch
            )
            entries: Entries = reply[0][1] if reply else []
            if not entries:
                return
            position = entries[-1][0].decode()
            await self._handle(entries, await self._counts(entries))

    async def _take_over(self) -> None:
        """What others, or this consumer's own failures, left behind for longer than the lease."""
        position = "0-0"
        while not self._stop.is_set():
            reply: Any = await self._redis.xautoclaim(
                self.stream, self._group, self._name, self._lease_ms, position, count=self._batch
            )
            entries = [entry for entry in reply[1] if entry[0] is not None]
            if len(entries) < len(reply[1]):
                await self._drop_deleted()
            if entries:
                await self._handle(entries, await self._counts(entries))
            position = reply[0].decode()
            if position == "0-0":
                return

    async def _drop_deleted(self) -> None:
        """Acknowledge what somebody deleted while it was pending: Redis 6.2 would keep it so for ever, nameless."""
        for entry_id in await self._pending("-", "+"):
            if not await self._redis.xrange(self.stream, entry_id, entry_id):
                await self._acknowledge([entry_id.decode()])

    async def _counts(self, entries: Entries) -> dict[bytes, int]:
        return await self._pending(entries[0][0].decode(), entries[-1][0].decode())

    async def _pending(self, first: str, last: str) -> dict[bytes, int]:
        """How often each entry that this consumer holds was delivered."""
        counts: dict[bytes, int] = {}
        while True:
            page: Any = await self._redis.xpending_range(self.stream, self._group, first, last, self._batch, self._name)
            counts |= {item["message_id"]: int(item["times_delivered"]) for item in page}
            if len(page) < self._batch:
                return counts
            first = f"({page[-1]['message_id'].decode()}"

    async def _handle(self, entries: Entries, counts: Mapping[bytes, int]) -> None:
        batch: list[Delivered] = []
        gone: list[str] = []
        for entry_id, fields in entries:
            name, attempts = entry_id.decode(), counts.get(entry_id, 1)
            if not fields:
                gone.append(name)
            elif attempts > self._max_attempts:
                error = self._errors.get(name, "its consumer died, or lost its lease, each time")
                await self._bury(name, fields, attempts - 1, error)
            else:
                try:
                    batch.append(Delivered(name, Event.from_fields(fields), attempts))
                except ValueError as error:
                    await self._bury(name, fields, attempts, str(error))
        await self._acknowledge(gone)
        if batch:
            async with self._kept([item.id for item in batch]):
                await self._deliver(batch, dict(entries))

    async def _deliver(self, batch: list[Delivered], raw: Mapping[bytes, Mapping[bytes, bytes]]) -> None:
        pause_s = 0.1
        while True:
            done: list[Delivered] = []
            failed: list[tuple[Delivered, Exception]] = []
            try:
                await self._divide(batch, done, failed)
            except NOT_READY as error:
                failed = [(batch[0], error)]
            else:
                if done or len(batch) == 1 or not failed:
                    await self._fail(failed, raw)
                    return
            batch = [item for item in batch if item not in done]
            logger.warning("{} {} cannot go on: {}", self.stream, self._group, failed[0][1])
            await self._pause(pause_s)
            pause_s = min(pause_s * 2, 5.0)
            if self._stop.is_set():
                return

    async def _divide(
        self, batch: list[Delivered], done: list[Delivered], failed: list[tuple[Delivered, Exception]]
    ) -> None:
        """Handle a batch; when it fails, its halves, down to the entries at fault."""
        if not done and len(failed) >= SINGLE_FAILURES:
            return
        try:
            await self._handler(batch)
        except NOT_READY:
            raise
        except Exception as error:  # the handler is another's code and may raise anything; the stream must go on
            if len(batch) == 1:
                failed.append((batch[0], error))
                return
            middle = len(batch) // 2
            await self._divide(batch[:middle], done, failed)
            await self._divide(batch[middle:], done, failed)
        else:
            await self._acknowledge([item.id for item in batch])
            done.extend(batch)

    async def _fail(
        self, failed: Sequence[tuple[Delivered, Exception]], raw: Mapping[bytes, Mapping[bytes, bytes]]
    ) -> None:
        for item, error in failed:
            text = f"{type(error).__name__}: {error}"[:MAX_ERROR_CHARS]
            logger.warning("{} {} attempt {}: {}", self.stream, item.id, item.attempts, text)
            if item.attempts >= self._max_attempts:
                await self._bury(item.id, raw[item.id.encode()], item.attempts, text)
            else:
                self._errors[item.id] = text

    async def _bury(self, entry_id: str, fields: Mapping[bytes, bytes], attempts: int, error: str) -> None:
        """To the dead letters first, then acknowledged: a crash between the two leaves a second copy, never none."""
        about = {"stream": self.stream, "id": entry_id, "group": self._group, "attempts": attempts, "ts": now_ms()}
        letter: dict[Any, Any] = {**fields, **{f"dead_{key}": value for key, value in about.items()}}
        letter["dead_error"] = error[:MAX_ERROR_CHARS]
        dead = keys.dead_letters(self.stream)
        await self._redis.xadd(dead, letter, maxlen=max_length(dead), approximate=True)
        await self._acknowledge([entry_id])

    async def _acknowledge(self, ids: Sequence[str]) -> None:
        if ids:
            await self._redis.xack(self.stream, self._group, *ids)
            for entry_id in ids:
                self._errors.pop(entry_id, None)

    @contextlib.asynccontextmanager
    async def _kept(self, ids: Sequence[str]) -> AsyncIterator[None]:
        """Show signs of life for a batch while its handler works."""

        handled = asyncio.Event()

        async def beat() -> None:
            while not handled.is_set():  # a cancellation may be swallowed by the client (python/cpython#86296)
                await asyncio.sleep(self._lease_ms / 3000)
                with contextlib.suppress(exceptions.RedisError, OSError):
                    await self._keep([self.stream], [self._group, self._name, ids[0], ids[-1], len(ids)])

        task = asyncio.create_task(beat())
        try:
            yield
        finally:
            handled.set()
            task.cancel()
            await asyncio.wait({task})

    async def _pause(self, longest_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), random.uniform(longest_s / 2, longest_s))
