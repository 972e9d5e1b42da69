"""The step that tells the end of a task and takes the next one along."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from memory import keys
from memory.redis_server import open_redis
from memory.streams import Event
from memory.tasks import Lease, LeaseLost, Task, TaskCancelled, TaskQueue, hold

Redis = Any
"""The stubs of redis-py give every reply as a union of all protocols' shapes."""
KINDS = ["crawl"]


@pytest.fixture
def queue(redis: Redis) -> TaskQueue:
    return TaskQueue(redis)


async def submit(queue: TaskQueue, kind: str = "crawl", owner: str = "me") -> Task:
    return await queue.submit(kind, {"topic": "Fractal"}, owner=owner)


async def eventually_claim(queue: TaskQueue, worker: str) -> Lease:
    lease = await queue.claim(worker, KINDS, block_ms=10_000)
    assert lease is not None
    return lease


async def test_the_next_task_comes_with_the_end_of_the_one_before_in_one_round_trip(
    redis: Redis, queue: TaskQueue
) -> None:
    first, asked, second = await submit(queue), await submit(queue, "ask"), await submit(queue)
    lease = await eventually_claim(queue, "worker-1")
    following = await lease.complete_and_claim({"pages": 1}, KINDS)
    assert following is not None
    assert (lease.task.id, following.task.id) == (first.id, second.id)
    assert following.fence == 1
    assert following.task == await queue.get(second.id)
    assert (await queue.get(first.id)).result == {"pages": 1}
    told = [Event.from_fields(fields) for _, fields in await redis.xrange(keys.GRAPH_STREAM)]
    assert [(event.type, event.task_id) for event in told] == [
        ("task.start", first.id),
        ("task.complete", first.id),
        ("task.start", second.id),
    ]
    third = await submit(queue)
    await redis.config_resetstat()
    last = await following.complete_and_claim(None, KINDS)
    assert last is not None
    assert last.task.id == third.id
    assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] == 1
    assert await last.complete_and_claim(None, KINDS) is None
    assert [(await queue.get(one.id)).status for one in (first, asked, second, third)] == [
        "complete",
        "queued",
        "complete",
        "complete",
    ]


async def test_what_waits_aside_is_taken_along_too(redis: Redis, queue: TaskQueue) -> None:
    """A task whose worker died, one that another worker parked, and one that was postponed."""
    first, waits, lost = await submit(queue), await submit(queue, owner="you"), await submit(queue)
    lease, postponed = await eventually_claim(queue, "worker-1"), await eventually_claim(queue, "worker-2")
    assert await TaskQueue(redis, lease_s=0.05).claim("dies", KINDS) is not None
    parked = await submit(queue)
    assert await queue.claim("asker", ["ask"]) is None
    while (await queue.get(lost.id)).status == "running":
        await asyncio.sleep(0.01)
        assert await queue.claim("asker", ["ask"]) is None
    await postponed.postpone(0.001, "no token")
    await asyncio.sleep(0.002)
    ended = []
    following: Lease | None = lease
    while following is not None:
        ended.append(following.task.id)
        following = await following.complete_and_claim({}, KINDS)
    assert ended == [first.id, lost.id, parked.id, waits.id]


async def test_who_lost_a_task_gets_none_in_its_place(redis: Redis) -> None:
    queue = TaskQueue(redis, lease_s=0.05)
    await submit(queue)
    frozen = await eventually_claim(queue, "frozen")
    heir = await eventually_claim(TaskQueue(redis), "heir")
    waiting = await submit(queue)
    with pytest.raises(LeaseLost, match="complete_and_claim was refused"):
        await frozen.complete_and_claim("mine", KINDS)
    await queue.cancel(heir.task.id)
    with pytest.raises(TaskCancelled):
        await heir.complete_and_claim("mine", KINDS)
    assert (await queue.get(waiting.id)).status == "queued"
    assert (await queue.get(heir.task.id)).result is None


async def test_an_end_told_twice_takes_one_task_along(queue: TaskQueue) -> None:
    await submit(queue)
    second, third = await submit(queue), await submit(queue)
    lease = await eventually_claim(queue, "worker-1")
    assert (await lease.complete_and_claim(1, KINDS)) is not None
    assert await lease.complete_and_claim(1, KINDS) is None
    assert [(await queue.get(one.id)).status for one in (second, third)] == ["running", "queued"]


async def test_a_task_taken_along_by_a_worker_that_is_cancelled_is_given_back(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    async with open_redis(redis_url, tmp_path) as client:  # redis-py's own connections may swallow a cancellation
        queue = TaskQueue(client)
        await queue.setup()
        cancelled = 0
        for turns in range(1, 14):
            await submit(queue)
            lease = await eventually_claim(queue, "stopping")
            following = await submit(queue)

            async def end(lease: Any) -> Any:
                async with hold(lease):
                    return await lease.complete_and_claim({}, KINDS)

            ending = asyncio.create_task(end(lease))
            for _ in range(turns):
                await asyncio.sleep(0)
            if ending.cancel():
                cancelled += 1
                with pytest.raises(asyncio.CancelledError):
                    await ending
                if (await queue.get(lease.task.id)).status == "running":
                    await lease.release()
                    await (await eventually_claim(queue, "other")).complete()
            elif taken := await ending:
                await taken.release()
            assert (await queue.get(following.id)).status == "queued"
            left = await eventually_claim(queue, "other")
            assert (left.task.id, left.task.attempts) == (following.id, 1)
            await left.complete()
        assert cancelled
        assert await queue.leases() == 0


async def test_a_busy_worker_comes_by_the_claim_that_tidies_up(redis: Redis, queue: TaskQueue) -> None:
    await submit(queue)
    waiting = await submit(queue)
    lease = await eventually_claim(queue, "worker-1")
    due = Lease(TaskQueue(redis), lease.task, lease.worker, lease.fence, time.monotonic())
    assert await due.complete_and_claim({}, KINDS) is None
    assert (await queue.get(lease.task.id)).status == "complete"
    assert (await queue.get(waiting.id)).status == "queued"


KILLED = """
import asyncio, os, signal, sys
from redis.asyncio import Redis
from memory.tasks import TaskQueue

async def main():
    queue = TaskQueue(Redis.from_url(sys.argv[1]), lease_s=0.3)
    lease = await queue.claim("victim", ["crawl"], block_ms=5000)
    following = await lease.complete_and_claim("done", ["crawl"])
    print(following.task.id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_a_worker_killed_with_9_loses_only_what_it_had_taken_along(
    redis: Redis, redis_url: str, queue: TaskQueue
) -> None:
    ended, taken = await submit(queue), await submit(queue)
    command = [sys.executable, "-c", KILLED, redis_url]
    killed = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30)
    assert (killed.returncode, killed.stdout.strip()) == (-signal.SIGKILL, taken.id)
    heir = await eventually_claim(queue, "heir")
    assert (heir.task.id, heir.task.attempts) == (taken.id, 2)
    await heir.complete()
    assert (await queue.get(ended.id)).result == "done"
    assert await queue.claim("heir", KINDS) is None
