"""Makes the graph's state in Redis again from the events, while it is read and written.

The events lie in two places: in the event store, and on the stream what the store has not taken in yet. Both are read,
the stream first: an entry leaves the stream only after the store has committed it, so none is missed in between. From
them the right state is built beside the live one, and then the live one is corrected piece by piece: no reader finds it
empty, none waits, and a rebuild that is killed half way has done no harm. Whatever is written meanwhile belongs to an
event later than the **horizon**, the stream's last id at the start, and is left alone.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio import Redis

from errors import LuminaError
from memory import keys
from memory.graph import CHUNK, GraphStore
from memory.graph_items import SEPARATOR, Edge, InvalidEdge, InvalidNode, Node, chunks, content_of
from memory.graph_scripts import CORRECT, REMOVE, SET_IF_LATER, SWEEP_LINKS
from memory.streams import Event, Streams

TYPES = ("node.add", "edge.add")
"""The events that the graph is made of."""
_LEFT_BEHIND_S = 3600
"""What a killed rebuild has built beside is dropped after so long."""

Replay = Callable[[], AsyncIterable[tuple[str, Event]]]
"""The (stream id, event) of the event store, for example of ``EventStore.replay(GRAPH_STREAM, TYPES)``."""


class NothingToRebuildFrom(LuminaError):
    """The events hold no graph, and there is one: it would be lost."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """How far a rebuild has come."""

    events: int = 0
    """Node and edge events read; one that stands in the store and on the stream counts twice."""
    skipped: int = 0
    """Events of the store or the stream that hold no valid node or edge."""
    corrected: int = 0
    """Nodes and edges that were missing or different."""
    removed: int = 0
    """Nodes and edges that no event speaks of."""
    done: bool = False


class GraphRebuild:
    """One rebuild, of one owner or of all."""

    def __init__(self, redis: Redis, replay: Replay, owner: str | None = None) -> None:
        """Prepare; nothing is read yet.

        Args:
            redis: A client whose replies are bytes.
            replay: Reads the event store; with an owner, at least this owner's events.
            owner: Whose graph; None means every owner's.
        """
        self._redis, self._replay, self._owner = redis, replay, owner
        self._streams = Streams(redis)
        self._token = uuid.uuid4().hex
        self._owners: set[str] = set()
        self._so_far = Rebuilt()

    async def run(self) -> AsyncGenerator[Rebuilt]:
        """Rebuild; yields after each batch how far it has come, and at the end with ``done``.

        Raises:
            NothingToRebuildFrom: when it would leave nothing of a graph.
        """
        horizon = await self._streams.last_id(keys.GRAPH_STREAM)
        try:
            for read in (self._pending(horizon), self._replay()):
                async for batch in _batches(read):
                    await self._build(batch)
                    yield self._so_far
            for owner in await self._owners_to_correct():
                async for _ in self._correct(owner, horizon):
                    yield self._so_far
            yield replace(self._so_far, done=True)
        finally:
            for owner in self._owners:
                await self._redis.unlink(*keys.graph_rebuild(owner, self._token))

    async def _pending(self, horizon: str) -> AsyncIterator[tuple[str, Event]]:
        """What lies on the stream, up to the horizon."""
        position = "0"
        while entries := await self._streams.tail(keys.GRAPH_STREAM, position, CHUNK):
            for entry in entries:
                if _number(entry.id) > _number(horizon):
                    return
                yield entry.id, entry.event
            position = entries[-1].id

    async def _build(self, entries: Sequence[tuple[str, Event]]) -> None:
        """Add to what is built beside."""
        words: dict[str, list[str]] = {}
        events = skipped = 0
        for id_, event in entries:
            owner = str(event.data.get("owner", ""))
            if event.type not in TYPES or self._owner not in (None, owner):
                continue
            try:
                item = Node.from_dict(event.data) if event.type == "node.add" else Edge.from_dict(event.data)
            except (InvalidNode, InvalidEdge):
                skipped += 1
                continue
            self._owners.add(owner)
            nodes, edges = keys.graph_rebuild(owner, self._token)
            if isinstance(item, Node):
                words.setdefault(nodes, []).extend((item.id, id_, content_of(item)))
            else:
                words.setdefault(edges, []).extend((item.key, id_, content_of(item)))
            events += 1
        async with self._redis.pipeline(transaction=False) as pipe:
            for key, given in words.items():
                pipe.eval(SET_IF_LATER, 1, key, *given)
                pipe.expire(key, _LEFT_BEHIND_S)
            await pipe.execute()
        self._count(events=events, skipped=skipped)

    async def _owners_to_correct(self) -> list[str]:
        known = set(await GraphStore(self._redis, self._streams).owners())
        live = known if self._owner is None else known & {self._owner}
        if live and not self._owners:
            raise NothingToRebuildFrom(
                f"the events hold no node and no edge, and Redis holds a graph of {', '.join(sorted(live))!r:.200}: "
                "it stays as it is; is DATA_DIR the folder of its event store?"
            )
        return sorted(live | self._owners)

    async def _correct(self, owner: str, horizon: str) -> AsyncIterator[None]:
        """Bring the live state of an owner to what was built beside."""
        right_nodes, right_edges = keys.graph_rebuild(owner, self._token)
        live_nodes, live_edges = keys.graph_nodes(owner), keys.graph_edges(owner)
        await self._redis.sadd(keys.GRAPH_OWNERS, owner)
        for right, live in ((right_nodes, live_nodes), (right_edges, live_edges)):
            async for items in self._scan(right):
                await self._set(owner, live, items, horizon)
                yield
            async for items in self._scan(live):
                script: Any = self._redis.eval(REMOVE, 2, live, right, horizon, *(field for field, _ in items))
                self._count(removed=int(await script))
                yield
        for direction in ("out", "in"):
            await self._sweep(owner, direction)
            yield

    async def _set(self, owner: str, live: str, items: Sequence[tuple[bytes, bytes]], horizon: str) -> None:
        async with self._redis.pipeline(transaction=True) as pipe:
            if live == keys.graph_edges(owner):
                for field, _ in items:
                    edge = Edge.from_key(field.decode(), {})
                    pipe.zadd(keys.graph_links(owner, "out", edge.source), {f"{edge.type}{SEPARATOR}{edge.target}": 0})
                    pipe.zadd(keys.graph_links(owner, "in", edge.target), {f"{edge.type}{SEPARATOR}{edge.source}": 0})
            pipe.eval(CORRECT, 1, live, horizon, *(word for item in items for word in item))
            replies = await pipe.execute()
        self._count(corrected=int(replies[-1]))

    async def _sweep(self, owner: str, direction: str) -> None:
        """Remove the links that no edge has; writers add both in one transaction, so none is found half written."""
        stem = keys.graph_links(owner, direction, "")
        found = [name async for name in self._redis.scan_iter(match=_literal(stem) + "*", count=CHUNK)]
        for part in chunks(found, 200):
            async with self._redis.pipeline(transaction=False) as pipe:
                for name in part:
                    node = name.removeprefix(stem.encode())
                    pipe.eval(SWEEP_LINKS, 2, name, keys.graph_edges(owner), direction, node, SEPARATOR)
                await pipe.execute()

    async def _scan(self, key: str) -> AsyncIterator[list[tuple[bytes, bytes]]]:
        items: list[tuple[bytes, bytes]] = []
        async for item in self._redis.hscan_iter(key, count=CHUNK):
            items.append(item)
            if len(items) >= CHUNK:
                yield items
                items = []
        if items:
            yield items

    def _count(self, **more: int) -> None:
        self._so_far = replace(
            self._so_far, **{name: getattr(self._so_far, name) + number for name, number in more.items()}
        )


async def _batches(entries: AsyncIterable[tuple[str, Event]]) -> AsyncIterator[list[tuple[str, Event]]]:
    batch: list[tuple[str, Event]] = []
    async for entry in entries:
        batch.append(entry)
        if len(batch) >= CHUNK:
            yield batch
            batch = []
    yield batch


def _number(stream_id: str) -> tuple[int, int]:
    ms, _, sequence = stream_id.partition("-")
    return int(ms), int(sequence or 0)


def _literal(text: str) -> str:
    """The text as a pattern of SCAN that matches nothing else."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", text)
