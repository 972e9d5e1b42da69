"""What the log of a chat's run costs: events a second into Redis in batches, beside one round trip for each.

``python -m benchmarks.run_log [--short]``; an embedded Redis in a folder of its own.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.figures import Figures
from benchmarks.harness import finish, options, rounds_of
from graphs.runs import RunEvent
from memory.redis_server import open_redis
from memory.run_log import RunHead, RunLogs
from serving.event_log import EventLog


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


async def main(figures: Figures, rounds: int, events: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with open_redis(None, Path(folder)) as redis:
            logs = RunLogs(redis)
            for number in range(rounds):
                figures.note("events/s", "lumina", await batched(logs, f"b{number}", events))
                figures.note("events/s", "a round trip each", await one_by_one(logs, f"o{number}", events // 10))


if __name__ == "__main__":
    given = options(__doc__, rounds=5).parse_args()
    collected = Figures("run_log")
    asyncio.run(main(collected, rounds_of(given), 5_000 if given.short else 20_000))
    finish(collected, given)
