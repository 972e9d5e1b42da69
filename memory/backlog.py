"""What already stands in the streams, read in bounded pages: Redis first, and the event store for what was trimmed."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memory import keys
from memory.followed import LOGS_STREAM, NOW, Filter, Followed, order_of, read_entry
from memory.streams import Event

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from memory.events import EventStore
    from memory.log_ring import LogRing

PAGE = 250
"""Entries of one read: about 5 ms of parsing, and fewer than any stream keeps."""
STORED = frozenset({keys.GRAPH_STREAM, keys.TASKS_STREAM, keys.PLANNER_STREAM})
"""Streams that the event store takes in; nothing of them is trimmed before it has."""

_TRIMMED = """
SELECT id, epoch_ms(ts), type, agent, task_id, data
FROM events
WHERE stream = $stream AND data ->> 'owner' = $owner
    AND stream_order(id) > stream_order($after) AND stream_order(id) < stream_order($before)
    AND (len($types) = 0 OR list_contains($types, type)) AND ($task_id IS NULL OR task_id = $task_id)
ORDER BY stream_order(id)
LIMIT $page
"""


@dataclass(frozen=True, slots=True)
class Gap:
    """A place that is not there any more: what stood between it and ``first`` may be missing."""

    stream: str
    after: str
    first: str
    """Id of the first entry that is there."""
    reason: str


class Backlog:
    """Reads streams from any place to their end."""

    def __init__(self, redis: Redis, events: EventStore | None = None, logs: LogRing | None = None) -> None:
        """Take a client whose values are bytes, and the event store where this process owns it."""
        self._redis, self._events, self._logs = redis, events, logs

    async def locate(self, positions: Mapping[str, str]) -> tuple[dict[str, str], list[Gap]]:
        """Places that exist: ``$`` becomes the last id, and so does one beyond it, which is a gap."""
        found, gaps = {}, []
        for stream, place in positions.items():
            last = await self.last_id(stream)
            if place != NOW and order_of(place) > order_of(last):
                gaps.append(Gap(stream, place, last, "the stream ends before this place; it was made anew"))
            found[stream] = last if place == NOW or order_of(place) > order_of(last) else place
        return found, gaps

    async def last_id(self, stream: str) -> str:
        """Id of the newest entry ever written, ``0-0`` for a stream that is not there."""
        from redis.exceptions import ResponseError  # late: see memory.streams

        if stream == LOGS_STREAM:
            return self._logs.last_id if self._logs else "0-0"
        try:
            info: Any = await self._redis.xinfo_stream(stream)
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
            return "0-0"
        return str(info["last-generated-id"].decode())

    async def first_id(self, stream: str) -> str | None:
        """Id of the oldest entry that Redis still has."""
        entries: Any = await self._redis.xrange(stream, count=1)
        return entries[0][0].decode() if entries else None

    async def read(
        self, wanted: Filter, positions: Mapping[str, str], until: Mapping[str, str] | None = None
    ) -> AsyncGenerator[list[Followed] | Gap, None]:
        """Entries of every stream in the order of their ids, which are times on one clock, in pieces.

        Entries that the filter leaves out are among those of Redis, so that the reader's place moves on.

        Args:
            wanted: The event store is asked for these only.
            positions: Stream → place after which to begin.
            until: Stream → last id to read; by default, to the end as it is when the reading comes there.
        """
        async with AsyncExitStack() as stack:
            pages = {
                stream: await stack.enter_async_context(
                    aclosing(self._pages(wanted, stream, place, until[stream] if until else None))
                )
                for stream, place in positions.items()
            }
            waiting: dict[str, deque[Followed]] = {stream: deque() for stream in pages}
            while pages:
                for stream in [name for name in pages if not waiting[name]]:
                    page = await anext(pages[stream], None)
                    if page is None:
                        del pages[stream]
                    elif isinstance(page, Gap):
                        yield page
                    else:
                        waiting[stream].extend(page)
                if merged := _merged(waiting, pages):
                    yield merged

    async def _pages(
        self, wanted: Filter, stream: str, after: str, until: str | None
    ) -> AsyncGenerator[list[Followed] | Gap, None]:
        if stream == LOGS_STREAM:
            for page in self._logs.pages(after, until) if self._logs else ():
                yield page
            return
        asked = order_of(after)  # everything before this is here, or was asked for
        while True:
            first, entries = await self._page(stream, after, until)
            if first is None and self._events is not None and stream in STORED:
                first = _next(await self.last_id(stream))  # all of it was trimmed: what it had ends before this
            if first is None or order_of(first) <= asked:
                if entries:
                    after = entries[-1].id
                    asked = max(asked, order_of(after))
                    yield entries
                if len(entries) < PAGE:
                    return
                continue
            if self._events is None or stream not in STORED:
                if order_of(after) > (0, 0):
                    reason = "older entries were trimmed away"
                    yield Gap(stream, after, first, reason)
                asked = order_of(first)
                continue
            stored = await self._stored(self._events, wanted, stream, after, first)
            if len(stored) < PAGE:
                asked = order_of(first)
            if until:  # what was trimmed may reach beyond it
                stored = [entry for entry in stored if entry.order <= order_of(until)]
            if stored:
                after = stored[-1].id
                yield stored

    async def _page(self, stream: str, after: str, until: str | None) -> tuple[str | None, list[Followed]]:
        """The first id of the stream and the entries after a place, as of one moment."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.xrange(stream, count=1)
            pipe.xrange(stream, f"({after}", until or "+", count=PAGE)
            head, entries = await pipe.execute()
        first = head[0][0].decode() if head else None
        return first, [read_entry(stream, id_, fields) for id_, fields in entries]

    async def _stored(self, events: EventStore, wanted: Filter, stream: str, after: str, before: str) -> list[Followed]:
        bound = {
            "stream": stream,
            "owner": wanted.owner,
            "after": after,
            "before": before,
            "types": sorted(wanted.types),
            "task_id": wanted.task_id,
            "page": PAGE,
        }
        rows = (await events.query(_TRIMMED, bound, max_rows=PAGE, timeout_s=60)).rows
        return [
            Followed(stream, id_, Event(type_, data, agent, task_id, ts))
            for id_, ts, type_, agent, task_id, data in rows
            if isinstance(data, dict)
        ]


def _next(id_: str) -> str:
    """The least id after this one."""
    milliseconds, _, number = id_.partition("-")
    return f"{milliseconds}-{int(number) + 1}"


def _merged(waiting: Mapping[str, deque[Followed]], unfinished: Mapping[str, Any]) -> list[Followed]:
    """Takes what comes before anything that may still be read."""
    merged = []
    while all(waiting[stream] for stream in unfinished):
        heads = [line for line in waiting.values() if line]
        if not heads:
            break
        merged.append(min(heads, key=lambda line: line[0].place).popleft())
    return merged
