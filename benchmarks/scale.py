"""What an item costs, from few to many: ``python -m benchmarks.scale [--short]``. Lumina beside itself.

*Events*: DuckDB takes in 1 to 1,000,000, in batches of 5,000. *Threads*: a put and a get of a checkpoint when there are
10 to 10,000 threads. *Workers*: no-op tasks by 1 to 4 processes. *Hubs*: nodes sent over HTTP by sixteen clients to 1
and 2 processes on one Redis; without ``QDRANT_URL`` there can be one hub only, so that the role graph-api, a part of
it, stands for it then. For processes the cost is their CPU time for an item, as the kernel counts it: a machine of two
cores gives four no more to work with. The last line of each is the largest size's cost over the smallest's.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
from redis.asyncio import Redis

from benchmarks.checkpointer import checkpoint_of, payload
from benchmarks.engine import open_valkey
from benchmarks.figures import OURS, Figures
from benchmarks.harness import ROOT, finish, options, rounds_of
from memory.checkpoints import RedisSaver
from memory.events import open_events
from memory.keys import GRAPH_STREAM
from memory.redis_connection import Pool
from memory.streams import Event, Streams
from memory.tasks import TaskQueue, hold

EXPECTATION = (
    "flat within 20 % from a thousand events on, one event alone costs a hundred times as much, for a transaction is "
    "the same for one and for 5,000; flat for threads, each of which has keys of its own; tasks and requests cost each "
    "process the same, and two processes do at most twice as much where there are two free cores"
)
EVENTS, THREADS = "µs an event", "µs a checkpoint put and got, by threads"
TASKS, TASK_RATE = "CPU µs a task, by workers", "tasks/s, by workers"
TASK_WAKES = "times a worker was woken for a task, by workers"
NODES, NODE_RATE = "CPU µs a node over HTTP, by processes", "nodes/s over HTTP, by processes"
BATCH = 5_000
PROBES = 400
"""Puts and gets for each number of threads."""
AT_ONCE = 16
TICKS = os.sysconf("SC_CLK_TCK")


async def events(figures: Figures, sizes: Sequence[int]) -> None:
    """The first size is measured twice, for the first store of a process loads what the others find loaded."""
    data = {"owner": "local", "id": "Node", "title": "Node", "data": {"links": 7}}
    event = Event("node.add", data, agent="crawl", task_id="task", ts=1_700_000_000_000)
    for turn, size in enumerate((sizes[0], *sizes)):
        with tempfile.TemporaryDirectory() as folder:
            async with open_events(Path(folder) / "events.duckdb") as store:
                seconds = 0.0
                for start in range(0, size, BATCH):
                    batch = [(GRAPH_STREAM, f"{n + 1}-0", event) for n in range(start, min(size, start + BATCH))]
                    began = time.perf_counter()
                    await store.append(batch)
                    seconds += time.perf_counter() - began
        if turn:
            figures.note_at(size, EVENTS, OURS, 1e6 * seconds / size)


async def threads(figures: Figures, path: str, sizes: Sequence[int]) -> None:
    """Each number of threads has a database of its own on one server, and they take turns put by put: what slows the
    machine for a moment slows them all."""
    data = payload(1_000)

    async def put(saver: RedisSaver, number: int) -> Any:
        config: Any = {"configurable": {"thread_id": f"thread-{number}", "checkpoint_ns": ""}}
        checkpoint, new = checkpoint_of(saver, {"payload": data, "step": number}, None)
        await saver.aput(config, checkpoint, {"source": "loop", "step": number}, new)
        return config

    async with AsyncExitStack() as stack:
        savers = {}
        for database, size in enumerate(sizes, start=1):
            pool = Pool.from_url(f"unix://{path}", db=database)
            client: Redis = await stack.enter_async_context(Redis.from_pool(pool))
            await client.flushdb()
            savers[size] = RedisSaver(client, cache_bytes=0)
            for start in range(0, size, AT_ONCE):
                await asyncio.gather(*(put(savers[size], n) for n in range(start, min(size, start + AT_ONCE))))
        taken: dict[int, list[float]] = {size: [] for size in sizes}
        for number in range(PROBES):
            for size, saver in savers.items():
                began = time.perf_counter()
                assert await saver.aget_tuple(await put(saver, number * 7_919 % size))
                taken[size].append(time.perf_counter() - began)
    for size in sizes:
        figures.note_at(size, THREADS, OURS, 1e6 * statistics.median(taken[size]))


# Processes.


async def work(path: str, count: int) -> None:
    """What a worker process does, until all of them together have done so many tasks."""
    redis: Redis = Redis.from_pool(Pool.from_url(f"unix://{path}"))
    queue = TaskQueue(redis)

    async def take(name: str) -> None:
        while (await queue.counts())["complete"] < count:
            for _ in range(20):
                lease = await queue.claim(name, ["noop"], block_ms=50)
                if lease is None:
                    break
                async with hold(lease):
                    await lease.complete({})

    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.gather(*(take(f"{os.getpid()}-{n}") for n in range(AT_ONCE)))
    await redis.aclose()


async def workers(figures: Figures, redis: Redis, path: str, sizes: Sequence[int], count: int) -> None:
    for size in sizes:
        await redis.flushall()
        await Streams(redis).setup()
        queue = TaskQueue(redis)
        for start in range(0, count, 100):
            await asyncio.gather(
                *(queue.submit("noop", {"number": n}, owner="bench") for n in range(start, start + 100))
            )
        command = (sys.executable, "-m", "benchmarks.scale", "--work", path, str(count))
        pipe = asyncio.subprocess.PIPE
        running = [
            await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe) for _ in range(size)
        ]
        for one in running:
            assert one.stdout
            assert await one.stdout.readline()
        before, slept, began = (
            sum(cpu_s(o.pid) for o in running),
            sum(wakes(o.pid) for o in running),
            time.perf_counter(),
        )
        for one in running:
            assert one.stdin
            one.stdin.write(b"\n")
        used, woken = before, slept
        while (await queue.counts())["complete"] < count:
            assert all(one.returncode in (None, 0) for one in running), "a worker broke"
            await asyncio.sleep(0.02)
            used = max(used, sum(cpu_s(one.pid) for one in running))
            woken = max(woken, sum(wakes(one.pid) for one in running))
        seconds = time.perf_counter() - began
        await asyncio.gather(*(one.wait() for one in running))
        figures.note_at(size, TASK_RATE, OURS, count / seconds)
        figures.note_at(size, TASKS, OURS, 1e6 * (used - before) / count)
        figures.note_at(size, TASK_WAKES, OURS, (woken - slept) / count)


def cpu_s(pid: int) -> float:
    """User and system time of a process so far; 0 when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def wakes(pid: int) -> int:
    """How often the threads of a process have gone to sleep of their own accord; 0 when it has ended."""
    try:
        about = "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status"))
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in about.splitlines() if line.startswith("voluntary_ctxt_switches"))


