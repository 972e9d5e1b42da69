"""Streams told to many: one read of Redis for all who follow, each with a bounded queue.

A follower first reads what stands in the streams at his own pace (``memory.backlog``), and then joins the live feed.
The feed is at a place L in every stream. Joining happens between two of its steps: whatever comes after L is put into
the follower's queue from then on, and he reads what lies between his own place and L himself. So nothing is missing
and nothing comes twice, however fast others write.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loguru import logger
from redis import exceptions
from redis.asyncio.cluster import RedisCluster

from memory.backlog import PAGE, Backlog
from memory.enrichment import enrich
from memory.followed import LOGS_STREAM, STREAM_NAMES, Followed, order_of, read_entry
from memory.follower import Follower
from memory.subscriptions import Places, Subscription

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from memory.events import EventStore
    from memory.log_ring import LogRing

BLOCK_MS = 2_000
"""How long one read waits; less than any client's own patience."""
SILENCE_S = 15.0
"""Seconds without an event after which a follower is told so, as WHATWG HTML 9.2.7 advises against old proxies."""
MAX_QUEUED_EVENTS = 10_000
MAX_QUEUED_CHARS = 8 * 2**20
"""What waits for one follower before he is dropped."""


@dataclass(eq=False)
class _Channel:
    """The followers of one subscription."""

    subscription: Subscription
    followers: set[Follower] = field(default_factory=set)


