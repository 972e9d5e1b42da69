"""From the stream into the event store: each event once, whatever dies in between."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from memory.consumers import Consumer
from memory.events import EventsNotStored, EventStore, open_events
from memory.keys import GRAPH_STREAM
from memory.streams import Delivered, Event, Streams

ROOT = Path(__file__).parents[2]
GROUP, MEMBER = "masterchat", "mc"

INGESTER = """
import asyncio, sys
from redis.asyncio import Redis
from memory.consumers import Consumer
from memory.events import open_events
from memory.keys import GRAPH_STREAM
async def main():
    url, path, stop_at = sys.argv[1:]
    async with Redis.from_url(url) as redis, open_events(path) as store:
        ingest = store.ingester(GRAPH_STREAM)
        async def handler(delivered):
            if stop_at == "before":
                print("before", flush=True)
                await asyncio.Event().wait()
            await ingest(delivered)
            print("committed", flush=True)
            if stop_at == "between":
                await asyncio.Event().wait()
        await Consumer(redis, GRAPH_STREAM, "masterchat", "mc", handler, batch=300, block_ms=20).run(asyncio.Event())
asyncio.run(main())
"""


@asynccontextmanager
async def ingester(redis_url: str, path: Path, stop_at: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that takes the stream in, and is killed at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", INGESTER, redis_url, str(path), stop_at,
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        await process.communicate()


async def publish(redis: Redis, count: int, first: int = 0) -> list[str]:
    streams = Streams(redis, max_wait_s=0)
    await streams.setup()
    events = [Event("node.add", {"owner": "ada", "id": f"N{n}"}) for n in range(first, first + count)]
    return await streams.publish(events)


async def pending(redis: Redis) -> int:
    found: Any = await redis.xpending(GRAPH_STREAM, GROUP)
    return int(found["pending"])


async def catch_up(redis: Redis, store: EventStore, handler: Any = None, batch: int = 5_000) -> None:
    """Run the consumer in this process until it has nothing more to do."""
    stop = asyncio.Event()
    consumer = Consumer(
        redis, GRAPH_STREAM, GROUP, MEMBER, handler or store.ingester(GRAPH_STREAM), batch=batch, block_ms=20
    )
    running = asyncio.create_task(consumer.run(stop))
    async with asyncio.timeout(60):
        while True:
            backlog = (await Streams(redis).backlog())[GRAPH_STREAM].groups[GROUP]
            if backlog.lag == backlog.pending == 0:
                break
            await asyncio.sleep(0.02)
    stop.set()
    await running


async def stored(store: EventStore) -> list[str]:
    result = await store.query("SELECT id FROM events ORDER BY stream_order(id)", max_rows=10**6)
    return [row[0] for row in result.rows]


@pytest.mark.slow
@pytest.mark.parametrize(("stop_at", "committed"), [("before", 0), ("between", 300)])
async def test_a_crash_around_the_commit_loses_and_repeats_nothing(
    redis: Redis, redis_url: str, tmp_path: Path, stop_at: str, committed: int
) -> None:
    ids = await publish(redis, 500)
    async with ingester(redis_url, tmp_path / "e.duckdb", stop_at) as process:
        assert process.stdout is not None
        assert await process.stdout.readline() in (b"before\n", b"committed\n")
        assert await pending(redis) == 300  # nothing is acknowledged before the handler has returned
    async with open_events(tmp_path / "e.duckdb") as store:
        assert len(await stored(store)) == committed
        await catch_up(redis, store)
        assert await stored(store) == ids
    assert await pending(redis) == 0


@pytest.mark.slow
async def test_random_kills_under_load_lose_and_repeat_nothing(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    chance = random.Random(2)
    ids: list[str] = []
    for _ in range(3):
        async with ingester(redis_url, tmp_path / "e.duckdb", "never") as process:
            assert process.stdout is not None
            for _ in range(6):
                ids += await publish(redis, 400, first=len(ids))
            for _ in range(chance.randrange(1, 5)):
                assert await process.stdout.readline() == b"committed\n"
    async with open_events(tmp_path / "e.duckdb") as store:
        await catch_up(redis, store)
        assert await stored(store) == ids
        assert len(ids) == 7_200


async def test_a_backlog_longer_than_the_stream_is_caught_up_with(redis: Redis, tmp_path: Path) -> None:
    ids = await publish(redis, 25_000)  # the stream keeps 10,000, and all that nobody has read
    assert await redis.xlen(GRAPH_STREAM) == 25_000
    async with open_events(tmp_path / "e.duckdb") as store:
        await catch_up(redis, store)
        assert await stored(store) == ids
    await Streams(redis).trim(GRAPH_STREAM)
    assert await redis.xlen(GRAPH_STREAM) <= 11_000


async def test_a_store_that_cannot_write_keeps_the_events_on_the_stream(redis: Redis, tmp_path: Path) -> None:
    ids = await publish(redis, 50)
    refusals = 0
    async with open_events(tmp_path / "e.duckdb") as store:
        ingest = store.ingester(GRAPH_STREAM)

        async def full_at_first(delivered: Sequence[Delivered]) -> None:
            nonlocal refusals
            if refusals < 2:
                refusals += 1
                assert await pending(redis) == 50
                raise EventsNotStored("no space")
            await ingest(delivered)

        await catch_up(redis, store, full_at_first)
        assert await stored(store) == ids
    assert refusals == 2
    assert not await redis.exists(f"{GRAPH_STREAM}:dead")


async def test_an_event_that_comes_twice_under_one_id_is_stored_once(redis: Redis, tmp_path: Path) -> None:
    ids = await publish(redis, 10)
    async with open_events(tmp_path / "e.duckdb") as store:
        await catch_up(redis, store)
        await redis.xgroup_setid(GRAPH_STREAM, GROUP, "0")  # everything is delivered again
        await catch_up(redis, store)
        assert await stored(store) == ids
