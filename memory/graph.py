"""The knowledge graph's state in Redis: nodes and edges of each owner, made of the events on the graph stream.

The events are the truth. What ``add`` finds new or changed is published first and written to the state second, each
piece of state together with the stream id of its event; a piece is only ever replaced by that of a later event. So the
state is the same whatever the order in which writers and rebuilders come. A crash between the two steps leaves an event
whose state is missing: the next ``add`` of the same content publishes it again (harmless, the content is equal) and
writes it, and so does ``rebuild``. The state never holds what no event says.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from errors import LuminaError
from memory import keys
from memory.graph_items import (
    SEPARATOR,
    Added,
    Counts,
    Edge,
    InvalidEdge,
    InvalidNode,
    Neighbourhood,
    Node,
    Rebuilt,
    checked_edge,
    checked_node,
    node_id,
)
from memory.streams import Event

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = [
    "Added",
    "Counts",
    "Edge",
    "GraphStore",
    "InvalidEdge",
    "InvalidNeighbourhood",
    "InvalidNode",
    "Neighbourhood",
    "Node",
    "Rebuilt",
    "UnknownNode",
    "node_id",
]

T = TypeVar("T")
CHUNK = 1_000
"""Nodes and edges of one round trip; the script holds the server for about 2 ms."""
MAX_DEPTH = 5
MAX_NEIGHBOURS = 1_000

_SET_IF_LATER = """
local function number(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)')
  return tonumber(ms) or 0, tonumber(seq) or 0
end
for i = 1, #ARGV, 3 do
  local old = redis.call('HGET', KEYS[1], ARGV[i])
  local keep = false
  if old then
    local old_ms, old_seq = number(old)
    local ms, seq = number(ARGV[i + 1])
    keep = old_ms > ms or (old_ms == ms and old_seq > seq)
  end
  if not keep then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1] .. ' ' .. ARGV[i + 2]) end
end
"""


class UnknownNode(LuminaError):
    """A node that the owner's graph does not hold."""


class InvalidNeighbourhood(LuminaError):
    """A depth or limit out of range."""


class Publisher(Protocol):
    """What sends events to their streams, for example ``memory.streams.Streams``."""

    async def publish(self, events: Sequence[Event]) -> list[str]:
        """Send the events and return their stream ids in the same order."""


