"""The span reader: its network on made-up states, and the trained one on the real model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from agents.orchestrator import await_index
from agents.qa import QAInput, build_qa
from agents.spec import RunRequest
from graphs.runs import Runner
from memory.passages import Passage
from models.embeddings import Embedder
from models.pair_states import MAX_TOKENS, PairStates
from tools.evidence import Evidence, Sentence, with_spans
from tools.ranking import FEATURES
from tools.reader import ABSTAIN_BELOW, read
from tools.span_features import question_features, text_features
from tools.span_network import TokenScores
from tools.span_reader import WEIGHTS, NoSpanReader, PassageSpans, SpanReader, load_networks, span_reader
from tools.splitter import sentences as sentence_borders

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]
QUESTION = "Who built the lighthouse?"
TEXT = "The Lindow lighthouse was built by Ada Thornbury in 1823. It stands 41 metres tall."
HIDDEN = 384


def word_offsets(text: str) -> Any:
    """Every word, and every mark, a token."""
    return np.array([match.span() for match in re.finditer(r"\w+|[^\w\s]", text)], np.int64).reshape(-1, 2)


class MadeUp:
    """Token states that depend on the words only."""

    async def read_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[PairStates]:
        def states(text: str, offsets: Any) -> Any:
            rows = [np.random.default_rng(sum(map(ord, text[a:b]))).normal(size=HIDDEN) for a, b in offsets]
            return np.array(rows, np.float32).reshape(-1, HIDDEN)

        found = []
        for question, text in pairs:
            asked, there = word_offsets(question), word_offsets(text)
            found.append(PairStates(states(question, asked), states(text, there), asked, there))
        return found


def passage_spans(text: str, first: str, last: str, null: float = -2.0) -> PassageSpans:
    """Spans of which the one from a word to another is the best."""
    offsets = word_offsets(text)
    words = [text[a:b] for a, b in offsets]
    start, end = np.full(len(words), -9.0, np.float32), np.full(len(words), -9.0, np.float32)
    start[words.index(first)] = end[words.index(last)] = -0.1
    return PassageSpans(text, offsets, TokenScores(start, end, null))


def evidence(text: str = TEXT, title: str = "Lindow lighthouse", score: float = 5.0) -> Evidence:
    passage = Passage("ada", "sample", title, "zim:L", "1", (), text, 0, len(text), 0)
    sentences = tuple(
        Sentence(start, end, text[start:end], score - n, tuple([0.5] * len(FEATURES)))
        for n, (start, end) in enumerate(sentence_borders(text))
    )
    return Evidence(passage, score, sentences, 0)


async def test_scores_are_probabilities_and_do_not_depend_on_the_company() -> None:
    reader = SpanReader(MadeUp())
    texts = [TEXT, "Gulls cry.", "Keepers rowed to the tower once a week, and storms kept them there for months."]
    together = await reader.find(QUESTION, texts)
    again = await reader.find(QUESTION, texts)
    for text, one, same in zip(texts, together, again, strict=True):
        [alone] = await reader.find(QUESTION, [text])
        assert one.scores.start.shape == one.scores.end.shape == (len(word_offsets(text)),)
        assert np.array_equal(one.scores.start, same.scores.start)
        assert np.allclose(one.scores.start, alone.scores.start, atol=1e-4)
        assert one.scores.null == pytest.approx(alone.scores.null, abs=1e-4)
        assert np.exp(one.scores.start).sum() < 1
        assert one.scores.null < 0


@pytest.mark.parametrize("text", ["", " ", "!", "\ud800", "日本語", "x" * 3000, "a\n\nb"])
@pytest.mark.parametrize("question", ["", "?", "Who?", "\ud800\udfff"])
async def test_odd_texts_have_spans_inside_them_or_none(question: str, text: str) -> None:
    [found] = await SpanReader(MadeUp()).find(question, [text])
    span = found.best()
    if span is None:
        assert not len(found.offsets)
    else:
        assert 0 <= span.start < span.end <= len(text)
        assert np.isfinite(span.score)
    assert found.best(0, 0) is None


async def test_nothing_to_read_is_nothing() -> None:
    assert await SpanReader(MadeUp()).find(QUESTION, []) == []


def test_a_span_lies_between_the_borders_and_on_whole_words() -> None:
    found = passage_spans(TEXT, "Ada", "Thornbury")
    best = found.best()
    assert best is not None
    assert TEXT[best.start : best.end] == "Ada Thornbury"
    assert best.score == pytest.approx(-0.2 + 2.0)
    border = TEXT.index("It stands")
    second = found.best(border, len(TEXT))
    assert second is not None
    assert second.start >= border
    assert second.score < best.score
    offsets = found.offsets.copy()
    offsets[6] = offsets[6][0] + 2, offsets[6][1]  # a token that is the end of a word
    piece = PassageSpans(TEXT, offsets, found.scores)
    cut = piece.best()
    assert cut is not None
    assert TEXT[cut.start : cut.end] == "Ada Thornbury"


def test_the_longest_span_is_sixteen_tokens() -> None:
    text = " ".join(f"w{n}" for n in range(40))
    found = passage_spans(text, "w0", "w39").best()
    assert found is not None
    assert len(text[found.start : found.end].split()) <= 16


def test_features_are_of_the_right_shape_and_know_the_questions_words() -> None:
    offsets, asked = word_offsets(TEXT), word_offsets(QUESTION)
    of_text, of_question = text_features(QUESTION, TEXT, offsets), question_features(QUESTION, TEXT, asked)
    assert of_text.shape == (len(offsets), 15)
    assert [TEXT[a:b] for (a, b), row in zip(offsets, of_text, strict=True) if row[0]] == ["lighthouse", "built"]
    assert of_question.tolist() == [[0, 0], [1, 1], [0, 0], [1, 1], [0, 0]]
    assert text_features("", "", np.zeros((0, 2), np.int64)).shape == (0, 15)


def test_the_span_is_the_answer_and_changes_no_order() -> None:
    before = evidence()
    after = with_spans(before, passage_spans(TEXT, "Ada", "Thornbury"))
    assert (after.score, after.best) == (before.score, before.best)
    reading = read("What was the builder called?", [after])
    assert reading is not None
    assert (reading.answer, reading.sentence) == ("Ada Thornbury", TEXT.split(" It ")[0])
    without = read("What was the builder called?", [before])
    assert without is not None
    assert without.answer == without.sentence
    assert reading.confidence == without.confidence


async def test_weights_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no weights")
    np.savez(tmp_path / "other.npz", allow_pickle=False, **{"0.something": np.zeros(3)})
    np.savez(tmp_path / "empty.npz")
    for name in ("absent", "text", "other", "empty"):
        file = tmp_path / f"{name}.npz"
        with pytest.raises(NoSpanReader, match=rf"{name}\.npz"):
            await SpanReader(MadeUp(), file).find(QUESTION, [TEXT])


def test_the_weights_are_small_and_for_one_model_only() -> None:
    assert WEIGHTS.stat().st_size < 1_000_000
    assert load_networks(WEIGHTS)
    assert span_reader(cast(Embedder, SimpleNamespace(model_name="words"))) is None
    assert span_reader(cast(Embedder, SimpleNamespace(model_name="sentence-transformers/all-MiniLM-L6-v2")))


@pytest.mark.slow
async def test_the_real_model_reads_pairs_with_offsets_into_the_text() -> None:
    async with Embedder() as embedder:
        first, second, third = await embedder.read_pairs(
            [(QUESTION, TEXT), ("x " * 5000, "\ud800 sea " * 2000), ("", "")]
        )
        [alone] = await embedder.read_pairs([(QUESTION, TEXT)])
        assert await embedder.read_pairs([]) == []
    assert first.text.shape == (len(first.offsets), HIDDEN)
    assert first.question.shape == (len(first.question_offsets), HIDDEN)
    assert first.offsets[0].tolist() == [0, 3]
    assert first.offsets[-1][1] == len(TEXT)
    assert np.abs(first.text - alone.text).max() < 0.1
    assert len(second.text) + len(second.question) <= MAX_TOKENS
    assert len(second.text) > 100
    assert len(third.text) == 0


CASES = [
    ("Mandelbrot set", "Who proved that the Mandelbrot set is connected?", "Douady"),
    ("Gaston Julia", "Where was Gaston Julia born?", "Sidi Bel Abb"),
]


@pytest.mark.slow
async def test_questions_about_the_sample_are_answered_and_others_are_not(lumina: Lumina) -> None:
    async with Embedder() as embedder, lumina(embedder=embedder) as runner:
        for topic, _, _ in CASES:
            request = RunRequest(intent="crawl", topics=[topic], max_nodes=3)
            async for _ in runner.stream(request, f"crawl {topic}"):
                pass
            await await_index(runner.context, "local", topic, "dense")  # what is found by words alone is judged by less
        qa = build_qa(runner.context)
        for _, question, answer in CASES:
            output = await qa.ainvoke(QAInput(question=question, phrase=False))
            assert not output.abstained, question
            assert answer in output.short_answer, (question, output.short_answer)
            assert output.short_answer in output.citations[0].quote
        for question in ("Who won the football world cup in 1998?", "When did Gaston Julia travel to the Moon?"):
            output = await qa.ainvoke(QAInput(question=question, phrase=False))
            assert output.confidence < ABSTAIN_BELOW, question
            assert output.abstained, question
