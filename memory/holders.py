"""What exactly one process may hold, though several see the same Redis: who holds it is told there.

Two processes on one DATA_DIR are kept apart by the locks of the files themselves. Two on different ones would each take
in a part of the events, as the same member of the same group, and neither store would have all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from loguru import logger
from redis.asyncio import Redis
from redis.exceptions import RedisError

from errors import LuminaError
from memory import keys

TTL_S = 15.0
"""A holder that was silent for so long is taken for gone; it renews five times as often."""
LOOK_EVERY_S = 0.2

RELEASE_S = 2.0
"""Giving a name back may take so long: a Redis that has gone away is looked up again and again. The name runs out."""

_CLAIM = """
local held = redis.call('GET', KEYS[1])
if held and cjson.decode(held).store ~= ARGV[1] then return {held, redis.call('PTTL', KEYS[1])} end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return false
"""
_RELEASE = """
local held = redis.call('GET', KEYS[1])
if held and cjson.decode(held).process == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class HeldElsewhere(LuminaError):
    """Another process on the same Redis holds it, with a store of its own."""


@contextlib.asynccontextmanager
async def holding(redis: Redis, name: str, data_dir: Path, *, ttl_s: float = TTL_S) -> AsyncIterator[None]:
    """Hold ``name`` for the store in ``data_dir``, and tell so until the block ends.

    A process that comes back on the same ``data_dir`` has it at once; for another's it waits until that is surely gone.

    Raises:
        HeldElsewhere: another store holds it, and goes on to.
    """
    store = await asyncio.to_thread(_store_id, data_dir)
    process = uuid.uuid4().hex
    value = json.dumps({"store": store, "process": process, "host": socket.gethostname(), "pid": os.getpid()})
    claim, key = redis.register_script(_CLAIM), keys.holder(name)

    async def others() -> tuple[dict[str, Any], int] | None:
        """Who else holds it, and for how many milliseconds still; None when it is ours now."""
        found: Any = await claim([key], [store, value, int(ttl_s * 1000)])
        return (json.loads(found[0]), int(found[1])) if found else None

    left_ms = sys.maxsize
    while found := await others():
        other, before_ms = found[0], left_ms
        left_ms = found[1]
        if left_ms > before_ms:  # it has renewed meanwhile, so it lives
            raise HeldElsewhere(
                f"the {name} of this Redis are held by process {other['pid']} on {other['host']}, on another DATA_DIR; "
                "exactly one may: stop it, use its DATA_DIR, or set another REDIS_URL here"
            )
        await asyncio.sleep(LOOK_EVERY_S)

    async def renew() -> None:
        told = ""
        while True:
            await asyncio.sleep(ttl_s / 5)
            try:
                found = await others()
            except (RedisError, OSError):
                continue  # whoever uses this Redis says so
            if found and told != (told := found[0]["process"]):
                other = found[0]
                logger.error("process {} on {} holds the {} as well; stop one of us", other["pid"], other["host"], name)

    renewing = asyncio.create_task(renew(), name=f"hold {name}")
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.wait({renewing})
        with contextlib.suppress(RedisError, OSError):
            async with asyncio.timeout(RELEASE_S):
                await redis.register_script(_RELEASE)([key], [process])


def _store_id(data_dir: Path) -> str:
    """What a folder is called, made at the first time; whoever copies it copies the name."""
    file = data_dir / "store_id"
    with contextlib.suppress(FileExistsError), file.open("x") as made:
        made.write(uuid.uuid4().hex)
    return file.read_text()
