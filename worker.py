"""The consumer of ``tasks/v1``: claims tasks, runs the graph, renews the lease, resumes what others left."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Sequence

from loguru import logger

from agents.spec import RunRequest
from errors import LuminaError
from graphs.runs import Runner
from memory.leases import hold
from memory.tasks import Lease, LeaseLost, TaskQueue
from services import open_runner
from settings import InvalidSettings, Settings

KINDS = {"crawl": False, "ask": True, "summarise": True}
"""Task kind → whether it retrieves, and so needs the vectors."""

INTENTS = {"crawl": "crawl", "ask": "wiki_qa", "summarise": "summarise"}

CLAIM_BLOCK_MS = 1_000
"""How long one look at the queue waits; also how long a stop may take to be seen."""


async def work(settings: Settings, *, kinds: Sequence[str], concurrency: int) -> bool:
    """Take tasks until SIGINT or SIGTERM; what runs then is finished or handed back.

    Raises:
        InvalidSettings: a kind that does not exist, or that this process cannot run.
    """
    able = [kind for kind, retrieves in KINDS.items() if settings.qdrant_url or not retrieves]
    wanted = list(kinds) or able
    for kind in wanted:
        if kind not in KINDS:
            raise InvalidSettings(f"--kinds {kind}: accepted are {', '.join(KINDS)}")
        if kind not in able:
            raise InvalidSettings(f"--kinds {kind} retrieves passages: set QDRANT_URL, or use `lumina serve`")
    async with open_runner(settings, owns_files=False) as runner:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stop.set)
        print(f"Lumina takes tasks of kind {', '.join(wanted)}  (Ctrl-C ends it)", flush=True)
        await take_tasks(runner, wanted, concurrency, stop)
    return True


async def take_tasks(runner: Runner, kinds: Sequence[str], concurrency: int, stop: asyncio.Event) -> None:
    """Claim and run tasks until ``stop`` is set."""
    queue = TaskQueue(runner.context.redis)
    name = f"{socket.gethostname()}-{os.getpid()}"
    async with asyncio.TaskGroup() as group:
        for number in range(1, concurrency + 1):
            group.create_task(_take(queue, runner, f"worker-{name}-{number}", kinds, stop))


async def _take(queue: TaskQueue, runner: Runner, worker: str, kinds: Sequence[str], stop: asyncio.Event) -> None:
    while not stop.is_set():
        lease = await queue.claim(worker, kinds, block_ms=CLAIM_BLOCK_MS)
        if lease is not None:
            await _run(lease, runner)


async def _run(lease: Lease, runner: Runner) -> None:
    task = lease.task
    try:
        async with hold(lease):
            await lease.complete(await run_task(runner, task.kind, task.payload, task.owner, task.id, lease))
    except LeaseLost as error:
        logger.warning("{}", error)
    except LuminaError as error:
        await lease.fail(str(error))


async def run_task(
    runner: Runner, kind: str, payload: dict[str, object], owner: str, task_id: str, lease: Lease
) -> dict[str, object]:
    """Run one task from its last checkpoint and return its result.

    Raises:
        LuminaError: the run failed; the text is the reason.
    """
    request = RunRequest(**{**payload, "intent": INTENTS[kind], "owner": owner})
    outcome: dict[str, object] = {}
    async for event in runner.stream(request, task_id):
        if event.kind == "progress":
            await lease.progress(event.data)
        elif event.kind == "done":
            outcome = event.data
    status = outcome.get("outcome")
    if isinstance(status, dict) and status.get("status") == "failed":
        raise LuminaError(str(status["reason"]))
    return outcome
