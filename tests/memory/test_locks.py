from __future__ import annotations

from typing import Any

import pytest

from memory import keys
from memory.locks import Lock, LockLost

Redis = Any
"""The stubs of redis-py give every reply as a union of all protocols' shapes."""


async def test_one_holds_it_at_a_time(redis: Redis) -> None:
    mine, other = Lock(redis, "planner"), Lock(redis, "planner")
    held = await mine.acquire()
    assert held is not None
    assert await other.acquire() is None
    assert await Lock(redis, "something else").acquire() is not None
    await held.release()
    assert await other.acquire() is not None


async def test_it_ends_by_itself_and_whoever_had_it_writes_nothing_any_more(redis: Redis) -> None:
    lock = Lock(redis, "planner", ttl_s=30)
    stale = await lock.acquire()
    assert stale is not None
    await stale.write({"tick": 1})
    assert 29_000 < await redis.pttl(keys.lock("planner")[0]) <= 30_000
    await redis.delete(keys.lock("planner")[0])  # as if its time had run out
    fresh = await lock.acquire()
    assert fresh is not None
    assert fresh.fence > stale.fence
    for call in (stale.renew(), stale.write({"tick": 2}), stale.release()):
        with pytest.raises(LockLost, match="planner"):
            await call
    await fresh.write({"tick": 3, "other": "x"})
    assert await lock.state() == {"tick": "3", "other": "x"}
