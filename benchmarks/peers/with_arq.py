"""No-op tasks through arq, with its own environment: ``with_arq.py SOCKET COUNT WORKERS``."""

import asyncio
import json
import sys
import time

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker

path, count, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


async def noop(ctx, number):
    return None


async def main():
    settings = RedisSettings(unix_socket_path=path)
    pool = await create_pool(settings)
    left = iter(range(count))

    async def submit():
        for number in left:
            await pool.enqueue_job("noop", number)

    began = time.perf_counter()
    await asyncio.gather(*(submit() for _ in range(workers)))
    submitted = count / (time.perf_counter() - began)
    # It looks for work by the clock; with its usual half second it would only wait.
    worker = Worker(
        [noop], redis_settings=settings, burst=True, max_jobs=workers, poll_delay=0.001, queue_read_limit=1000
    )
    began = time.perf_counter()
    await worker.async_run()
    run = count / (time.perf_counter() - began)
    assert worker.jobs_complete == count, worker.jobs_complete
    await worker.close()
    print(json.dumps({"submitted/s": submitted, "run/s": run}))


asyncio.run(main())
