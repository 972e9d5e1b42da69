"""What a fault happens on: an embedded Redis, an event store, processes, and the books that must balance."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from memory import keys
from memory.consumers import Consumer
from memory.events import EventStore, open_events
from memory.library import Library
from memory.passages import Passage
from memory.redis_server import open_redis
from memory.streams import Delivered, Streams
from memory.task_records import Task
from memory.tasks import LEASE_S, MAX_ATTEMPTS, TaskQueue

ROOT = Path(__file__).parents[2]
OWNER = "chaos"
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
"""libfaketime, where it is installed (Debian's package of this name)."""


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    tasks: int = 10_000
    workers: int = 4
    kills: int = 12
    events: int = 40_000
    restarts: int = 3
    lease_s: float = LEASE_S
    attempts: int = MAX_ATTEMPTS
    patience_s: float = 240.0
    """Longest wait for any one thing; then the fault counts as failed."""


FULL = Scale()
SMALL = Scale(tasks=300, workers=2, kills=3, events=4_000, restarts=1, lease_s=1.5, attempts=2, patience_s=90.0)


@dataclass(frozen=True)
class Outcome:
    """What came of one fault."""

    injected: str
    lost: int
    duplicated: int
    recovered_s: float
    """From the (last, or slowest) fault until the work went on."""
    note: str = ""
    limit_s: float | None = None
    """A promise about ``recovered_s``, where there is one."""


class NotReached(AssertionError):
    """Something did not come about in time."""


@dataclass
class Child:
    """A process that is there to suffer."""

    process: Process
    errors: Path
    lines: asyncio.Queue[str]

    async def said(self, word: str, patience_s: float) -> str:
        """The next line that begins with this word."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while (line := await self.lines.get()) and not line.startswith(word):
                    pass
                if line:
                    return line
        raise NotReached(f"a process did not say «{word}»: {self.errors.read_text()[-2000:]}")

    async def kill(self) -> float:
        """Kill with -9; returns when, on the wall clock."""
        self.process.kill()
        killed = time.time()
        await self.process.wait()
        return killed

    async def stop(self) -> None:
        """SIGTERM, and wait until it has ended."""
        if self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)


@dataclass
class Stage:
    """One Redis with its streams and queue, in a folder."""

    folder: Path
    sample: Path
    scale: Scale
    redis: Redis
    queue: TaskQueue
    started: int = 0
    """How many processes were."""
    children: list[Child] = field(default_factory=list)
    reading: list[asyncio.Task[None]] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(4))

    @property
    def data(self) -> Path:
        """DATA_DIR of the processes."""
        return self.folder / "data"

    async def start(self, role: str, *words: str | Path | int | float, faketime: str = "") -> Child:
        """Start a process and wait until it is ready."""
        number, scale = self.started, self.scale
        self.started += 1
        options = ["--sample", self.sample, "--lease", scale.lease_s, "--attempts", scale.attempts]
        options += ["--log", self.log(number), "--store", self.folder / "child.duckdb", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        if faketime and FAKETIME:
            environment |= {"LD_PRELOAD": str(FAKETIME), "FAKETIME": faketime, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        errors = self.folder / f"child{number}.err"
        with errors.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.chaos.child", role, str(self.data), *map(str, options)),
                cwd=ROOT,
                env=environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=file,
            )
        child = Child(process, errors, asyncio.Queue())
        self.children.append(child)
        self.reading.append(asyncio.create_task(_read(child)))
        await child.said("ready", scale.patience_s)
        return child

    def log(self, number: int) -> Path:
        """Where the encyclopaedia of a process notes what it was asked for."""
        return self.folder / f"requests{number}.log"

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        """Wait for something; a Redis that is away is waited for."""
        deadline = time.monotonic() + self.scale.patience_s
        while True:
            with contextlib.suppress(RedisError, OSError):
                if await condition():
                    return
            if time.monotonic() > deadline:
                raise NotReached(f"not reached in {self.scale.patience_s:.0f} s: {what}; tasks: {await self.counts()}")
            await asyncio.sleep(0.02)

    async def counts(self) -> dict[str, int]:
        """How many tasks have each status."""
        return await self.queue.counts()

    async def submit(self, payloads: Sequence[Mapping[str, Any]], kind: str = "nothing") -> list[str]:
        """Submit tasks under ids of their own, each again until it is confirmed."""
        ids = []
        for payload in payloads:
            task_id = f"task-{self.chance.getrandbits(64):016x}"
            while True:
                try:
                    await self.queue.submit(kind, payload, owner=OWNER, task_id=task_id)
                    break
                except (RedisError, OSError):
                    await asyncio.sleep(0.05)
            ids.append(task_id)
        return ids

    async def ended(self) -> int:
        """How many tasks have ended for good."""
        counts = await self.counts()
        return counts["complete"] + counts["dead"]

    async def settled(self, number: int) -> None:
        """Wait until so many tasks have ended and none is left."""

        async def done() -> bool:
            counts = await self.counts()
            return counts["complete"] + counts["dead"] >= number and not (
                counts["queued"] + counts["running"] + counts["retrying"]
            )

        await self.until(done, f"{number} tasks ended")

    async def tasks(self) -> dict[str, Task]:
        """Every task there is."""
        found: dict[str, Task] = {}
        cursor = None
        while True:
            page = await self.queue.list(cursor=cursor, limit=200)
            found |= {task.id: task for task in page.tasks}
            if (cursor := page.cursor) is None:
                return found

    @contextlib.asynccontextmanager
    async def ingesting(self) -> AsyncIterator[EventStore]:
        """An event store that takes in what happens; when the block ends, it has everything."""
        stop = asyncio.Event()
        async with open_events(self.folder / "events.duckdb") as events:
            jobs = [
                asyncio.create_task(
                    Consumer(self.redis, stream, "masterchat", "mc", events.ingester(stream), block_ms=200).run(stop)
                )
                for stream in (keys.TASKS_STREAM, keys.GRAPH_STREAM)
            ]
            try:
                yield events
            finally:
                stop.set()
                await asyncio.gather(*jobs)

    @contextlib.asynccontextmanager
    async def indexing(self) -> AsyncIterator[None]:
        """Stands for the indexer: says of every passage that it can be found, without vectors."""
        stop, library = asyncio.Event(), Library(self.redis)

        async def take(delivered: list[Delivered]) -> None:
            for entry in delivered:
                passages = [Passage.from_dict(passage) for passage in entry.event.data["passages"]]
                await library.indexed(passages)
                await library.embedded(passages)

        consumer = Consumer(self.redis, keys.PASSAGES_STREAM, "indexer", "indexer-1", take, block_ms=200)
        job = asyncio.create_task(consumer.run(stop))
        try:
            yield
        finally:
            stop.set()
            await job

    async def drained(self, *streams: str) -> None:
        """Wait until the event store's group has acknowledged everything of these streams."""

        async def empty() -> bool:
            backlog = await Streams(self.redis).backlog()
            groups = [backlog[stream].groups["masterchat"] for stream in streams]
            return not any(group.lag + group.pending for group in groups)

        await self.until(empty, f"{', '.join(streams)} taken in")

    async def audit(self, events: EventStore, wanted: Sequence[str]) -> tuple[int, int, str]:
        """Compare what was asked for, what Redis has and what the event store has.

        Returns:
            Tasks that are lost (gone, not ended, or of another status in the store than in Redis), tasks that ended or
            were submitted more than once, and a line of counts.
        """
        await self.drained(keys.TASKS_STREAM, keys.GRAPH_STREAM)
        tasks = await self.tasks()
        sql = """
            SELECT task_id, count(*) FILTER (type = 'task.submit'), count(*) FILTER (type = 'task.complete'),
                count(*) FILTER (type = 'task.dead'), count(*) FILTER (type = 'task.start')
            FROM events WHERE stream IN ('tasks/v1', 'graph_stream/v1') AND starts_with(type, 'task.') GROUP BY task_id
        """
        told = {row[0]: row[1:] for row in (await events.query(sql, max_rows=1_000_000, timeout_s=60)).rows}
        lost = duplicated = starts = 0
        for task_id in wanted:
            submitted, complete, dead, started = told.get(task_id, (0, 0, 0, 0))
            status = tasks[task_id].status if task_id in tasks else "gone"
            in_store = "complete" if complete else "dead" if dead else "unfinished"
            lost += status != in_store or not submitted
            duplicated += submitted > 1 or complete + dead > 1
            starts += started
        duplicated += len(tasks.keys() - set(wanted))
        counts = await self.counts()
        return lost, duplicated, f"{counts['complete']} complete, {counts['dead']} dead, {starts} starts"


async def _read(child: Child) -> None:
    assert child.process.stdout is not None
    async for line in child.process.stdout:
        child.lines.put_nowait(line.decode().strip())
    child.lines.put_nowait("")


@contextlib.asynccontextmanager
async def open_stage(folder: Path, sample: Path, scale: Scale, *, binary: Path | None = None) -> AsyncIterator[Stage]:
    """A stage; at its end every process that is left is killed."""
    async with open_redis(None, folder / "data", binary=binary) as redis:
        await Streams(redis).setup()
        queue = TaskQueue(redis, lease_s=scale.lease_s, max_attempts=scale.attempts)
        await queue.setup()
        stage = Stage(folder, sample, scale, redis, queue)
        try:
            yield stage
        finally:
            for child in stage.children:
                if child.process.returncode is None:
                    await child.kill()
            await asyncio.gather(*stage.reading)
