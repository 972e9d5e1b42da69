"""Passages into the vector store and out of it again: ``python -m benchmarks.index_recall [--short]``.

Indexing with the model: passages of the sample encyclopaedia through Lumina's indexer (text and BM25, then dense
vectors); *limit* the embedder alone on the same texts; *peer* LangChain's QdrantVectorStore (hybrid, with Lumina's own
embedder and BM25) on qdrant-client's local mode. Nothing is cached. Then the same with vectors that are there already,
which leaves the stores.

Recall without the embedding, at 1,000, 10,000 and (long form) 100,000 passages of four owners, one of them asked for:
texts and vectors are random from a fixed seed, every embedding is there at once. *Lumina* is ``Recall``, sentences
scored and all, after a hundred questions asked new ones in each turn, and then the same once more, when their passages
are known; beside it the hybrid query of its store. *Limit*: the bare engine, asked for the same hybrid query of the
same shard. *Peer*: as above, up to 10,000. qdrant-client and langchain-qdrant are Lumina's own dependencies.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from langchain_core.embeddings import Embeddings
from langchain_qdrant import QdrantVectorStore, RetrievalMode
from qdrant_client import QdrantClient, models

from benchmarks.figures import Figures
from benchmarks.harness import Work, finish, options, rounds_of, take_turns
from benchmarks.made_up_passages import (
    DIMENSIONS,
    Given,
    GivenToLangChain,
    Vectors,
    random_passages,
    random_texts,
    random_vectors,
    rows_of,
)
from memory.bm25 import Bm25Encoder, build_sparse_embeddings
from memory.indexer import PASSAGES_ADD, SLICE, Indexer
from memory.passages import Passage
from memory.qdrant_edge_folder import create_shard, load_shard
from memory.qdrant_edge_store import QdrantEdgeStore
from memory.streams import Event
from memory.vectors import DENSE, METADATA_KEY, MIN_CANDIDATES, PENDING_KEY, RRF_K, SPARSE, point_payload
from models.embedding_engine import Engine
from models.embedding_model import DEFAULT_MODEL
from models.embeddings import Embedder
from tools.encyclopaedia import ensure_sample
from tools.recall import Recall
from tools.splitter import split
from tools.wikipedia.zim import Zim

EXPECTATION = (
    "indexing is embedding: 0.95 of the embedder alone; a query of the store costs as much as the engine's, and recall "
    "three times that, for it asks twice and scores the sentences of six passages; the peer compares every vector in "
    "NumPy and every word in Python, a hundred times slower at 10,000"
)
LIMIT = 10
PEER_MOST = 10_000
BEFORE = 100
"""Other questions that ``Recall`` is asked before the clock starts: what it keeps of words and passages is then what it
keeps in use."""
EVENT_PASSAGES = 200
"""Passages in one stream entry, as the crawl agent sends them."""
BUILT, STORED = "indexed with the model, passages/s", "indexed, vectors given, passages/s"
INDEXES = ("owner", "source", "title", "revision")


class Untold:
    """Nobody asks how far the passages have come."""

    async def indexed(self, passages: Sequence[Passage]) -> None: ...

    async def embedded(self, passages: Sequence[Passage]) -> None: ...


class Sent:
    """A stream entry."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.event = Event(PASSAGES_ADD, {"passages": [passage.to_dict() for passage in passages]})


# What is indexed and asked.


async def real_passages(folder: Path, count: int) -> list[Passage]:
    """Passages of the sample encyclopaedia, in the order of their pages."""
    archive = Zim(await asyncio.to_thread(ensure_sample, folder / "sample.zim"))
    try:
        titles = await archive.search("set curve fractal dimension theorem", 100)
        pages = (await archive.fetch(titles)).pages
    finally:
        await archive.aclose()
    passages = [passage for page in pages for passage in split(page, owner="owner-0", source="sample")]
    assert len(passages) >= count, f"the sample has {len(passages)} passages in reach, {count} are wanted"
    return passages[:count]


# Indexing.


