from __future__ import annotations

import asyncio
import json
import math
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from memory import keys
from memory.redis_server import open_redis
from memory.streams import Event, Streams
from memory.tasks import KEEP_FINISHED_S, LeaseLost, Task, TaskCancelled, TaskNotRetryable, TaskQueue, UnknownTask, hold

Redis = Any
"""The stubs of redis-py give every reply as a union of all protocols' shapes."""
OWNER = "me"
KINDS = ["crawl"]


@pytest.fixture
def queue(redis: Redis) -> TaskQueue:
    return TaskQueue(redis)


async def submit(queue: TaskQueue, kind: str = "crawl", **options: Any) -> Task:
    return await queue.submit(kind, {"topic": "Fractal"}, **{"owner": OWNER, **options})


async def events(redis: Redis, task_id: str) -> list[str]:
    """Types of the events about a task, in the order in which they were written to each stream."""
    found = []
    for stream in (keys.TASKS_STREAM, keys.GRAPH_STREAM):
        for _, fields in await redis.xrange(stream):
            event = Event.from_fields(fields)
            if event.task_id == task_id:
                found.append(event.type)
    return found


async def eventually_claim(queue: TaskQueue, worker: str) -> Any:
    lease = await queue.claim(worker, KINDS, block_ms=10_000)
    assert lease is not None
    return lease


async def test_a_task_runs_from_submission_to_result(redis: Redis, queue: TaskQueue) -> None:
    task = await queue.submit("crawl", {"topic": "snow ☃", "hops": 1}, owner=OWNER)
    assert (task.status, task.attempts, task.payload) == ("queued", 0, {"topic": "snow ☃", "hops": 1})
    lease = await eventually_claim(queue, "worker-1")
    assert (lease.task.id, lease.task.status, lease.task.attempts, lease.task.worker) == (
        task.id,
        "running",
        1,
        "worker-1",
    )
    await lease.progress({"pages": 3})
    assert (await queue.get(task.id)).progress == {"pages": 3}
    await lease.complete({"pages": 30, "tags": []})
    done = await queue.get(task.id)
    assert (done.status, done.result, done.error) == ("complete", {"pages": 30, "tags": []}, "")
    assert 0 < done.created_ms <= done.started_ms <= done.finished_ms
    assert await events(redis, task.id) == ["task.submit", "task.start", "task.complete"]
    [(_, fields)] = await redis.xrevrange(keys.GRAPH_STREAM, count=1)
    assert Event.from_fields(fields).data["result"] == {"pages": 30, "tags": []}
    # Nothing is left in the group, so that the entry can be trimmed.
    assert (await redis.xpending(keys.TASKS_STREAM, "workers"))["pending"] == 0


async def test_an_empty_queue_gives_nothing_and_a_waiting_worker_is_woken(queue: TaskQueue) -> None:
    assert await queue.claim("worker-1", KINDS) is None
    waiting = asyncio.create_task(queue.claim("worker-1", KINDS, block_ms=20_000))
    await asyncio.sleep(0.05)
    task = await submit(queue)
    async with asyncio.timeout(15):
        lease = await waiting
    assert lease is not None
    assert lease.task.id == task.id


async def test_a_task_of_another_kind_is_left_to_who_can_run_it(queue: TaskQueue) -> None:
    asks = [await submit(queue, "ask") for _ in range(3)]
    crawl = await submit(queue, "crawl")
    waiting = asyncio.create_task(queue.claim("asker", ["ask", "plan"], block_ms=20_000))
    first = await eventually_claim(queue, "crawler")
    assert first.task.id == crawl.id
    assert await queue.claim("crawler", KINDS) is None
    taken = await waiting
    assert taken is not None
    rest = [await queue.claim("asker", ["ask"]) for _ in range(2)]
    assert [lease.task.id for lease in [taken, *rest] if lease] == [task.id for task in asks]
    assert [lease.task.status for lease in rest if lease] == ["running", "running"]


