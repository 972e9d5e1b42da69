"""The knowledge graph as a file, streamed in pieces: GraphML and JSON.

GraphML is described at http://graphml.graphdrawing.org (schema 1.1); the JSON has the shape of networkx' node-link
data, ``{"nodes": [{"id": …}], "edges": [{"source": …, "target": …}]}``.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from memory.graph import GraphStore

_PIECE = 65_536  # characters; small pieces cost a write to the socket each
_NODE_KEYS = ("title", "url", "revision", "source", "data")
_EDGE_KEYS = ("type", "data")
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2 (Char)


async def to_graphml(graph: GraphStore, owner: str) -> AsyncIterator[str]:
    """The owner's graph as one GraphML document, in pieces; ``data`` is a JSON text.

    An edge's end that was never added is declared as a node without attributes, for GraphML wants every end declared.
    """
    async for piece in _joined(_graphml(graph, owner)):
        yield piece


async def to_json(graph: GraphStore, owner: str) -> AsyncIterator[str]:
    """The owner's graph as one JSON document, in pieces."""
    async for piece in _joined(_json(graph, owner)):
        yield piece


async def _graphml(graph: GraphStore, owner: str) -> AsyncIterator[str]:
    yield '<?xml version="1.0" encoding="UTF-8"?>\n<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n'
    for domain, names in (("node", _NODE_KEYS), ("edge", _EDGE_KEYS)):
        for name in names:
            yield f'<key id="{domain}_{name}" for="{domain}" attr.name="{name}" attr.type="string"/>\n'
    yield '<graph edgedefault="directed">\n'
    declared: set[str] = set()
    async for node in graph.nodes(owner):
        declared.add(node.id)
        yield f"<node id={_attribute(node.id)}>{_values('node', _NODE_KEYS, node.to_dict())}</node>\n"
    async for edge in graph.edges(owner):
        for end in (edge.source, edge.target):
            if end not in declared:
                declared.add(end)
                yield f"<node id={_attribute(end)}/>\n"
        ends = f"source={_attribute(edge.source)} target={_attribute(edge.target)}"
        yield f"<edge {ends}>{_values('edge', _EDGE_KEYS, edge.to_dict())}</edge>\n"
    yield "</graph>\n</graphml>\n"


async def _json(graph: GraphStore, owner: str) -> AsyncIterator[str]:
    yield '{"directed": true, "multigraph": true, "nodes": ['
    separator = "\n"
    async for node in graph.nodes(owner):
        yield separator + json.dumps(node.to_dict(), ensure_ascii=False)
        separator = ",\n"
    yield '\n], "edges": ['
    separator = "\n"
    async for edge in graph.edges(owner):
        yield separator + json.dumps(edge.to_dict(), ensure_ascii=False)
        separator = ",\n"
    yield "\n]}\n"


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