@asynccontextmanager
async def served(role: str, path: str) -> AsyncIterator[tuple[str, int]]:
    """Address and process id of a Lumina in this role."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "REDIS_URL": f"unix://{path}", "DATA_DIR": folder}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "cli.py", "serve", "--role", role, "--port", str(port)),
            cwd=ROOT,
            env=environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                while True:
                    assert process.returncode is None, f"the role {role} ended with {process.returncode}"
                    try:
                        await client.get("/nodes/Nothing")
                        break
                    except httpx.TransportError:
                        await asyncio.sleep(0.1)
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await process.wait()


async def hubs(
    figures: Figures, redis: Redis, path: str, role: str, sizes: Sequence[int], count: int, rounds: int
) -> None:
    async with AsyncExitStack() as stack:
        up = [await stack.enter_async_context(served(role, path)) for _ in range(max(sizes))]
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=60.0))
        for turn in range(rounds):
            for size in sizes:
                left = iter(range(count))
                pids = [pid for _, pid in up[:size]]

                async def send(turn: int = turn, size: int = size, left: Any = left) -> None:
                    for number in left:
                        node = {"id": f"N{turn}-{size}-{number}", "title": f"Node {number}", "source": "bench"}
                        answer = await client.post(f"{up[number % size][0]}/nodes", json=node)
                        assert answer.is_success, answer.text

                before, began = sum(map(cpu_s, pids)), time.perf_counter()
                await asyncio.gather(*(send() for _ in range(AT_ONCE)))
                figures.note_at(size, NODE_RATE, OURS, count / (time.perf_counter() - began))
                figures.note_at(size, NODES, OURS, 1e6 * (sum(map(cpu_s, pids)) - before) / count)


def note_flatness(figures: Figures, measure: str, since: int = 1) -> None:
    """The cost at the largest size over that at the smallest from ``since`` on, round by round."""
    by_size = {size: name for size, name in figures.growth[measure].items() if size >= since}
    least, most = min(by_size), max(by_size)
    for small, large in zip(figures.found[by_size[least]][OURS], figures.found[by_size[most]][OURS], strict=True):
        figures.note(f"{measure}: at {most:,} ÷ at {least:,}", OURS, large / small)


async def main(figures: Figures, rounds: int, *, short: bool) -> None:
    tenfold = (1, 100, 1_000, 10_000, 50_000) if short else (1, 100, 1_000, 10_000, 100_000, 1_000_000)
    many = (10, 100, 1_000) if short else (10, 100, 1_000, 10_000)
    role = "hub" if os.environ.get("QDRANT_URL") else "graph-api"
    async with open_valkey() as (redis, path):
        for _ in range(rounds):
            await events(figures, tenfold)
            await threads(figures, path, many)
            await workers(figures, redis, path, (1, 2) if short else (1, 2, 4), 400 if short else 20_000)
        await redis.flushall()
        await hubs(figures, redis, path, role, (1, 2), 300 if short else 3_000, rounds)
    note_flatness(figures, EVENTS, since=1_000)
    for measure in (EVENTS, THREADS, TASKS, NODES):
        note_flatness(figures, measure)


if __name__ == "__main__":
    parser = options(__doc__, rounds=3)
    parser.add_argument("--work", nargs=2, metavar=("SOCKET", "COUNT"), help="be one of the workers")
    given = parser.parse_args()
    if given.work:
        asyncio.run(work(given.work[0], int(given.work[1])))
    else:
        collected = Figures("scale", expectation=EXPECTATION)
        asyncio.run(main(collected, rounds_of(given), short=bool(given.short)))
        finish(collected, given)