@pytest.mark.slow
async def test_four_workers_run_every_task_exactly_once(redis: Redis) -> None:
    queues = [TaskQueue(redis) for _ in range(4)]
    count = 2000
    ran: Counter[str] = Counter()
    by_worker: Counter[int] = Counter()

    async def work(number: int) -> None:
        while lease := await queues[number].claim(f"worker-{number}", KINDS, block_ms=500):
            ran[lease.task.id] += 1
            by_worker[number] += 1
            await lease.complete()

    async def produce() -> set[str]:
        return {(await queues[n % 4].submit("crawl", n, owner=OWNER)).id for n in range(count)}

    producing = asyncio.create_task(produce())
    await asyncio.gather(producing, *(work(n) for n in range(4)))
    submitted = await producing
    assert len(submitted) == count
    assert ran == Counter(dict.fromkeys(submitted, 1))
    assert len(by_worker) == 4
    assert (await queues[0].counts())["complete"] == count
    kinds = Counter(Event.from_fields(fields).type for _, fields in await redis.xrange(keys.GRAPH_STREAM))
    assert kinds == {"task.start": count, "task.complete": count}
    assert (await redis.xpending(keys.TASKS_STREAM, "workers"))["pending"] == 0


async def test_a_dead_workers_task_goes_to_another_and_the_first_is_fenced_out(redis: Redis) -> None:
    queue = TaskQueue(redis, lease_s=0.2)
    task = await submit(queue)
    old = await eventually_claim(queue, "frozen")
    new = await eventually_claim(queue, "heir")
    assert (new.task.id, new.task.attempts) == (task.id, 2)
    assert new.fence > old.fence
    for write in (
        old.renew(),
        old.progress({"n": 1}),
        old.complete("mine"),
        old.fail("mine"),
        old.release(),
    ):
        with pytest.raises(LeaseLost, match=f"{task.id} is no longer held by frozen"):
            await write
    await new.complete("theirs")
    assert (await queue.get(task.id)).result == "theirs"
    assert await events(redis, task.id) == ["task.submit", "task.start", "task.fail", "task.start", "task.complete"]


async def test_a_heartbeat_keeps_the_task(redis: Redis) -> None:
    queue = TaskQueue(redis, lease_s=1.5)
    await submit(queue)
    lease = await eventually_claim(queue, "slow")
    async with hold(lease):
        # Two leases long.
        assert await queue.claim("vulture", KINDS, block_ms=3_000) is None
    await lease.complete()
    assert (await queue.get(lease.task.id)).attempts == 1


