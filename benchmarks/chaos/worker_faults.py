"""Faults of workers: killed, frozen, with a wrong clock, with tasks that nobody can do."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.chaos.stage import FAKETIME, Child, NotReached, Outcome, Stage
from memory import keys
from memory.task_records import Task

CRAWL: dict[str, Any] = {"topics": ["Mandelbrot set"], "hops": 3, "max_nodes": 64}
"""The whole sample, in four requests."""
HOLD_AT = 3
"""The request in whose middle a crawl is struck: answered, and not yet stored."""
NEW_LEASE_S = 5.0
"""How long after the lease another worker may take until it has finished a killed one's crawl."""


def requests(log: Path) -> list[list[str]]:
    """The titles of each request that an encyclopaedia noted."""
    return [line.split("|") for line in log.read_text().splitlines()] if log.exists() else []


async def _struck_crawl(stage: Stage) -> tuple[str, Child, Child]:
    """A crawl whose worker is in the middle, and a second worker that waits."""
    [task_id] = await stage.submit([CRAWL], "crawl")
    first = await stage.start("worker", "--hold-at", HOLD_AT)

    async def in_the_middle() -> bool:
        return len(requests(stage.log(0))) == HOLD_AT

    await stage.until(in_the_middle, "the middle of a crawl")
    return task_id, first, await stage.start("worker")


def _pages(stage: Stage, task: Task) -> tuple[int, int]:
    """Pages of a crawl that are missing, and pages fetched twice though their step had ended."""
    if task.status != "complete":
        raise NotReached(f"the crawl is {task.status}: {task.error}")
    before, after = requests(stage.log(0)), requests(stage.log(1))
    done = {title for titles in before[:-1] for title in titles}
    again = [title for titles in after for title in titles if title in done]
    return CRAWL["max_nodes"] - len(set(task.result["report"]["crawls"][0]["titles"])), len(again)


async def killed_in_mid_crawl(stage: Stage) -> Outcome:
    """Kill -9 the worker of a crawl; another finishes it from the checkpoint."""
    async with stage.indexing():
        task_id, first, _ = await _struck_crawl(stage)
        killed = await first.kill()
        await stage.settled(1)
    task = await stage.queue.get(task_id)
    lost, again = _pages(stage, task)
    note = f"64 pages, attempt {task.attempts}, {again} pages of finished steps fetched again"
    limit_s = stage.scale.lease_s + NEW_LEASE_S
    return Outcome("kill -9 in mid-crawl", lost, again, task.finished_ms / 1000 - killed, note, limit_s)


async def frozen_past_its_lease(stage: Stage) -> Outcome:
    """SIGSTOP the worker of a crawl until another has finished it, then let it go on: it must write nothing."""
    async with stage.indexing():
        task_id, first, second = await _struck_crawl(stage)
        first.send(signal.SIGSTOP)
        frozen = time.time()
        await stage.settled(1)
    task = await stage.queue.get(task_id)
    await second.stop()
    before = await _contents(stage)
    stage.log(0).with_suffix(".go").touch()
    first.send(signal.SIGCONT)
    await first.said(f"left {task_id}", stage.scale.patience_s)
    await first.stop()
    after = await _contents(stage)
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    lost, again = _pages(stage, task)
    note = f"the woken worker changed {len(changed)} keys {', '.join(changed)[:200]}".strip()
    return Outcome("SIGSTOP past the lease", lost, again + len(changed), task.finished_ms / 1000 - frozen, note)


async def _contents(stage: Stage) -> dict[str, bytes]:
    """Everything that Redis keeps; of a stream the last id, for its groups note who looked last."""
    found: dict[str, bytes] = {}
    redis: Any = stage.redis
    async for key in redis.scan_iter(count=1000):
        if await redis.type(key) == b"stream":
            found[key.decode()] = (await redis.xinfo_stream(key))["last-generated-id"]
        else:
            found[key.decode(errors="replace")] = await redis.dump(key)
    return found


