"""Recall on the real embedded vector store, with an embedder that knows only shared words."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from memory.passages import Hit, Passage
from memory.qdrant_edge_store import QdrantEdgeStore
from memory.vectors import Search, VectorStore, Where
from tools.evidence import Evidence
from tools.lexical import stems
from tools.ranking import standardised
from tools.recall import SHORTLIST, Recall, build_recall_tool

DIMENSIONS = 64
SQUAD = Path(__file__).parents[3] / "shared" / "data" / "squad"


class WordEmbedder:
    """A bag of hashed stems; remembers what it was asked."""

    dimensions = DIMENSIONS

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def encode(
        self, texts: Sequence[str], *, query: bool = False, urgent: bool | None = None
    ) -> NDArray[np.float32]:
        self.texts += texts
        vectors = np.full((len(texts), DIMENSIONS), 1e-3, np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for stem in stems(text):
                row[hashlib.sha256(str(stem).encode()).digest()[0] % DIMENSIONS] += 1
        normal: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return normal


def passage(title: str, index: int, text: str, owner: str = "ada") -> Passage:
    return Passage(owner, "sample", title, f"zim:{title}", "7", (), text, 0, len(text), index)


PAGES = [
    passage("Otter", 0, "Otters are carnivorous mammals. They eat fish and crabs. Their fur is very dense."),
    passage("Otter", 1, "The sea otter uses stones as tools. It floats on its back while it opens shells."),
    passage("Heron", 0, "Herons are wading birds. They eat fish and frogs. A heron stands still for minutes."),
    passage("Lighthouse", 0, "The lighthouse was built in 1823. It stands 41 metres tall. Its keeper left in 1971."),
    passage("Lighthouse", 1, "Keepers rowed to the tower once a week. Storms kept them there for months."),
    passage("Otter", 2, "Another owner wrote that otters eat fish.", owner="bob"),
]


@pytest.fixture
async def vectors(tmp_path: Path) -> AsyncIterator[QdrantEdgeStore]:
    store = await QdrantEdgeStore.open(
        tmp_path / "passages", dimensions=DIMENSIONS, model="words", payload_indexes=["owner", "title"]
    )
    await store.upsert(one.to_record() for one in PAGES)
    yield store
    await store.aclose()


async def embed_all(vectors: QdrantEdgeStore) -> None:
    records = await vectors.pending(1000)
    texts = [record.text for record in records]
    await vectors.set_dense([record.id for record in records], await WordEmbedder().encode(texts))


@pytest.mark.parametrize("embedded", [True, False], ids=["embedded", "words only"])
async def test_best_passage_and_its_best_sentence_come_first(vectors: QdrantEdgeStore, embedded: bool) -> None:
    if embedded:
        await embed_all(vectors)
    found = await Recall(vectors, WordEmbedder()).search("When was the lighthouse built?", owner="ada")

    assert found[0].passage == PAGES[3]
    assert found[0].best_sentence.text == "The lighthouse was built in 1823."
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one in found:
        assert (one.cosine is not None) == embedded
        assert one.score == one.best_sentence.score == max(sentence.score for sentence in one.sentences)
        assert [one.passage.text[s.start : s.end] for s in one.sentences] == [s.text for s in one.sentences]


async def test_title_decides_between_pages_that_say_the_same(vectors: QdrantEdgeStore) -> None:
    await embed_all(vectors)
    for animal, expected in (("herons", PAGES[2]), ("otters", PAGES[0])):
        found = await Recall(vectors, WordEmbedder()).search(f"What do {animal} eat?", owner="ada")
        assert found[0].passage == expected
        assert found[0].best_sentence.text.startswith("They eat fish and")


async def test_no_owner_sees_what_is_anothers(vectors: QdrantEdgeStore) -> None:
    await embed_all(vectors)
    recall = Recall(vectors, WordEmbedder())
    assert {one.passage.owner for one in await recall.search("What do otters eat?", owner="ada", limit=20)} == {"ada"}
    assert [one.passage for one in await recall.search("What do otters eat?", owner="bob")] == [PAGES[5]]
    assert await recall.search("What do otters eat?", owner="cy") == []


async def test_titles_and_limit_narrow_the_answer(vectors: QdrantEdgeStore) -> None:
    await embed_all(vectors)
    recall = Recall(vectors, WordEmbedder())
    found = await recall.search("What eats fish?", owner="ada", titles=["Heron", "Lighthouse"], limit=2)
    assert found[0].passage == PAGES[2]
    assert len(found) == 2
    assert {one.passage.title for one in found} <= {"Heron", "Lighthouse"}
    assert await recall.search("fish", owner="ada", limit=0) == []
    assert await recall.search("  ", owner="ada") == []


async def test_dense_and_sparse_keep_the_order_of_one_search(vectors: QdrantEdgeStore) -> None:
    await embed_all(vectors)
    question = "Which tower did keepers row to?"
    recall, asked = Recall(vectors, WordEmbedder()), (await WordEmbedder().encode([question]))[0]
    for mode in ("dense", "sparse"):
        hits = await vectors.search(question, dense=asked, where={"owner": "ada"}, limit=3, mode=mode)
        found = await recall.search(question, owner="ada", limit=3, mode=mode)
        assert [one.passage.id for one in found] == [hit.record.id for hit in hits]
        assert [one.cosine for one in found] == [hit.score if mode == "dense" else None for hit in hits]


async def test_only_the_shortlist_is_embedded_and_in_one_go(vectors: QdrantEdgeStore) -> None:
    await vectors.upsert(passage("Fish", n, f"Fish number{n} swims. It eats.").to_record() for n in range(40))
    embedder = WordEmbedder()
    await Recall(vectors, embedder).search("Which fish swims?", owner="ada")
    assert len(embedder.texts) == 1 + 2 * SHORTLIST
    assert embedder.texts[0] == "Which fish swims?"


class OneCall:
    """The store, for those who ask it in one way only."""

    def __init__(self, vectors: QdrantEdgeStore) -> None:
        self._vectors = vectors
        self.searches: list[int] = []
        self.admits_waiting = True

    async def search_together(
        self, searches: Sequence[Search], *, waiting: Where | None = None
    ) -> tuple[list[list[Hit]], int]:
        self.searches.append(len(searches))
        found, count = await self._vectors.search_together(searches, waiting=waiting)
        return found, count if self.admits_waiting else 0


async def test_the_store_is_asked_once(vectors: QdrantEdgeStore) -> None:
    store = OneCall(vectors)
    recall = Recall(cast(VectorStore, store), WordEmbedder())
    assert await recall.search("How tall is the lighthouse?", owner="ada")
    found = await recall.search("What is an otter?", owner="ada")  # its article is looked at, too
    assert found[0].passage == PAGES[0]
    assert await recall.search("What is an otter?", owner="ada", titles=["Otter"])
    assert store.searches == [2, 3, 2]


async def test_a_page_that_the_question_is_about_wins_a_near_tie(vectors: QdrantEdgeStore) -> None:
    recall = Recall(vectors, WordEmbedder())
    for title in ("Otter", "Heron"):
        found = await recall.search("Who eats fish?", owner="ada", prefer=[title])
        assert found[0].passage.title == title


async def test_passages_without_a_dense_vector_are_not_held_back_by_it(vectors: QdrantEdgeStore) -> None:
    distant = [record for record in await vectors.pending(100) if record.payload["title"] != "Lighthouse"]
    await vectors.set_dense([r.id for r in distant], await WordEmbedder().encode([r.text for r in distant]))
    store = OneCall(vectors)
    recall = Recall(cast(VectorStore, store), WordEmbedder())
    found = await recall.search("How tall is the lighthouse?", owner="ada")
    assert found[0].passage == PAGES[3]
    store.admits_waiting = False
    held_back = await recall.search("How tall is the lighthouse?", owner="ada")
    assert held_back[0].score < found[0].score


def test_scores_are_standardised_and_gaps_filled() -> None:
    assert standardised([3.0, 1.0, None], missing=1.0) == pytest.approx([2**0.5, -(0.5**0.5), -(0.5**0.5)])
    assert standardised([3.0, 1.0, None], missing=None) == pytest.approx([1.0, -1.0, 0.0])
    assert standardised([None, None], missing=None) == [0.0, 0.0]
    assert standardised([2.0, 2.0], missing=None) == [0.0, 0.0]


async def test_tool_answers_with_numbered_passages_and_the_evidence(vectors: QdrantEdgeStore) -> None:
    tool = build_recall_tool(Recall(vectors, WordEmbedder()), "ada")
    assert tool.name == "recall"
    assert set(tool.args) == {"question", "limit", "titles"}

    call = {"name": "recall", "args": {"question": "What do herons eat?", "limit": 2}, "id": "1", "type": "tool_call"}
    message = await tool.ainvoke(call)

    assert message.content.startswith("[1] Heron (zim:Heron)\nHerons are wading birds.")
    assert "[2] " in message.content
    assert [type(one) for one in message.artifact] == [Evidence, Evidence]
    assert (await tool.ainvoke({"question": "What?", "titles": ["Nowhere"]})) == "Nothing in memory about this."


@pytest.mark.slow
@pytest.mark.skipif(not SQUAD.exists(), reason="the shared questions are not here")
async def test_real_model_finds_the_paragraphs_of_real_questions(tmp_path: Path) -> None:
    from models.embeddings import Embedder

    rows = [json.loads(line) for line in (SQUAD / "paragraphs.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["title"] in ("Geology", "Black Death")]
    questions = [json.loads(line) for line in (SQUAD / "questions.jsonl").read_text().splitlines()]
    asked = [row for row in questions if row["title"] in ("Geology", "Black Death")][::14]
    async with Embedder() as embedder:
        store = await QdrantEdgeStore.open(tmp_path / "passages", dimensions=await embedder.load(), model="real")
        await store.upsert(passage(row["title"], row["paragraph"], row["context"]).to_record() for row in rows)
        recall = Recall(store, embedder)
        found = await asyncio.gather(*(recall.search(row["question"], owner="ada", limit=3) for row in asked))
        await store.aclose()
    right = [
        any((one.passage.title, one.passage.index) == (row["title"], row["paragraph"]) for one in evidence)
        for row, evidence in zip(asked, found, strict=True)
    ]
    assert len(asked) >= 15
    assert sum(right) / len(right) >= 0.85  # BM25 candidates alone: nothing has a dense vector here
