"""A worker's hold on one task: every write through it is refused once the hold is lost."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from loguru import logger
from redis import exceptions

from errors import LuminaError
from memory.fencing import Fence

if TYPE_CHECKING:
    from memory.task_records import Task
    from memory.tasks import TaskQueue

RENEW_EVERY_S = 2.0
"""``hold`` renews so often, or three times a lease when that is shorter: a cancelled task stops within this time."""
BACKOFF_S = 1.0
"""Wait after the first failure; it doubles with each one."""
BACKOFF_MAX_S = 60.0
MAX_ERROR_CHARS = 4_000


class LeaseLost(LuminaError):
    """The task has gone to another worker (or was sent back, or forgotten); nothing was written."""


class TaskCancelled(LuminaError):
    """Somebody cancelled the task; nothing was written."""


class Lease:
    """The right to run a task, for ``lease_s`` seconds from the last renewal.

    Each call sends the fencing token, which rises with every claim of the task; the server compares it in the same
    step in which it writes (Kleppmann, "How to do distributed locking", 2016). Each raises ``LeaseLost`` or
    ``TaskCancelled`` instead of writing, and may be repeated after a broken connection.
    """

    def __init__(self, queue: TaskQueue, task: Task, worker: str, fence: int, asked: float) -> None:
        """``asked``: the time, by ``time.monotonic``, before the queue was asked for it."""
        self.task = task
        """The task as it was when it was claimed; ``task.attempts`` counts this attempt."""
        self.worker = worker
        self.fence = fence
        """Fencing token; give it to whatever else the task writes to."""
        self.lease_s = queue.lease_s
        self._queue = queue
        self._renewed = asked

    async def ensure_held(self) -> None:
        """Renew the lease if it may have run out since the last renewal, as when the process was stopped meanwhile."""
        if time.monotonic() - self._renewed >= self.lease_s:
            await self.renew()

    async def renew(self) -> None:
        """Say that the worker is alive."""
        await self._write("renew", self._lease_ms, "")

    async def progress(self, data: Any) -> None:
        """Keep a JSON value that says how far the task is, in place of the last one; renews the lease too."""
        await self._write("renew", self._lease_ms, to_json(data))

    async def complete(self, result: Any = None) -> None:
        """End the task with a JSON value as its result."""
        await self._write("complete", to_json(result))

    async def complete_and_claim(self, result: Any, kinds: Collection[str]) -> Lease | None:
        """End the task with a JSON value, and take the next one of these kinds, if there is one, in the same step.

        Now and then nothing is taken along, so that the worker comes by ``TaskQueue.claim``, which tidies up. Whoever
        is cancelled meanwhile has nothing: what was taken is given back unharmed.
        """
        if not kinds or self._queue.is_tidy_due:
            await self.complete(result)
            return None
        values = (self.task.id, self.fence, to_json(result))
        lease, reply = await self._queue.hand_out("complete_and_claim", self.worker, kinds, *values)
        if lease is None:
            self._ensure_accepted("complete_and_claim", reply)
        return lease

    async def fail(self, error: str, *, retry: bool = True) -> None:
        """Give the task back after a failure.

        It is tried again after ``BACKOFF_S`` · 2^(attempt - 1), with jitter; after the last attempt, or when ``retry``
        is false because trying again cannot help, it goes to the dead letters.
        """
        wait_s = min(BACKOFF_S * 2 ** (self.task.attempts - 1), BACKOFF_MAX_S)
        delay_ms = int(random.uniform(wait_s / 2, wait_s) * 1000)
        attempts = self._queue.max_attempts if retry else 0
        await self._write("fail", to_json(error[:MAX_ERROR_CHARS]), delay_ms, attempts)

    async def release(self) -> None:
        """Give the task back unharmed, for a worker that stops: at once, and the attempt does not count."""
        await self._write("release")

    async def postpone(self, delay_s: float, why: str) -> None:
        """Give the task back unharmed because its owner must wait: the attempt does not count.

        Tasks of the same owner and kind wait in line behind it; those of others are handed out as before.
        """
        await self._write("postpone", max(math.ceil(delay_s * 1000), 1), to_json(why[:MAX_ERROR_CHARS]))

    @property
    def _lease_ms(self) -> int:
        return int(self.lease_s * 1000)

    async def _write(self, script: str, *values: str | int) -> None:
        asked = time.monotonic()
        self._ensure_accepted(script, await self._queue.call(script, self.task.id, self.fence, *values))
        self._renewed = asked

    def _ensure_accepted(self, script: str, reply: bytes) -> None:
        if reply == b"cancelled":
            raise TaskCancelled(f"task {self.task.id} was cancelled; {script} by {self.worker} was refused")
        if reply:
            raise LeaseLost(
                f"task {self.task.id} is no longer held by {self.worker} with token {self.fence} "
                f"({reply.decode()}); {script} was refused"
            )


def hold(lease: Lease) -> AbstractAsyncContextManager[Lease]:
    """Renew a lease while the body runs, and stop the body when the task is no longer its own.

    What the body writes to streams, checkpoints and the library is fenced too; see ``memory.fencing``.

    Raises:
        LeaseLost: the lease went to another, or could not be renewed before it ran out; the body was cancelled.
        TaskCancelled: the task was cancelled, and so was the body.
    """
    return _Hold(lease)


class _Hold:
    """A body that is over before the first renewal is due costs a timer, and no task of asyncio's."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._interval_s = min(RENEW_EVERY_S, lease.lease_s / 3)
        self._fence = Fence(lease.ensure_held)
        self._keeper: asyncio.Task[None] | None = None
        self._reason: LuminaError | None = None
        self._ended = False

    async def __aenter__(self) -> Lease:
        body = asyncio.current_task()
        assert body is not None, "hold() needs a running task"
        self._body, self._cancelling = body, body.cancelling()
        self._renewed = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._begin)
        self._fence.__enter__()
        return self._lease

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._fence.__exit__()
        self._ended = True
        self._timer.cancel()
        try:
            if self._keeper is not None:
                self._keeper.cancel()
                await asyncio.wait({self._keeper})
        except asyncio.CancelledError:
            self._raise_reason()
            raise
        if isinstance(error, asyncio.CancelledError):
            self._raise_reason()

    def _raise_reason(self) -> None:
        """Instead of a cancellation that is ours, unless somebody else cancelled too (the rule of asyncio.timeout)."""
        if self._reason is not None and self._body.uncancel() <= self._cancelling:
            raise self._reason from None

    def _begin(self) -> None:
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        while not self._ended:  # a cancellation may be swallowed by the client (python/cpython#86296)
            lost = await self._renew()
            if self._ended:
                return
            if lost is not None:
                self._reason = lost
                self._body.cancel()
                return
            await asyncio.sleep(self._interval_s)

    async def _renew(self) -> LuminaError | None:
        """Why the task is no longer the body's."""
        lease, asked = self._lease, time.monotonic()
        try:
            async with asyncio.timeout(max(self._renewed + lease.lease_s - asked, 0.001)):
                await lease.renew()
            self._renewed = asked
        except (LeaseLost, TaskCancelled) as error:
            return error
        except (exceptions.RedisError, OSError, TimeoutError) as error:
            logger.warning("task {}: lease not renewed: {}", lease.task.id, error)
            if time.monotonic() - self._renewed >= lease.lease_s:
                return LeaseLost(f"task {lease.task.id}: no renewal for {lease.lease_s:.0f} s: {error}")
        return None


def to_json(value: Any) -> str:
    """Compact JSON.

    Raises:
        ValueError: NaN or infinity.
        TypeError: not a JSON value.
    """
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
