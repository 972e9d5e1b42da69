"""The Graph API on a real Redis and a real event store, without the rest of the application."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from memory import keys
from memory.events import EventStore, open_events
from memory.graph import Edge, GraphStore, Node
from memory.streams import Streams
from serving import events, graph, problems
from serving.graph import MAX_BATCH, negotiate

ADA, BOB = {"X-API-Key": "k1"}, {"X-API-Key": "k2"}
PAGE = {"title": "Julia set", "url": "http://w/Julia_set", "revision": "7", "source": "s", "data": {"links": 3}}
LINK = {"source": "Julia_set", "target": "Fractal"}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EventStore]:
    async with open_events(tmp_path / "events.duckdb") as opened:
        yield opened


@pytest.fixture
def app(redis: Redis, store: EventStore) -> Callable[..., Any]:
    """The routers with what they need in the lifespan's state, as an ASGI application."""
    streams = Streams(redis)
    context = SimpleNamespace(graph=GraphStore(redis, streams), redis=redis, streams=streams, events=store)
    inner = FastAPI()
    problems.install(inner)
    inner.include_router(graph.router)
    inner.include_router(graph.store)
    inner.include_router(events.router)
    state = {"runner": SimpleNamespace(context=context), "api_keys": {"k1": "ada", "k2": "bob"}}

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        await inner({**scope, "state": dict(state)}, receive, send)

    return asgi


