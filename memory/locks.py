"""A lock that one process at a time holds, on Redis's clock, with a fencing token.

The lock ends by itself when its holder is gone, so a holder that was frozen may wake up after another took over. What
must not be written then is written through the lock: the server compares the token, which rises with every holder, in
the same step (Kleppmann, "How to do distributed locking", 2016).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis

from errors import LuminaError
from memory import keys

TTL_S = 60.0
"""A holder that has not renewed for so long is taken for dead."""

_ACQUIRE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local fence = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], fence, 'PX', ARGV[1])
return fence
"""
_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
_WRITE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], unpack(ARGV, 2))
return 1
"""


class LockLost(LuminaError):
    """The lock ran out and may be another's; nothing was written."""


class Held:
    """The lock, as long as it is renewed within its time. Every call raises ``LockLost`` when it was not."""

    def __init__(self, lock: Lock, fence: int) -> None:
        self.fence = fence
        """Fencing token: higher than that of every holder before."""
        self._lock = lock

    async def renew(self) -> None:
        """Hold it for another ``ttl_s`` from now."""
        await self._call("renew", self._lock.ttl_ms)

    async def write(self, values: Mapping[str, str | int | float]) -> None:
        """Set fields of the state that goes with the lock."""
        await self._call("write", *(word for pair in values.items() for word in pair))

    async def release(self) -> None:
        """Let another take it."""
        await self._call("release")

    async def _call(self, script: str, *words: str | int | float) -> None:
        if not await self._lock.call(script, self.fence, *words):
            raise LockLost(f"the lock «{self._lock.name}» with token {self.fence} ran out; {script} was refused")


class Lock:
    """A lock by name. All processes of one Redis see the same."""

    def __init__(self, redis: Redis, name: str, *, ttl_s: float = TTL_S) -> None:
        self.name = name
        self.ttl_ms = int(ttl_s * 1000)
        self._redis = redis
        self._held, fence, self._state = keys.lock(name)
        self._scripts: dict[str, tuple[Any, list[str]]] = {
            "acquire": (redis.register_script(_ACQUIRE), [self._held, fence]),
            "renew": (redis.register_script(_RENEW), [self._held]),
            "release": (redis.register_script(_RELEASE), [self._held]),
            "write": (redis.register_script(_WRITE), [self._held, self._state]),
        }

    async def acquire(self) -> Held | None:
        """The lock, or None when somebody holds it."""
        fence = await self.call("acquire", self.ttl_ms)
        return Held(self, fence) if fence else None

    async def state(self) -> dict[str, str]:
        """What its holders have written."""
        fields: Any = await self._redis.hgetall(self._state)
        return {name.decode(): value.decode() for name, value in fields.items()}

    async def call(self, script: str, *words: str | int | float) -> int:
        """Run one script of the lock; for ``Held``."""
        run, names = self._scripts[script]
        return int(await run(names, words))
