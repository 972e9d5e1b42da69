"""Both phases of the indexer, on the real embedded vector store."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from errors import LuminaError
from memory.indexer import BATCH, SLICE, Indexer
from memory.passages import Passage
from memory.qdrant_edge_store import QdrantEdgeStore
from memory.streams import Event

DIMENSIONS = 16


class WordEmbedder:
    """A bag of hashed words; counts its calls, and fails as often as it is told."""

    dimensions = DIMENSIONS

    def __init__(self, failures: int = 0) -> None:
        self.sizes: list[int] = []
        self.failures = failures

    async def encode(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        if self.failures:
            self.failures -= 1
            raise LuminaError("the model is on holiday: try later")
        self.sizes.append(len(texts))
        vectors = np.full((len(texts), DIMENSIONS), 1e-3, np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in text.lower().split():
                row[hashlib.sha256(word.encode()).digest()[0] % DIMENSIONS] += 1
        normal: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return normal


class Noted:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.searchable: list[Passage] = []
        self.meant: list[Passage] = []
        self.changed = asyncio.Condition()

    async def indexed(self, passages: Sequence[Passage]) -> None:
        self.searchable += passages

    async def embedded(self, passages: Sequence[Passage]) -> None:
        async with self.changed:
            self.meant += passages
            self.changed.notify_all()

    async def wait_for(self, number: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.meant) >= number)


@dataclass
class Entry:
    event: Event


def passage(index: int, text: str = "", **changes: Any) -> Passage:
    text = text or f"Passage number{index} tells of the otter."
    made = Passage("ada", "sample", "Otter", "zim:Otter", "1", ("Habits",), text, 0, len(text), index)
    return replace(made, **changes)


def entry(*passages: Passage | dict[str, Any] | Any) -> Entry:
    items = [item.to_dict() if isinstance(item, Passage) else item for item in passages]
    return Entry(Event("passages.add", {"owner": "ada", "passages": items}, task_id="t1"))


@pytest.fixture
async def vectors(tmp_path: Path) -> AsyncIterator[QdrantEdgeStore]:
    store = await QdrantEdgeStore.open(tmp_path / "passages", dimensions=DIMENSIONS, model="words")
    yield store
    await store.aclose()


async def test_passages_are_searchable_before_they_are_embedded(vectors: QdrantEdgeStore) -> None:
    embedder, noted = WordEmbedder(), Noted()
    indexer = Indexer(vectors, embedder, noted)

    handled = await indexer.handle([entry(passage(0), passage(1)), entry(passage(2))])

    assert (handled.indexed, handled.skipped) == (3, ())
    assert noted.searchable == [passage(0), passage(1), passage(2)]
    assert embedder.sizes == []
    hits = await vectors.search("number1", where={"owner": "ada"})
    assert [Passage.from_record(hit.record) for hit in hits] == [passage(1)]


async def test_redelivery_changes_nothing_and_reports_what_is_embedded(vectors: QdrantEdgeStore) -> None:
    noted = Noted()
    indexer = Indexer(vectors, WordEmbedder(), noted)
    await indexer.handle([entry(passage(0))])
    assert await indexer.embed_pending() == 1
    assert noted.meant == [passage(0)]

    await indexer.handle([entry(passage(0)), entry(passage(0))])

    assert await vectors.count(embedded=True) == 1
    assert await indexer.embed_pending() == 0
    assert noted.meant == [passage(0), passage(0)]


async def test_embedding_goes_in_slices_across_events(vectors: QdrantEdgeStore) -> None:
    embedder, noted = WordEmbedder(), Noted()
    indexer = Indexer(vectors, embedder, noted)
    await indexer.handle(entry(passage(index)) for index in range(2 * SLICE + 3))

    assert await indexer.embed_pending(batch=2 * SLICE) == 2 * SLICE
    assert await indexer.embed_pending() == 3
    assert await indexer.embed_pending() == 0

    assert embedder.sizes == [SLICE, SLICE, 3]
    assert len(noted.meant) == await vectors.count(embedded=True) == 2 * SLICE + 3


async def test_malformed_passages_are_skipped_with_a_reason(vectors: QdrantEdgeStore) -> None:
    indexer = Indexer(vectors, WordEmbedder(), Noted())
    good = passage(0)
    without_title = {key: value for key, value in good.to_dict().items() if key != "title"}

    handled = await indexer.handle(
        [
            entry(
                "text",
                without_title,
                {**good.to_dict(), "section": "Habits"},
                {**good.to_dict(), "section": [1]},
                {**good.to_dict(), "start": "0"},
                {**good.to_dict(), "text": " \n"},
                good,
            ),
            Entry(Event("passages.add", {"passages": None})),
            Entry(Event("node.add", {"passages": [good.to_dict()]})),
        ]
    )

    assert handled.indexed == await vectors.count() == 1
    assert len(handled.skipped) == 7
    for reason, word in zip(
        handled.skipped, ("object", "title", "section", "headings", "start", "empty", "NoneType"), strict=True
    ):
        assert word in reason


async def test_running_embeds_what_was_left_and_what_comes(vectors: QdrantEdgeStore) -> None:
    await Indexer(vectors, WordEmbedder(), Noted()).handle([entry(passage(0))])
    noted, stop = Noted(), asyncio.Event()
    indexer = Indexer(vectors, WordEmbedder(), noted)

    running = asyncio.create_task(indexer.run_embedding(stop))
    await noted.wait_for(1)
    await indexer.handle([entry(*map(passage, range(1, BATCH + 10)))])
    await noted.wait_for(BATCH + 10)
    stop.set()
    await asyncio.wait_for(running, 60)

    assert await vectors.pending(10) == []


async def test_idle_indexer_does_not_poll(tmp_path: Path) -> None:
    class Counting(QdrantEdgeStore):
        asked = 0
        idle = asyncio.Event()

        async def pending(self, limit: int) -> list[Any]:
            self.asked += 1
            return await super().pending(limit)

        async def optimize(self) -> bool:
            self.idle.set()
            return False

    store = Counting(tmp_path / "passages", dimensions=DIMENSIONS)
    await store._run(lambda: store._open("words", ()))
    stop = asyncio.Event()
    running = asyncio.create_task(Indexer(store, WordEmbedder(), Noted()).run_embedding(stop))
    await store.idle.wait()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(running), 0.3)  # it is still there, and asleep
    assert store.asked == 1
    stop.set()
    await running
    await store.aclose()


async def test_failing_embedder_is_tried_again(vectors: QdrantEdgeStore) -> None:
    noted, stop = Noted(), asyncio.Event()
    indexer = Indexer(vectors, WordEmbedder(failures=1), noted)
    await indexer.handle([entry(passage(0))])

    running = asyncio.create_task(indexer.run_embedding(stop))
    await noted.wait_for(1)
    stop.set()
    await running

    assert await vectors.count(embedded=True) == 1


async def test_text_that_changes_while_it_is_embedded_is_embedded_again(vectors: QdrantEdgeStore) -> None:
    class Slow(WordEmbedder):
        async def encode(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
            if not self.sizes:
                await indexer.handle([entry(passage(0, "Another text altogether."))])
            return await super().encode(texts, query=query)

    noted = Noted()
    indexer = Indexer(vectors, Slow(), noted)
    await indexer.handle([entry(passage(0))])

    await indexer.embed_pending()
    assert (noted.meant, await vectors.count(embedded=False)) == ([], 1)
    await indexer.embed_pending()
    assert noted.meant == [passage(0, "Another text altogether.")]
