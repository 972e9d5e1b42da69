"""Nodes and edges of the knowledge graph: what they hold, how large they may be, how they travel in events."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from errors import LuminaError

NODE_LIMITS = {"id": 512, "title": 512, "url": 2_048, "revision": 64, "source": 256}
"""Bytes of UTF-8 that each text of a node may have; MediaWiki's own titles end at 255."""
EDGE_LIMITS = {"source": 512, "target": 512, "type": 64}
"""Bytes of UTF-8 that each text of an edge may have."""
MAX_DATA_BYTES = 65_536
"""Bytes that the JSON of ``data`` may have."""
SEPARATOR = "\x1f"
"""Stands between the parts of an edge's key; a control character, which no id or type may hold."""


T = TypeVar("T")


class InvalidNode(LuminaError):
    """A node that the graph refuses; the text names the field, the value and the limit."""


class InvalidEdge(LuminaError):
    """An edge that the graph refuses; the text names the field, the value and the limit."""


def node_id(title: str) -> str:
    """The id of the page with this title: normalised (NFC), runs of blanks and underscores as one underscore."""
    return "_".join(unicodedata.normalize("NFC", title).replace("_", " ").split())


@dataclass(frozen=True, slots=True)
class Node:
    """A page, or any other thing, that the graph knows."""

    id: str
    """``node_id`` of the title."""
    title: str
    url: str = ""
    revision: str = ""
    source: str = ""
    """Name of the encyclopaedia."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Anything else, as JSON."""

    @classmethod
    def titled(cls, title: str, **fields: Any) -> Node:
        """A node whose id follows from its title."""
        return cls(node_id(title), title, **fields)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Node:
        """A checked node from JSON; ``id`` may be left out, unknown keys are ignored.

        Raises:
            InvalidNode: when a field is missing, has the wrong type or is too long.
        """
        title = value.get("title")
        fields = {name: value[name] for name in ("url", "revision", "source", "data") if value.get(name) is not None}
        identity = value.get("id") or (node_id(title) if isinstance(title, str) else "")
        return checked_node(cls(identity, title if title is not None else "", **fields))

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Edge:
    """A directed link between two node ids; (source, target, type) is its identity."""

    source: str
    target: str
    type: str = "links_to"
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its identity as one text."""
        return SEPARATOR.join((self.source, self.type, self.target))

    @classmethod
    def from_key(cls, key: str, data: Mapping[str, Any]) -> Edge:
        """The inverse of ``key``."""
        source, type_, target = key.split(SEPARATOR)
        return cls(source, target, type_, data)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Edge:
        """A checked edge from JSON; unknown keys are ignored.

        Raises:
            InvalidEdge: when a field is missing, has the wrong type or is too long.
        """
        fields = {name: value[name] for name in ("type", "data") if value.get(name) is not None}
        return checked_edge(cls(value.get("source", ""), value.get("target", ""), **fields))

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Added:
    """What an ``add`` did."""

    nodes: int
    """New nodes."""
    edges: int
    """New edges."""
    changed: int
    """Nodes and edges that were there with other content."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Size of a graph."""

    nodes: int
    edges: int


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """What lies around a node."""

    nodes: list[Node]
    """The node itself and those reached, nearest first; an edge's end that was never added is not among them."""
    edges: list[Edge]
    """The edges that were walked and whose two ends were reached."""
    truncated: bool
    """Whether the limit left something out."""


def checked_node(node: Node) -> Node:
    """The same node.

    Raises:
        InvalidNode: when a field has the wrong type, is empty where it must not be, or is too long.
    """
    for name, limit in NODE_LIMITS.items():
        _check_text(InvalidNode, f"node {node.id!r:.80}: {name}", getattr(node, name), limit, name in ("id", "title"))
    if node.id != node_id(node.id):
        raise InvalidNode(f"node {node.id!r:.80}: id is not in its normal form; write {node_id(node.id)!r}")
    canonical(InvalidNode, f"node {node.id!r:.80}", node.data)
    return node


def checked_edge(edge: Edge) -> Edge:
    """The same edge.

    Raises:
        InvalidEdge: when a field has the wrong type, is empty, or is too long.
    """
    name_of_edge = f"edge {edge.source!r:.80} -> {edge.target!r:.80}"
    for name, limit in EDGE_LIMITS.items():
        _check_text(InvalidEdge, f"{name_of_edge}: {name}", getattr(edge, name), limit, required=True)
    for name, end in (("source", edge.source), ("target", edge.target)):
        if end != node_id(end):
            raise InvalidEdge(f"{name_of_edge}: {name} is not a node id; write {node_id(end)!r}")
    canonical(InvalidEdge, name_of_edge, edge.data)
    return edge


def canonical(error: Callable[[str], LuminaError], what: str, data: object) -> str:
    """``data`` as JSON with sorted keys, so that equal content is equal text.

    Raises:
        LuminaError: the given error, when it is no JSON object or longer than ``MAX_DATA_BYTES``.
    """
    if not isinstance(data, Mapping):
        raise error(f"{what}: data is {type(data).__name__}; it must be a JSON object")
    try:
        text = json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as reason:  # UnicodeEncodeError is a ValueError
        raise error(f"{what}: data is not JSON ({reason})") from reason
    if size > MAX_DATA_BYTES:
        raise error(f"{what}: data has {size} bytes of JSON; at most {MAX_DATA_BYTES} are kept")
    return text


def content_of(item: Node | Edge) -> str:
    """What is kept of an item beside its identity: equal content is equal text."""
    fields: Any = (
        {name: value for name, value in item.to_dict().items() if name != "id"} if isinstance(item, Node) else item.data
    )
    return json.dumps(fields, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of at most that size."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _check_text(error: Callable[[str], LuminaError], what: str, value: object, limit: int, required: bool) -> None:
    if not isinstance(value, str):
        raise error(f"{what} is {type(value).__name__} {value!r:.80}; it must be a text of at most {limit} bytes")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as reason:
        raise error(f"{what} is {value!r:.80}; it must be valid Unicode") from reason
    if size > limit:
        raise error(f"{what} is {value[:40]!r}… of {size} bytes; at most {limit} are kept")
    if required and not value:
        raise error(f"{what} is empty; it must be a text of 1 to {limit} bytes")
    if not value.isprintable() and any(unicodedata.category(char) == "Cc" for char in value):
        raise error(f"{what} is {value!r:.80}; it must not hold control characters")