class GraphStore:
    """Nodes and edges, kept apart by owner."""

    def __init__(self, redis: Redis, publisher: Publisher) -> None:
        """A store on a client whose replies are bytes (``decode_responses`` off)."""
        self._redis = redis
        self._publisher = publisher

    async def add(
        self, nodes: Sequence[Node], edges: Sequence[Edge], *, owner: str, agent: str = "", task_id: str = ""
    ) -> Added:
        """Add or replace nodes and edges; what is there already with the same content is left alone and emits nothing.

        A node or edge is replaced whole. Edges may come before their nodes. Of two in one call with the same identity
        the last counts. Everything is checked before anything is sent; three round trips for each ``CHUNK``.

        Raises:
            InvalidNode: when a node is refused.
            InvalidEdge: when an edge is refused.
        """
        items: dict[tuple[str, str], Node | Edge] = {("node", node.id): checked_node(node) for node in nodes}
        items |= {("edge", edge.key): checked_edge(edge) for edge in edges}
        new_nodes = new_edges = changed = 0
        for chunk in _chunks(items.values(), CHUNK):
            known = await self._contents(owner, chunk)
            different = [(item, old) for item, old in zip(chunk, known, strict=True) if _content(item) != old]
            if not different:
                continue
            new_nodes += sum(old is None and isinstance(item, Node) for item, old in different)
            new_edges += sum(old is None and isinstance(item, Edge) for item, old in different)
            changed += sum(old is not None for _, old in different)
            events = [_event(item, owner, agent, task_id) for item, _ in different]
            ids = await self._publisher.publish(events)
            await self._write(owner, list(zip(ids, (item for item, _ in different), strict=True)))
        return Added(new_nodes, new_edges, changed)

    async def node(self, owner: str, id_: str) -> Node:
        """One node.

        Raises:
            UnknownNode: when this owner has none with that id.
        """
        found = await self.several(owner, [id_])
        if id_ not in found:
            raise UnknownNode(f"no node {id_!r:.80} in the graph of {owner!r}: ids are titles with underscores")
        return found[id_]

    async def several(self, owner: str, ids: Sequence[str]) -> dict[str, Node]:
        """Those of the nodes that exist, by id, in one round trip for each ``CHUNK``."""
        found: dict[str, Node] = {}
        for chunk in _chunks(ids, CHUNK):
            values = await self._redis.hmget(keys.graph_nodes(owner), chunk)
            found |= {id_: _node(id_, value) for id_, value in zip(chunk, values, strict=True) if value is not None}
        return found

    async def neighbours(self, owner: str, id_: str, depth: int = 1, limit: int = 100) -> Neighbourhood:
        """The node and what is at most ``depth`` edges away, in either direction; one round trip a level.

        Args:
            owner: Whose graph.
            id_: Where to begin; it may be known from edges only.
            depth: 1 to ``MAX_DEPTH``.
            limit: Neighbours at most, 1 to ``MAX_NEIGHBOURS``; of too many, the first by edge type and id are taken.

        Raises:
            UnknownNode: when neither a node nor an edge has this id.
            InvalidNeighbourhood: when depth or limit is out of range.
        """
        for name, value, largest in (("depth", depth, MAX_DEPTH), ("limit", limit, MAX_NEIGHBOURS)):
            if not 1 <= value <= largest:
                raise InvalidNeighbourhood(f"{name} is {value}; 1 to {largest} is accepted")
        reached, frontier, walked, truncated = {id_: 0}, [id_], dict[str, None](), False
        for level in range(1, depth + 1):
            following: list[str] = []
            async for edge, other, cut in self._links(owner, frontier, limit):
                truncated = truncated or cut
                if other not in reached:
                    if len(reached) > limit:
                        truncated = True
                        continue
                    reached[other] = level
                    following.append(other)
                walked[edge.key] = None
            frontier = following
        nodes = await self.several(owner, list(reached))
        if not nodes and not walked:
            raise UnknownNode(f"no node {id_!r:.80} in the graph of {owner!r}: ids are titles with underscores")
        edges = [edge async for edge in self._edges(owner, list(walked))]
        return Neighbourhood([nodes[reached_id] for reached_id in reached if reached_id in nodes], edges, truncated)

    async def counts(self, owner: str) -> Counts:
        """How many nodes and edges the owner has."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hlen(keys.graph_nodes(owner))
            pipe.hlen(keys.graph_edges(owner))
            nodes, edges = await pipe.execute()
        return Counts(nodes, edges)

    async def nodes(self, owner: str) -> AsyncIterator[Node]:
        """Every node once, in no order, without holding them all; those added meanwhile may or may not come."""
        async for field, value in self._scan(keys.graph_nodes(owner)):
            yield _node(field, value)

    async def edges(self, owner: str) -> AsyncIterator[Edge]:
        """Every edge once, in no order, without holding them all; those added meanwhile may or may not come."""
        async for field, value in self._scan(keys.graph_edges(owner)):
            yield Edge.from_key(field, _data(value))

    async def owners(self) -> list[str]:
        """Everyone who has a graph, sorted."""
        return sorted(map(_text, await self._redis.smembers(keys.GRAPH_OWNERS)))

    async def rebuild(self, entries: AsyncIterable[tuple[str, Event]]) -> Rebuilt:
        """Drop the state of every owner and make it again from events, for example ``EventStore.replay(GRAPH_STREAM)``.

        Events that are published while this runs and that ``entries`` does not hold may be missing afterwards: stop the
        writers first, or rebuild again. Other types of events are ignored.
        """
        for owner in await self.owners():
            await self.clear(owner)
        applied = skipped = 0
        batch: list[tuple[str, Event]] = []
        async for entry in entries:
            batch.append(entry)
            if len(batch) >= CHUNK:
                done = await self.apply(batch)
                applied, skipped, batch = applied + done.events, skipped + done.skipped, []
        done = await self.apply(batch)
        return Rebuilt(applied + done.events, skipped + done.skipped)

    async def apply(self, entries: Iterable[tuple[str, Event]]) -> Rebuilt:
        """Bring the state to what these (stream id, event) say, unless it already follows from later ones."""
        owned: dict[str, list[tuple[str, Node | Edge]]] = {}
        skipped = 0
        for id_, event in entries:
            if event.type not in ("node.add", "edge.add"):
                continue
            try:
                item = Node.from_dict(event.data) if event.type == "node.add" else Edge.from_dict(event.data)
                owned.setdefault(str(event.data.get("owner", "")), []).append((id_, item))
            except (InvalidNode, InvalidEdge):
                skipped += 1
        for owner, items in owned.items():
            for chunk in _chunks(items, CHUNK):
                await self._write(owner, chunk)
        return Rebuilt(sum(map(len, owned.values())), skipped)

    async def clear(self, owner: str) -> None:
        """Drop the owner's state; the events stay, so that ``rebuild`` brings it back."""
        links: set[str] = set()
        async for edge in self.edges(owner):
            links |= {keys.graph_links(owner, "out", edge.source), keys.graph_links(owner, "in", edge.target)}
        for chunk in _chunks([*links, keys.graph_nodes(owner), keys.graph_edges(owner)], CHUNK):
            await self._redis.unlink(*chunk)
        await self._redis.srem(keys.GRAPH_OWNERS, owner)

    async def _contents(self, owner: str, items: Sequence[Node | Edge]) -> list[str | None]:
        """The kept content of each item, in one round trip."""
        node_ids = [item.id for item in items if isinstance(item, Node)]
        edge_keys = [item.key for item in items if isinstance(item, Edge)]
        async with self._redis.pipeline(transaction=False) as pipe:
            if node_ids:
                pipe.hmget(keys.graph_nodes(owner), node_ids)
            if edge_keys:
                pipe.hmget(keys.graph_edges(owner), edge_keys)
            replies = await pipe.execute()
        values = iter(
            [value for reply in replies for value in reply]
        )  # nodes come before edges in a chunk, as in `add`
        return [None if value is None else value.partition(b" ")[2].decode() for value in islice(values, len(items))]

    async def _write(self, owner: str, items: Sequence[tuple[str, Node | Edge]]) -> None:
        """Write a chunk in one round trip: links before contents, which ``add`` takes as a sign of both."""
        links: dict[str, dict[str, int]] = {}
        nodes: list[str] = []
        edges: list[str] = []
        for id_, item in items:
            if isinstance(item, Node):
                nodes += (item.id, id_, _content(item))
                continue
            edges += (item.key, id_, _content(item))
            out, into = keys.graph_links(owner, "out", item.source), keys.graph_links(owner, "in", item.target)
            links.setdefault(out, {})[f"{item.type}{SEPARATOR}{item.target}"] = 0
            links.setdefault(into, {})[f"{item.type}{SEPARATOR}{item.source}"] = 0
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.sadd(keys.GRAPH_OWNERS, owner)
            for key, members in links.items():
                pipe.zadd(key, members)
            if nodes:
                pipe.eval(_SET_IF_LATER, 1, keys.graph_nodes(owner), *nodes)
            if edges:
                pipe.eval(_SET_IF_LATER, 1, keys.graph_edges(owner), *edges)
            await pipe.execute()

    async def _links(self, owner: str, ids: Sequence[str], limit: int) -> AsyncIterator[tuple[Edge, str, bool]]:
        """Edges at each of the nodes with their other end, and whether more of them were left out."""
        for chunk in _chunks(ids, 100):
            async with self._redis.pipeline(transaction=False) as pipe:
                for id_ in chunk:
                    pipe.zrange(keys.graph_links(owner, "out", id_), 0, limit)
                    pipe.zrange(keys.graph_links(owner, "in", id_), 0, limit)
                replies = await pipe.execute()
            for position, members in enumerate(replies):
                here, leaving = chunk[position // 2], position % 2 == 0
                for member in members[:limit]:
                    type_, other = member.decode().split(SEPARATOR)
                    edge = Edge(here, other, type_) if leaving else Edge(other, here, type_)
                    yield edge, other, len(members) > limit

    async def _edges(self, owner: str, edge_keys: Sequence[str]) -> AsyncIterator[Edge]:
        for chunk in _chunks(edge_keys, CHUNK):
            values = await self._redis.hmget(keys.graph_edges(owner), chunk)
            for key, value in zip(chunk, values, strict=True):
                if value is not None:
                    yield Edge.from_key(key, _data(value))

    async def _scan(self, key: str) -> AsyncIterator[tuple[str, bytes]]:
        """Fields and values of a hash; HSCAN may give a field twice while the hash grows, so fields are remembered."""
        seen: set[bytes] = set()
        async for field, value in self._redis.hscan_iter(key, count=CHUNK):
            if field not in seen:
                seen.add(field)
                yield field.decode(), value


def _chunks(items: Iterable[T], size: int) -> Iterable[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _content(item: Node | Edge) -> str:
    """What is kept of an item beside its identity: equal content is equal text."""
    fields: Any = (
        {name: value for name, value in item.to_dict().items() if name != "id"} if isinstance(item, Node) else item.data
    )
    return json.dumps(fields, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _event(item: Node | Edge, owner: str, agent: str, task_id: str) -> Event:
    kind = "node.add" if isinstance(item, Node) else "edge.add"
    return Event(kind, {"owner": owner, **item.to_dict()}, agent, task_id)


def _text(reply: bytes | str) -> str:
    return reply.decode() if isinstance(reply, bytes) else reply


def _data(value: bytes | str) -> Mapping[str, Any]:
    data: Mapping[str, Any] = json.loads(_text(value).partition(" ")[2])
    return data


def _node(id_: str, value: bytes | str) -> Node:
    return Node(id_, **_data(value))
