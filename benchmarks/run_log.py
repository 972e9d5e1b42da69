"""What the log of a chat's run costs: events a second into Redis in batches, beside one round trip for each.

``python benchmarks/run_log.py [--events 20000]``; an embedded Redis in a folder of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from graphs.runs import RunEvent
from memory.redis_server import open_redis
from memory.run_log import RunHead, RunLogs
from serving.turns import EventLog

ROUNDS = 3


async def batched(logs: RunLogs, task_id: str, events: int) -> float:
    """Events a second through the writer that runs use."""
    _, hold = await logs.begin(RunHead(task_id, "local", {}, "", background=True))
    assert hold is not None
    log = EventLog(logs, hold, 0)
    writing = asyncio.create_task(log.write())
    started = time.perf_counter()
    for number in range(events):
        log.put(RunEvent("token", {"agent": "qa", "text": f"word{number} "}))
        if number % 16 == 0:
            await asyncio.sleep(0)  # as a model's tokens come: a few at a time
        await log.room()
    log.close()
    await writing
    return events / (time.perf_counter() - started)


async def one_by_one(logs: RunLogs, task_id: str, events: int) -> float:
    """Events a second with a round trip for each."""
    _, hold = await logs.begin(RunHead(task_id, "local", {}, "", background=True))
    assert hold is not None
    started = time.perf_counter()
    for number in range(events):
        await logs.append(hold, number, [("token", f'{{"agent": "qa", "text": "word{number} "}}')])
    return events / (time.perf_counter() - started)


async def main(events: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with open_redis(None, Path(folder)) as redis:
            logs = RunLogs(redis)
            found: dict[str, list[float]] = {"batched": [], "one by one": []}
            for number in range(ROUNDS):
                found["batched"].append(await batched(logs, f"b{number}", events))
                found["one by one"].append(await one_by_one(logs, f"o{number}", events // 10))
    for name, rates in found.items():
        print(f"{name:<12} {statistics.median(rates):>10,.0f} events/s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    asyncio.run(main(parser.parse_args().events))
