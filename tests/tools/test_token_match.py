"""Late interaction: tokens of a question met by tokens of sentences, made up and with the real model."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from memory.passages import Passage
from memory.qdrant_edge_store import QdrantEdgeStore
from models.embeddings import Embedder
from models.token_states import TokenStates
from tools.ranking import WEIGHTS_WITHOUT_TOKENS, tokens_met
from tools.recall import Recall
from tools.token_match import (
    WEIGHTS,
    NoTokenMatcher,
    Projection,
    TokenMatcher,
    load_projection,
    match,
    rareness,
    token_matcher,
)

HIDDEN = 384
COMMON, RARE = 2000, 20_000


class MadeUp:
    """States that depend on the words only; remembers what it read."""

    dimensions = HIDDEN

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def read_tokens(self, texts: Sequence[str]) -> list[TokenStates]:
        self.texts += texts
        found = []
        for text in texts:
            words = re.findall(r"\w+", text.lower())
            rows = [np.random.default_rng(sum(map(ord, word))).normal(size=HIDDEN) for word in words]
            states = np.array(rows, np.float32).reshape(-1, HIDDEN)
            vector = states.sum(axis=0) if words else np.ones(HIDDEN, np.float32)
            ids = np.array([RARE if len(word) > 3 else COMMON for word in words], np.int64)
            found.append(TokenStates((vector / np.linalg.norm(vector)).astype(np.float32), states, ids))
        return found

    async def encode(
        self, texts: Sequence[str], *, query: bool = False, urgent: bool | None = None
    ) -> NDArray[np.float32]:
        return np.stack([one.vector for one in await MadeUp().read_tokens(texts)])


async def test_each_token_counts_for_its_best_partner() -> None:
    asked, same, other, empty = await TokenMatcher(MadeUp()).read(
        ["otters eat fish", "fish that otters eat", "stones on a beach", ""]
    )
    best = match(asked, [same, other, empty])
    assert best.shape == (3, 3)
    assert best[0] == pytest.approx(np.ones(3), abs=1e-2)
    assert best[1].max() < 0.8
    assert best[2].tolist() == [-1.0] * 3
    assert match(empty, [same]).shape == (1, 0)
    assert np.array_equal(match(asked, [empty, other, empty, same]), best[[2, 1, 2, 0]])
    assert match(asked, []).shape == (0, 3)


def test_rare_tokens_weigh_more_and_marks_nothing() -> None:
    comma, common, rare = rareness(np.array([1010, COMMON, RARE])).tolist()
    assert comma == 0.0
    assert 0.0 < common < rare


def test_weights_sum_to_one_even_where_no_token_is_a_word() -> None:
    project = Projection(np.eye(HIDDEN, 64, dtype=np.float32), np.ones(HIDDEN, np.float32))
    states = np.random.default_rng(1).normal(size=(3, HIDDEN)).astype(np.float32) * 100
    for ids in ([1010, COMMON, RARE], [1010, 1011, 1012]):
        read = project(TokenStates(states[0], states, np.array(ids)))
        assert np.isfinite(read.weights).all()
        assert read.weights.sum() == pytest.approx(1.0, abs=1e-5)
        assert np.linalg.norm(read.tokens.astype(np.float32), axis=1) == pytest.approx(np.ones(3), abs=1e-2)


def test_the_sentence_before_helps_and_the_first_has_none() -> None:
    best = np.array([[1.0, 0.0], [0.2, 0.6], [0.1, 0.1]], np.float32)
    here, with_before = zip(*tokens_met(best, np.array([0.75, 0.25], np.float32)), strict=True)
    assert here == pytest.approx([0.75, 0.3, 0.1])
    assert with_before == pytest.approx([0.75, 0.9, 0.3])
    starts = [0, 2]  # of a passage each
    assert [met for _, met in tokens_met(best, np.array([0.75, 0.25], np.float32), starts)] == pytest.approx(
        [0.75, 0.9, 0.1]
    )


async def test_a_text_is_read_once_while_it_is_kept() -> None:
    embedder = MadeUp()
    matcher = TokenMatcher(embedder, kept=2)
    first = await matcher.read(["one", "two", "one"])
    again = await matcher.read(["two", "one"])
    assert embedder.texts == ["one", "two"]
    assert first[0] is first[2]
    assert np.array_equal(first[1].tokens, again[0].tokens)
    assert len(await matcher.read(["three", "four", "five"])) == 3  # more than are kept
    await matcher.read(["one"])
    assert embedder.texts == ["one", "two", "three", "four", "five", "one"]
    assert await matcher.read([]) == []


async def test_weights_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no weights")
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    np.savez(tmp_path / "shapes.npz", matrix=np.zeros((4, 2)), importance=np.zeros(3))
    for name in ("absent", "text", "other", "shapes"):
        with pytest.raises(NoTokenMatcher, match=rf"{name}\.npz"):
            await TokenMatcher(MadeUp(), tmp_path / f"{name}.npz").read(["one"])


def test_the_weights_are_small_and_for_one_model_only() -> None:
    assert WEIGHTS.stat().st_size < 100_000
    assert load_projection(WEIGHTS).matrix.shape == (HIDDEN, 64)
    assert token_matcher(cast(Embedder, SimpleNamespace(model_name="words"))) is None
    assert token_matcher(cast(Embedder, SimpleNamespace(model_name="sentence-transformers/all-MiniLM-L6-v2")))


@pytest.fixture
async def vectors(tmp_path: Path) -> AsyncIterator[QdrantEdgeStore]:
    store = await QdrantEdgeStore.open(tmp_path / "passages", dimensions=HIDDEN, model="made up")
    texts = ["Herons wade. They eat fish.", "Otters eat. Their fur is dense."]
    for index, text in enumerate(texts):
        passage = Passage("ada", "sample", "River", "zim:River", "7", (), text, 0, len(text), index)
        await store.upsert([passage.to_record()])
    yield store
    await store.aclose()


async def test_recall_reads_question_and_sentences_in_one_go_and_takes_cosines_from_it(
    vectors: QdrantEdgeStore,
) -> None:
    embedder, question = MadeUp(), "Which animals eat fish?"
    found = await Recall(vectors, embedder, tokens=TokenMatcher(embedder)).search(question, owner="ada")
    assert embedder.texts[0] == question
    assert len(embedder.texts) == 1 + 4
    assert found[0].best_sentence.text == "They eat fish."
    assert all(-1.0 <= met <= 1.0 for met in found[0].best_sentence.features[-2:])
    assert found[0].best_sentence.features[-2] > found[1].best_sentence.features[-2]
    asked, said = await embedder.encode([question, "River: They eat fish."])
    assert found[0].best_sentence.cosine == pytest.approx(float(asked @ said), abs=1e-5)


async def test_without_a_matcher_the_ranking_goes_by_its_other_features(vectors: QdrantEdgeStore) -> None:
    [first, *_] = await Recall(vectors, MadeUp()).search("Which animals eat fish?", owner="ada")
    best = first.best_sentence
    assert best.features[-2:] == (0.0, 0.0)
    assert best.score == pytest.approx(float(np.dot(best.features, WEIGHTS_WITHOUT_TOKENS)))


@pytest.mark.slow
async def test_the_real_model_reads_tokens_and_gives_the_vector_that_it_embeds_with() -> None:
    texts = ["River: They eat fish and frogs.", "x " * 5000, "\ud800 sea", "", "Ηρακλής"]
    async with Embedder() as embedder:
        read = await embedder.read_tokens(texts)
        vectors = await embedder.encode(texts)
        assert await embedder.read_tokens([]) == []
        greek = (await TokenMatcher(embedder).read(["Ηρακλής"]))[0]
    for one, vector in zip(read, vectors, strict=True):
        assert one.states.shape == (len(one.ids), HIDDEN)
        assert float(one.vector @ vector) > 0.999
    assert len(read[1].ids) < 300
    assert len(read[3].ids) == 0
    assert greek.weights.sum() == pytest.approx(1.0, abs=1e-5)
