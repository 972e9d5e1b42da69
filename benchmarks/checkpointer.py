"""Lumina's checkpointer beside its peers and its limit: ``python -m benchmarks.checkpointer [--short]``.

Puts and gets of single checkpoints, runs of ten steps one after the other and sixteen at once, states of 1 KB and of
100 KB; bytes as ``MEMORY USAGE`` counts them; and a long thread of a 100 KB state of which a small channel changes.
*Limit*: a raw pipelined round trip of the same bytes on the same client. *Peers*: InMemorySaver; after ``make
bench-peers`` AsyncValkeySaver of langgraph-checkpoint-aws and AsyncSqliteSaver. Both clients of the server parse in C
(hiredis, libvalkey); Valkey's saver has a pool of a thousand connections, for the usual ten fail at sixteen runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from redis.asyncio import Redis
from typing_extensions import TypedDict

from benchmarks.engine import open_valkey
from benchmarks.figures import Figures
from benchmarks.harness import add_peers, finish, options, rounds_of
from memory.checkpoint_records import Place, Record
from memory.checkpoints import RedisSaver

EXPECTATION = (
    "1 KB: puts as fast as Valkey's saver and 0.7 of the raw round trip; 100 KB: gets three times, puts 1.5 and runs "
    "1.3 times Valkey's, for only what has changed is written and what was read last is remembered; a third of the "
    "bytes kept; at most 3 KB a checkpoint when a small channel changes, however long the thread"
)
SIZES = {"1 KB": 1_000, "100 KB": 100_000}
OPERATIONS = 60
RUNS = 3
STEPS = 10
LONG, LONG_SHORT = 1_000, 250


class State(TypedDict):
    payload: list[str]
    step: int


def payload(size: int) -> list[str]:
    """Text of about ``size`` bytes in short pieces that do not compress or repeat."""
    return [random.randbytes(24).hex() for _ in range(size // 50)]


def graph(saver: Any) -> Any:
    """A chain of ten nodes; each changes the small channel only."""
    builder: Any = StateGraph(State)
    names = [f"node{number}" for number in range(STEPS)]
    for name in names:
        builder.add_node(name, lambda state: {"step": state["step"] + 1})
    for source, target in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(source, target)
    return builder.compile(checkpointer=saver)


def checkpoint_of(saver: Any, state: dict[str, Any], previous: Checkpoint | None) -> tuple[Checkpoint, dict[str, Any]]:
    """The next checkpoint with this state, and the versions of the channels whose value is another object."""
    versions: dict[str, Any] = dict(previous["channel_versions"]) if previous else {}
    old = previous["channel_values"] if previous else {}
    new = {
        name: saver.get_next_version(versions.get(name), None)
        for name, value in state.items()
        if old.get(name) is not value
    }
    versions |= new
    checkpoint = empty_checkpoint() | {
        "id": str(uuid6()),
        "channel_values": state,
        "channel_versions": versions,
        "versions_seen": {f"node{number}": versions.copy() for number in range(3)},
    }
    return checkpoint, new


class Raw:
    """One pipelined round trip of the bytes that a saver must at least move."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.serde = RedisSaver(redis).serde

    async def send(self, thread: str, record: bytes, blobs: dict[str, bytes]) -> None:
        self.name, self.channels = str(uuid6()), list(blobs)
        pipe = self.redis.pipeline(transaction=False)
        pipe.hset(f"raw:{{{thread}}}:records", self.name, record)
        items = [part for channel, blob in blobs.items() for part in (self.name + channel, blob)]
        pipe.hset(f"raw:{{{thread}}}:blobs", items=items)
        await pipe.execute()

    async def take(self, thread: str) -> None:
        pipe = self.redis.pipeline(transaction=False)
        pipe.hget(f"raw:{{{thread}}}:records", self.name)
        pipe.hmget(f"raw:{{{thread}}}:blobs", [self.name + channel for channel in self.channels])
        await pipe.execute()


