"""The processes that are killed, frozen and led astray: ``python -m benchmarks.chaos.child ROLE FOLDER …``.

``worker`` takes tasks as ``lumina worker`` does; its kind ``nothing`` waits, or fails when the payload says so.
``ingester`` takes events into DuckDB as ``lumina serve`` does. Each prints a line when it is ready, and ends well on
SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import LuminaError
from memory import keys
from memory.consumers import Consumer
from memory.events import open_events
from memory.leases import Lease
from memory.redis_server import open_redis
from memory.streams import Delivered
from memory.tasks import TaskQueue

if TYPE_CHECKING:
    from graphs.runs import Runner
    from tools.wikipedia.source import Fetched, WikiSource

NEVER = 1_000_000


class Poison(LuminaError):
    """What a poisoned task fails with."""


class NotedSource:
    """An encyclopaedia that notes the titles of each request, and holds one answer back until a file is there."""

    def __init__(self, source: WikiSource, log: Path, hold_at: int) -> None:
        self._source, self._log, self._hold_at = source, log, hold_at
        self._requests = 0
        self.name = source.name
        self.suggest, self.search, self.revisions = source.suggest, source.search, source.revisions

    async def fetch(self, titles: Sequence[str]) -> Fetched:
        fetched = await self._source.fetch(titles)
        with self._log.open("a") as file:
            file.write("|".join(titles) + "\n")
        self._requests += 1
        go = self._log.with_suffix(".go")
        while self._requests == self._hold_at and not go.exists():  # another process makes it
            await asyncio.sleep(0.02)
        return fetched

    async def aclose(self) -> None:
        await self._source.aclose()


async def _nothing(runner: Runner, lease: Lease) -> dict[str, Any]:
    payload = lease.task.payload
    await asyncio.sleep(payload.get("ms", 0) / 1000)
    if payload.get("poison"):
        raise Poison("this task fails whoever runs it")
    return {"attempt": lease.task.attempts}


async def work(given: argparse.Namespace, stop: asyncio.Event) -> None:
    """Take tasks until told to stop."""
    # A second of imports, which an ingester does not need.
    from graphs.tasks import KINDS, TaskKind, take_tasks
    from services import open_runner
    from settings import load_settings
    from tools.wikipedia.opening import open_source

    async def crawl(runner: Runner, lease: Lease) -> dict[str, Any]:
        try:
            return await KINDS["crawl"].run(runner, lease)
        finally:
            print(f"left {lease.task.id}", flush=True)

    registry = {"nothing": TaskKind(_nothing), "crawl": TaskKind(crawl)}
    settings = load_settings(data_dir=given.folder, wiki_source=str(given.sample))
    async with open_source(str(given.sample), contact="chaos") as source:
        noted = NotedSource(source, given.log, given.hold_at)
        async with open_runner(settings, owns_files=False, source=noted) as runner:
            queue = TaskQueue(runner.context.redis, lease_s=given.lease, max_attempts=given.attempts)
            print("ready", flush=True)
            await take_tasks(runner, queue, list(registry), concurrency=given.concurrency, stop=stop, registry=registry)


async def ingest(given: argparse.Namespace, stop: asyncio.Event) -> None:
    """Take the graph's events into DuckDB until told to stop, or up to the batch after which it kills itself."""
    batches = 0
    async with open_redis(None, given.folder) as redis, open_events(given.store) as events:
        if given.file_limit:
            _limit_files(given.file_limit)
        store = events.ingester(keys.GRAPH_STREAM)

        async def handler(delivered: Sequence[Delivered]) -> None:
            nonlocal batches
            await store(delivered)
            batches += 1
            if batches == given.die_at:  # stored for good, and not acknowledged
                print(f"dies {time.time()}", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

        consumer = Consumer(redis, keys.GRAPH_STREAM, "masterchat", "mc", handler, batch=given.batch)
        print("ready", flush=True)
        await consumer.run(stop)


def _limit_files(limit_bytes: int) -> None:
    """Stands for a full disk where none can be mounted; SIGUSR1 makes room."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGUSR1, resource.setrlimit, resource.RLIMIT_FSIZE, (hard, hard)
    )


async def main(given: argparse.Namespace) -> None:
    """Run one role."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await {"worker": work, "ingester": ingest}[given.role](given, stop)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options of a process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["worker", "ingester"])
    parser.add_argument("folder", type=Path, help="DATA_DIR")
    parser.add_argument("--sample", type=Path, default=Path("sample.zim"))
    parser.add_argument("--lease", type=float, default=15.0)
    parser.add_argument("--attempts", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--log", type=Path, default=Path("requests.log"), help="where the titles asked for are noted")
    parser.add_argument("--hold-at", type=int, default=NEVER, help="hold back the answer of this request")
    parser.add_argument("--store", type=Path, default=Path("events.duckdb"))
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--die-at", type=int, default=NEVER, help="kill itself after this batch")
    parser.add_argument("--file-limit", type=int, default=0, help="longest file in bytes")
    parser.add_argument("--clock", type=float, default=0.0, help="seconds by which Python's clock is wrong")
    return parser.parse_args(words)


if __name__ == "__main__":
    asked = parse(sys.argv[1:])
    if asked.clock:
        right = time.time
        time.time = lambda: right() + asked.clock
        time.time_ns = lambda: int((right() + asked.clock) * 1e9)
    asyncio.run(main(asked))
    os._exit(0)
