"""No-op tasks through taskiq-redis' stream broker: ``with_taskiq.py SOCKET COUNT WORKERS``."""

import asyncio
import json
import os
import sys
import time

from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

path, count, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
broker = RedisStreamBroker(f"unix://{path}")
done = 0
finished = asyncio.Event()


@broker.task
async def noop(number: int) -> None:
    global done
    done += 1
    if done == count:
        finished.set()


async def main():
    await broker.startup()
    left = iter(range(count))

    async def submit():
        for number in left:
            await noop.kiq(number)

    began = time.perf_counter()
    await asyncio.gather(*(submit() for _ in range(workers)))
    submitted = count / (time.perf_counter() - began)
    began = time.perf_counter()
    receiving = asyncio.create_task(run_receiver_task(broker, max_async_tasks=workers, max_prefetch=100))
    await finished.wait()
    run = count / (time.perf_counter() - began)
    print(json.dumps({"submitted/s": submitted, "run/s": run}), flush=True)
    assert not receiving.done()
    os._exit(0)  # its receiver does not end when it is cancelled


asyncio.run(main())
