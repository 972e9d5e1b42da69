"""The knowledge graph's state in Redis: nodes and edges of each owner, made of the events on the graph stream.

The events are the truth. What ``add`` finds new or changed is published first and written to the state second, each
piece of state together with the stream id of its event; a piece is only ever replaced by that of a later event. So the
state is the same whatever the order in which writers and rebuilders come. A crash between the two steps leaves an event
whose state is missing: the next ``add`` of the same content publishes it again (harmless, the content is equal) and
writes it, and so does a rebuild (``memory.graph_rebuild``). The state never holds what no event says.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

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
    checked_edge,
    checked_node,
    chunks,
    content_of,
    node_id,
)
from memory.graph_scripts import SET_IF_LATER
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
    "UnknownNode",
    "node_id",
]

CHUNK = 1_000
"""Nodes and edges of one round trip; the script holds the server for about 2 ms."""
MAX_DEPTH = 5
MAX_NEIGHBOURS = 1_000
MAX_LINKS = 100_000
"""Links that one round trip of a neighbourhood brings at most."""


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
        for chunk in chunks(items.values(), CHUNK):
            known = await self._contents(owner, chunk)
            different = [(item, old) for item, old in zip(chunk, known, strict=True) if content_of(item) != old]
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
        for chunk in chunks(ids, CHUNK):
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
        """Everyone who has or had a graph, sorted."""
        return sorted(map(_text, await self._redis.smembers(keys.GRAPH_OWNERS)))

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
        """Write a chunk, links and contents in one transaction: ``add`` takes contents as a sign of both."""
        links: dict[str, dict[str, int]] = {}
        nodes: list[str] = []
        edges: list[str] = []
        for id_, item in items:
            if isinstance(item, Node):
                nodes += (item.id, id_, content_of(item))
                continue
            edges += (item.key, id_, content_of(item))
            out, into = keys.graph_links(owner, "out", item.source), keys.graph_links(owner, "in", item.target)
            links.setdefault(out, {})[f"{item.type}{SEPARATOR}{item.target}"] = 0
            links.setdefault(into, {})[f"{item.type}{SEPARATOR}{item.source}"] = 0
        await self._redis.sadd(keys.GRAPH_OWNERS, owner)  # in a slot of its own
        async with self._redis.pipeline(transaction=True) as pipe:
            for key, members in links.items():
                pipe.zadd(key, members)
            if nodes:
                pipe.eval(SET_IF_LATER, 1, keys.graph_nodes(owner), *nodes)
            if edges:
                pipe.eval(SET_IF_LATER, 1, keys.graph_edges(owner), *edges)
            await pipe.execute()

    async def _links(self, owner: str, ids: Sequence[str], limit: int) -> AsyncIterator[tuple[Edge, str, bool]]:
        """Edges at each of the nodes with their other end, and whether more of them were left out."""
        for chunk in chunks(ids, max(100, MAX_LINKS // limit)):
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
        for chunk in chunks(edge_keys, CHUNK):
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
