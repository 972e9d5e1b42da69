"""Connections to Redis: whoever waits gets one in the end, and a server that is stuck is given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, TimeoutError

from memory.redis_connection import LARGE_BYTES, Pool


@pytest.fixture
async def pool(redis_socket: str) -> AsyncIterator[Pool]:
    pool = Pool(connection_class=UnixDomainSocketConnection, path=redis_socket, max_connections=2, timeout=0.05)
    yield pool
    await pool.aclose()


async def test_whoever_waits_gets_the_connection_that_is_given_back(pool: Pool) -> None:
    pool.timeout = 20
    held = [await pool.get_connection(), await pool.get_connection()]
    waiting = [asyncio.create_task(pool.get_connection()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting)

    for connection in held:
        await pool.release(connection)

    assert {id(one) for one in await asyncio.gather(*waiting)} == {id(one) for one in held}


@pytest.mark.parametrize("how", ["in vain", "cancelled"])
async def test_whoever_has_waited_for_nothing_takes_nothing_from_the_others(pool: Pool, how: str) -> None:
    held = [await pool.get_connection(), await pool.get_connection()]
    if how == "in vain":
        with pytest.raises(ConnectionError, match="No connection available"):
            await pool.get_connection()
    else:
        waiting = asyncio.create_task(pool.get_connection())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()

    for connection in held:
        await pool.release(connection)
    async with Redis(connection_pool=pool) as client:
        assert list(await asyncio.gather(client.ping(), client.ping())) == [True, True]
    assert pool.get_connection_count()[0][0] == 2


async def test_a_connection_that_the_server_closed_is_replaced(pool: Pool, redis: Redis) -> None:
    client = Redis(connection_pool=pool)
    number = await client.client_id()
    assert await redis.client_kill_filter(_id=str(number)) == 1
    assert await client.client_id() != number


@pytest.mark.parametrize("size", [0, 1, LARGE_BYTES - 1, LARGE_BYTES, 5_000_000])
async def test_values_of_any_size_pass(pool: Pool, redis: Redis, size: int) -> None:
    client, value = Redis(connection_pool=pool), bytes(range(250)) * (size // 250) + bytes(size % 250)
    await client.mset({"a": value, "b": "after"})
    assert await client.mget("a", "b") == [value, b"after"]


async def test_a_server_that_does_not_read_is_given_up(tmp_path: Path) -> None:
    seen = asyncio.Event()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (line := await reader.readline()) != b"SET\r\n":
            if line.startswith(b"*"):
                writer.write(b"+OK\r\n")
        await seen.wait()  # the rest stays in the socket
        writer.transport.abort()

    path = str(tmp_path / "s")
    async with await asyncio.start_unix_server(greet, path):
        options: dict[str, Any] = {"protocol": 2, "socket_timeout": 0.3, "retry": Retry(NoBackoff(), 0)}
        pool = Pool(connection_class=UnixDomainSocketConnection, path=path, **options)
        async with Redis(connection_pool=pool) as client:
            with pytest.raises(TimeoutError, match="Timeout writing to socket"):
                await client.set("a", bytes(20_000_000))
        seen.set()
        await pool.aclose()