@pytest.fixture
async def client(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://lumina", headers=ADA) as opened:
        yield opened


async def published(redis: Redis) -> list[tuple[str, dict[str, Any]]]:
    return [(entry.event.type, dict(entry.event.data)) for entry in await Streams(redis).tail(keys.GRAPH_STREAM)]


# Writing


async def test_a_node_is_added_published_and_given_back(client: httpx.AsyncClient, redis: Redis) -> None:
    response = await client.post("/nodes", json=PAGE, params={"task_id": "t1"})
    assert response.status_code == 201
    assert response.json() == {"added": 1, "changed": 0, "unchanged": 0, "ids": ["Julia_set"]}
    assert (await client.get("/nodes/Julia_set")).json() == {"id": "Julia_set", **PAGE}
    [entry] = await Streams(redis).tail(keys.GRAPH_STREAM)
    assert (entry.event.type, entry.event.agent, entry.event.task_id) == ("node.add", "graph-api", "t1")
    assert entry.event.data == {"owner": "ada", "id": "Julia_set", **PAGE}


async def test_the_same_again_changes_and_publishes_nothing(client: httpx.AsyncClient, redis: Redis) -> None:
    batch = {"nodes": [PAGE, {"title": "Fractal"}, {"title": "Fractal"}]}
    assert (await client.post("/nodes", json=batch)).json()["added"] == 2
    again = await client.post("/nodes", json=batch)
    assert (again.status_code, again.json()["unchanged"], again.json()["added"]) == (200, 2, 0)
    changed = await client.post("/nodes", json={**PAGE, "revision": "8"})
    assert (changed.status_code, changed.json()["changed"]) == (200, 1)
    edge = await client.post("/edges", json=LINK)
    assert (edge.status_code, edge.json()) == (201, {"added": 1, "changed": 0, "unchanged": 0, "ids": []})
    assert (await client.post("/edges", json={"edges": [LINK, LINK]})).json()["unchanged"] == 1
    assert [type_ for type_, _ in await published(redis)] == ["node.add"] * 3 + ["edge.add"]


@pytest.mark.parametrize(
    ("route", "body", "words"),
    [
        ("/nodes", {}, "title"),
        ("/nodes", {"title": ""}, "id is empty"),
        ("/nodes", {"title": "A", "id": "a b"}, "write 'a_b'"),
        ("/nodes", {"title": "A", "owner": "bob"}, "owner"),
        ("/nodes", {"title": 7}, "title"),
        ("/nodes", {"title": "A\u0000"}, "control characters"),
        ("/nodes", {"title": "é" * 300}, "at most 512"),
        ("/nodes", {"title": "A", "data": {"x": "y" * 70_000}}, "at most 65536"),
        ("/nodes", {"title": "A", "data": [1]}, "data"),
        ("/nodes", {"nodes": [{"title": "fine"}, {"title": "B\x1fC"}]}, "control characters"),
        ("/nodes", {"nodes": "A"}, "nodes"),
        ("/nodes", {"nodes": [], "edges": []}, "edges"),
        ("/nodes", [PAGE], "dictionary"),
        ("/nodes", None, "required"),
        ("/edges", {"source": "A"}, "target"),
        ("/edges", {"source": "A", "target": "B b"}, "write 'B_b'"),
        ("/edges", {"edges": [{**LINK, "type": "t" * 65}]}, "at most 64"),
        ("/edges", PAGE, "target"),
    ],
)
async def test_what_is_not_acceptable_is_named_and_nothing_is_taken(
    client: httpx.AsyncClient, redis: Redis, route: str, body: Any, words: str
) -> None:
    response = await client.post(route, json=body)
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
    assert words in response.json()["detail"]
    assert await published(redis) == []


@pytest.mark.parametrize(
    "content",
    [b'{"title": "A", "data": {"x": NaN}}', b'{"title": "A", "data": {"x": 1e999}}', b'{"nodes": [NaN]}',
     b'{"title": "\\ud800"}', b'{"nodes": [{"title": "A", "data": ["\\ud800"]}]}', b"{", b"\xff\xfe", b"[" * 100_000,
     b'{"title": ' + b"[" * 980 + b"]" * 980 + b"}",
     b'{"title": "A", "data": {"x": ' + b"[" * 500 + b"]" * 500 + b"}}}"],
)  # fmt: skip
async def test_json_that_is_none_is_a_problem_and_no_breakdown(client: httpx.AsyncClient, content: bytes) -> None:
    response = await client.post("/nodes", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)
    assert response.headers["content-type"] == "application/problem+json"
    assert len(response.content) < 10_000


async def test_a_batch_has_a_largest_size(client: httpx.AsyncClient) -> None:
    nodes = [{"title": f"N{n}"} for n in range(MAX_BATCH + 1)]
    response = await client.post("/nodes", json={"nodes": nodes})
    assert (response.status_code, str(MAX_BATCH) in response.json()["detail"]) == (413, True)
    assert (await client.post("/nodes", json={"nodes": nodes[1:]})).json()["added"] == MAX_BATCH


# Reading


async def test_ids_are_what_titles_make_of_them(client: httpx.AsyncClient) -> None:
    for title in ("TCP/IP", "Julia set", "日本", "C++", "Who?", "50%", "a/neighbours/b"):
        await client.post("/nodes", json={"title": title})
        quoted = "".join(f"%{byte:02X}" for byte in title.encode())
        assert (await client.get(f"/nodes/{quoted}")).json()["title"] == title
    missing = await client.get("/nodes/Nowhere")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")


async def test_neighbours_come_level_by_level_and_say_when_some_are_left_out(client: httpx.AsyncClient) -> None:
    chain = [{"source": a, "target": b} for a, b in zip("ABCDE", "BCDEF", strict=True)]
    await client.post("/edges", json={"edges": [*chain, *({"source": "A", "target": f"X{n}"} for n in range(5))]})
    await client.post("/nodes", json={"nodes": [{"title": name} for name in [*"ABCDEF", *(f"X{n}" for n in range(5))]]})
    for depth, reached in ((1, 6), (2, 7), (3, 8)):
        near = (await client.get("/nodes/A/neighbours", params={"depth": depth})).json()
        assert (len(near["nodes"]), near["nodes"][0]["id"]) == (reached + 1, "A")
        assert (near["truncated"], near["note"]) == (False, None)
    cut = (await client.get("/nodes/A/neighbours", params={"limit": 2})).json()
    assert (len(cut["nodes"]), cut["truncated"]) == (3, True)
    assert "raise limit" in cut["note"]
    for params in ({"depth": 0}, {"depth": 4}, {"limit": 0}, {"limit": 1001}, {"depth": "x"}):
        assert (await client.get("/nodes/A/neighbours", params=params)).status_code == 422
    assert (await client.get("/nodes/Nowhere/neighbours")).status_code == 404


async def test_a_level_of_neighbours_is_one_round_trip(client: httpx.AsyncClient, redis: Redis) -> None:
    hub = [{"source": "A", "target": f"B{n}"} for n in range(99)]
    leaves = [{"source": f"B{n}", "target": "C"} for n in range(99)]
    await client.post("/edges", json={"edges": hub + leaves})
    before = (await redis.info("stats"))["total_reads_processed"]
    assert len((await client.get("/nodes/A/neighbours", params={"depth": 3})).json()["edges"]) == 198
    reads = (await redis.info("stats"))["total_reads_processed"] - before
    assert reads <= 6  # three levels, nodes, edges, and the second look at the statistics


async def test_the_graph_is_read_by_networkx_in_both_formats(client: httpx.AsyncClient) -> None:
    networkx = pytest.importorskip("networkx", reason="networkx reads what is written; it is not there")
    await client.post("/nodes", json={"nodes": [PAGE, {"title": 'Odd <&> "title"', "data": {"x": "]]>\u0007"}}]})
    await client.post("/edges", json={"edges": [LINK, {**LINK, "type": "cites"}]})
    xml = await client.get("/graph", params={"format": "graphml"})
    assert xml.headers["content-type"].startswith("application/graphml+xml")
    assert xml.headers["vary"] == "Accept"
    read = networkx.read_graphml(io.BytesIO(xml.content))
    assert set(read.nodes) == {"Julia_set", "Fractal", 'Odd_<&>_"title"'}
    assert read.number_of_edges() == 2
    document = (await client.get("/graph")).json()
    node_link = networkx.node_link_graph(document, edges="edges")
    assert (set(node_link.nodes), node_link.number_of_edges()) == (set(read.nodes), 2)
    assert not document["truncated"]
    assert (await client.get("/graph", headers={"Accept": "application/graphml+xml"})).content[:5] == b"<?xml"
    assert (await client.get("/graph", headers={"Accept": "text/html"})).status_code == 406
    assert (await client.get("/graph", params={"format": "svg"})).status_code == 422


async def test_part_of_the_graph_is_chosen_by_topic_and_limit(client: httpx.AsyncClient) -> None:
    chain = [{"source": a, "target": b} for a, b in zip("ABCD", "BCDE", strict=True)]
    await client.post("/edges", json={"edges": chain})
    await client.post("/nodes", json={"nodes": [{"title": name} for name in "ABCDE"]})

    async def ids(**params: Any) -> tuple[set[str], bool]:
        found = (await client.get("/graph", params=params)).json()
        return {node["id"] for node in found["nodes"]}, found["truncated"]

    assert await ids(topic="A") == (set("ABC"), False)
    assert await ids(topic="A", depth=1) == (set("AB"), False)
    assert await ids(topic="A", depth=3, limit=1) == (set("AB"), True)
    some, truncated = await ids(limit=2)
    assert (len(some), truncated) == (2, True)
    assert (await client.get("/graph", params={"topic": "Nowhere"})).status_code == 404
    assert (await client.get("/graph", params={"limit": 0})).status_code == 422


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [("*/*", "json"), ("", None), ("application/json", "json"), ("application/xml", "graphml"), ("text/html", None),
     ("application/graphml+xml, */*", "json"), ("application/graphml+xml, */*;q=0.1", "graphml"),
     ("application/json;q=0, application/xml", "graphml"), ("application/json;q=0", None),
     ("TEXT/XML;Q=0.5, application/*;q=0.4", "graphml"), ("application/json;q=x", None), (";;,,q", None)],
)  # fmt: skip
def test_the_format_follows_accept(accept: str, chosen: str | None) -> None:
    names = {"json": "application/json", "graphml": "application/graphml+xml"}
    if chosen is None:
        with pytest.raises(Exception, match="accepted here"):
            negotiate(accept)
    else:
        assert negotiate(accept) == names[chosen]


