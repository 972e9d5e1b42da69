"""One who follows streams: first what stands in them, at his own pace, and then what is new, out of a bounded queue."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from redis import exceptions

from memory.backlog import PAGE, Gap
from memory.subscriptions import CaughtUp, Dropped, Notice, Places, Silence, Subscription, Told

if TYPE_CHECKING:
    from memory.fan_out import FanOut

RETRY_S = 0.5
AWAY = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.BusyLoadingError, OSError)
"""Redis does not answer now; it is waited for."""


class Follower:
    """One client: iterate over it for ``Told``, ``Gap``, ``CaughtUp`` (once), ``Silence`` and at last ``Dropped``."""

    def __init__(
        self,
        fan_out: FanOut,
        subscription: Subscription,
        places: dict[str, str],
        silence_s: float,
    ) -> None:
        self.subscription = subscription
        self.places = places
        """Up to where he has been told."""
        self.on_drop: Callable[[], None] = lambda: None
        """Called when he is dropped, also while he is busy with what he was told."""
        self._fan_out = fan_out
        self._silence_s = silence_s
        self._queue: deque[Told] = deque()
        self._queued_events = self._queued_chars = 0
        self._read_entries = 0
        self._wake = asyncio.Event()
        self._reason = ""
        self._told_s = time.monotonic()

    def put(self, told: Told) -> None:
        """Queue what is new; one whose queue is full is dropped."""
        if self._reason:
            return
        self._queued_events += len(told.entries)
        self._queued_chars += len(told.payload)
        if self._queued_events > self._fan_out.max_queued_events or self._queued_chars > self._fan_out.max_queued_chars:
            self.drop(f"too slow: {self._queued_events} events were waiting; connect again")
            return
        self._queue.append(told)
        self._wake.set()

    def drop(self, reason: str) -> None:
        """Let go of what is queued and end; the first reason counts."""
        if not self._reason:
            self._reason = reason
            self._fan_out.dropped += 1
            self._queue.clear()
            self._wake.set()
            self._fan_out.leave(self)
            self.on_drop()

    async def __aiter__(self) -> AsyncGenerator[Notice, None]:
        async with aclosing(self._locate()) as found:
            async for notice in found:
                yield notice
        async with aclosing(self._catch_up()) as history:
            async for piece in history:
                yield piece
        while (begins := self._fan_out.join(self)) is None:
            if not await self._fan_out.wait_for_step(self._silence_s):
                yield Silence(self.places)
        if begins and begins != self.places:
            async with aclosing(self._read(begins)) as history:
                async for piece in history:
                    yield piece
            self.places = begins
        if not self._reason:
            yield CaughtUp(self.places)
        while not self._reason:
            if self._queue:
                told = self._queue.popleft()
                self._queued_events -= len(told.entries)
                self._queued_chars -= len(told.payload)
                self._told_s = time.monotonic()
                yield told
                self.places = dict(told.places)
            elif not await self._woken():
                self._told_s = time.monotonic()
                self.places = self._fan_out.places_of(self.subscription)
                yield Silence(self.places)
        yield Dropped(self._reason, self.places)

    async def _woken(self) -> bool:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._told_s + self._silence_s - time.monotonic()):
                return await self._wake.wait()
        return False

    async def _locate(self) -> AsyncGenerator[Gap | Silence, None]:
        while not self._fan_out.closed:
            try:
                self.places, gaps = await self._fan_out.backlog.locate(self.places)
            except AWAY:
                await asyncio.sleep(min(RETRY_S, self._silence_s))
                if self._is_silent():
                    yield Silence(self.places)
                continue
            for gap in gaps:
                yield gap
            return

    async def _catch_up(self) -> AsyncGenerator[Told | Gap | Silence, None]:
        """Read to the end, again and again until a reading is so short that the rest fits into the queue."""
        self._read_entries = PAGE
        while self._read_entries >= PAGE and not self._fan_out.closed:
            self._read_entries = 0
            async with aclosing(self._read(None)) as pieces:
                async for told in pieces:
                    yield told

    async def _read(self, until: Places | None) -> AsyncGenerator[Told | Gap | Silence, None]:
        """What lies between the places and others (or the end), waiting for a Redis that is away."""
        while not self._fan_out.closed:
            try:
                async with aclosing(self._read_once(until)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except AWAY:
                await asyncio.sleep(min(RETRY_S, self._silence_s))
                if self._is_silent():
                    yield Silence(self.places)

    async def _read_once(self, until: Places | None) -> AsyncGenerator[Told | Gap | Silence, None]:
        subscription = self.subscription
        reading = self._fan_out.backlog.read(subscription.filter, self.places, until)
        async with aclosing(reading) as pieces:
            async for piece in pieces:
                if isinstance(piece, Gap):
                    yield piece
                    continue
                self._read_entries += len(piece)
                before = self.places
                places = before | {entry.stream: entry.id for entry in piece}
                if mine := subscription.filter.of(piece):
                    if subscription.enriched:
                        await self._fan_out.enrich(mine)
                    for told in subscription.pieces(mine, before, places):
                        self._told_s = time.monotonic()
                        yield told
                        self.places = dict(told.places)
                self.places = places
                if self._is_silent():
                    yield Silence(places)

    def _is_silent(self) -> bool:
        silent = time.monotonic() - self._told_s >= self._silence_s
        if silent:
            self._told_s = time.monotonic()
        return silent
