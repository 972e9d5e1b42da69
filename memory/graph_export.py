"""The knowledge graph as a file, streamed in pieces: GraphML and JSON.

GraphML is described at http://graphml.graphdrawing.org (schema 1.1); the JSON has the shape of networkx' node-link
data, ``{"nodes": [{"id": …}], "edges": [{"source": …, "target": …}]}``. Both say in ``truncated`` whether a limit cut
something.

Nodes and edges pass through; only their ids are remembered, to declare each end of an edge once.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from memory.graph import Edge, GraphStore, Neighbourhood, Node

_PIECE = 65_536  # characters; small pieces cost a write to the socket each
_NODE_KEYS = ("title", "url", "revision", "source", "data")
_EDGE_KEYS = ("type", "data")
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2 (Char)


class Selection:
    """Which nodes and edges of a graph are written, each iterated once, nodes first."""

    def __init__(self, graph: GraphStore, owner: str, limit: int | None = None) -> None:
        """The owner's whole graph, or so many nodes of it and the edges among them."""
        self.truncated = False
        """Whether the limit left something out; known when the nodes have been iterated."""
        self._graph, self._owner, self._limit = graph, owner, limit
        self._kept: set[str] = set()

    async def nodes(self) -> AsyncIterator[Node]:
        """The nodes."""
        async for node in self._graph.nodes(self._owner):
            if self._limit is not None:
                if len(self._kept) == self._limit:
                    self.truncated = True
                    return
                self._kept.add(node.id)
            yield node

    async def edges(self) -> AsyncIterator[Edge]:
        """The edges."""
        async for edge in self._graph.edges(self._owner):
            if self._limit is None or {edge.source, edge.target} <= self._kept:
                yield edge


class Around(Selection):
    """What lies around one node."""

    def __init__(self, graph: GraphStore, owner: str, found: Neighbourhood) -> None:
        """A neighbourhood of the owner's graph."""
        super().__init__(graph, owner)
        self.truncated = found.truncated
        self._found = found

    async def nodes(self) -> AsyncIterator[Node]:
        """The nodes, nearest first."""
        for node in self._found.nodes:
            yield node

    async def edges(self) -> AsyncIterator[Edge]:
        """The edges that were walked."""
        for edge in self._found.edges:
            yield edge


async def to_graphml(selection: Selection) -> AsyncGenerator[str]:
    """One GraphML document, in pieces; ``data`` is a JSON text.

    An edge's end that was never added is declared as a node without attributes, for GraphML wants every end declared.
    """
    async for piece in _joined(_graphml(selection)):
        yield piece


async def to_json(selection: Selection) -> AsyncGenerator[str]:
    """One JSON document, in pieces."""
    async for piece in _joined(_json(selection)):
        yield piece


async def _graphml(selection: Selection) -> AsyncIterator[str]:
    yield '<?xml version="1.0" encoding="UTF-8"?>\n<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n'
    for domain, names in (("node", _NODE_KEYS), ("edge", _EDGE_KEYS)):
        for name in names:
            yield f'<key id="{domain}_{name}" for="{domain}" attr.name="{name}" attr.type="string"/>\n'
    yield '<key id="graph_truncated" for="graph" attr.name="truncated" attr.type="boolean"/>\n'
    yield '<graph edgedefault="directed">\n'
    declared: set[str] = set()
    async for node in selection.nodes():
        declared.add(node.id)
        yield f"<node id={_attribute(node.id)}>{_values('node', _NODE_KEYS, node.to_dict())}</node>\n"
    async for edge in selection.edges():
        for end in (edge.source, edge.target):
            if end not in declared:
                declared.add(end)
                yield f"<node id={_attribute(end)}/>\n"
        ends = f"source={_attribute(edge.source)} target={_attribute(edge.target)}"
        yield f"<edge {ends}>{_values('edge', _EDGE_KEYS, edge.to_dict())}</edge>\n"
    yield f'<data key="graph_truncated">{str(selection.truncated).lower()}</data>\n'
    yield "</graph>\n</graphml>\n"


async def _json(selection: Selection) -> AsyncIterator[str]:
    yield '{"directed": true, "multigraph": true, "nodes": ['
    separator = "\n"
    async for node in selection.nodes():
        yield separator + json.dumps(node.to_dict(), ensure_ascii=False)
        separator = ",\n"
    yield '\n], "edges": ['
    separator = "\n"
    async for edge in selection.edges():
        yield separator + json.dumps(edge.to_dict(), ensure_ascii=False)
        separator = ",\n"
    yield f'\n], "truncated": {str(selection.truncated).lower()}}}\n'


async def _joined(pieces: AsyncIterator[str]) -> AsyncIterator[str]:
    """The same text in pieces of a size worth sending."""
    waiting: list[str] = []
    size = 0
    async for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _PIECE:
            yield "".join(waiting)
            waiting, size = [], 0
    yield "".join(waiting)


def _values(domain: str, names: tuple[str, ...], fields: Mapping[str, Any]) -> str:
    texts = {name: fields[name] for name in names}
    texts["data"] = json.dumps(fields["data"], ensure_ascii=False) if fields["data"] else ""
    return "".join(
        f'<data key="{domain}_{name}">{escape(_NOT_XML.sub("", text))}</data>' for name, text in texts.items() if text
    )


def _attribute(text: str) -> str:
    return quoteattr(_NOT_XML.sub("", text))