async def killed_at_random(stage: Stage) -> Outcome:
    """Many tasks over several workers that are killed again and again; every one ends once, and the books agree.

    Dead are those that always fail, and those whose worker was killed at every attempt that they have.
    """
    scale = stage.scale
    payloads = [{"ms": stage.chance.randrange(100), "poison": n % 100 == 50} for n in range(scale.tasks)]
    workers = await asyncio.gather(*(stage.start("worker", "--concurrency", 4) for _ in range(scale.workers)))
    held: dict[str, float] = {}
    struck: Counter[str] = Counter()
    async with stage.ingesting() as events:
        submitting = asyncio.create_task(stage.submit(payloads))
        for kill in range(1, scale.kills + 1):
            threshold = scale.tasks * kill // (scale.kills + 1)

            async def reached(threshold: int = threshold) -> bool:
                return await stage.ended() >= threshold

            await stage.until(reached, f"{threshold} tasks ended")
            victim = stage.chance.randrange(len(workers))
            killed = await workers[victim].kill()
            running = (await stage.queue.list(status="running", limit=200)).tasks
            name = f"-{workers[victim].process.pid}-"
            hit = [task.id for task in running if name in task.worker]
            held |= dict.fromkeys(hit, killed)
            struck.update(hit)
            workers[victim] = await stage.start("worker", "--concurrency", 4)
        ids = await submitting
        await stage.settled(len(ids))
        lost, duplicated, note = await stage.audit(events, ids)
        recovered_s = await _went_on(events, held)
    doomed = {task_id for task_id, payload in zip(ids, payloads, strict=True) if payload["poison"]}
    doomed |= {task_id for task_id, times in struck.items() if times >= scale.attempts}
    dead = {task.id for task in (await stage.queue.list(status="dead", limit=200)).tasks}
    lost += len(dead ^ doomed)
    return Outcome(
        f"{scale.kills} × kill -9, {scale.tasks:,} tasks, {scale.workers} workers",
        lost,
        duplicated,
        recovered_s,
        f"{note}; {len(held)} were in a killed hand",
        stage.scale.lease_s + NEW_LEASE_S,
    )


async def _went_on(events: Any, held: dict[str, float]) -> float:
    """The longest time until a task of a killed worker was begun by another."""
    sql = "SELECT task_id, epoch_ms(ts) FROM events WHERE type = 'task.start' ORDER BY ts"
    waits: dict[str, float] = {}
    for task_id, ts in (await events.query(sql, max_rows=1_000_000, timeout_s=60)).rows:
        if task_id in held and ts / 1000 > held[task_id]:
            waits.setdefault(task_id, ts / 1000 - held[task_id])
    return max(waits.values(), default=0.0)


async def poisoned(stage: Stage) -> Outcome:
    """Tasks that always fail, in front of good ones: dead after the last attempt, and nobody waits for them."""
    poison = await stage.submit([{"poison": True}] * 20)
    good = await stage.submit([{"ms": 1}] * 100)
    async with stage.ingesting() as events:
        await stage.start("worker", "--concurrency", 4)
        began = time.time()
        await stage.settled(120)
        lost, duplicated, note = await stage.audit(events, [*poison, *good])
    tasks = await stage.tasks()
    lost += sum(tasks[task_id].status != "dead" for task_id in poison)
    lost += sum(tasks[task_id].status != "complete" for task_id in good)
    lost += sum(tasks[task_id].attempts != stage.scale.attempts for task_id in poison)
    lost += len(poison) - int(await stage.redis.xlen(keys.dead_letters(keys.TASKS_STREAM)))
    recovered_s = max(tasks[task_id].finished_ms for task_id in good) / 1000 - began
    last_dead_s = max(tasks[task_id].finished_ms for task_id in poison) / 1000 - began
    note = f"{note}; the last of the good ended after {recovered_s:.1f} s, of the poison after {last_dead_s:.1f} s"
    return Outcome("20 tasks that always fail before 100 good", lost, duplicated, recovered_s, note)


async def clock_of_a_worker_moved(stage: Stage) -> Outcome:
    """One worker lives a day in the future, one a day in the past; the queue goes by Redis's clock."""
    day = 86_400
    if FAKETIME:
        clocks: list[tuple[list[Any], str]] = [([], f"{sign}{day}s") for sign in "+-"]
    else:
        clocks = [(["--clock", f"{sign}{day}"], "") for sign in ("", "-")]
    moved = [stage.start("worker", *words, faketime=faketime) for words, faketime in clocks]
    right, *_ = await asyncio.gather(stage.start("worker"), *moved)
    async with stage.ingesting() as events:
        count = stage.scale.tasks // 10
        ids = await stage.submit([{"ms": stage.chance.randrange(20), "poison": n % 10 == 5} for n in range(count)])
        await right.kill()
        killed = time.time()
        await stage.settled(count)
        recovered_s = max(time.time() - killed, 0.0)
        lost, duplicated, note = await stage.audit(events, ids)
        sql = "SELECT count(*) FROM events WHERE abs(date_diff('hour', ts, now())) > 1"
        lost += (await events.query(sql)).rows[0][0]
    how = "libfaketime" if FAKETIME else "Python's clock"
    return Outcome(f"two workers a day off ({how})", lost, duplicated, recovered_s, note)