async def test_a_client_that_goes_away_stops_the_export(app: Any, redis: Redis) -> None:
    store = GraphStore(redis, Streams(redis))
    await store.add([Node.titled(f"N{n}", url="u" * 500) for n in range(20_000)], [], owner="ada")
    pieces = 0
    gone = asyncio.Event()

    async def send(message: Any) -> None:
        nonlocal pieces
        if message["type"] == "http.response.body":
            pieces += 1
            gone.set()
            await asyncio.sleep(0)

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": "/graph",
             "raw_path": b"/graph", "query_string": b"", "root_path": "", "scheme": "http", "server": ("x", 80),
             "client": ("y", 1), "headers": [(b"x-api-key", b"k1")]}  # fmt: skip
    async with asyncio.timeout(60):
        await app(scope, receive, send)
    assert 1 <= pieces < 20  # the whole graph has about 200


async def test_nobody_sees_another_owners_graph(client: httpx.AsyncClient) -> None:
    await client.post("/nodes", json=PAGE)
    await client.post("/edges", json=LINK)
    assert (await client.get("/nodes/Julia_set", headers=BOB)).status_code == 404
    assert (await client.get("/nodes/Julia_set/neighbours", headers=BOB)).status_code == 404
    assert (await client.get("/nodes/Fractal/neighbours", headers=BOB)).status_code == 404
    assert (await client.get("/graph", params={"topic": "Julia set"}, headers=BOB)).status_code == 404
    assert (await client.get("/graph", headers=BOB)).json()["nodes"] == []
    assert (await client.post("/nodes", json=PAGE, headers=BOB)).json()["added"] == 1
    posts = [("POST", path) for path in ("/nodes", "/edges", "/graph/rebuild", "/events/query")]
    for method, path in [*posts, ("GET", "/nodes/x"), ("GET", "/nodes/x/neighbours"), ("GET", "/graph")]:
        assert (await client.request(method, path, headers={"X-API-Key": "k3"})).status_code == 401


