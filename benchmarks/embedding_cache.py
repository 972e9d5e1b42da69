"""What an embedding costs that is known already: ``python -m benchmarks.embedding_cache [--short]``.

A thousand texts of a passage's length at once: nowhere yet (*cold*, with a model that takes no time), in Redis, in
memory; and 32 callers who ask for the same hundred new texts at the same time. *Limit*: one MGET of the same keys and
one array of the vectors. *Peer*: LangChain's CacheBackedEmbeddings on its RedisStore, after ``make bench-peers``.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from redis.asyncio import Redis

from benchmarks.engine import open_valkey
from benchmarks.figures import Figures
from benchmarks.harness import Work, finish, options, peers, rounds_of, run_peer, take_turns
from models.embedding_engine import Engine
from models.embedding_model import Matrix
from models.embeddings import Embedder

EXPECTATION = (
    "Redis-warm 0.7 of the MGET (the rest is hashing a thousand texts) and three times the peer, which keeps "
    "vectors as JSON text; one computation for 32 callers, where the peer makes 32"
)
DIMENSIONS = 384
CALLERS, SHARED_TEXTS = 32, 100
BATCH_S = 0.2
"""What the model takes for a batch of theirs."""
COLD, WARM, HOT = "cold, texts/s", "in Redis, texts/s", "in memory, texts/s"
TOGETHER, COMPUTED = "32 callers, texts/s", "32 callers, computations of a text"


class Model:
    """Stands for the model, takes a stated time for a batch, and counts."""

    def __init__(self, seconds: float) -> None:
        self.dimensions = DIMENSIONS
        self.computed = 0
        self._seconds = seconds

    def submit(self, texts: Sequence[str], *, urgent: bool) -> Future[Matrix]:
        self.computed += len(texts)
        done: Future[Matrix] = Future()
        vectors = np.full((len(texts), DIMENSIONS), 0.05, np.float32)
        if self._seconds:
            threading.Timer(self._seconds, done.set_result, [vectors]).start()
        else:
            done.set_result(vectors)
        return done


def made(count: int) -> list[str]:
    return [
        f"Passage {number}: " + "the boundary of the set is where its dynamics changes. " * 15
        for number in range(count)
    ]


def embedder(redis: Redis, seconds: float = 0.0) -> tuple[Embedder, Model]:
    model = Model(seconds)
    return Embedder(redis=redis, engine=cast(Engine, model)), model


async def with_lumina(redis: Redis, texts: list[str], repeats: int) -> Mapping[str, float]:
    await redis.flushall()
    first, _ = embedder(redis)
    found = {COLD: await rate(first, texts, 1), HOT: await rate(first, texts, repeats)}
    warm = [await rate(embedder(redis)[0], texts, 1) for _ in range(repeats)]
    found[WARM] = len(warm) / sum(1 / one for one in warm)
    await redis.flushall()
    shared, model = embedder(redis, BATCH_S)
    began = time.perf_counter()
    await asyncio.gather(*(shared.encode(texts[:SHARED_TEXTS]) for _ in range(CALLERS)))
    found[TOGETHER] = CALLERS * SHARED_TEXTS / (time.perf_counter() - began)
    found[COMPUTED] = model.computed / SHARED_TEXTS
    return found


async def rate(one: Embedder, texts: list[str], repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        vectors = await one.encode(texts)
    assert vectors.shape == (len(texts), DIMENSIONS)
    return repeats * len(texts) / (time.perf_counter() - began)


async def one_mget(redis: Redis, texts: list[str], repeats: int) -> Mapping[str, float]:
    await redis.flushall()
    vector = np.full(DIMENSIONS, 0.05, np.float32).tobytes()
    keys = [f"limit:{number:026}" for number in range(len(texts))]
    await redis.mset(dict.fromkeys(keys, vector))
    began = time.perf_counter()
    for _ in range(repeats):
        values: Any = await redis.mget(keys)
        matrix = np.frombuffer(bytearray().join(values), np.float32).reshape(len(texts), -1)
    assert matrix.shape == (len(texts), DIMENSIONS)
    return {WARM: repeats * len(texts) / (time.perf_counter() - began)}


async def peer(redis: Redis, path: str, count: int, repeats: int) -> Mapping[str, float]:
    await redis.flushall()
    return await run_peer("with_cache_backed", path, count, repeats, CALLERS, SHARED_TEXTS, BATCH_S)


async def main(figures: Figures, rounds: int, repeats: int) -> None:
    texts = made(1_000)
    async with open_valkey() as (redis, path):
        contenders: dict[str, Work] = {
            "lumina": partial(with_lumina, redis, texts, repeats),
            "one MGET": partial(one_mget, redis, texts, repeats),
        }
        contenders |= peers(figures, {"CacheBackedEmbeddings": partial(peer, redis, path, len(texts), repeats)})
        await take_turns(figures, contenders, rounds)


if __name__ == "__main__":
    given = options(__doc__, rounds=7).parse_args()
    collected = Figures("embedding_cache", expectation=EXPECTATION)
    asyncio.run(main(collected, rounds_of(given), 3 if given.short else 20))
    finish(collected, given)