class FanOut:
    """Tells the events of streams to whoever follows, in this process."""

    def __init__(
        self,
        redis: Redis,
        *,
        events: EventStore | None = None,
        logs: LogRing | None = None,
        max_queued_events: int = MAX_QUEUED_EVENTS,
        max_queued_chars: int = MAX_QUEUED_CHARS,
    ) -> None:
        """Take a client whose values are bytes.

        Args:
            redis: the client.
            events: the event store, where this process owns it; it has what was trimmed.
            logs: the log of this process; without it the stream ``logs`` is empty.
            max_queued_events: see ``MAX_QUEUED_EVENTS``.
            max_queued_chars: see there.
        """
        self.backlog = Backlog(redis, events, logs)
        self.max_queued_events, self.max_queued_chars = max_queued_events, max_queued_chars
        self.reading = True
        """False while Redis does not answer."""
        self.dropped = 0
        """How many followers were sent away, for they were too slow or the streams were trimmed before them."""
        self._redis = redis
        self._logs = logs
        self._places: dict[str, str] = {}
        self._channels: dict[Subscription, _Channel] = {}
        streams = [name for name in STREAM_NAMES.values() if name != LOGS_STREAM]
        # On a cluster, streams in different slots cannot be read by one command.
        self._feeds = [(name,) for name in streams] if isinstance(redis, RedisCluster) else [tuple(streams)]
        self._wanted = {feed: asyncio.Event() for feed in self._feeds}
        self._moved = asyncio.Event()
        self.closed = ""
        """Why nobody is told anything any more."""

    async def run(self, stop: asyncio.Event) -> None:
        """Read what is followed until ``stop`` is set; then every follower is told to come back later."""
        if self._logs:
            self._logs.listener = self._tell
        reads = [asyncio.create_task(self._read(feed)) for feed in self._feeds]
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait({stopping, *reads}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self.close("the server stops; connect again")
            for task in (stopping, *reads):
                task.cancel()
            await asyncio.wait({stopping, *reads})

    def close(self, reason: str) -> None:
        """Drop every follower, and whoever comes after."""
        self.closed = reason
        self._drop_all(reason)
        self._step_done()

    @property
    def followers(self) -> int:
        """How many are being told what is new."""
        return sum(len(channel.followers) for channel in self._channels.values())

    @contextlib.asynccontextmanager
    async def follow(
        self, subscription: Subscription, places: Places, *, silence_s: float = SILENCE_S
    ) -> AsyncGenerator[Follower, None]:
        """Somebody who is told everything after these places.

        Args:
            subscription: What, and how.
            places: Stream → the place after which to begin, as ``parse_positions`` makes them.
            silence_s: After so long without an event a ``Silence`` comes.
        """
        follower = Follower(self, subscription, dict(places), silence_s)
        try:
            yield follower
        finally:
            self.leave(follower)

    def join(self, follower: Follower) -> dict[str, str] | None:
        """Put what is new into a follower's queue from now on, and say from which places on that is.

        None when the feed has not come as far as he: he waits for its next step.
        """
        if self.closed:
            follower.drop(self.closed)
            return {}
        for stream, place in follower.places.items():
            if stream in self._places and order_of(self._places[stream]) < order_of(place):
                return None
        begins = {}
        for stream, place in follower.places.items():
            if stream not in self._places:
                self._places[stream] = self._logs.last_id if stream == LOGS_STREAM and self._logs else place
                self._want(stream)
            begins[stream] = self._places[stream]
        channel = self._channels.setdefault(follower.subscription, _Channel(follower.subscription))
        channel.followers.add(follower)
        return begins

    def leave(self, follower: Follower) -> None:
        """The inverse of ``join``; a stream that nobody follows any more is no longer read."""
        channel = self._channels.get(follower.subscription)
        if channel is None or follower not in channel.followers:
            return
        channel.followers.discard(follower)
        if not channel.followers:
            del self._channels[follower.subscription]
            followed = {name for other in self._channels for name in other.filter.streams}
            self._places = {name: place for name, place in self._places.items() if name in followed}

    def places_of(self, subscription: Subscription) -> dict[str, str]:
        """How far the feed has come in the streams of a subscription that somebody follows."""
        return {stream: self._places[stream] for stream in subscription.filter.streams}

    async def wait_for_step(self, timeout_s: float) -> bool:
        """Wait until the feed has moved; whether it did."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                return await self._moved.wait()
        return False

    async def enrich(self, entries: Sequence[Followed]) -> None:
        """See ``memory.enrichment``."""
        await enrich(self._redis, entries)

    def _want(self, stream: str) -> None:
        for feed, wanted in self._wanted.items():
            if stream in feed:
                wanted.set()

    async def _read(self, feed: tuple[str, ...]) -> None:
        wanted, pause_s = self._wanted[feed], 0.1
        while True:
            wanted.clear()
            asked = {stream: place for stream, place in self._places.items() if stream in feed}
            if not asked:
                await wanted.wait()
                continue
            try:
                await self._step(asked, wanted)
                pause_s, self.reading = 0.1, True
            except exceptions.RedisError as error:
                if self.reading:
                    logger.warning("the streams cannot be read: {}; trying again", error)
                self.reading = False
                await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
                pause_s = min(pause_s * 2, 2.0)
            except OSError:
                self.reading = False
                await asyncio.sleep(pause_s)

    async def _step(self, asked: Places, wanted: asyncio.Event) -> None:
        reply = await self._next(asked, wanted)
        entries: list[Followed] = []
        for name, raw in reply or ():
            stream = name.decode()
            read = [read_entry(stream, id_, fields) for id_, fields in raw]
            # A stream keeps more than a page, so one that was read to its end in one page has lost nothing.
            if len(read) == PAGE and await self._was_trimmed(stream, asked[stream]):
                self._drop_all("the stream was trimmed faster than it was read; connect again", stream)
            entries += read
        if not entries:
            return
        entries.sort(key=lambda entry: entry.place)
        if self._enriching():
            await self.enrich(entries)
        # No await from here on. Who has left and come back meanwhile begins at a place of his own.
        self._tell([entry for entry in entries if self._places.get(entry.stream) == asked[entry.stream]])
        await asyncio.sleep(0)

    async def _next(self, asked: Places, wanted: asyncio.Event) -> Any:
        """What is new; None when another stream is wanted first."""
        streams: dict[Any, Any] = dict(asked)
        reading = asyncio.ensure_future(self._redis.xread(streams, count=PAGE, block=BLOCK_MS))
        waiting = asyncio.create_task(wanted.wait())
        try:
            await asyncio.wait({reading, waiting}, return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else None
        finally:
            for task in (reading, waiting):
                task.cancel()
            await asyncio.wait({reading, waiting})

    async def _was_trimmed(self, stream: str, place: str) -> bool:
        first = await self.backlog.first_id(stream)
        return first is not None and (0, 0) < order_of(place) < order_of(first)

    def _enriching(self) -> bool:
        return any(subscription.enriched for subscription in self._channels)

    def _tell(self, entries: Sequence[Followed]) -> None:
        """Into the queues of all who want these entries, and the places moved on, in one step."""
        if not entries:
            return
        before = dict(self._places)
        for entry in entries:
            if entry.stream in self._places:
                self._places[entry.stream] = entry.id
        by_owner: dict[Any, list[Followed]] = defaultdict(list)
        by_task: dict[Any, list[Followed]] = defaultdict(list)
        for entry in entries:
            by_owner[entry.owner if isinstance(entry.owner, str) else None].append(entry)
            by_task[entry.event.task_id].append(entry)
        for subscription, channel in list(self._channels.items()):
            wanted = subscription.filter
            near = by_owner.get(wanted.owner) if wanted.task_id is None else by_task.get(wanted.task_id)
            if near and (mine := wanted.of(near)):
                earlier = {stream: before[stream] for stream in wanted.streams}
                pieces = list(subscription.pieces(mine, earlier, self.places_of(subscription)))
                for follower in tuple(channel.followers):
                    for told in pieces:
                        follower.put(told)
        self._step_done()

    def _step_done(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    def _drop_all(self, reason: str, stream: str | None = None) -> None:
        for subscription, channel in list(self._channels.items()):
            if stream is None or stream in subscription.filter.streams:
                for follower in tuple(channel.followers):
                    follower.drop(reason)
