"""The graph's state, made again from the events of a real event store and a real stream."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from memory import keys
from memory.events import EventStore, open_events
from memory.graph import Counts, Edge, GraphStore, Node
from memory.graph_rebuild import TYPES, GraphRebuild, NothingToRebuildFrom, Rebuilt
from memory.keys import GRAPH_STREAM
from memory.streams import Event, Streams

Entries = list[tuple[str, Event]]


async def dump(redis: Redis) -> dict[bytes, Any]:
    """Every key of the graph with its content, whatever its type."""
    content: dict[bytes, Any] = {}
    async for key in redis.scan_iter(match="lumina:*"):
        match await redis.type(key):
            case b"hash":
                content[key] = await redis.hgetall(key)
            case b"zset":
                content[key] = await redis.zrange(key, 0, -1)
            case b"set":
                content[key] = await redis.smembers(key)
    return content


async def finish(rebuild: GraphRebuild) -> Rebuilt:
    steps = [step async for step in rebuild.run()]
    assert [step.done for step in steps] == [False] * (len(steps) - 1) + [True]
    return steps[-1]


async def take_in(redis: Redis, store: EventStore) -> None:
    """Move what lies on the stream into the store, and nothing stays on the stream."""
    entries = await Streams(redis).tail(GRAPH_STREAM, count=1_000_000)
    await store.append([(GRAPH_STREAM, entry.id, entry.event) for entry in entries])
    await redis.xtrim(GRAPH_STREAM, maxlen=0)


@pytest.fixture
async def graph(redis: Redis) -> GraphStore:
    return GraphStore(redis, Streams(redis))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EventStore]:
    async with open_events(tmp_path / "events.duckdb") as opened:
        yield opened


def rebuilding(redis: Redis, store: EventStore, owner: str | None = None) -> GraphRebuild:
    return GraphRebuild(redis, lambda: store.replay(GRAPH_STREAM, TYPES, owner=owner), owner)


async def grow(graph: GraphStore, chance: random.Random, owner: str, steps: int = 1) -> None:
    """Some updates, some repetitions, some edges to nodes that never come."""
    for _ in range(steps):
        nodes = [Node.titled(f"Page {chance.randrange(60)}", revision=str(chance.randrange(4)),
                             data={"é": [None, chance.randrange(2)]}) for _ in range(10)]  # fmt: skip
        ends = [(f"Page_{chance.randrange(60)}", f"Page_{chance.randrange(90)}") for _ in range(10)]
        types = ("links_to", "cites")
        edges = [Edge(*pair, chance.choice(types), {"w": chance.randrange(3)}) for pair in ends]
        await graph.add(nodes, edges, owner=owner, agent="crawl")


async def damage(redis: Redis, chance: random.Random, owner: str) -> None:
    """Lose some, invent some, put some back to an earlier state."""
    nodes, edges = keys.graph_nodes(owner), keys.graph_edges(owner)
    for key in (nodes, edges):
        for field in (await redis.hkeys(key))[:10]:
            await redis.hdel(key, field)
        for field in (await redis.hkeys(key))[10:20]:
            await redis.hset(key, field, '1-0 {"title": "old"}')
    await redis.hset(nodes, "Invented", '9-9 {"title": "Invented"}')
    await redis.hset(edges, "A\x1flinks_to\x1fB", "9-9 {}")
    await redis.zadd(keys.graph_links(owner, "out", "A"), {"links_to\x1fB": 0, "no link at all": 0})
    await redis.zadd(keys.graph_links(owner, "in", f"Page_{chance.randrange(60)}"), {"links_to\x1fNowhere": 0})
    links = [name async for name in redis.scan_iter(match=f"lumina:{{{owner}}}:graph:out:*")]
    for name in links[:5]:
        await redis.unlink(name)


@pytest.mark.parametrize("seed", range(4))
async def test_after_any_history_both_states_are_the_same(
    redis: Redis, graph: GraphStore, store: EventStore, seed: int
) -> None:
    chance = random.Random(seed)
    owners = ("ada", "bob", "d*[b]?")
    for _ in range(12):
        await grow(graph, chance, chance.choice(owners))
        if chance.random() < 0.4:
            await take_in(redis, store)  # the rest is still on the stream when the rebuild begins
    before = await dump(redis)
    if seed:
        for owner in await graph.owners():
            await damage(redis, chance, owner)
    if seed == 3:
        await redis.unlink(*[name async for name in redis.scan_iter(match="lumina:*")])
    rebuilt = await finish(rebuilding(redis, store))
    assert await dump(redis) == before
    assert (rebuilt.events > 0, rebuilt.skipped) == (True, 0)
    assert (rebuilt.corrected > 0, rebuilt.removed > 0) == (seed > 0, seed in (1, 2))
    again = await finish(rebuilding(redis, store))
    assert (again.corrected, again.removed) == (0, 0)
    await take_in(redis, store)
    in_store = (await store.query("SELECT owner, id, revision FROM nodes ORDER BY ALL")).rows
    in_redis = [[owner, node.id, node.revision] for owner in await graph.owners() async for node in graph.nodes(owner)]
    assert sorted(in_redis) == in_store  # the view says the same


async def test_the_order_of_the_events_does_not_matter(redis: Redis, graph: GraphStore, store: EventStore) -> None:
    for revision in ("1", "2", "3"):
        await graph.add([Node.titled("A", revision=revision)], [Edge("A", "B", data={"r": revision})], owner="ada")
    before = await dump(redis)
    await take_in(redis, store)
    entries = [entry async for entry in store.replay(GRAPH_STREAM)]
    for order in (entries, entries[::-1], entries[2:] + entries[:2] + entries):
        await redis.unlink(*before)

        async def replay(order: Entries = order) -> AsyncIterator[tuple[str, Event]]:
            for entry in order:
                yield entry

        await finish(GraphRebuild(redis, replay))
        assert await dump(redis) == before


async def test_no_reader_finds_the_graph_empty_and_no_writer_is_lost(
    redis: Redis, graph: GraphStore, store: EventStore
) -> None:
    chance = random.Random(11)
    await graph.add([Node.titled(f"Old {n}") for n in range(3_000)], [Edge("Old_0", f"Old_{n}") for n in range(3_000)],
                    owner="ada")  # fmt: skip
    await take_in(redis, store)
    sizes: list[Counts] = []
    rebuilt, steps = None, 0
    async for step in rebuilding(redis, store).run():
        rebuilt, steps = step, steps + 1
        await grow(graph, chance, "ada")  # between any two steps somebody writes, and the store takes some of it in
        if steps % 3 == 0:
            await take_in(redis, store)
        sizes.append(await graph.counts("ada"))
        near = await graph.neighbours("ada", "Old_0", limit=1_000)
        assert len(near.nodes) > 900
    assert rebuilt is not None
    assert rebuilt.done
    assert steps > 10
    assert [size.nodes for size in sizes] == sorted(size.nodes for size in sizes)
    assert sizes[0].nodes >= 3_000
    after = await dump(redis)
    await take_in(redis, store)
    last = await finish(rebuilding(redis, store))
    assert (last.corrected, last.removed) == (0, 0)
    assert await dump(redis) == after


async def test_writers_at_the_same_time_lose_nothing(redis: Redis, graph: GraphStore, store: EventStore) -> None:
    chance = random.Random(5)
    await grow(graph, chance, "ada", 10)
    await take_in(redis, store)

    async def write(seed: int) -> None:
        await grow(graph, random.Random(seed), "ada", 15)

    await asyncio.gather(
        write(1), write(2), finish(rebuilding(redis, store)), finish(rebuilding(redis, store)), write(3)
    )
    after = await dump(redis)
    last = await finish(rebuilding(redis, store))
    assert (last.corrected, last.removed) == (0, 0)
    assert await dump(redis) == after


async def test_a_rebuild_that_was_given_up_has_done_no_harm(redis: Redis, graph: GraphStore, store: EventStore) -> None:
    await grow(graph, random.Random(1), "ada", 5)
    before = await dump(redis)
    steps = len([step async for step in rebuilding(redis, store).run()])
    for stop in range(1, steps):
        running = rebuilding(redis, store).run()
        for _ in range(stop):
            await anext(running)
        await running.aclose()
        assert await dump(redis) == before


async def test_an_owner_rebuilds_own_graph_only(redis: Redis, graph: GraphStore, store: EventStore) -> None:
    for owner in ("ada", "bob"):
        await grow(graph, random.Random(1), owner, 3)
    await take_in(redis, store)
    for owner in ("ada", "bob"):
        await redis.hset(keys.graph_nodes(owner), "Invented", '9-9 {"title": "Invented"}')
    assert (await finish(rebuilding(redis, store, "ada"))).removed == 1
    assert not await redis.hexists(keys.graph_nodes("ada"), "Invented")
    assert await redis.hexists(keys.graph_nodes("bob"), "Invented")


async def test_a_graph_is_not_thrown_away_for_an_empty_store(
    redis: Redis, graph: GraphStore, store: EventStore
) -> None:
    assert await finish(rebuilding(redis, store)) == Rebuilt(done=True)
    await grow(graph, random.Random(1), "ada")
    await redis.xtrim(GRAPH_STREAM, maxlen=0)
    before = await dump(redis)
    with pytest.raises(NothingToRebuildFrom, match="DATA_DIR"):
        await finish(rebuilding(redis, store))
    assert await dump(redis) == before


async def test_events_that_hold_no_node_are_skipped_and_counted(
    redis: Redis, graph: GraphStore, store: EventStore
) -> None:
    await store.append([
        (GRAPH_STREAM, "1-0", Event("node.add", {"owner": "ada", "id": "A"})),
        (GRAPH_STREAM, "2-0", Event("edge.add", {"owner": "ada", "source": 3})),
        (GRAPH_STREAM, "3-0", Event("chat.message", {})),
        (GRAPH_STREAM, "4-0", Event("node.add", {"owner": "ada", "title": "Fine"})),
    ])  # fmt: skip
    rebuilt = await finish(rebuilding(redis, store))
    assert (rebuilt.events, rebuilt.skipped, rebuilt.corrected) == (1, 2, 1)
    assert (await graph.node("ada", "Fine")).title == "Fine"
