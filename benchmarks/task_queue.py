"""What a task costs that does nothing: ``python -m benchmarks.task_queue [--short]``.

*Lumina*: ``TaskQueue`` with heartbeats, fencing, events and dead letters on; a worker takes the next task with the step
that ends the one before, as ``lumina worker`` does. *Limit*: XADD, XREADGROUP of one entry and XACK. *Peers*:
taskiq-redis on its stream broker, arq; each in a process of its own, after ``make bench-peers``. All have sixteen
submitters, then sixteen workers in one process, and the same server over its unix socket.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from redis.asyncio import Redis

from benchmarks.engine import open_valkey
from benchmarks.figures import Figures
from benchmarks.harness import Work, finish, options, peers, rounds_of, run_peer, take_turns
from memory.streams import Streams
from memory.tasks import Lease, TaskQueue, hold

EXPECTATION = (
    "three round trips a task (claim, complete, and the submit before) against two and one: about 0.4 of the bare"
    " stream; at least three times the faster peer"
)
WORKERS = 16
KINDS = ["noop"]
IDLE_S = 5.0
SUBMITTED, RUN = "submitted/s", "run/s"


async def side_by_side(count: int, work: Callable[[int], Awaitable[None]]) -> float:
    """How many a second, by sixteen at a time."""
    left = iter(range(count))

    async def one() -> None:
        for number in left:
            await work(number)

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(WORKERS)))
    return count / (time.perf_counter() - began)


async def with_lumina(redis: Redis, count: int) -> Mapping[str, float]:
    await redis.flushall()
    await Streams(redis).setup()
    queue = TaskQueue(redis)

    async def submit(number: int) -> None:
        await queue.submit("noop", {"number": number}, owner="bench")

    submitted = await side_by_side(count, submit)
    began = time.perf_counter()
    await asyncio.gather(*(take(queue, f"worker-{number}") for number in range(WORKERS)))
    run = count / (time.perf_counter() - began)
    assert (await queue.counts())["complete"] == count
    return {SUBMITTED: submitted, RUN: run}


async def take(queue: TaskQueue, worker: str) -> None:
    """Run tasks as ``graphs.tasks.take_tasks`` does, until there are none."""
    lease: Lease | None = None
    while lease := lease or await queue.claim(worker, KINDS):
        async with hold(lease):
            lease = await lease.complete_and_claim({}, KINDS)


async def bare(redis: Redis, count: int) -> Mapping[str, float]:
    await redis.flushall()
    await redis.xgroup_create("bare", "workers", "0", mkstream=True)

    async def submit(number: int) -> None:
        await redis.xadd("bare", {"data": b'{"number": 1}'})

    async def work(number: int) -> None:
        streams: dict[bytes | str | memoryview, int | bytes | str | memoryview] = {"bare": ">"}
        reply: Any = await redis.xreadgroup("workers", f"worker-{number % WORKERS}", streams, count=1)
        await redis.xack("bare", "workers", reply[0][1][0][0])

    return {SUBMITTED: await side_by_side(count, submit), RUN: await side_by_side(count, work)}


async def idle(redis: Redis) -> float:
    """Percent of a core that a worker takes with nothing to do."""
    await redis.flushall()
    queue = TaskQueue(redis)
    await queue.setup()
    began, used = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < IDLE_S:
        await queue.claim("worker-1", KINDS, block_ms=2_000)
    return 100 * (time.process_time() - used) / (time.perf_counter() - began)


async def peer(redis: Redis, script: str, path: str, count: int) -> Mapping[str, float]:
    await redis.flushall()
    return await run_peer(script, path, count, WORKERS)


async def main(figures: Figures, rounds: int, count: int) -> None:
    async with open_valkey() as (redis, path):
        contenders: dict[str, Work] = {
            "lumina": partial(with_lumina, redis, count),
            "bare stream": partial(bare, redis, count),
        }
        others: dict[str, Work] = {
            "taskiq-redis": partial(peer, redis, "with_taskiq", path, count),
            "arq": partial(peer, redis, "with_arq", path, count),
        }
        contenders |= peers(figures, others)
        await take_turns(figures, contenders, rounds)
        figures.note("idle worker, % of a core", "lumina", await idle(redis))


if __name__ == "__main__":
    given = options(__doc__, rounds=5).parse_args()
    collected = Figures("task_queue", expectation=EXPECTATION)
    asyncio.run(main(collected, rounds_of(given), 500 if given.short else 5_000))
    finish(collected, given)