async def rate(times: int, work: Callable[[], Awaitable[Any]]) -> float:
    """How often a second, by the median time, for a moment that a neighbour takes is nobody's cost; what the benchmark
    itself has allocated is hidden from the garbage collector."""
    gc.collect()
    gc.freeze()
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        await work()
        seconds.append(time.perf_counter() - started)
    gc.unfreeze()
    return 1 / statistics.median(seconds)


async def puts_and_gets(saver: Any, size: int, *, all_new: bool = True) -> tuple[float, float]:
    """Puts a second with everything changed each time (or the small channel only), gets a second of the latest."""
    thread = f"bench-{random.getrandbits(64):x}"
    config: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
    data = payload(size)
    ready = []
    previous = None
    for number in range(OPERATIONS):
        previous, new = checkpoint_of(saver, {"payload": list(data) if all_new else data, "step": number}, previous)
        ready.append((previous, new))
    queue = iter(ready)
    at = config

    async def put() -> None:
        nonlocal at
        checkpoint, new = next(queue)
        at = await saver.aput(at, checkpoint, {"source": "loop", "step": checkpoint["channel_values"]["step"]}, new)

    puts = await rate(OPERATIONS, put)
    gets = await rate(OPERATIONS, lambda: saver.aget_tuple(config))
    await saver.adelete_thread(thread)
    return puts, gets


async def raw_puts_and_gets(redis: Redis, size: int) -> tuple[float, float]:
    raw, saver = Raw(redis), RedisSaver(redis)
    thread = f"raw-{random.getrandbits(64):x}"
    checkpoint, _ = checkpoint_of(saver, {"payload": payload(size), "step": 1}, None)
    place = Place(thread, "", "")
    record = Record.of(checkpoint, {"source": "loop", "step": 1}, str(uuid6())).encode(saver.serde, place)
    blobs = {name: saver.serde.dumps_typed(value)[1] for name, value in checkpoint["channel_values"].items()}
    puts = await rate(OPERATIONS, lambda: raw.send(thread, record, blobs))
    gets = await rate(OPERATIONS, lambda: raw.take(thread))
    return puts, gets


async def runs(saver: Any, size: int, at_once: int = 1) -> float:
    """Ten-step runs a second."""
    chain, data = graph(saver), payload(size)

    async def run() -> None:
        config = {"configurable": {"thread_id": f"run-{random.getrandbits(64):x}"}}
        await chain.ainvoke({"payload": data, "step": 0}, config)

    if at_once == 1:
        return await rate(RUNS, run)
    return at_once * await rate(1, lambda: asyncio.gather(*(run() for _ in range(at_once))))


async def kept(redis: Redis) -> int:
    """Bytes that all keys take."""
    names = [name async for name in redis.scan_iter(count=1000)]
    return sum([int(await redis.memory_usage(name, samples=0) or 0) for name in names])


async def kept_by_runs(redis: Redis, saver: Any, size: int) -> float:
    await redis.flushall()
    chain = graph(saver)
    for number in range(3):
        await chain.ainvoke({"payload": payload(size), "step": 0}, {"configurable": {"thread_id": f"kept-{number}"}})
    return await kept(redis) / 3


async def long_thread(redis: Redis, saver: Any, length: int) -> dict[str, float]:
    """So many checkpoints of a 100 KB state of which a small channel changes; the last hundred beside the first."""
    await redis.flushall()
    state: dict[str, Any] = {"payload": payload(100_000), "step": 0}
    at: Any = {"configurable": {"thread_id": "long", "checkpoint_ns": ""}}
    previous, seconds, gets, start_bytes = None, [], [], 0
    for number in range(length):
        previous, new = checkpoint_of(saver, state | {"step": number}, previous)
        started = time.perf_counter()
        at = await saver.aput(at, previous, {"source": "loop", "step": number}, new)
        seconds.append(time.perf_counter() - started)
        if number in (0, 100):
            start_bytes = await kept(redis)
        if 10 <= number < 110 or number >= length - 100:
            started = time.perf_counter()
            await saver.aget_tuple({"configurable": {"thread_id": "long", "checkpoint_ns": ""}})
            gets.append(time.perf_counter() - started)
    bytes_each = (await kept(redis) - start_bytes) / (length - 101)
    return {
        "put slows by %": 100 * statistics.median(seconds[-100:]) / statistics.median(seconds[10:110]) - 100,
        "get slows by %": 100 * statistics.median(gets[-100:]) / statistics.median(gets[:100]) - 100,
        "bytes a checkpoint": bytes_each,
    }


