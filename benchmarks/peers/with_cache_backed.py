"""LangChain's CacheBackedEmbeddings: ``with_cache_backed.py SOCKET TEXTS REPEATS CALLERS SHARED_TEXTS SECONDS``."""

import asyncio
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_community.storage import RedisStore
from langchain_core.embeddings import Embeddings
from redis import Redis

path, count, repeats, callers, shared = sys.argv[1], *map(int, sys.argv[2:6])
batch_s = float(sys.argv[6])
texts = [
    f"Passage {number}: " + "the boundary of the set is where its dynamics changes. " * 15 for number in range(count)
]


class Instant(Embeddings):
    computed = 0
    seconds = 0.0

    def embed_documents(self, texts):
        self.computed += len(texts)
        time.sleep(self.seconds)
        return [[0.05] * 384 for _ in texts]

    def embed_query(self, text):
        return self.embed_documents([text])[0]


def rate(embedder, texts, repeats):
    began = time.perf_counter()
    for _ in range(repeats):
        assert len(embedder.embed_documents(texts)) == len(texts)
    return repeats * len(texts) / (time.perf_counter() - began)


async def main():
    store = RedisStore(client=Redis.from_url(f"unix://{path}"))
    model = Instant()
    embedder = CacheBackedEmbeddings.from_bytes_store(model, store, namespace="m", key_encoder="blake2b")
    found = {"cold, texts/s": rate(embedder, texts, 1), "in Redis, texts/s": rate(embedder, texts, repeats)}
    new = ["new " + text for text in texts[:shared]]
    model.computed, model.seconds = 0, batch_s
    began = time.perf_counter()
    with ThreadPoolExecutor(callers) as threads:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(threads, embedder.embed_documents, new) for _ in range(callers)))
    found["32 callers, texts/s"] = callers * shared / (time.perf_counter() - began)
    found["32 callers, computations of a text"] = model.computed / shared
    print(json.dumps(found))


asyncio.run(main())
