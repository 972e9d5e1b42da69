"""Which threads hold checkpoints, and which of them belong to a run: found without looking through all of Redis.

A thread is entered together with its first checkpoint, and again with the first write after an eighth of its lifetime;
its entry outlives it by a quarter of that lifetime at most and is dropped by whoever enters the next thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from memory import keys
from memory.checkpoint_calls import Calls, Script

NEVER_MS = 100 * 365 * 24 * 3600 * 1000
"""Lifetime of an entry when threads do not expire."""
MAX_REMEMBERED = 100_000
"""Threads that a process remembers to have entered, in 25 MB at most; a forgotten one is entered again, for 150 µs."""

ANNOUNCE = Script(
    """
-- KEYS: the thread index. ARGV: thread id, ms until the entry may go
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms)
redis.call('ZADD', KEYS[1], now_ms + ARGV[2], ARGV[1])
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', last))
return 0
"""
)
"""Enters a thread in the index of threads and drops the entries of threads that have expired."""

ANNOUNCE_RUN = Script(
    """
-- KEYS: the threads of one run. ARGV: thread id, ms until the set may go (0: never)
redis.call('SADD', KEYS[1], ARGV[1])
if tonumber(ARGV[2]) > 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
)
"""Enters a thread among those that hold checkpoints of a run."""


SCRIPTS = (ANNOUNCE, ANNOUNCE_RUN)


class ThreadIndex:
    """The threads of all savers on one Redis, and the threads of each run.

    Args:
        calls: how to reach Redis.
        ttl_ms: lifetime of a thread after its last write in milliseconds, 0 when it does not expire.
    """

    def __init__(self, calls: Calls, ttl_ms: int) -> None:
        self._calls = calls
        self._ttl_ms = ttl_ms
        self._due_s: dict[tuple[str, str], float] = {}

    def knows(self, thread_id: str, run_id: str) -> bool:
        """Whether this process has entered the thread (with that run, unless '') lately enough."""
        return self._due_s.get((thread_id, run_id), 0) > time.monotonic()

    async def enter(self, thread_id: str, run_id: str) -> None:
        """Enters a thread, and that it holds checkpoints of a run unless ''."""
        ttl_ms = self._ttl_ms + self._ttl_ms // 4
        due_s = time.monotonic() + (self._ttl_ms or NEVER_MS) / 8000
        calls = [self._calls.run(ANNOUNCE, [keys.CHECKPOINT_THREADS], thread_id, ttl_ms or NEVER_MS)]
        if run_id:
            calls.append(self._calls.run(ANNOUNCE_RUN, [keys.checkpoint_run(run_id)], thread_id, ttl_ms))
        await asyncio.gather(*calls)
        if len(self._due_s) >= MAX_REMEMBERED:
            self._due_s.clear()
        self._due_s[thread_id, run_id] = self._due_s[thread_id, ""] = due_s

    async def leave(self, thread_id: str, run_ids: Iterable[str], *, is_empty: bool) -> None:
        """Takes a thread out of these runs, and out of the index when nothing is left of it."""
        for run_id in run_ids:
            self._due_s.pop((thread_id, run_id), None)
            await self._calls.command("SREM", keys.checkpoint_run(run_id), thread_id)
        if is_empty:
            self._due_s.pop((thread_id, ""), None)
            await self._calls.command("ZREM", keys.CHECKPOINT_THREADS, thread_id)

    async def threads(self) -> list[str]:
        """Ids of all threads, the one entered last first; one that has just expired may be among them."""
        return [name.decode() for name in await self._calls.command("ZREVRANGE", keys.CHECKPOINT_THREADS, 0, -1)]

    async def threads_of(self, run_id: str) -> list[str]:
        """Ids of the threads that hold checkpoints of a run."""
        return [name.decode() for name in await self._calls.command("SMEMBERS", keys.checkpoint_run(run_id))]
