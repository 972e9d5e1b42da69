"""Two levels of kept vectors: the latest in memory, a day's worth in Redis for all processes.

Vectors are kept as the raw bytes of little-endian float32, so that a batch is put together by joining them.
"""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from time import monotonic
from typing import cast

from loguru import logger
from redis.asyncio import Redis
from redis.exceptions import RedisError

DAY_S = 24 * 3600
_BATCH = 2_000
"""Keys asked for, or written, in one round trip; 3 MB of vectors with 384 dimensions."""
_PATIENCE_S = 2.0
"""A Redis that takes longer than this for a batch is worse than none."""
_REST_S = 5.0
"""How long a Redis that did not answer is left alone."""

if sys.byteorder != "little":
    raise ImportError("models.embedding_cache keeps little-endian floats; this machine is big-endian")


@dataclass
class CacheCounts:
    """What became of the texts that were asked for; only ever grows."""

    hits_memory: int = 0
    hits_redis: int = 0
    misses: int = 0
    """Texts that had to be computed."""
    shared: int = 0
    """Texts that another caller was already getting, or that stood twice in one call."""
    redis_errors: int = 0


class VectorCache:
    """Vectors by key.

    Args:
        redis: the second level; None for none. Its replies must not be decoded.
        model: goes into every key, so that two models never share a vector.
        size: entries kept in memory; 0 for none.
        ttl_s: life of an entry in Redis.
        prefix: put before the keys in Redis.
    """

    def __init__(self, redis: Redis | None, *, model: str, size: int, ttl_s: int = DAY_S, prefix: str) -> None:
        self.counts = CacheCounts()
        self._redis = redis
        self._salted = sha256(sha256(model.encode()).digest())
        self._ttl_s = ttl_s
        self._size = size
        self._prefix = f"{prefix}:embedding:".encode()
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = Lock()
        self._down_until_s = 0.0
        """On the monotonic clock; 0 while Redis answers."""

    def key(self, text: str) -> bytes:
        """The key of a text: 16 bytes of SHA-256, which processors compute themselves, salted with the model's name."""
        hashed = self._salted.copy()
        # Lone surrogates occur in text cut by careless tools; they must not make a cache fail.
        hashed.update(text.encode("utf-8", "surrogatepass"))
        return hashed.digest()[:16]

    def recall(self, keys: Collection[bytes]) -> dict[bytes, bytes]:
        """What memory holds of these keys."""
        found: dict[bytes, bytes] = {}
        with self._lock:
            if self._kept.keys().isdisjoint(keys):
                return found
            for key in keys:
                vector = self._kept.get(key)
                if vector is not None:
                    self._kept.move_to_end(key)
                    found[key] = vector
        return found

    def remember(self, vectors: Mapping[bytes, bytes]) -> None:
        """Keep vectors in memory; the least recently used leave."""
        with self._lock:
            self._kept.update(vectors)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)

    async def fetch(self, keys: Sequence[bytes], *, dimensions: int | None) -> dict[bytes, bytes]:
        """What Redis holds of these keys; nothing when it is down.

        An entry that is no vector, or has another length than the model's (where that is known), does not count.
        """
        found: dict[bytes, bytes] = {}
        if self._redis is None or monotonic() < self._down_until_s:
            return found
        try:
            async with asyncio.timeout(_PATIENCE_S):
                for start in range(0, len(keys), _BATCH):
                    part = keys[start : start + _BATCH]
                    # redis-py types the call for both its sync and its async client; this is the async one.
                    reply = self._redis.mget([self._prefix + key for key in part])
                    values = await cast("Awaitable[list[bytes | None]]", reply)
                    found.update(_vectors(part, values, dimensions))
            self._down_until_s = 0.0
        except (RedisError, OSError) as error:
            self._report(error)
        return found

    async def store(self, vectors: Mapping[bytes, bytes]) -> None:
        """Write vectors to Redis, each with its expiry; does nothing when it is down."""
        if self._redis is None or not vectors or monotonic() < self._down_until_s:
            return
        items = list(vectors.items())
        try:
            async with asyncio.timeout(_PATIENCE_S):
                for start in range(0, len(items), _BATCH):
                    pipeline = self._redis.pipeline(transaction=False)
                    for key, vector in items[start : start + _BATCH]:
                        pipeline.set(self._prefix + key, vector, ex=self._ttl_s)
                    await pipeline.execute()
        except (RedisError, OSError) as error:
            self._report(error)

    def _report(self, error: Exception) -> None:
        self.counts.redis_errors += 1
        if not self._down_until_s:
            logger.warning("embedding cache: Redis does not answer ({!r}); vectors are kept in memory only", error)
        self._down_until_s = monotonic() + _REST_S


def _vectors(keys: Sequence[bytes], values: Sequence[bytes | None], dimensions: int | None) -> dict[bytes, bytes]:
    """The values that are vectors, by key."""
    if dimensions and None not in values and set(map(len, filter(None, values))) == {4 * dimensions}:
        return cast("dict[bytes, bytes]", dict(zip(keys, values, strict=True)))
    return {
        key: value
        for key, value in zip(keys, values, strict=True)
        if value and len(value) == 4 * (dimensions or max(1, len(value) // 4))
    }
