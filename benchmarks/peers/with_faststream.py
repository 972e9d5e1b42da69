"""A Redis stream into DuckDB through FastStream's batch consumer: ``with_faststream.py SOCKET STREAM COUNT BATCH``.

The rows of a batch go in as lists in one statement, which DuckDB takes far faster than ``executemany``.
"""

import asyncio
import json
import sys
import tempfile
import time

import duckdb
from faststream.redis import RedisBroker, RedisStreamMessage, StreamSub

path, stream, count, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
GROUP = "faststream"
INSERT = """
INSERT INTO events SELECT $1, unnest($2::TEXT[]), unnest($3::BIGINT[]), unnest($4::TEXT[]), unnest($5::JSON[])
ON CONFLICT DO NOTHING
"""


async def main(folder):
    connection = duckdb.connect(f"{folder}/peer.duckdb")
    connection.execute(
        "CREATE TABLE events (stream TEXT, id TEXT, ts BIGINT, type TEXT, data JSON, PRIMARY KEY (stream, id))"
    )
    broker = RedisBroker(f"unix://{path}", logger=None)
    taken, done = 0, asyncio.Event()

    @broker.subscriber(stream=StreamSub(stream, group=GROUP, consumer="mc", batch=True, max_records=batch, last_id=">"))
    async def store(events: list[dict], message: RedisStreamMessage) -> None:
        nonlocal taken
        ids = [one.decode() for one in message.raw_message["message_ids"]]
        rows = [(int(one["ts"]), one["type"], one["data"]) for one in events]
        texts = [data if isinstance(data, str) else json.dumps(data) for _, _, data in rows]
        connection.execute(INSERT, [stream, ids, [row[0] for row in rows], [row[1] for row in rows], texts])
        taken += len(ids)
        if taken >= count:
            done.set()

    began = time.perf_counter()
    await broker.start()
    await done.wait()
    seconds = time.perf_counter() - began
    await broker.stop()
    held = connection.execute("SELECT count(*) FROM events").fetchone()[0]
    assert held == count, held
    connection.close()
    print(json.dumps({"events/s": count / seconds}))


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(folder))
