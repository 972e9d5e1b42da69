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

from memory.bulk_consumers import IN_HAND, BulkConsumer
from memory.consumers import Consumer
from memory.events import EventsNotStored, EventStore, InvalidEvents, open_events
from memory.keys import GRAPH_STREAM
from memory.streams import Delivered, Event, Streams

ROOT = Path(__file__).parents[2]
GROUP, MEMBER = "masterchat", "mc"
WAYS = ("singly", "bulk")

INGESTER = """
import asyncio, sys
from redis.asyncio import Redis
from memory.bulk_consumers import BulkConsumer
from memory.consumers import Consumer
from memory.events import open_events
from memory.keys import GRAPH_STREAM
async def main():
    url, path, way, stop_at = sys.argv[1:]
    def watched(ingest):
        async def handler(entries):
            if stop_at == "before":
                print("before", flush=True)
                await asyncio.Event().wait()
            await ingest(entries)
            print("committed", flush=True)
            if stop_at == "between":
                await asyncio.Event().wait()
        return handler
    async with Redis.from_url(url) as redis, open_events(path) as store:
        about = redis, GRAPH_STREAM, "masterchat", "mc", watched(store.ingester(GRAPH_STREAM))
        if way == "bulk":
            consumer = BulkConsumer(*about, watched(store.bulk_ingester(GRAPH_STREAM)), batch=300, block_ms=20)
        else:
            consumer = Consumer(*about, batch=300, block_ms=20)
        await consumer.run(asyncio.Event())
asyncio.run(main())
"""


