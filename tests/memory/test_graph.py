"""The knowledge graph against a real Redis."""

from __future__ import annotations

import asyncio
import io
import json
import random
from collections.abc import AsyncIterator, Sequence
from xml.etree import ElementTree

import pytest
from redis.asyncio import Redis

from memory.graph import (
    Added,
    Counts,
    Edge,
    GraphStore,
    InvalidEdge,
    InvalidNeighbourhood,
    InvalidNode,
    Node,
    UnknownNode,
    node_id,
)
from memory.graph_export import Around, Selection, to_graphml, to_json
from memory.streams import Event


class Stream:
    """A stream in memory: ids in order, everything kept; ``lose`` stands for a crash before or after the sending."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Event]] = []
        self.batches = 0

    async def publish(self, events: Sequence[Event]) -> list[str]:
        self.batches += 1
        first = len(self.sent)
        self.sent += [(f"1790000000000-{first + n}", event) for n, event in enumerate(events)]
        return [id_ for id_, _ in self.sent[first:]]


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def graph(redis: Redis, stream: Stream) -> GraphStore:
    return GraphStore(redis, stream)


FRACTAL = Node.titled("Fractal", url="http://w/Fractal", revision="7", source="sample", data={"words": 12})
JULIA = Node.titled("Julia set")
LINK = Edge("Fractal", "Julia_set", "links_to", {"section": "Lead"})


async def whole(chunks: AsyncIterator[str]) -> str:
    return "".join([chunk async for chunk in chunks])


# Adding


async def test_what_is_new_is_published_and_kept(graph: GraphStore, stream: Stream) -> None:
    added = await graph.add([FRACTAL, JULIA], [LINK], owner="ada", agent="crawl", task_id="t1")
    assert added == Added(nodes=2, edges=1, changed=0)
    assert await graph.node("ada", "Fractal") == FRACTAL
    assert [(event.type, event.agent, event.task_id) for _, event in stream.sent] == [
        ("node.add", "crawl", "t1"), ("node.add", "crawl", "t1"), ("edge.add", "crawl", "t1")]  # fmt: skip
    assert stream.sent[0][1].data == {"owner": "ada", **FRACTAL.to_dict()}
    assert stream.sent[2][1].data == {"owner": "ada", **LINK.to_dict()}


async def test_the_same_content_again_emits_nothing(graph: GraphStore, stream: Stream) -> None:
    first = Node.titled("Fractal", data={"a": 1, "b": [1, 2]})
    same = Node.titled("Fractal", data={"b": (1, 2), "a": 1})
    await graph.add([first], [LINK], owner="ada")
    assert await graph.add([same, same], [LINK], owner="ada", agent="other") == Added(0, 0, 0)
    assert len(stream.sent) == 2


async def test_other_content_replaces_and_is_published(graph: GraphStore, stream: Stream) -> None:
    await graph.add([FRACTAL], [LINK], owner="ada")
    newer = Node.titled("Fractal", revision="8")
    assert await graph.add([newer], [Edge("Fractal", "Julia_set")], owner="ada") == Added(0, 0, 2)
    assert await graph.node("ada", "Fractal") == newer
    assert [edge async for edge in graph.edges("ada")] == [Edge("Fractal", "Julia_set")]
    assert len(stream.sent) == 4


async def test_edges_of_two_types_between_the_same_nodes_are_two(graph: GraphStore) -> None:
    assert (await graph.add([], [LINK, Edge("Fractal", "Julia_set", "cites")], owner="ada")).edges == 2
    assert await graph.counts("ada") == Counts(0, 2)


async def test_of_two_in_one_batch_the_last_counts(graph: GraphStore, stream: Stream) -> None:
    added = await graph.add([Node.titled("A", revision="1"), Node.titled("A", revision="2")], [], owner="ada")
    assert (added, len(stream.sent)) == (Added(1, 0, 0), 1)
    assert (await graph.node("ada", "A")).revision == "2"


async def test_owners_do_not_see_each_other(graph: GraphStore) -> None:
    await graph.add([FRACTAL], [LINK], owner="ada")
    assert await graph.counts("bob") == Counts(0, 0)
    assert (await graph.add([FRACTAL], [], owner="bob")).nodes == 1
    with pytest.raises(UnknownNode, match="Julia_set"):
        await graph.node("bob", "Julia_set")
    with pytest.raises(UnknownNode):
        await graph.neighbours("bob", "Julia_set")
    assert await graph.owners() == ["ada", "bob"]


async def test_a_batch_takes_few_round_trips(redis: Redis, graph: GraphStore, stream: Stream) -> None:
    nodes = [Node.titled(f"Page {n}") for n in range(1500)]
    edges = [Edge(f"Page_{n}", f"Page_{n * 7 % 1500}") for n in range(1500)]
    before = (await redis.info("stats"))["total_reads_processed"]
    assert await graph.add(nodes, edges, owner="ada") == Added(1500, 1500, 0)
    reads = (await redis.info("stats"))["total_reads_processed"] - before
    assert stream.batches == 3
    assert reads < 150  # the server reads a long command in pieces of 16 KB; one command a node would be 3,000 reads
    assert await graph.counts("ada") == Counts(1500, 1500)


async def test_keys_of_one_owner_share_a_slot(redis: Redis, graph: GraphStore) -> None:
    await graph.add([FRACTAL, JULIA], [LINK], owner="ada")
    names = [key async for key in redis.scan_iter() if key != b"lumina:graph:owners"]
    assert len(names) == 4
    assert all(b"{ada}" in name for name in names)


# What is refused


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (Node("", ""), "id is empty"),
        (Node("A", ""), "title is empty"),
        (Node("Julia set", "Julia set"), "write 'Julia_set'"),
        (Node.titled("é" * 257), "514 bytes; at most 512"),
        (Node.titled("A", url="x" * 2049), "url is .* 2049 bytes; at most 2048"),
        (Node.titled("A", revision=7), "revision is int 7"),
        (Node("A\x1fB", "A"), "control characters"),
        (Node.titled("A\ud800"), "valid Unicode"),
        (Node.titled("A", data={"x": "y" * 70_000}), "at most 65536"),
        (Node.titled("A", data={"x": object()}), "data is not JSON"),
        (Node.titled("A", data={"x": float("nan")}), "data is not JSON"),
        (Node.titled("A", data=[1]), "data is list"),
    ],
)
async def test_a_node_that_is_refused_is_named_and_nothing_is_sent(
    graph: GraphStore, stream: Stream, node: Node, words: str
) -> None:
    with pytest.raises(InvalidNode, match=words) as refusal:
        await graph.add([FRACTAL, node], [], owner="ada")
    assert len(str(refusal.value)) < 400
    assert stream.sent == []


@pytest.mark.parametrize(
    ("edge", "words"),
    [
        (Edge("", "B"), "source is empty"),
        (Edge("A", "B", ""), "type is empty"),
        (Edge("A", "B b"), "target is not a node id; write 'B_b'"),
        (Edge("A", "B", "t" * 65), "at most 64"),
        (Edge("A", "B", "a\x1fb"), "control characters"),
        (Edge("A", "B", data={"x": {1, 2}}), "data is not JSON"),
    ],
)
async def test_an_edge_that_is_refused_is_named(graph: GraphStore, edge: Edge, words: str) -> None:
    with pytest.raises(InvalidEdge, match=words):
        await graph.add([], [edge], owner="ada")


def test_json_becomes_a_checked_node_or_edge() -> None:
    assert Node.from_dict({"title": "Julia set", "more": 1}) == JULIA
    assert Node.from_dict(FRACTAL.to_dict()) == FRACTAL
    assert Edge.from_dict({"source": "A", "target": "B"}) == Edge("A", "B", "links_to", {})
    assert Edge.from_dict(LINK.to_dict()) == LINK
    with pytest.raises(InvalidNode, match="title"):
        Node.from_dict({"id": "A"})
    with pytest.raises(InvalidNode, match="title"):
        Node.from_dict({"id": "A", "title": 3})
    with pytest.raises(InvalidEdge, match="target is empty"):
        Edge.from_dict({"source": "A"})


def test_an_id_is_the_title_with_underscores() -> None:
    assert node_id("Mandelbrot set") == node_id("  Mandelbrot _ set ") == "Mandelbrot_set"
    assert node_id("Benoi\u0302t") == node_id("Benoît") == "Benoît"  # composed and decomposed are the same title


# Reading


async def test_neighbours_are_found_in_both_directions_up_to_a_depth(graph: GraphStore) -> None:
    path = [Node.titled(name) for name in "ABCDE"]
    edges = [Edge("A", "B"), Edge("C", "B"), Edge("C", "D"), Edge("E", "D"), Edge("B", "missing"), Edge("B", "B")]
    await graph.add(path, edges, owner="ada")
    near = await graph.neighbours("ada", "B")
    assert [node.id for node in near.nodes] == ["B", "A", "C"] or [node.id for node in near.nodes] == ["B", "C", "A"]
    assert {(edge.source, edge.target) for edge in near.edges} == {("A", "B"), ("C", "B"), ("B", "missing"), ("B", "B")}
    assert not near.truncated
    assert {node.id for node in (await graph.neighbours("ada", "B", depth=2)).nodes} == set("ABCD")
    assert {node.id for node in (await graph.neighbours("ada", "B", depth=3)).nodes} == set("ABCDE")
    alone = await graph.neighbours("ada", "E", depth=1)
    assert [node.id for node in alone.nodes] == ["E", "D"]


async def test_a_node_known_from_edges_only_has_neighbours(graph: GraphStore) -> None:
    await graph.add([FRACTAL], [LINK], owner="ada")
    found = await graph.neighbours("ada", "Julia_set")
    assert (found.nodes, found.edges) == ([FRACTAL], [LINK])


async def test_of_too_many_neighbours_always_the_same_are_given(graph: GraphStore) -> None:
    edges = [Edge("Hub", f"P{n:04}") for n in range(500)]
    await graph.add([Node.titled("Hub")], random.sample(edges, 500), owner="ada")
    found = await graph.neighbours("ada", "Hub", limit=3)
    assert sorted(edge.target for edge in found.edges) == ["P0000", "P0001", "P0002"]
    assert found.truncated
    assert len((await graph.neighbours("ada", "Hub", limit=500)).edges) == 500


@pytest.mark.parametrize(("depth", "limit"), [(0, 10), (6, 10), (1, 0), (1, 1001)])
async def test_depth_and_limit_have_bounds(graph: GraphStore, depth: int, limit: int) -> None:
    with pytest.raises(InvalidNeighbourhood, match=r"is \d+; 1 to"):
        await graph.neighbours("ada", "A", depth, limit)


async def test_every_node_and_edge_is_given_once_while_the_graph_grows(graph: GraphStore) -> None:
    nodes = [Node.titled(f"N{n}") for n in range(3000)]
    await graph.add(nodes, [], owner="ada")
    found: list[str] = []
    async for node in graph.nodes("ada"):
        if len(found) == 500:  # makes the hash grow, and so move its fields, in the middle of the scan
            await graph.add([Node.titled(f"More {n}") for n in range(6000)], [], owner="ada")
        found.append(node.id)
    assert len(found) == len(set(found))
    assert {node.id for node in nodes} <= set(found)


AWKWARD = [
    Node.titled('Quote "and" <angle> & ampersand', data={"text": "]]> \u0007 é 😀", "n": 1.5}),
    Node.titled("日本", url="http://w/?a=1&b=2"),
]


async def test_graphml_is_what_other_tools_read(graph: GraphStore) -> None:
    edges = [Edge(AWKWARD[0].id, AWKWARD[1].id, "a<b"), Edge(AWKWARD[1].id, "Never_added", data={"k": "<&>"})]
    await graph.add(AWKWARD, edges, owner="ada")
    text = await whole(to_graphml(Selection(graph, "ada")))
    ElementTree.fromstring(text)
    read = pytest.importorskip("networkx", reason="networkx reads it; it is not there").read_graphml(
        io.BytesIO(text.encode())
    )
    assert set(read.nodes) == {AWKWARD[0].id, AWKWARD[1].id, "Never_added"}
    assert read.nodes["日本"]["url"] == "http://w/?a=1&b=2"
    assert json.loads(read.nodes[AWKWARD[0].id]["data"]) == {"text": "]]> \u0007 é 😀", "n": 1.5}
    assert read.edges[AWKWARD[0].id, "日本"]["type"] == "a<b"
    assert json.loads(read.edges["日本", "Never_added"]["data"]) == {"k": "<&>"}


async def test_json_holds_every_node_and_edge(graph: GraphStore) -> None:
    await graph.add([*AWKWARD, FRACTAL], [LINK], owner="ada")
    exported = json.loads(await whole(to_json(Selection(graph, "ada"))))
    assert sorted(node["id"] for node in exported["nodes"]) == sorted(node.id for node in [*AWKWARD, FRACTAL])
    assert [Edge.from_dict(edge) for edge in exported["edges"]] == [LINK]
    assert json.loads(await whole(to_json(Selection(graph, "nobody"))))["nodes"] == []


async def test_a_large_graph_is_exported_in_pieces(graph: GraphStore) -> None:
    await graph.add([Node.titled(f"N{n}", url="u" * 500) for n in range(2000)], [], owner="ada")
    pieces = [piece async for piece in to_graphml(Selection(graph, "ada"))]
    assert len(pieces) > 10
    assert max(map(len, pieces)) < 70_000


@pytest.mark.parametrize("limit", [1, 4, 5])
async def test_an_export_of_so_many_nodes_holds_the_edges_among_them(graph: GraphStore, limit: int) -> None:
    names = "ABCDE"
    await graph.add(
        [Node.titled(name) for name in names], [Edge(a, b) for a in names for b in [*names, "Z"]], owner="ada"
    )
    exported = json.loads(await whole(to_json(Selection(graph, "ada", limit))))
    kept = {node["id"] for node in exported["nodes"]}
    assert len(kept) == limit
    assert {(edge["source"], edge["target"]) for edge in exported["edges"]} == {(a, b) for a in kept for b in kept}
    assert exported["truncated"] == (limit < 5)
    text = await whole(to_graphml(Selection(graph, "ada", limit)))
    read = pytest.importorskip("networkx", reason="networkx reads it; it is not there").read_graphml(
        io.BytesIO(text.encode())
    )
    assert (set(read.nodes), read.graph["truncated"]) == (kept, limit < 5)


async def test_what_lies_around_a_node_is_exported(graph: GraphStore) -> None:
    await graph.add([Node.titled(name) for name in "ABC"], [Edge("A", "B"), Edge("B", "C")], owner="ada")
    found = await graph.neighbours("ada", "A")
    exported = json.loads(await whole(to_json(Around(graph, "ada", found))))
    assert [node["id"] for node in exported["nodes"]] == ["A", "B"]
    assert [(edge["source"], edge["target"]) for edge in exported["edges"]] == [("A", "B")]


# Events and state


async def test_two_writers_at_once_leave_what_the_later_event_says(redis: Redis, stream: Stream) -> None:
    class Late(Stream):
        """Writes nothing until the other writer is done: its event is earlier, its state comes later."""

        async def publish(self, events: Sequence[Event]) -> list[str]:
            ids = await stream.publish(events)
            published.set()
            await other_done.wait()
            return ids

    published, other_done = asyncio.Event(), asyncio.Event()
    slow = asyncio.create_task(GraphStore(redis, Late()).add([Node.titled("A", revision="1")], [], owner="ada"))
    await published.wait()
    graph = GraphStore(redis, stream)
    await graph.add([Node.titled("A", revision="2")], [], owner="ada")
    other_done.set()
    await slow
    assert (await graph.node("ada", "A")).revision == "2"


async def test_a_crash_between_event_and_state_is_healed(redis: Redis, graph: GraphStore, stream: Stream) -> None:
    class Crash(Exception):
        pass

    class Dying(Stream):
        async def publish(self, events: Sequence[Event]) -> list[str]:
            await stream.publish(events)
            raise Crash

    with pytest.raises(Crash):
        await GraphStore(redis, Dying()).add([FRACTAL], [LINK], owner="ada")
    assert await graph.counts("ada") == Counts(0, 0)
    assert await graph.add([FRACTAL], [LINK], owner="ada") == Added(1, 1, 0)
    assert await graph.node("ada", "Fractal") == FRACTAL
    assert (await graph.neighbours("ada", "Fractal")).edges == [LINK]
