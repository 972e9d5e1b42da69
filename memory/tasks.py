"""The durable task queue on ``tasks/v1``.

A task is a hash, and an entry of the stream that stands for it. The entry stays pending in the group ``workers`` from
the moment it is handed out until the task has ended, so trimming never takes an unfinished task. A change of a task,
the change of every index, and the events that tell of it are one script: either all of it happened or none. On a Redis
Cluster the events lie in another slot; there the script writes them to an outbox beside the task, and ``relay`` moves
them on, each exactly once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any, get_args

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoScriptError, RedisError, ResponseError

from memory import keys, lease_scripts, task_scripts
from memory.leases import Lease, LeaseLost, TaskCancelled, hold, to_json
from memory.stream_scripts import LEAVE
from memory.streams import Streams, create_group, max_length
from memory.task_records import Status, Task, TaskNotRetryable, TaskPage, UnknownTask

__all__ = [
    "Lease",
    "LeaseLost",
    "Task",
    "TaskCancelled",
    "TaskNotRetryable",
    "TaskPage",
    "TaskQueue",
    "UnknownTask",
    "hold",
]

LEASE_S = 15.0
"""A worker that has not renewed for so long is taken for dead."""
MAX_ATTEMPTS = 5
IDEMPOTENCY_TTL_S = 24 * 3600
"""How long an idempotency key is remembered."""
KEEP_FINISHED_S = 7 * 24 * 3600
"""How long a task that has ended, dead ones among them, can be looked up in Redis; every worker forgets older ones. The
event store keeps their events for good."""
LONGEST_BLOCK_MS = 2_000
"""One wait for new entries, shorter than any socket timeout; also how late a lease that another took is noticed."""
TIDY_EVERY_S = 10.0
"""How often a worker trims the streams and forgets old tasks, however busy it is."""
PARKED = "parked"
"""The name under which tasks wait in the group that were handed to a worker of other kinds; see ``lease_scripts``."""


class TaskQueue:
    """Submits, hands out, and follows tasks. All workers of one Redis see one queue."""

    def __init__(
        self,
        redis: Redis,
        *,
        lease_s: float = LEASE_S,
        max_attempts: int = MAX_ATTEMPTS,
        cluster: bool | None = None,
    ) -> None:
        """Take a client whose values are bytes.

        Args:
            redis: the client.
            lease_s: see ``LEASE_S``.
            max_attempts: failures, lost leases among them, after which a task is dead.
            cluster: whether streams lie in different slots; by default, what kind of client it is tells.
        """
        self.lease_s = lease_s
        self.max_attempts = max_attempts
        self._redis = redis
        self._streams = Streams(redis)
        clustered = isinstance(redis, RedisCluster) if cluster is None else cluster
        targets = (keys.GRAPH_STREAM, keys.dead_letters(keys.TASKS_STREAM))
        self._outboxes = {f"{keys.TASKS_ROOT}outbox:{name}": name for name in targets} if clustered else {}
        self._keys = [keys.TASKS_STREAM, *(self._outboxes or targets)]
        self._scripts = {
            name: redis.register_script(script)
            for name, script in {**task_scripts.SCRIPTS, **lease_scripts.SCRIPTS}.items()
        }
        self._relay = redis.register_script(task_scripts.RELAY)
        self._leave = redis.register_script(LEAVE)
        self._full = False
        self._next_tidy = 0.0

    async def setup(self) -> None:
        """Create the stream and its group, when they are not there."""
        await create_group(self._redis, keys.TASKS_STREAM, keys.WORKERS_GROUP)

    async def submit(
        self, kind: str, payload: Any, *, owner: str, idempotency_key: str | None = None, task_id: str | None = None
    ) -> Task:
        """Queue a task, or return the one that this owner submitted before with the same key or id.

        While workers are more than the stream's length behind, the caller waits a few seconds first.

        Raises:
            UnknownTask: ``task_id`` is taken by somebody else.
            TypeError: the payload is not JSON.
            ValueError: the payload has NaN or infinity in it.
        """
        if self._full:
            self._full = not await self._streams.wait_for_room(keys.TASKS_STREAM)
        digest = ""
        if idempotency_key is not None:
            digest = hashlib.sha256(f"{owner}\x1f{idempotency_key}".encode()).hexdigest()
        wanted = task_id or str(uuid.uuid4())
        text = to_json(payload)
        told = f'{{"kind":{to_json(kind)},"owner":{to_json(owner)},"attempts":0,"payload":{text}}}'
        found, length, known = await self.call(
            "submit", wanted, kind, owner, text, told, digest, IDEMPOTENCY_TTL_S * 1000
        )
        if not found:
            raise UnknownTask(f"task id {wanted} is taken; leave it out, or choose another")
        if length > max_length(keys.TASKS_STREAM):
            self._full = True
        if isinstance(known, list):
            return Task.from_words(known)
        return Task.submitted(wanted, kind, owner, json.loads(text), int(known))

    async def get(self, task_id: str) -> Task:
        """The task with this id.

        Raises:
            UnknownTask: there is none, or it ended more than ``KEEP_FINISHED_S`` ago.
        """
        fields: Any = await self._redis.hgetall(_task_key(task_id))
        if b"status" not in fields:
            raise UnknownTask(f"no task {task_id}; `lumina tasks list` or GET /tasks lists yours")
        return Task.from_hash(fields)

    async def list(
        self,
        owner: str | None = None,
        status: Status | None = None,
        cursor: str | None = None,
        limit: int = 50,
        *,
        kind: str | None = None,
    ) -> TaskPage:
        """Tasks of one owner (``None``: of all), newest first, one page at a time, of any status and kind or of one.

        Raises:
            ValueError: the cursor is none that this method gave.
        """
        index = f"owner:{owner}" if owner is not None else f"status:{status}" if status else "all"
        top = f"({int(cursor)}" if cursor else "+inf"
        tasks: list[Task] = []
        while True:
            rows: Any = await self._redis.zrevrangebyscore(
                keys.TASKS_ROOT + index, top, "-inf", start=0, num=200, withscores=True
            )
            async with self._redis.pipeline(transaction=False) as pipe:
                for task_id, _ in rows:
                    pipe.hgetall(_task_key(task_id.decode()))
                replies = await pipe.execute()
            for fields, (_, seq) in zip(replies, rows, strict=True):
                top = f"({int(seq)}"
                if b"status" in fields and _is(fields, b"status", status) and _is(fields, b"kind", kind):
                    tasks.append(Task.from_hash(fields))
                    if len(tasks) == limit:
                        return TaskPage(tasks, str(int(seq)))
            if len(rows) < 200:
                return TaskPage(tasks, None)

    async def counts(self) -> dict[str, int]:
        """How many tasks have each status."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for status in get_args(Status):
                pipe.zcard(f"{keys.TASKS_ROOT}status:{status}")
            return dict(zip(get_args(Status), await pipe.execute(), strict=True))

    async def leases(self) -> int:
        """How many tasks a worker holds now, a dead worker's included until its lease has run out."""
        return int(await self._redis.zcard(f"{keys.TASKS_ROOT}leases"))

    async def cancel(self, task_id: str) -> Task:
        """End a task that has not ended yet; one that is running learns of it at its next renewal.

        Raises:
            UnknownTask: there is none.
        """
        return await self._known(task_id, bool(await self.call("cancel", task_id)))

    async def retry(self, task_id: str) -> Task:
        """Queue a dead or cancelled task again, with all its attempts.

        Raises:
            UnknownTask: there is none.
            TaskNotRetryable: it has not ended, or has a result; it stays as it is.
        """
        status: bytes = await self.call("retry", task_id)
        if status not in (b"", b"dead", b"cancelled"):
            raise TaskNotRetryable(
                f"task {task_id} is {status.decode()}; accepted for another try: tasks that are dead or cancelled"
            )
        return await self._known(task_id, bool(status))

    async def claim(self, worker: str, kinds: Collection[str], block_ms: int = 0) -> Lease | None:
        """The next task of one of these kinds, from the line or from a worker that died.

        Args:
            worker: a name that no other worker has.
            kinds: what the worker can run; tasks of other kinds are left to others.
            block_ms: how long to wait for one.
        """
        deadline = time.monotonic() + block_ms / 1000
        while True:
            await self._tidy()
            lease, reply = await self.hand_out("claim", worker, kinds)
            if lease is not None:
                return lease
            _, last_id, due_ms = reply
            left_ms = int((deadline - time.monotonic()) * 1000)
            if not last_id:
                continue
            if left_ms <= 0:
                return None
            wait_ms = min(left_ms, LONGEST_BLOCK_MS, due_ms or LONGEST_BLOCK_MS)
            await self._redis.xread({keys.TASKS_STREAM: last_id}, count=1, block=max(wait_ms, 1))

    async def hand_out(
        self, script: str, worker: str, kinds: Collection[str], *values: str | int
    ) -> tuple[Lease | None, Any]:
        """Run a script that may hand out a task, and pass on what else it tells; for ``Lease``.

        Whoever is cancelled meanwhile gives the task back, rather than let the lease run out.
        """
        asked = time.monotonic()
        call = asyncio.ensure_future(
            self.call(script, *values, worker, int(self.lease_s * 1000), self.max_attempts, *sorted(kinds))
        )
        try:
            reply = await asyncio.shield(call)
        except asyncio.CancelledError:
            if not call.done():
                await asyncio.wait({call})
            if not call.cancelled() and call.exception() is None:
                lease = self._lease(worker, call.result(), asked)
                if lease is not None:
                    with contextlib.suppress(LeaseLost, TaskCancelled, RedisError, OSError):
                        await lease.release()
            raise
        return self._lease(worker, reply, asked), reply

    def _lease(self, worker: str, reply: Any, asked: float) -> Lease | None:
        if not isinstance(reply, list) or reply[0] != 1:
            return None
        _, fence, values = reply
        return Lease(self, Task.from_values(values), worker, int(fence), asked)

    async def leave(self, worker: str) -> None:
        """Forget a worker that stops, and those that held nothing for an hour, so that names do not pile up."""
        for name in (worker, PARKED):
            await self._leave([keys.TASKS_STREAM], [keys.WORKERS_GROUP, name, 3_600_000])

    async def prune(self, older_than_s: float = KEEP_FINISHED_S) -> int:
        """Forget tasks that ended longer ago; returns how many."""
        gone = 0
        while part := int(await self.call("prune", int(older_than_s * 1000))):
            gone += part
        return gone

    async def call(self, script: str, *values: str | int) -> Any:
        """Run one script of the queue by name and pass on what it tells; for ``Lease``."""
        try:
            reply = await self._run(script, values)
        except ResponseError as error:
            if "NOGROUP" not in str(error) and "no such key" not in str(error):
                raise
            await self.setup()
            reply = await self._run(script, values)
        if self._outboxes:
            await self.relay()
        return reply

    async def _run(self, name: str, values: Sequence[str | int]) -> Any:
        """As redis-py's ``Script`` does, whose own way takes a tenth of the time of a submission."""
        script = self._scripts[name]
        words = (script.sha, len(self._keys), *self._keys, *values)
        try:
            return await self._redis.execute_command("EVALSHA", *words)  # type: ignore[no-untyped-call]  # redis-py's
        except NoScriptError:
            return await script(self._keys, values)

    async def relay(self) -> int:
        """On a cluster, move events from the outboxes to their streams; returns how many were there.

        Each moves exactly once, however many processes do this at a time and wherever one dies: the stream's slot keeps
        the id of the last one that arrived, and entries are offered in the outbox's order.
        """
        moved = 0
        for outbox, stream in self._outboxes.items():
            while entries := await self._streams_raw(outbox):
                words: list[Any] = []
                for entry_id, fields in entries:
                    flat = [word for pair in fields.items() for word in pair]
                    words += [entry_id, len(flat), *flat]
                await self._relay([stream, keys.relayed(stream)], words)
                await self._redis.xdel(outbox, *(entry_id for entry_id, _ in entries))
                moved += len(entries)
        return moved

    async def _streams_raw(self, stream: str) -> Any:
        return await self._redis.xrange(stream, count=500)

    async def _known(self, task_id: str, found: bool) -> Task:
        if not found:
            raise UnknownTask(f"no task {task_id}; `lumina tasks list` or GET /tasks lists yours")
        return await self.get(task_id)

    @property
    def is_tidy_due(self) -> bool:
        """Whether the next ``claim`` trims the streams and forgets old tasks."""
        return time.monotonic() >= self._next_tidy

    async def _tidy(self) -> None:
        if self.is_tidy_due:
            self._next_tidy = time.monotonic() + TIDY_EVERY_S
            await self._streams.trim()
            await self.prune()


def _is(fields: Mapping[bytes, bytes], name: bytes, wanted: str | None) -> bool:
    return wanted is None or fields[name].decode() == wanted


def _task_key(task_id: str) -> str:
    return f"{keys.TASKS_ROOT}task:{task_id}"