@asynccontextmanager
async def ingester(redis_url: str, path: Path, way: str, stop_at: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that takes the stream in, and is killed at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", INGESTER, redis_url, str(path), way, stop_at,
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


async def catch_up(redis: Redis, store: EventStore, way: str, handler: Any = None) -> None:
    """Run the consumer in this process until it has nothing more to do; ``handler`` in the place of the way's own."""
    stop, ingest = asyncio.Event(), store.ingester(GRAPH_STREAM)
    consumer = (
        BulkConsumer(
            redis, GRAPH_STREAM, GROUP, MEMBER, ingest, handler or store.bulk_ingester(GRAPH_STREAM), block_ms=20
        )
        if way == "bulk"
        else Consumer(redis, GRAPH_STREAM, GROUP, MEMBER, handler or ingest, batch=5_000, block_ms=20)
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
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("stop_at", "committed"), [("before", 0), ("between", 300)])
async def test_a_crash_around_the_commit_loses_and_repeats_nothing(
    redis: Redis, redis_url: str, tmp_path: Path, way: str, stop_at: str, committed: int
) -> None:
    ids = await publish(redis, 300)
    async with ingester(redis_url, tmp_path / "e.duckdb", way, stop_at) as process:
        assert process.stdout is not None
        assert await process.stdout.readline() in (b"before\n", b"committed\n")
        ids += await publish(redis, 200, first=300)
        assert await pending(redis) >= 300  # nothing is acknowledged before the handler has returned
    async with open_events(tmp_path / "e.duckdb") as store:
        assert (await stored(store))[:300] == ids[:committed]  # in bulk, the second batch may be in hand as well
        await catch_up(redis, store, way)
        assert await stored(store) == ids
    assert await pending(redis) == 0


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
async def test_random_kills_under_load_lose_and_repeat_nothing(
    redis: Redis, redis_url: str, tmp_path: Path, way: str
) -> None:
    chance = random.Random(2)
    ids: list[str] = []
    for _ in range(3):
        async with ingester(redis_url, tmp_path / "e.duckdb", way, "never") as process:
            assert process.stdout is not None
            for _ in range(6):
                ids += await publish(redis, 400, first=len(ids))
            for _ in range(chance.randrange(1, 5)):
                assert await process.stdout.readline() == b"committed\n"
    async with open_events(tmp_path / "e.duckdb") as store:
        await catch_up(redis, store, way)
        assert await stored(store) == ids
        assert len(ids) == 7_200


@pytest.mark.parametrize("way", WAYS)
async def test_a_backlog_longer_than_the_stream_is_caught_up_with(redis: Redis, tmp_path: Path, way: str) -> None:
    ids = await publish(redis, 25_000)  # the stream keeps 10,000, and all that nobody has read
    assert await redis.xlen(GRAPH_STREAM) == 25_000
    async with open_events(tmp_path / "e.duckdb") as store:
        await catch_up(redis, store, way)
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

        await catch_up(redis, store, "singly", full_at_first)
        assert await stored(store) == ids
    assert refusals == 2
    assert not await redis.exists(f"{GRAPH_STREAM}:dead")


@pytest.mark.parametrize("way", WAYS)
async def test_an_event_that_comes_twice_under_one_id_is_stored_once(redis: Redis, tmp_path: Path, way: str) -> None:
    ids = await publish(redis, 10)
    async with open_events(tmp_path / "e.duckdb") as store:
        await catch_up(redis, store, way)
        await redis.xgroup_setid(GRAPH_STREAM, GROUP, "0")  # everything is delivered again, and some that is new
        ids += await publish(redis, 5, first=10)
        await catch_up(redis, store, way)
        assert await stored(store) == ids


Entry = dict[Any, Any]

BAD: list[tuple[Entry, str]] = [
    ({"type": "node.add", "ts": "1"}, "data"),
    ({"type": "node.add", "ts": "soon", "agent": "", "task_id": "", "data": "{}"}, "invalid literal"),
    ({"type": "node.add", "ts": str(2**60), "agent": "", "task_id": "", "data": "{}"}, "not milliseconds"),
    ({"type": "node.add", "ts": "1", "agent": "", "task_id": "", "data": "[]"}, "not a JSON object"),
    ({"type": "node.add", "ts": "1", "agent": "", "task_id": "", "data": '{"a":1,}'}, "Expecting property name"),
    ({"type": b"\xff", "ts": "1", "agent": "", "task_id": "", "data": "{}"}, "decode byte"),
    (
        {"type": "t", "ts": "1", "agent": "", "task_id": "", "data": '{"a":' + "[" * 5_000 + "]" * 5_000 + "}"},
        "Recursion",
    ),
]
ODD: list[Entry] = [
    {"type": "t", "ts": "7", "agent": "a", "task_id": "b", "data": '{"a":NaN}'},
    {"type": "t", "ts": "7", "agent": "a", "task_id": "b", "data": '{"a":1e999}'},
    {"type": "t", "ts": "7", "agent": "a", "task_id": "b", "data": '{"a":"\\ud800"}'},
    {"type": "t", "ts": "7", "data": '{"a":1}'},
    {"data": '{"a":1}', "ts": "7", "type": "t"},
    {"type": "t", "ts": "7", "agent": "a", "task_id": "b", "data": '{"a":1,"more":2}', "unknown": "x"},
    {"type": "t", "ts": str(260_000_000_000_000), "agent": "a", "task_id": "b", "data": '{"a":1}'},
    {"type": "t", "ts": "7", "agent": "a", "task_id": "b", "data": '{"a":' + "[" * 300 + "]" * 300 + "}"},
]
PLAIN: list[Entry] = [
    {"type": "t", "ts": "7", "agent": "ä€😀", "task_id": "", "data": '{"a":"ä€😀","b":[1,2.5,true,null,{}]}'},
    {"type": "", "ts": "0", "agent": "", "task_id": "", "data": "{}"},
    {
        "type": "t",
        "ts": "7",
        "agent": "a",
        "task_id": "b",
        "data": '{"a":"\\u0000\\n","n":123456789012345678901234567890}',
    },
    {"type": "t", "ts": "7", "agent": "a", "task_id": "b", "data": '{"long":"' + "x" * 100_000 + '"}'},
]


async def rows(store: EventStore) -> list[Any]:
    found = await store.query("SELECT stream, id, epoch_ms(ts), type, agent, task_id, data FROM events ORDER BY id")
    return list(found.rows)


async def test_both_ways_store_the_same(redis: Redis, tmp_path: Path) -> None:
    await publish(redis, 3)
    for entry in [*PLAIN, *ODD]:
        await redis.xadd(GRAPH_STREAM, entry)
    found = []
    for way in WAYS:
        async with open_events(tmp_path / f"{way}.duckdb") as store:
            await catch_up(redis, store, way)
            found.append(await rows(store))
            assert len([event async for event in store.replay(GRAPH_STREAM)]) == len(found[-1])
        await redis.xgroup_setid(GRAPH_STREAM, GROUP, "0")
    assert len(found[0]) == 3 + len(PLAIN) + len(ODD)
    assert found[0] == found[1]


@pytest.mark.parametrize("odd", [*ODD, *(entry for entry, _ in BAD)])
async def test_one_odd_entry_sends_its_batch_the_slower_way(redis: Redis, tmp_path: Path, odd: Entry) -> None:
    await publish(redis, 2)
    await redis.xadd(GRAPH_STREAM, odd)
    came: Any = await redis.xrange(GRAPH_STREAM)
    entries = [(id_, [part for pair in fields.items() for part in pair]) for id_, fields in came]
    async with open_events(tmp_path / "e.duckdb") as store:
        ingest = store.bulk_ingester(GRAPH_STREAM)
        with pytest.raises(InvalidEvents, match="3 events"):
            await ingest(entries)
        assert await stored(store) == []
        await ingest(entries[:2])
        assert len(await stored(store)) == 2


async def test_what_is_no_event_goes_to_the_dead_letters_and_all_else_is_stored(redis: Redis, tmp_path: Path) -> None:
    ids = await publish(redis, 2)
    for entry, _ in BAD:
        await redis.xadd(GRAPH_STREAM, entry)
    ids += await publish(redis, 2, first=2)
    async with open_events(tmp_path / "e.duckdb") as store:
        await catch_up(redis, store, "bulk")
        assert await stored(store) == ids
    letters: Any = await redis.xrange(f"{GRAPH_STREAM}:dead")
    for (_, letter), (_, reason) in zip(letters, BAD, strict=True):
        assert reason in letter[b"dead_error"].decode()


async def test_a_store_that_cannot_write_in_bulk_is_asked_singly_and_nothing_is_lost(
    redis: Redis, tmp_path: Path
) -> None:
    ids = await publish(redis, 50)
    async with open_events(tmp_path / "e.duckdb") as store:

        async def full(entries: Any) -> None:
            raise EventsNotStored("no space")

        await catch_up(redis, store, "bulk", full)
        assert await stored(store) == ids


async def test_a_stop_finishes_every_batch_in_hand(redis: Redis) -> None:
    await publish(redis, 30)
    stop, release = asyncio.Event(), asyncio.Event()
    begun: list[int] = []

    async def slow(entries: Sequence[Any]) -> None:
        begun.append(len(entries))
        await release.wait()

    async def unused(delivered: Sequence[Delivered]) -> None:
        raise AssertionError(delivered)

    consumer = BulkConsumer(redis, GRAPH_STREAM, GROUP, MEMBER, unused, slow, batch=10, block_ms=20)
    running = asyncio.create_task(consumer.run(stop))
    async with asyncio.timeout(20):
        while len(begun) < IN_HAND:
            await asyncio.sleep(0.01)
        stop.set()
        release.set()
        await running
    assert begun == [10] * IN_HAND
    assert await pending(redis) == 0


async def test_what_a_cancelled_reader_had_in_hand_comes_again(redis: Redis, tmp_path: Path) -> None:
    ids = await publish(redis, 30)
    begun = asyncio.Event()

    async def hangs(entries: Sequence[Any]) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with open_events(tmp_path / "e.duckdb") as store:
        consumer = BulkConsumer(
            redis, GRAPH_STREAM, GROUP, MEMBER, store.ingester(GRAPH_STREAM), hangs, batch=10, block_ms=20
        )
        running = asyncio.create_task(consumer.run(asyncio.Event()))
        await asyncio.wait_for(begun.wait(), 20)
        running.cancel()
        await asyncio.wait({running})
        assert await stored(store) == []
        await catch_up(redis, store, "bulk")
        assert await stored(store) == ids


async def test_the_handler_gets_one_batch_at_a_time(redis: Redis) -> None:
    await publish(redis, 60)
    stop = asyncio.Event()
    busy, handled = 0, 0

    async def refuses(entries: Sequence[Any]) -> None:
        raise InvalidEvents("not this way")

    async def handler(delivered: Sequence[Delivered]) -> None:
        nonlocal busy, handled
        busy += 1
        assert busy == 1
        await redis.ping()
        busy -= 1
        handled += len(delivered)
        if handled == 60:
            stop.set()

    consumer = BulkConsumer(redis, GRAPH_STREAM, GROUP, MEMBER, handler, refuses, batch=10, block_ms=20)
    await asyncio.wait_for(consumer.run(stop), 20)
    assert handled == 60
    assert await pending(redis) == 0
