"""From a Redis stream into DuckDB, a batch at a time: ``python -m benchmarks.ingest [--short]``.

*Lumina*: ``BulkConsumer`` and the event store's ingesters, each event once. *Limits*: read and acknowledge; the same,
each entry made an ``Event``. *Peers*: ``executemany`` of the same rows, on a hundredth of the events; FastStream's
batch consumer with one statement a batch, in a process of its own. Another turn breaks
Lumina's reader off half-way and starts it again: the store has to hold every event once. All read the same entries,
each in a group of its own. Then the lag: milliseconds from the moment an event is made until it is committed, at
5,000 a second.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import duckdb
from redis.asyncio import Redis

from benchmarks.engine import open_valkey
from benchmarks.figures import Figures
from benchmarks.harness import Work, finish, options, peers, rounds_of, run_peer, take_turns
from memory.bulk_consumers import BulkConsumer
from memory.event_columns import RawEntry
from memory.events import EventStore, open_events
from memory.keys import GRAPH_STREAM
from memory.streams import Delivered, Event, Streams, now_ms

EXPECTATION = (
    "0.75 of the limit is the goal; JSON, Arrow and DuckDB cost about as much as reading, so 0.2 to 0.3 of the "
    "bare read, and half of the parsed one; a hundred times executemany"
)
BATCH = 5_000
RATE = "events/s"
PER_S, SLICE = 5_000, 100


def made(number: int) -> Event:
    data = {
        "owner": "local",
        "id": f"Node_{number}",
        "title": f"Node {number}",
        "url": "",
        "revision": "1",
        "source": "s",
    }
    return Event("node.add", {**data, "data": {"links": number % 50}}, agent="crawl", task_id="task")


async def filled(redis: Redis, count: int) -> None:
    """The stream with this many events, and a group for each contender, so that nothing is trimmed."""
    await redis.flushall()
    for group in ("lumina", "broken", "bare", "parsed", "executemany", "faststream"):
        await redis.xgroup_create(GRAPH_STREAM, group, "0", mkstream=True)
    for start in range(0, count, 1_000):
        pipeline = redis.pipeline(transaction=False)
        for number in range(start, min(count, start + 1_000)):
            fields: dict[Any, Any] = made(number).to_fields()
            pipeline.xadd(GRAPH_STREAM, fields)
        await pipeline.execute()


async def ingested(redis: Redis, store: EventStore, group: str, count: int, *, broken_off: bool = False) -> float:
    """Seconds until the store holds everything."""
    handle, bulk = store.ingester(GRAPH_STREAM), store.bulk_ingester(GRAPH_STREAM)
    stop, half = asyncio.Event(), asyncio.Event()
    taken, last = 0, await Streams(redis).last_id(GRAPH_STREAM)

    def count_in(new: int, newest: str) -> None:
        nonlocal taken
        taken += new
        if taken >= count // 2:
            half.set()
        if newest == last:
            stop.set()

    async def counted(delivered: Sequence[Delivered]) -> None:
        await handle(delivered)
        count_in(len(delivered), delivered[-1].id)

    async def counted_bulk(entries: Sequence[RawEntry]) -> None:
        await bulk(entries)
        count_in(len(entries), entries[-1][0].decode())

    def reader() -> asyncio.Task[None]:
        consumer = BulkConsumer(redis, GRAPH_STREAM, group, "mc", counted, counted_bulk, batch=BATCH, block_ms=100)
        return asyncio.create_task(consumer.run(stop))

    began = time.perf_counter()
    running = reader()
    if broken_off:
        await half.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        running = reader()
    await running
    seconds = time.perf_counter() - began
    held = await store.query("SELECT count(*) FROM events")
    assert held.rows[0][0] == count, held.rows
    return seconds


async def with_lumina(redis: Redis, group: str, count: int) -> Mapping[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        async with open_events(Path(folder) / "events.duckdb") as store:
            seconds = await ingested(redis, store, group, count, broken_off=group == "broken")
    return {RATE: count / seconds}


async def read(redis: Redis, group: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    streams: dict[Any, Any] = {GRAPH_STREAM: ">"}
    reply: Any = await redis.xreadgroup(group, "mc", streams, count=BATCH)
    entries: list[tuple[bytes, dict[bytes, bytes]]] = reply[0][1] if reply else []
    return entries


async def limit(redis: Redis, count: int, *, parse: bool) -> Mapping[str, float]:
    group, left = "parsed" if parse else "bare", count
    began = time.perf_counter()
    while left:
        entries = await read(redis, group)
        if parse:
            assert [Event.from_fields(fields) for _, fields in entries]
        await redis.xack(GRAPH_STREAM, group, *(id_ for id_, _ in entries))
        left -= len(entries)
    return {RATE: count / (time.perf_counter() - began)}


async def with_executemany(redis: Redis, count: int) -> Mapping[str, float]:
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(f"{folder}/peer.duckdb") as connection:
        connection.execute(
            "CREATE TABLE events (stream TEXT, id TEXT, ts BIGINT, type TEXT, data JSON, PRIMARY KEY (stream, id))"
        )
        began = time.perf_counter()
        entries = (await read(redis, "executemany"))[:count]
        rows = [
            (GRAPH_STREAM, id_.decode(), int(one[b"ts"]), one[b"type"].decode(), one[b"data"].decode())
            for id_, one in entries
        ]
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)
        connection.execute("COMMIT")
        await redis.xack(GRAPH_STREAM, "executemany", *(id_ for id_, _ in entries))
        return {RATE: len(rows) / (time.perf_counter() - began)}


async def with_faststream(path: str, count: int) -> Mapping[str, float]:
    return await run_peer("with_faststream", path, GRAPH_STREAM, count, BATCH)


async def lags(redis: Redis, seconds: float) -> list[float]:
    """Milliseconds from made to committed, of each event."""
    await redis.flushall()
    found: list[float] = []
    stop = asyncio.Event()
    total = int(PER_S * seconds)
    with tempfile.TemporaryDirectory() as folder:
        async with open_events(Path(folder) / "events.duckdb") as store:
            bulk = store.bulk_ingester(GRAPH_STREAM)

            async def noted(entries: Sequence[RawEntry]) -> None:
                await bulk(entries)
                now = now_ms()
                found.extend(
                    now - int(dict(zip(fields[::2], fields[1::2], strict=True))[b"ts"]) for _, fields in entries
                )
                if len(found) >= total:
                    stop.set()

            reader = BulkConsumer(
                redis, GRAPH_STREAM, "masterchat", "mc", store.ingester(GRAPH_STREAM), noted, batch=BATCH, block_ms=100
            )
            running = asyncio.create_task(reader.run(stop))
            streams, began = Streams(redis), time.perf_counter()
            for start in range(0, total, SLICE):
                await asyncio.sleep(began + start / PER_S - time.perf_counter())
                await streams.publish([made(number) for number in range(start, start + SLICE)])
            await running
    return found


async def main(figures: Figures, rounds: int, count: int, lag_s: float) -> None:
    async with open_valkey() as (redis, path):
        contenders: dict[str, Work] = {
            "lumina": partial(with_lumina, redis, "lumina", count),
            "lumina, broken off half-way": partial(with_lumina, redis, "broken", count),
            "read and acknowledge": partial(limit, redis, count, parse=False),
            "read, parse, acknowledge": partial(limit, redis, count, parse=True),
            "executemany": partial(with_executemany, redis, count // 100),
            **peers(figures, {"FastStream": partial(with_faststream, path, count)}),
        }
        for _ in range(rounds):
            await filled(redis, count)
            await take_turns(figures, contenders, 1)
        for _ in range(rounds):
            found = await lags(redis, lag_s)
            figures.note("lag at 5,000 events/s, p99 ms", "lumina", statistics.quantiles(found, n=100)[98])


if __name__ == "__main__":
    given = options(__doc__, rounds=5).parse_args()
    collected = Figures("ingest", expectation=EXPECTATION)
    size, lag_s = (20_000, 2.0) if given.short else (200_000, 10.0)
    asyncio.run(main(collected, rounds_of(given), size, lag_s))
    finish(collected, given)
