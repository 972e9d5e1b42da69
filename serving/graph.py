"""The Graph API: nodes and edges in, one by one or in batches; single nodes, neighbours and the whole graph out.

What is accepted is written through ``GraphStore``, which publishes it on ``graph_stream/v1`` first. Every route knows
the caller's own graph only.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Header, HTTPException, Path, Query, Response
from loguru import logger
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag
from redis.exceptions import RedisError
from starlette.responses import StreamingResponse

from errors import LuminaError
from memory.graph import Edge, Neighbourhood, Node, node_id
from memory.graph_export import Around, Selection, to_graphml, to_json
from memory.graph_rebuild import TYPES, GraphRebuild
from memory.keys import GRAPH_STREAM
from serving.auth import Owner
from serving.dependencies import OpenRunner

router = APIRouter(tags=["graph"])
store = APIRouter(tags=["graph"])
"""What needs the event store."""

MAX_BATCH = 1_000
"""Nodes or edges of one request."""
AGENT = "graph-api"
"""The agent of the events that come in here."""
JSON, GRAPHML = "application/json", "application/graphml+xml"


class NodeBody(BaseModel):
    """A page, or any other thing. A node is replaced whole."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "title": "Mandelbrot set",
                    "url": "https://en.wikipedia.org/wiki/Mandelbrot_set",
                    "revision": "1189324",
                    "source": "wikipedia",
                    "data": {"links": 120},
                }
            ]
        },
    )

    id: str | None = Field(None, description="The title with underscores for blanks; follows from it when left out.")
    title: str
    url: str = ""
    revision: str = ""
    source: str = Field("", description="Name of the encyclopaedia.")
    data: dict[str, Any] = Field(default_factory=dict, description="Anything else; at most 64 KB as JSON.")