# Rebuilding, and SQL


async def test_a_rebuild_reports_as_it_goes_and_mends_the_callers_graph(
    client: httpx.AsyncClient, redis: Redis, store: EventStore
) -> None:
    await client.post("/nodes", json=PAGE)
    await client.post("/nodes", json=PAGE, headers=BOB)
    entries = await Streams(redis).tail(keys.GRAPH_STREAM)
    await store.append([(keys.GRAPH_STREAM, entry.id, entry.event) for entry in entries])
    await redis.unlink(keys.graph_nodes("ada"))
    await redis.unlink(keys.graph_nodes("bob"))
    response = await client.post("/graph/rebuild")
    steps = [json.loads(line) for line in response.text.splitlines()]
    assert response.headers["content-type"] == "application/x-ndjson"
    assert [step["done"] for step in steps] == [False] * (len(steps) - 1) + [True]
    assert (steps[-1]["corrected"], steps[-1]["removed"]) == (1, 0)
    assert (await client.get("/nodes/Julia_set")).json()["revision"] == "7"
    assert (await client.get("/nodes/Julia_set", headers=BOB)).status_code == 404


async def test_a_rebuild_that_would_lose_the_graph_says_so(
    client: httpx.AsyncClient, redis: Redis, store: EventStore
) -> None:
    await GraphStore(redis, Streams(redis)).add([], [Edge("A", "B")], owner="ada")
    await redis.xtrim(keys.GRAPH_STREAM, maxlen=0)
    [*_, last] = (await client.post("/graph/rebuild")).text.splitlines()
    assert "DATA_DIR" in json.loads(last)["error"]


async def test_each_key_asks_its_owners_events(client: httpx.AsyncClient, redis: Redis, store: EventStore) -> None:
    await client.post("/nodes", json=PAGE)
    await client.post("/nodes", json={"nodes": [PAGE, {"title": "Fractal"}]}, headers=BOB)
    entries = await Streams(redis).tail(keys.GRAPH_STREAM)
    await store.append([(keys.GRAPH_STREAM, entry.id, entry.event) for entry in entries])
    for headers, expected in ((ADA, 1), (BOB, 2)):
        answer = await client.post("/events/query", json={"sql": "SELECT count(*) FROM nodes"}, headers=headers)
        assert answer.json()["rows"] == [[expected]]
    refused = await client.post("/events/query", json={"sql": "FROM events.main.events"})
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