@contextlib.asynccontextmanager
async def savers(redis: Redis, socket: str, folder: str) -> AsyncIterator[dict[str, Any]]:
    """Everyone who can take part."""
    async with contextlib.AsyncExitStack() as stack:
        everyone: dict[str, Any] = {
            "lumina": RedisSaver(redis),
            "lumina without cache": RedisSaver(redis, cache_bytes=0),
            "memory": InMemorySaver(),
        }
        await everyone["lumina"].setup()
        if importlib.util.find_spec("langgraph_checkpoint_aws"):
            from langgraph_checkpoint_aws import AsyncValkeySaver  # type: ignore[import-not-found]  # a peer
            from valkey.asyncio import Valkey
            from valkey.utils import LIBVALKEY_AVAILABLE

            assert LIBVALKEY_AVAILABLE, "the peer's client would parse in Python: make bench-peers"
            client = Valkey.from_url(f"unix://{socket}", max_connections=1_000)
            stack.push_async_callback(client.aclose)
            everyone["valkey"] = AsyncValkeySaver(client)
        if importlib.util.find_spec("langgraph.checkpoint.sqlite"):
            from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver  # type: ignore[import-not-found]  # a peer

            everyone["sqlite"] = await stack.enter_async_context(AsyncSqliteSaver.from_conn_string(f"{folder}/peer.db"))
        yield everyone


async def measure(redis: Redis, everyone: dict[str, Any], figures: Figures, rounds: int, length: int) -> None:
    note = figures.note
    for _ in range(rounds):
        for label, size in SIZES.items():
            await redis.flushall()
            for who, saver in everyone.items():
                put, get = await puts_and_gets(saver, size)
                note(f"{label} puts/s", who, put)
                note(f"{label} gets/s", who, get)
                note(f"{label} puts/s, small change", who, (await puts_and_gets(saver, size, all_new=False))[0])
            put, get = await raw_puts_and_gets(redis, size)
            note(f"{label} puts/s", "raw", put)
            note(f"{label} gets/s", "raw", get)
            for who, saver in everyone.items():
                note(f"{label} runs/s", who, await runs(saver, size))
                note(f"{label} runs/s, 16 at once", who, await runs(saver, size, 16))
    for label, size in SIZES.items():
        for who in [name for name in ("lumina", "valkey") if name in everyone]:
            note(f"{label} bytes kept a run", who, await kept_by_runs(redis, everyone[who], size))
    for who in [name for name in ("lumina", "valkey") if name in everyone]:
        for what, value in (await long_thread(redis, everyone[who], length)).items():
            note(f"thread of {length:,}: {what}", who, value)


async def main(figures: Figures, rounds: int, length: int) -> None:
    async with open_valkey() as (redis, socket):
        with tempfile.TemporaryDirectory() as folder:
            async with savers(redis, socket, folder) as everyone:
                for who in {"valkey", "sqlite"} - everyone.keys():
                    figures.left_out[who] = "not installed: `make bench-peers`"
                await measure(redis, everyone, figures, rounds, length)


if __name__ == "__main__":
    given = options(__doc__, rounds=9).parse_args()
    add_peers()
    collected = Figures("checkpointer", expectation=EXPECTATION)
    asyncio.run(main(collected, rounds_of(given), LONG_SHORT if given.short else LONG))
    finish(collected, given)