class EdgeBody(BaseModel):
    """A directed link; source, target and type are its identity. Its nodes may come later."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"source": "Mandelbrot_set", "target": "Julia_set"}]}
    )

    source: str = Field(description="Id of the node it leaves.")
    target: str = Field(description="Id of the node it reaches.")
    type: str = "links_to"
    data: dict[str, Any] = Field(default_factory=dict, description="At most 64 KB as JSON.")


class NodeBatch(BaseModel):
    """Several nodes; all are taken or none."""

    model_config = ConfigDict(extra="forbid")

    nodes: list[NodeBody]


class EdgeBatch(BaseModel):
    """Several edges; all are taken or none."""

    model_config = ConfigDict(extra="forbid")

    edges: list[EdgeBody]


class Accepted(BaseModel):
    """What became of the nodes or edges."""

    added: int = Field(description="New ones.")
    changed: int = Field(description="Ones that were there with other content.")
    unchanged: int = Field(description="Ones that were there as they are; nothing was published for them.")
    ids: list[str] = Field(description="Ids of the nodes, in the order given; empty for edges.")


class NodeView(BaseModel):
    """A node."""

    id: str
    title: str
    url: str
    revision: str
    source: str
    data: dict[str, Any]


class EdgeView(BaseModel):
    """An edge."""

    source: str
    target: str
    type: str
    data: dict[str, Any]


class NeighbourhoodView(BaseModel):
    """What lies around a node."""

    nodes: list[NodeView] = Field(description="The node itself and those reached, nearest first, without unread ones.")
    edges: list[EdgeView] = Field(description="The edges walked; an end that was never read is not among the nodes.")
    truncated: bool
    note: str | None = Field(description="What to do when something was left out.")

    @classmethod
    def of(cls, found: Neighbourhood, limit: int) -> NeighbourhoodView:
        """The view of a neighbourhood."""
        note = f"more than {limit} neighbours were found; raise limit or lower depth" if found.truncated else None
        return cls(
            nodes=[NodeView(**node.to_dict()) for node in found.nodes],
            edges=[EdgeView(**edge.to_dict()) for edge in found.edges],
            truncated=found.truncated,
            note=note,
        )


def _kind(of_batch: str) -> Discriminator:
    return Discriminator(lambda body: "batch" if isinstance(body, dict) and of_batch in body else "one")


Nodes = Annotated[Annotated[NodeBody, Tag("one")] | Annotated[NodeBatch, Tag("batch")], _kind("nodes")]
Edges = Annotated[Annotated[EdgeBody, Tag("one")] | Annotated[EdgeBatch, Tag("batch")], _kind("edges")]
TaskId = Annotated[str, Query(max_length=128, description="The task that this came from, for the events.")]
NodeId = Annotated[
    str, Path(max_length=512, description="Id or title of the node.", examples=["Mandelbrot_set"], min_length=1)
]
Depth = Annotated[int, Query(ge=1, le=3, description="How many edges away, in either direction.")]
_REFUSED: dict[int | str, dict[str, Any]] = {
    201: {"model": Accepted, "description": "Something was new."},
    413: {"description": "The body is too large, or holds too many."},
    422: {"description": "Something is not acceptable; nothing was taken."},
}
_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"description": "The caller's graph has no such node."}}


@router.post("/nodes", responses=_REFUSED)
async def add_nodes(
    body: Annotated[Nodes, Body()], response: Response, owner: Owner, runner: OpenRunner, task_id: TaskId = ""
) -> Accepted:
    """Add or replace one node, or a batch ``{"nodes": […]}``. The same again changes nothing and publishes nothing."""
    given = body.nodes if isinstance(body, NodeBatch) else [body]
    _check_size(given)
    nodes = [Node.from_dict(node.model_dump(exclude_none=True)) for node in given]
    added = await runner.context.graph.add(nodes, [], owner=owner, agent=AGENT, task_id=task_id)
    return _accepted(
        response, [node.id for node in nodes], len({node.id for node in nodes}), added.nodes, added.changed
    )


@router.post("/edges", responses=_REFUSED)
async def add_edges(
    body: Annotated[Edges, Body()], response: Response, owner: Owner, runner: OpenRunner, task_id: TaskId = ""
) -> Accepted:
    """Add or replace one edge, or a batch ``{"edges": […]}``. The same again changes nothing and publishes nothing."""
    given = body.edges if isinstance(body, EdgeBatch) else [body]
    _check_size(given)
    edges = [Edge.from_dict(edge.model_dump()) for edge in given]
    added = await runner.context.graph.add([], edges, owner=owner, agent=AGENT, task_id=task_id)
    return _accepted(response, [], len({edge.key for edge in edges}), added.edges, added.changed)


@router.get("/nodes/{id:path}/neighbours", responses=_UNKNOWN)
async def neighbours(
    id: NodeId,
    owner: Owner,
    runner: OpenRunner,
    depth: Depth = 1,
    limit: Annotated[int, Query(ge=1, le=1_000, description="Neighbours at most.")] = 100,
) -> NeighbourhoodView:
    """What is at most ``depth`` edges away from a node, breadth first."""
    found = await runner.context.graph.neighbours(owner, node_id(id), depth, limit)
    return NeighbourhoodView.of(found, limit)


@router.get("/nodes/{id:path}", responses=_UNKNOWN)
async def get_node(id: NodeId, owner: Owner, runner: OpenRunner) -> NodeView:
    """One node, by id or title."""
    return NodeView(**(await runner.context.graph.node(owner, node_id(id))).to_dict())


@router.get(
    "/graph",
    response_class=StreamingResponse,
    responses={
        200: {"content": {JSON: {"example": {"directed": True, "nodes": [], "edges": []}}, GRAPHML: {}}},
        404: {"description": "There is nothing about the topic."},
        406: {"description": "Accept names neither of the formats."},
    },
)
async def get_graph(
    owner: Owner,
    runner: OpenRunner,
    format: Annotated[Literal["json", "graphml"] | None, Query(description="Goes before Accept.")] = None,
    topic: Annotated[str | None, Query(max_length=512, description="Only what lies around this article.")] = None,
    depth: Depth = 2,
    limit: Annotated[int | None, Query(ge=1, description="Nodes at most; with a topic, 1,000.")] = None,
    accept: Annotated[str, Header()] = "*/*",
) -> StreamingResponse:
    """The graph as one document, streamed: node-link JSON or GraphML."""
    media_type = {"json": JSON, "graphml": GRAPHML, None: None}[format] or negotiate(accept)
    graph = runner.context.graph
    selection = Selection(graph, owner, limit)
    if topic is not None:
        found = await graph.neighbours(owner, node_id(topic), depth, min(limit or 1_000, 1_000))
        selection = Around(graph, owner, found)
    pieces = to_graphml(selection) if media_type == GRAPHML else to_json(selection)
    name = "graph.graphml" if media_type == GRAPHML else "graph.json"
    headers = {"Vary": "Accept", "Content-Disposition": f'inline; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingResponse(pieces, media_type=media_type, headers=headers)


@store.post(
    "/graph/rebuild", response_class=StreamingResponse, responses={200: {"content": {"application/x-ndjson": {}}}}
)
async def rebuild(owner: Owner, runner: OpenRunner) -> StreamingResponse:
    """Make the caller's graph again from the events; a JSON object a line says how far it is, the last has ``done``.

    The graph stays readable and writable meanwhile. An ``error`` instead of ``done`` says why it was not finished.
    """
    events = runner.context.events
    if events is None:
        raise HTTPException(503, "this process does not hold the event store; ask the one that does")
    work = GraphRebuild(runner.context.redis, lambda: events.replay(GRAPH_STREAM, TYPES, owner=owner), owner)
    return StreamingResponse(_progress(work), media_type="application/x-ndjson")


async def _progress(work: GraphRebuild) -> AsyncGenerator[str]:
    try:
        async for step in work.run():
            yield json.dumps(asdict(step)) + "\n"
    except LuminaError as error:
        yield json.dumps({"error": str(error)}) + "\n"
    except RedisError as error:
        logger.warning("a rebuild of the graph was not finished: {}", error)
        yield json.dumps({"error": "Redis failed; run it again, it has done no harm"}) + "\n"


def negotiate(accept: str) -> str:
    """The media type that suits an ``Accept`` header best (RFC 9110, 12.5.1); JSON where both do.

    Raises:
        HTTPException: 406, when neither does.
    """
    names = {JSON: JSON, "application/*": JSON, "*/*": JSON, GRAPHML: GRAPHML, "application/xml": GRAPHML,
             "text/xml": GRAPHML}  # fmt: skip
    best, best_quality = None, 0.0
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        found = names.get(name)
        quality = next((_quality(piece[2:]) for piece in parameters if piece.startswith("q=")), 1.0)
        if found and (quality > best_quality or (quality == best_quality and found == JSON)):
            best, best_quality = found, quality
    if best is None or not best_quality:
        raise HTTPException(406, f"accepted here: {JSON}, {GRAPHML}; or ask with ?format=json or ?format=graphml")
    return best


def _quality(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0


def _check_size(given: list[Any]) -> None:
    if len(given) > MAX_BATCH:
        raise HTTPException(413, f"the batch holds {len(given)}; at most {MAX_BATCH} are taken at a time")


def _accepted(response: Response, ids: list[str], different: int, added: int, changed: int) -> Accepted:
    response.status_code = 201 if added else 200
    return Accepted(added=added, changed=changed, unchanged=different - added - changed, ids=ids)