KILLED = """
import asyncio, os, signal, sys
from redis.asyncio import Redis
from memory.tasks import TaskQueue

async def main():
    queue = TaskQueue(Redis.from_url(sys.argv[1]), lease_s=0.3)
    lease = await queue.claim("victim", ["crawl"], block_ms=5000)
    print(lease.task.id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_a_worker_killed_with_9_loses_its_task_to_another(redis: Redis, redis_url: str) -> None:
    queue = TaskQueue(redis, lease_s=0.3)
    task = await submit(queue)
    command = [sys.executable, "-c", KILLED, redis_url]
    killed = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30)
    assert (killed.returncode, killed.stdout.strip()) == (-signal.SIGKILL, task.id)
    lease = await eventually_claim(queue, "heir")
    assert (lease.task.id, lease.task.attempts) == (task.id, 2)
    await lease.complete()
    await queue.leave("heir")
    await queue.leave("victim")
    assert await redis.xinfo_consumers(keys.TASKS_STREAM, "workers") == []


async def test_a_task_whose_workers_always_die_goes_to_the_dead_letters(redis: Redis) -> None:
    queue = TaskQueue(redis, lease_s=0.02, max_attempts=2)
    task = await submit(queue)
    for attempt in (1, 2):
        assert (await eventually_claim(queue, f"worker-{attempt}")).task.attempts == attempt
    await asyncio.sleep(0.03)
    assert await queue.claim("worker-3", KINDS) is None
    dead = await queue.get(task.id)
    assert (dead.status, dead.error) == ("dead", "the lease of worker-2 ran out in attempt 2")


async def test_a_failing_task_is_tried_again_then_dead_then_sent_back(redis: Redis) -> None:
    queue = TaskQueue(redis, max_attempts=2)
    poison, good = await submit(queue), await submit(queue)
    lease = await eventually_claim(queue, "worker-1")
    await lease.fail('it "hurts"\n☃')
    waiting = await queue.get(poison.id)
    assert (waiting.status, waiting.error) == ("retrying", 'it "hurts"\n☃')
    # It does not block the queue while it waits.
    other = await eventually_claim(queue, "worker-1")
    assert other.task.id == good.id
    await other.complete()
    again = await eventually_claim(queue, "worker-1")
    assert (again.task.id, again.task.attempts) == (poison.id, 2)
    await again.fail("for good")
    dead = await queue.get(poison.id)
    assert (dead.status, dead.error) == ("dead", "for good")
    [(_, letter)] = await redis.xrange(keys.dead_letters(keys.TASKS_STREAM))
    assert Event.from_fields(letter).data["error"] == "for good"
    assert [task.id for task in (await queue.list(status="dead")).tasks] == [poison.id]
    types = ["task.submit", "task.retry", "task.start", "task.fail", "task.start", "task.fail", "task.dead"]
    assert await events(redis, poison.id) == types

    sent_back = await queue.retry(poison.id)
    assert (sent_back.status, sent_back.attempts, sent_back.error) == ("queued", 0, "")
    assert (await queue.list(status="dead")).tasks == []
    lease = await eventually_claim(queue, "worker-1")
    assert (lease.task.id, lease.task.attempts) == (poison.id, 1)
    await lease.complete()
    with pytest.raises(TaskNotRetryable, match="is complete; accepted for another try: tasks that are dead"):
        await queue.retry(poison.id)
    assert (await queue.get(poison.id)).status == "complete"


async def test_an_error_that_trying_again_cannot_help_is_final(queue: TaskQueue) -> None:
    await submit(queue)
    lease = await eventually_claim(queue, "worker-1")
    await lease.fail("no such kind", retry=False)
    assert (await queue.get(lease.task.id)).status == "dead"


async def test_the_wait_after_a_failure_grows_and_is_kept(redis: Redis, queue: TaskQueue) -> None:
    task = await submit(queue)
    await (await eventually_claim(queue, "worker-1")).fail("once")
    assert await queue.claim("worker-1", KINDS) is None
    # Another worker, which knows nothing of the first, wakes when the wait is over.
    lease = await eventually_claim(TaskQueue(redis), "worker-2")
    waited_ms = lease.task.started_ms - (await first_failure_ms(redis))
    assert lease.task.id == task.id
    assert 500 <= waited_ms < 2500


async def first_failure_ms(redis: Redis) -> int:
    found = [Event.from_fields(fields) for _, fields in await redis.xrange(keys.GRAPH_STREAM)]
    return next(event.ts for event in found if event.type == "task.fail")


async def test_writes_may_be_repeated_when_the_reply_was_lost(queue: TaskQueue) -> None:
    await submit(queue)
    lease = await eventually_claim(queue, "worker-1")
    await lease.fail("once")
    await lease.fail("once")
    assert (await queue.get(lease.task.id)).attempts == 1
    with pytest.raises(LeaseLost):
        await lease.complete()
    lease = await eventually_claim(queue, "worker-1")
    await lease.complete(1)
    await lease.complete(1)
    with pytest.raises(LeaseLost):
        await lease.fail("too late")


async def test_a_worker_that_stops_gives_its_task_back_unharmed(queue: TaskQueue) -> None:
    task = await submit(queue)
    await (await eventually_claim(queue, "stopping")).release()
    lease = await eventually_claim(queue, "other")
    assert (lease.task.id, lease.task.attempts) == (task.id, 1)


async def test_a_claim_cancelled_on_its_way_gives_the_task_back(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    async with open_redis(redis_url, tmp_path) as client:  # redis-py's own connections may swallow a cancellation
        queue = TaskQueue(client)
        await submit(queue)
        await queue.setup()
        for turns in range(1, 12):
            claim = asyncio.create_task(queue.claim("impatient", KINDS))
            for _ in range(turns):
                await asyncio.sleep(0)
            if claim.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await claim
            elif lease := await claim:
                await lease.release()
        lease = await queue.claim("patient", KINDS)
    assert lease is not None
    assert lease.task.attempts == 1


async def test_a_body_that_is_soon_over_costs_no_task_of_asyncio(queue: TaskQueue) -> None:
    await submit(queue)
    lease = await eventually_claim(queue, "worker-1")
    before = asyncio.all_tasks()
    async with hold(lease):
        assert asyncio.all_tasks() == before
        await lease.complete()
    assert asyncio.all_tasks() == before


async def test_fifty_submissions_with_one_key_make_one_task(redis: Redis, queue: TaskQueue) -> None:
    tasks = await asyncio.gather(*(submit(queue, idempotency_key="order 7") for _ in range(50)))
    assert len({task.id for task in tasks}) == 1
    assert await redis.xlen(keys.TASKS_STREAM) == 1
    other = await submit(queue, idempotency_key="order 7", owner="somebody else")
    assert other.id != tasks[0].id
    assert (await submit(queue, idempotency_key="order 8")).id != tasks[0].id


async def test_submitting_returns_the_task_as_it_is_kept_in_one_round_trip(redis: Redis, queue: TaskQueue) -> None:
    await queue.setup()
    await submit(queue, task_id="before")  # now the server knows the script
    await redis.config_resetstat()
    new = await submit(queue, task_id="one", idempotency_key="k")
    again, same_id = await submit(queue, idempotency_key="k"), await submit(queue, task_id="one")
    calls = await redis.info("commandstats")
    assert calls["cmdstat_evalsha"]["calls"] == 3
    assert calls["cmdstat_hgetall"]["calls"] == 2  # the script's own, for the task that was known
    assert new == again == same_id == await queue.get("one")
    kept = await redis.hgetall(f"{keys.TASKS_ROOT}task:one")
    assert (await redis.xrange(keys.TASKS_STREAM))[-1][0] == kept[b"entry"]
    assert (await queue.counts())["queued"] == 2


async def test_keys_and_owners_that_look_alike_are_not_mixed_up(queue: TaskQueue) -> None:
    first = await submit(queue, owner="a", idempotency_key="b:c")
    assert (await submit(queue, owner="a:b", idempotency_key="c")).id != first.id


async def test_an_id_of_ones_own_is_kept_and_safe_from_others(queue: TaskQueue) -> None:
    assert (await submit(queue, task_id="my-task")).id == "my-task"
    assert (await submit(queue, task_id="my-task")).id == "my-task"
    with pytest.raises(UnknownTask, match="my-task is taken"):
        await submit(queue, task_id="my-task", owner="somebody else")
    assert len((await queue.list()).tasks) == 1


@pytest.mark.parametrize("payload", [math.nan, {1, 2}, object()])
async def test_a_payload_that_is_not_json_is_refused(redis: Redis, queue: TaskQueue, payload: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        await queue.submit("crawl", payload, owner=OWNER)
    assert await redis.keys() == []


@pytest.mark.parametrize("how", ["queued", "parked", "retrying"])
async def test_a_task_cancelled_while_it_waits_never_runs(redis: Redis, queue: TaskQueue, how: str) -> None:
    task = await submit(queue)
    if how == "parked":
        assert await queue.claim("asker", ["ask"]) is None
    elif how == "retrying":
        await (await eventually_claim(queue, "worker-1")).fail("once")
    assert (await queue.cancel(task.id)).status == "cancelled"
    assert await queue.claim("worker-1", KINDS, block_ms=1100 if how == "retrying" else 0) is None
    assert (await queue.get(task.id)).status == "cancelled"
    assert (await redis.xpending(keys.TASKS_STREAM, "workers"))["pending"] == 0
    assert (await events(redis, task.id))[-1] == "task.cancel"
    # And it can be wanted again, once.
    await queue.retry(task.id)
    assert (await eventually_claim(queue, "worker-1")).task.id == task.id
    assert await queue.claim("worker-1", KINDS) is None


async def test_cancelling_a_running_task_stops_its_body_and_refuses_its_result(redis: Redis) -> None:
    queue = TaskQueue(redis, lease_s=0.3)
    task = await submit(queue)
    lease = await eventually_claim(queue, "worker-1")
    entered, unwound = asyncio.Event(), False

    async def run() -> None:
        nonlocal unwound
        async with hold(lease):
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                unwound = True

    running = asyncio.create_task(run())
    await entered.wait()
    await queue.cancel(task.id)
    async with asyncio.timeout(60):
        with pytest.raises(TaskCancelled, match=task.id):
            await running
    assert unwound
    with pytest.raises(TaskCancelled):
        await lease.complete("never mind")
    assert (await queue.get(task.id)).status == "cancelled"
    assert (await queue.cancel(task.id)).status == "cancelled"


async def test_losing_the_lease_stops_the_body(redis: Redis) -> None:
    queue = TaskQueue(redis, lease_s=0.2)
    await submit(queue)
    lease = await eventually_claim(queue, "worker-1")
    thief = await eventually_claim(queue, "worker-2")
    with pytest.raises(LeaseLost, match="worker-1"):
        async with hold(lease):
            await asyncio.Event().wait()
    await thief.complete()


async def test_cancelling_the_worker_itself_is_not_mistaken_for_a_lost_lease(queue: TaskQueue) -> None:
    await submit(queue)
    lease = await eventually_claim(queue, "worker-1")
    entered = asyncio.Event()

    async def run() -> None:
        async with hold(lease):
            entered.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(run())
    await entered.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await lease.release()


async def test_an_error_in_the_body_comes_out_as_it_is(queue: TaskQueue) -> None:
    await submit(queue)
    lease = await eventually_claim(queue, "worker-1")
    with pytest.raises(ZeroDivisionError):
        async with hold(lease):
            raise ZeroDivisionError
    await lease.complete()


async def test_an_entry_somebody_else_put_on_the_stream_is_set_aside(redis: Redis, queue: TaskQueue) -> None:
    await redis.xadd(keys.TASKS_STREAM, {"hello": "world"})
    await redis.xadd(keys.TASKS_STREAM, {"task_id": "no-such-task", "type": "task.submit"})
    task = await submit(queue)
    assert (await eventually_claim(queue, "worker-1")).task.id == task.id
    letters = [json.loads(fields[b"data"]) for _, fields in await redis.xrange(keys.dead_letters(keys.TASKS_STREAM))]
    assert [letter["error"] for letter in letters] == ["an entry without a task"] * 2
    assert (await redis.xpending(keys.TASKS_STREAM, "workers"))["pending"] == 1


async def test_lists_are_paged_newest_first_and_by_owner_and_status(queue: TaskQueue) -> None:
    mine = [(await submit(queue)).id for _ in range(7)]
    theirs = [(await submit(queue, owner="them")).id for _ in range(3)]
    await (await eventually_claim(queue, "worker-1")).complete()
    pages, cursor = [], None
    while True:
        page = await queue.list(OWNER, limit=3, cursor=cursor)
        pages.append([task.id for task in page.tasks])
        if (cursor := page.cursor) is None:
            break
    assert pages == [mine[:3:-1], mine[3:0:-1], mine[:1]]
    assert [task.id for task in (await queue.list(OWNER, "complete")).tasks] == [mine[0]]
    assert [task.id for task in (await queue.list(status="queued")).tasks] == [*theirs[::-1], *mine[:0:-1]]
    ask = await submit(queue, "ask")
    assert [task.id for task in (await queue.list(OWNER, kind="ask")).tasks] == [ask.id]
    assert [task.id for task in (await queue.list("them", kind="crawl")).tasks] == theirs[::-1]
    assert (await queue.list("them", kind="ask")).tasks == []
    await queue.cancel(ask.id)
    assert (await queue.list(OWNER, "queued", kind="ask")).tasks == []
    assert len((await queue.list()).tasks) == 11
    with pytest.raises(ValueError, match="invalid literal"):
        await queue.list(cursor="nonsense")


async def test_finished_tasks_are_forgotten_when_they_are_old_enough(redis: Redis, queue: TaskQueue) -> None:
    await queue.setup()
    before = set(await redis.keys())
    task, kept = await submit(queue, idempotency_key="k"), await submit(queue)
    await (await eventually_claim(queue, "worker-1")).complete()
    assert await queue.prune() == 0
    await asyncio.sleep(0.002)
    assert await queue.prune(0) == 1
    with pytest.raises(UnknownTask, match=task.id):
        await queue.get(task.id)
    assert (await submit(queue, idempotency_key="k")).id != task.id
    for _ in range(2):
        await (await eventually_claim(queue, "worker-1")).complete()
    await asyncio.sleep(0.002)
    assert await queue.prune(0) == 2
    left = set(await redis.keys()) - before - {keys.GRAPH_STREAM.encode()}
    assert left == {b"{tasks/v1}:seq"}
    assert kept.id != task.id


async def test_a_busy_worker_forgets_what_ended_long_ago(redis: Redis, queue: TaskQueue) -> None:
    old = await submit(queue)
    await (await eventually_claim(queue, "worker-1")).complete()
    too_old = (await queue.get(old.id)).finished_ms - 1000 * (KEEP_FINISHED_S + 1)
    await redis.zadd(f"{keys.TASKS_ROOT}finished", {old.id: too_old})
    await submit(queue)
    # Another process, whose first look finds work at once.
    assert await TaskQueue(redis).claim("worker-2", KINDS) is not None
    with pytest.raises(UnknownTask):
        await queue.get(old.id)


@pytest.mark.parametrize("line", ["leases", "delayed"])
async def test_nobody_waits_for_a_clock_that_was_set_back(redis: Redis, line: str) -> None:
    """An hour back: what was to come in a moment now lies an hour ahead."""
    queue = TaskQueue(redis, lease_s=0.1)
    task = await submit(queue)
    lease = await eventually_claim(queue, "worker-1")
    if line == "delayed":
        await lease.fail("once")
    due = await redis.zscore(keys.TASKS_ROOT + line, task.id)
    await redis.zadd(keys.TASKS_ROOT + line, {task.id: due + 3_600_000})
    heir = await eventually_claim(queue, "worker-2")
    assert (heir.task.id, heir.task.attempts) == (task.id, 2)


async def test_trimming_never_takes_an_unfinished_task(redis: Redis, queue: TaskQueue) -> None:
    await Streams(redis).setup()
    unfinished = await submit(queue)
    lease = await eventually_claim(queue, "slow")
    # Whatever else comes, and is read by the other group, the task's own entry stays.
    await Streams(redis, max_wait_s=0).publish([Event("task.other")] * 10_100, keys.TASKS_STREAM)
    while await redis.xreadgroup("masterchat", "mc", {keys.TASKS_STREAM: ">"}, count=1000, noack=True):
        pass
    assert await Streams(redis).trim(keys.TASKS_STREAM) == 0
    assert (await redis.xrange(keys.TASKS_STREAM, count=1))[0][1][b"task_id"].decode() == unfinished.id
    await lease.complete()
    assert await queue.claim("slow", KINDS) is None
    assert await queue.claim("slow", KINDS, block_ms=1) is None
    assert (await queue.get(unfinished.id)).status == "complete"
    await Streams(redis).trim(keys.TASKS_STREAM)
    assert unfinished.id.encode() not in [
        fields[b"task_id"] for _, fields in await redis.xrange(keys.TASKS_STREAM, count=1)
    ]


@pytest.mark.parametrize("call", ["get", "cancel", "retry"])
async def test_an_unknown_task_is_named(queue: TaskQueue, call: str) -> None:
    with pytest.raises(UnknownTask, match="no task nobody"):
        await getattr(queue, call)("nobody")


async def test_a_postponed_task_comes_back_after_its_delay_with_all_its_attempts(
    redis: Redis, queue: TaskQueue
) -> None:
    task = await submit(queue)
    lease = await eventually_claim(queue, "worker-1")
    await lease.postpone(1.5, "no token")
    with pytest.raises(LeaseLost):
        await lease.renew()
    waiting = await queue.get(task.id)
    assert (waiting.status, waiting.attempts) == ("queued", 0)
    assert await queue.claim("worker-1", KINDS) is None
    again = await eventually_claim(queue, "worker-1")
    assert (again.task.id, again.task.attempts) == (task.id, 1)
    await again.complete({})
    assert (await queue.get(task.id)).status == "complete"
    assert await events(redis, task.id) == ["task.submit", "task.start", "task.retry", "task.start", "task.complete"]


async def test_who_waits_holds_up_those_of_the_same_owner_and_kind_and_nobody_else(queue: TaskQueue) -> None:
    first, second = await submit(queue), await submit(queue)
    other = await submit(queue, owner="you")
    asked = await submit(queue, kind="ask")
    kinds = ["crawl", "ask"]
    await (await eventually_claim(queue, "worker-1")).postpone(3, "no token")
    handed_out = [await queue.claim("worker-1", kinds) for _ in range(3)]
    assert [lease.task.id if lease else None for lease in handed_out] == [other.id, asked.id, None]
    in_order = [await eventually_claim(queue, "worker-1") for _ in range(2)]
    assert [lease.task.id for lease in in_order] == [first.id, second.id]


async def test_a_line_of_many_is_tried_once_a_token_and_not_once_a_task(redis: Redis, queue: TaskQueue) -> None:
    tasks = [await submit(queue) for _ in range(20)]
    await (await eventually_claim(queue, "worker-1")).postpone(60, "no token")
    assert await queue.claim("worker-1", KINDS) is None
    started = [task.id for task in tasks if "task.start" in await events(redis, task.id)]
    assert started == [tasks[0].id]


async def test_a_waiting_task_can_be_cancelled_and_leaves_no_line_behind(redis: Redis, queue: TaskQueue) -> None:
    task = await submit(queue)
    await (await eventually_claim(queue, "worker-1")).postpone(3_600, "no token")
    behind = await submit(queue)
    assert await queue.claim("worker-1", KINDS) is None
    for one in (task, behind):
        assert (await queue.cancel(one.id)).status == "cancelled"
    assert [key async for key in redis.scan_iter("*:line*")] == []
    assert (await redis.xpending(keys.TASKS_STREAM, keys.WORKERS_GROUP))["pending"] == 0
    assert (await eventually_claim(queue, "worker-1") if await submit(queue) else None) is not None


async def test_trimming_leaves_a_task_that_waits_in_a_line(redis: Redis, queue: TaskQueue) -> None:
    first, second = await submit(queue), await submit(queue)
    await (await eventually_claim(queue, "worker-1")).postpone(1.5, "no token")
    assert await queue.claim("worker-1", KINDS) is None
    entries = {entry_id for entry_id, _ in await redis.xrange(keys.TASKS_STREAM)}
    pending = await redis.xpending_range(keys.TASKS_STREAM, keys.WORKERS_GROUP, "-", "+", 10)
    assert {one["message_id"] for one in pending} == entries
    done = [await eventually_claim(queue, "worker-2") for _ in range(2)]
    assert [lease.task.id for lease in done] == [first.id, second.id]