async def indexed(measure: str, passages: Sequence[Passage], embedder: Any) -> Mapping[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        store = await edge(Path(folder) / "passages")
        indexer = Indexer(store, embedder, Untold())
        began = time.perf_counter()
        await fill(indexer, passages)
        seconds = time.perf_counter() - began
        assert await store.count(embedded=True) == len(passages)
        await store.aclose()
    return {measure: len(passages) / seconds}


async def edge(path: Path) -> QdrantEdgeStore:
    return await QdrantEdgeStore.open(path, dimensions=DIMENSIONS, model="given", payload_indexes=INDEXES)


async def fill(indexer: Indexer, passages: Sequence[Passage]) -> None:
    for start in range(0, len(passages), EVENT_PASSAGES):
        await indexer.handle([Sent(passages[start : start + EVENT_PASSAGES])])
    while await indexer.embed_pending():
        pass


async def with_model(engine: Engine, passages: Sequence[Passage]) -> Mapping[str, float]:
    return await indexed(BUILT, passages, Embedder(DEFAULT_MODEL, engine=engine))


async def embedder_alone(engine: Engine, passages: Sequence[Passage]) -> Mapping[str, float]:
    embedder, texts = Embedder(DEFAULT_MODEL, engine=engine), sorted((p.to_record().text for p in passages), key=len)
    began = time.perf_counter()
    for start in range(0, len(texts), SLICE):
        await embedder.encode(texts[start : start + SLICE])
    return {BUILT: len(texts) / (time.perf_counter() - began)}


async def bare_indexed(measure: str, passages: Sequence[Passage], vectors: Vectors) -> Mapping[str, float]:
    """Points of the same shape in one call each 200, with both vectors and no look at what is there."""
    import qdrant_edge as qd

    with tempfile.TemporaryDirectory() as folder:
        create_shard(Path(folder) / "shard", DIMENSIONS)
        shard, encoder = load_shard(Path(folder) / "shard.new"), Bm25Encoder()
        for key in (PENDING_KEY, *(f"{METADATA_KEY}.{name}" for name in INDEXES)):
            shard.update(qd.UpdateOperation.create_field_index(key, qd.PayloadSchemaType.Keyword))
        began = time.perf_counter()
        for start in range(0, len(passages), EVENT_PASSAGES):
            points = []
            for passage in passages[start : start + EVENT_PASSAGES]:
                record = passage.to_record()
                words = encoder.document(record.text)
                dense = vectors[rows_of([record.text], len(vectors))[0]].tolist()
                both: dict[str, Any] = {DENSE: dense, SPARSE: qd.SparseVector(words.indices, words.values)}
                points.append(qd.Point(record.id, both, point_payload(record, pending=False, version="1")))
            shard.update(qd.UpdateOperation.upsert_points(points))
        seconds = time.perf_counter() - began
        shard.close()
    return {measure: len(passages) / seconds}


def local_mode(embedding: Embeddings) -> QdrantVectorStore:
    client = QdrantClient(":memory:")
    client.create_collection(
        "peer",
        vectors_config={DENSE: models.VectorParams(size=DIMENSIONS, distance=models.Distance.COSINE)},
        sparse_vectors_config={SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )
    return QdrantVectorStore(
        client,
        "peer",
        embedding,
        RetrievalMode.HYBRID,
        vector_name=DENSE,
        sparse_embedding=build_sparse_embeddings(Bm25Encoder()),
        sparse_vector_name=SPARSE,
        validate_collection_config=False,
    )


def add_to(peer: QdrantVectorStore, passages: Sequence[Passage]) -> None:
    records = [passage.to_record() for passage in passages]
    peer.add_texts([r.text for r in records], [dict(r.payload) for r in records], [r.id for r in records])


async def peer_indexed(measure: str, passages: Sequence[Passage], embedding: Embeddings) -> Mapping[str, float]:
    peer = local_mode(embedding)
    began = time.perf_counter()
    await asyncio.to_thread(add_to, peer, passages)
    return {measure: len(passages) / (time.perf_counter() - began)}


async def peer_with_model(engine: Engine, passages: Sequence[Passage]) -> Mapping[str, float]:
    return await peer_indexed(BUILT, passages, Embedder(DEFAULT_MODEL, engine=engine))


# Recall.


Turns = Iterator[Sequence[str]]
"""The questions of one turn after the other: each contender has its own, of the same questions."""


async def clocked(size: int, questions: Sequence[str], ask: Callable[[], Awaitable[None]]) -> Mapping[str, float]:
    """Milliseconds a question, asked for the first time in this turn and once more."""
    found = {}
    for measure in (f"recall at {size:,}, ms", f"recall at {size:,}, asked again, ms"):
        began = time.perf_counter()
        await ask()
        found[measure] = 1e3 * (time.perf_counter() - began) / len(questions)
    return found


async def recalled(size: int, store: QdrantEdgeStore, given: Given, turns: Turns) -> Mapping[str, float]:
    recall, questions = Recall(store, given), next(turns)

    async def ask() -> None:
        for question in questions:
            assert await recall.search(question, owner="owner-1", limit=LIMIT)

    return await clocked(size, questions, ask)


async def queried(size: int, store: QdrantEdgeStore, given: Given, turns: Turns) -> Mapping[str, float]:
    questions = next(turns)
    vectors, where = await given.encode(questions), {"owner": "owner-1"}

    async def ask() -> None:
        for question, vector in zip(questions, vectors, strict=True):
            assert await store.search(question, dense=vector, where=where, limit=LIMIT)

    return await clocked(size, questions, ask)


async def bare(size: int, store: QdrantEdgeStore, given: Given, turns: Turns) -> Mapping[str, float]:
    import qdrant_edge as qd

    shard = store._open_shard  # the engine itself, on the same points; nothing else uses it meanwhile
    owner: Any = qd.FieldCondition(key="metadata.owner", match=qd.MatchValue("owner-1"))
    mine, encoder = qd.Filter(must=[owner]), Bm25Encoder()
    questions = next(turns)
    vectors = await given.encode(questions)
    fusion: Any = qd.Fusion.Rrf(k=RRF_K)  # the package's stub does not say that it is a Fusion
    across = qd.SearchParams(acorn=qd.AcornSearchParams(enable=True))

    async def ask() -> None:
        for question, vector in zip(questions, vectors, strict=True):
            words = encoder.query(question)
            prefetches = [
                qd.Prefetch(
                    limit=MIN_CANDIDATES,
                    query=qd.Query.Nearest(vector.tolist(), using=DENSE),
                    params=across,
                    filter=mine,
                ),
                qd.Prefetch(
                    limit=MIN_CANDIDATES,
                    query=qd.Query.Nearest(qd.SparseVector(words.indices, words.values), using=SPARSE),
                    filter=mine,
                ),
            ]
            found = shard.query(qd.QueryRequest(limit=LIMIT, query=fusion, prefetches=prefetches, with_payload=True))
            assert len(found) == LIMIT

    return await clocked(size, questions, ask)


async def peer_queried(size: int, peer: QdrantVectorStore, turns: Turns) -> Mapping[str, float]:
    is_mine = models.FieldCondition(key="metadata.owner", match=models.MatchValue(value="owner-1"))
    mine, questions = models.Filter(must=[is_mine]), next(turns)
    began = time.perf_counter()
    for question in questions:
        assert peer.similarity_search_with_score(question, k=LIMIT, filter=mine)
    return {f"recall at {size:,}, ms": 1e3 * (time.perf_counter() - began) / len(questions)}


async def main(figures: Figures, rounds: int, *, real: int, stored: int, sizes: Sequence[int], asked: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(DEFAULT_MODEL)
        passages = await real_passages(Path(folder), real)
        await embedder_alone(engine, passages[:SLICE])  # loads the model
        with_the_model: dict[str, Work] = {
            "lumina": partial(with_model, engine, passages),
            "the embedder alone": partial(embedder_alone, engine, passages),
            "QdrantVectorStore": partial(peer_with_model, engine, passages),
        }
        await take_turns(figures, with_the_model, rounds)
        await asyncio.to_thread(engine.close)
        made, vectors = random_passages(max(*sizes, stored)), random_vectors(max(sizes))
        given = Given(vectors)
        without: dict[str, Work] = {
            "lumina": partial(indexed, STORED, made[:stored], given),
            "the bare engine": partial(bare_indexed, STORED, made[:stored], vectors),
            "QdrantVectorStore": partial(peer_indexed, STORED, made[:stored], GivenToLangChain(vectors)),
        }
        await take_turns(figures, without, rounds)
        turns = [random_texts(asked, 1, seed=5 + turn) for turn in range(rounds)]
        for size in sizes:
            async with AsyncExitStack() as stack:
                store = await edge(Path(folder) / f"of-{size}")
                stack.push_async_callback(store.aclose)
                await fill(Indexer(store, given, Untold()), made[:size])
                await store.optimize()
                asking: dict[str, Work] = {
                    "lumina": partial(recalled, size, store, given, iter(turns)),
                    "its store's hybrid query": partial(queried, size, store, given, iter(turns)),
                    "the bare engine": partial(bare, size, store, given, iter(turns)),
                }
                if size <= PEER_MOST:
                    peer = local_mode(GivenToLangChain(vectors))
                    await asyncio.to_thread(add_to, peer, made[:size])
                    asking["QdrantVectorStore"] = partial(peer_queried, size, peer, iter(turns))
                gc.collect()
                gc.freeze()  # as the server does when it is up; here it is the passages that were made
                await recalled(size, store, given, iter([random_texts(BEFORE, 1, seed=4)]))
                await take_turns(figures, asking, rounds)


if __name__ == "__main__":
    given_options = options(__doc__, rounds=5).parse_args()
    short = bool(given_options.short)
    collected = Figures("index_recall", expectation=EXPECTATION)
    work = main(
        collected,
        rounds_of(given_options),
        real=48 if short else 240,
        stored=500 if short else 2_000,
        sizes=(1_000, 10_000) if short else (1_000, 10_000, 100_000),
        asked=10 if short else 100,
    )
    asyncio.run(work)
    finish(collected, given_options)
