"""Workers that take one task after another, and are told to stop in the middle."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from graphs.runs import Runner
from graphs.tasks import TaskKind, run_task, take_tasks
from memory import keys
from memory.leases import Lease
from memory.streams import Event
from memory.tasks import TaskQueue

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]
QUICK = ["quick"]


async def ends(redis: Any) -> Counter[str]:
    """How often each task was told to have ended."""
    told = [Event.from_fields(fields) for _, fields in await redis.xrange(keys.GRAPH_STREAM)]
    return Counter(event.task_id for event in told if event.type == "task.complete")


async def test_a_worker_that_stops_among_quick_tasks_leaves_all_of_them_complete_or_untouched(lumina: Lumina) -> None:
    """Whatever it is about to do; and one that runs fewer at a time goes on where it stopped."""
    begun = asyncio.Event()

    async def quick(runner: Runner, lease: Lease) -> dict[str, Any]:
        await asyncio.sleep(0)
        begun.set()
        return {}

    async with lumina() as runner:
        redis = runner.context.redis
        queue, registry = TaskQueue(redis), {"quick": TaskKind(quick)}
        tasks = await asyncio.gather(*(queue.submit("quick", {}, owner="ada") for _ in range(300)))

        async def take(concurrency: int, turns: int) -> None:
            """Take tasks, and stop so many turns of the loop after the first was run."""
            stop = asyncio.Event()
            begun.clear()
            taking = asyncio.create_task(
                take_tasks(runner, queue, QUICK, concurrency=concurrency, stop=stop, registry=registry)
            )
            async with asyncio.timeout(60):
                await begun.wait()
                for _ in range(turns):
                    await asyncio.sleep(0)
                stop.set()
                await taking

        async def are_untouched() -> None:
            left = (await queue.list(status="queued", limit=len(tasks))).tasks
            assert {task.attempts for task in left} <= {0}
            assert (await queue.counts())["complete"] + len(left) == len(tasks)
            assert await queue.leases() == 0
            assert (await redis.xpending(keys.TASKS_STREAM, keys.WORKERS_GROUP))["pending"] == 0

        for turns in range(24):
            await take(4, turns)
            await are_untouched()
        while (await queue.counts())["queued"]:
            await take(1, 400)
        await are_untouched()
        assert await ends(redis) == {task.id: 1 for task in tasks}


async def test_a_run_cancelled_at_any_moment_of_its_end_keeps_nothing_in_hand(lumina: Lumina) -> None:
    async with lumina() as runner:
        redis = runner.context.redis
        queue = TaskQueue(redis)
        cancelled = 0

        async def cancel_after(turns: int) -> None:
            nonlocal cancelled
            ending = asyncio.Event()

            async def quick(runner: Runner, lease: Lease) -> dict[str, Any]:
                ending.set()
                return {}

            lease = await queue.claim(f"worker-{turns}", QUICK)
            assert lease is not None
            run = asyncio.create_task(run_task(runner, lease, {"quick": TaskKind(quick)}, QUICK))
            await ending.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            if run.cancel():
                cancelled += 1
            [taken] = await asyncio.gather(run, return_exceptions=True)
            if isinstance(taken, Lease):
                await taken.release()

        count = 24
        await asyncio.gather(*(queue.submit("quick", {}, owner="ada") for _ in range(2 * count)))
        await asyncio.gather(*(cancel_after(turns) for turns in range(count)))
        tasks = (await queue.list(limit=2 * count)).tasks
        assert Counter((task.status, task.attempts) for task in tasks).keys() == {("complete", 1), ("queued", 0)}
        assert cancelled
        assert await queue.leases() == 0
        assert set((await ends(redis)).values()) == {1}


async def test_a_run_cancelled_while_its_heartbeat_ends_gives_back_what_it_has_taken(lumina: Lumina) -> None:
    async with lumina() as runner:
        redis = runner.context.redis
        queue = TaskQueue(redis, lease_s=3.0)
        heartbeat = asyncio.Event()

        async def long(runner: Runner, lease: Lease) -> dict[str, Any]:
            await heartbeat.wait()
            return {}

        ended, following = [await queue.submit("quick", {}, owner="ada") for _ in range(2)]
        lease = await queue.claim("worker-1", QUICK)
        assert lease is not None
        run = asyncio.create_task(run_task(runner, lease, {"quick": TaskKind(long)}, QUICK))
        keepers: list[asyncio.Task[Any]] = []
        async with asyncio.timeout(30):
            while not keepers:
                await asyncio.sleep(0.02)
                keepers = [one for one in asyncio.all_tasks() if "_Hold._keep" in str(one.get_coro())]
            heartbeat.set()
            while not keepers[0].cancelling():  # looked at in every turn of the loop
                await asyncio.sleep(0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert (await queue.get(ended.id)).status == "complete"
        given_back = await queue.get(following.id)
        assert (given_back.status, given_back.attempts) == ("queued", 0)
        assert await queue.leases() == 0
