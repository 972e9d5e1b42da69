"""How the checkpointer's scripts reach Redis: by their SHA-1, a bounded number at once, large values ahead of them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, ResponseError

RedisArgument = str | bytes | int | float


MAX_IN_FLIGHT = 32
"""Calls of one saver under way at once (or half of what the client's pool allows): many graphs do not exhaust it."""


class Script:
    """A script that Redis is sent once and then called by its SHA-1."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Calls:
    """A client of Redis with a bound on the calls under way; the others wait their turn."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self.redis = redis
        self.pool = redis.connection_pool if isinstance(redis, Redis) else None
        """Of one server; None for a cluster."""
        allowed = self.pool.max_connections if self.pool else 2 * MAX_IN_FLIGHT
        self.slots = asyncio.Semaphore(max(1, min(MAX_IN_FLIGHT, allowed // 2)))

    async def run(self, script: Script, keys: Sequence[str], *args: RedisArgument) -> Any:
        """Runs a script in one round trip, two when this server has not seen it since its start."""
        async with self.slots:
            try:
                return await self.redis.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)
            except NoScriptError:
                return await self.redis.execute_command("EVAL", script.text, len(keys), *keys, *args)

    async def run_after(
        self, command: Sequence[RedisArgument], script: Script, keys: Sequence[str], *args: RedisArgument
    ) -> Any:
        """Sends a command and runs a script right behind it, in one round trip; others may come between the two.

        redis-py's pipeline does the same for 45 µs more. For one server only.
        """
        pool = self.pool
        assert pool
        try:
            async with self.slots:
                connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py's has no types
                try:
                    parts = (command, ("EVALSHA", script.sha, len(keys), *keys, *args))
                    packed = [chunk for part in parts for chunk in connection.pack_command(*part)]
                    return await connection.retry.call_with_retry(
                        lambda: _exchange(connection, packed, len(parts)), lambda error: connection.disconnect()
                    )
                finally:
                    await pool.release(connection)
        except NoScriptError:
            return await self.run(script, keys, *args)

    async def command(self, *args: RedisArgument) -> Any:
        """Sends one command."""
        async with self.slots:
            return await self.redis.execute_command(*args)


async def _exchange(connection: AbstractConnection, packed: Sequence[bytes], count: int) -> Any:
    """Sends commands and gives the last one's reply, or raises the first error after all have been read."""
    await connection.send_packed_command(packed)
    replies, errors = [], []
    for _ in range(count):
        try:
            replies.append(await connection.read_response())
        except ResponseError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return replies[-1]
