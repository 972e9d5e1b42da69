"""``lumina worker``: a process of its own that takes tasks; the work itself is in ``graphs.tasks``."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

import services
from graphs.runs import Runner
from graphs.tasks import KINDS, take_tasks
from memory.tasks import TaskQueue
from settings import InvalidSettings, Settings

Opener = Callable[[Settings], AbstractAsyncContextManager[Runner]]
_OPEN_BESIDE_A_SERVER: Opener = partial(services.open_runner, owns_files=False)


async def work(
    settings: Settings,
    *,
    kinds: Sequence[str],
    concurrency: int,
    open_runner: Opener = _OPEN_BESIDE_A_SERVER,
) -> bool:
    """Take tasks until SIGINT or SIGTERM; what runs then is handed back to the queue.

    Args:
        settings: Which services, and where.
        kinds: What to take; none means everything that this process can run.
        concurrency: Tasks at a time.
        open_runner: Opens the services; another one may hand in models or sources of its own.

    Raises:
        InvalidSettings: a kind that does not exist, or that this process cannot run.
    """
    able = [name for name, kind in KINDS.items() if settings.qdrant_url or not kind.retrieves]
    wanted = list(dict.fromkeys(kinds)) or able
    for name in wanted:
        if name not in KINDS:
            raise InvalidSettings(f"--kinds {name}: accepted are {', '.join(KINDS)}")
        if name not in able:
            raise InvalidSettings(f"--kinds {name} retrieves passages: set QDRANT_URL, or use `lumina serve`")
    async with open_runner(settings) as runner:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        print(f"Lumina takes tasks of kind {', '.join(wanted)}  (Ctrl-C ends it)", flush=True)
        await take_tasks(runner, TaskQueue(runner.context.redis), wanted, concurrency=concurrency, stop=stop)
    return True
