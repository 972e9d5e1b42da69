"""Recall: the passages that answer a question, with their sentences scored.

Two searches (dense vectors, BM25) give candidates; the best by the sum of their standardised scores are shortlisted;
their sentences are embedded and scored, and a passage counts for its best sentence. A token matcher and a span reader,
where they know the embedding model, compare question and sentences token by token and read the passage of the best one.
A passage whose dense vector is still to come takes part with its words and its sentences.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Protocol

from pydantic import BaseModel, Field

from memory.passages import Hit, Passage
from memory.vectors import Mode, VectorStore
from tools.definitions import opens_article_on, possible_titles, subject_of
from tools.evidence import Evidence, Sentence, describe, with_spans
from tools.lexical import stems
from tools.ranking import WEIGHTS, WEIGHTS_WITHOUT_TOKENS, Candidate, sentence_features, standardised, tokens_met
from tools.span_reader import SpanFinder
from tools.splitter import sentences as sentence_borders
from tools.token_match import TokenMatcher, match

if TYPE_CHECKING:
    import numpy as np
    from langchain_core.tools import BaseTool
    from numpy.typing import NDArray

CANDIDATES = 30
"""Passages from each of the two searches. On 348 paragraphs the right one is among them for 99.9 % of the questions."""

SHORTLIST = 6
"""Passages whose sentences are scored: about 30 sentences, 0.3 s on two free cores when none is cached. With 8, 15 or
30 recall@1 differs by less than 0.005."""

PREFERENCE = 1.0
"""What a page that the question is about is worth more, in the unit of the ranking (log odds): it breaks near ties for
vague questions. On 60 questions over five crawls of 30 real pages, 0 to 3 made no difference."""


DEFINING = 3
"""Passages of the article on X that «what is X» looks at in any case."""

DEFINITION = 12.0
"""What the first sentence of an article is worth more to «what is X» when X is its title, in the same unit: as much as
lies between a perfect sentence and one that has little in common with the question."""


class Embedder(Protocol):
    """Turns texts into vectors of length 1."""

    async def encode(
        self, texts: Sequence[str], *, query: bool = False, urgent: bool | None = None
    ) -> NDArray[np.float32]:
        """Vectors of shape (len(texts), dimensions), each of length 1; ``urgent`` goes before what is not."""
        ...


@dataclass(frozen=True, slots=True)
class _Scored:
    """What the two searches found."""

    hit: Hit
    dense: float
    words: float
    cosine: float | None


class Recall:
    """Finds the passages of an owner's memory that answer a question.

    Args:
        vectors: Where the passages are.
        embedder: For the question and for sentences.
        spans: Reads the passage of the best sentence for the short answer; None for no such reading.
        tokens: Compares question and sentences token by token; None where nothing is fitted to the embedder's model.
        mode: What ``search`` does unless it is told.
    """

    def __init__(
        self,
        vectors: VectorStore,
        embedder: Embedder,
        spans: SpanFinder | None = None,
        tokens: TokenMatcher | None = None,
        *,
        mode: Mode = "hybrid",
    ) -> None:
        self._vectors = vectors
        self._embedder = embedder
        self._spans = spans
        self._tokens = tokens
        self._mode: Mode = mode

    async def search(
        self,
        question: str,
        *,
        owner: str,
        limit: int = 5,
        titles: Sequence[str] | None = None,
        prefer: Sequence[str] = (),
        mode: Mode | None = None,
    ) -> list[Evidence]:
        """The best passages, best first.

        Args:
            question: The question as it was asked.
            owner: Whose memory is searched.
            limit: How many passages at most.
            titles: Only passages of these pages.
            prefer: Pages that the question is about; each of their sentences scores ``PREFERENCE`` more.
            mode: ``hybrid`` is all that is described above; ``dense`` and ``sparse`` keep the order of one search.
                None takes what ``Recall`` was told.
        """
        if not question.strip() or limit < 1:
            return []
        mode = mode or self._mode
        where: dict[str, str | Sequence[str]] = (
            {"owner": owner} if titles is None else {"owner": owner, "title": list(titles)}
        )
        asked = (await self._embedder.encode([question], query=True))[0]
        found = await self._candidates(question, asked, where, max(CANDIDATES, limit), mode)
        first = {*prefer, *possible_titles(question)}
        found.sort(key=lambda one: one.hit.record.payload["title"] not in first)
        shortlist = found[: max(SHORTLIST, limit)]
        evidence = await self._scored(question, asked, shortlist, found, frozenset(prefer))
        if mode == "hybrid":
            evidence.sort(key=lambda one: -one.score)
        return await self._read(question, evidence[:limit])

    async def _read(self, question: str, evidence: list[Evidence]) -> list[Evidence]:
        """The same, the passage of the best sentence with its spans."""
        if self._spans is None or not evidence:
            return evidence
        place = max(range(len(evidence)), key=lambda n: evidence[n].score)
        [found] = await self._spans.find(question, [evidence[place].passage.text])
        return [*evidence[:place], with_spans(evidence[place], found), *evidence[place + 1 :]]

    async def _candidates(
        self, question: str, asked: NDArray[np.float32], where: dict[str, str | Sequence[str]], depth: int, mode: Mode
    ) -> list[_Scored]:
        """What the searches find, best sum of standardised scores first."""

        async def hits(wanted: Mode) -> list[Hit]:
            if mode not in ("hybrid", wanted):
                return []
            return await self._vectors.search(question, dense=asked, where=where, limit=depth, mode=wanted)

        by_meaning, by_words, waiting = await asyncio.gather(
            hits("dense"), hits("sparse"), self._vectors.count(where, embedded=False)
        )
        if mode == "hybrid" and "title" not in where and (titles := possible_titles(question)):
            articles = {**where, "title": titles}
            by_words += await self._vectors.search(question, where=articles, limit=DEFINING, mode="sparse")
        every = list({hit.record.id: hit for hit in (*by_meaning, *by_words)}.values())
        meaning = {hit.record.id: hit.score for hit in by_meaning}
        words = {hit.record.id: hit.score for hit in by_words}
        # What a search did not find is at most as good as the last it found; but while some records have no dense
        # vector yet, not being found by meaning says nothing.
        dense_missing = min(meaning.values()) if meaning and not waiting else None
        words_missing = 0.0 if len(by_words) < depth else min(words.values())
        dense = standardised([meaning.get(hit.record.id) for hit in every], dense_missing)
        lexical = standardised([words.get(hit.record.id) for hit in every], words_missing)
        scored = [
            _Scored(hit, d, w, meaning.get(hit.record.id)) for hit, d, w in zip(every, dense, lexical, strict=True)
        ]
        return sorted(scored, key=lambda one: (-(one.dense + one.words), one.hit.record.id))

    async def _scored(
        self,
        question: str,
        asked: NDArray[np.float32],
        shortlist: Sequence[_Scored],
        found: Sequence[_Scored],
        prefer: frozenset[str],
    ) -> list[Evidence]:
        passages = [Passage.from_record(one.hit.record) for one in shortlist]
        borders = [sentence_borders(passage.text) or [(0, len(passage.text))] for passage in passages]
        candidates = [
            Candidate(passage.title, passage.text, tuple(passage.text[s:e] for s, e in cut), one.dense, one.words)
            for passage, cut, one in zip(passages, borders, shortlist, strict=True)
        ]
        if not candidates:
            return []
        ends = list(accumulate(len(one.sentences) for one in candidates))
        parts = [slice(end - len(one.sentences), end) for one, end in zip(candidates, ends, strict=True)]
        near, met = await self._compared(question, asked, candidates, parts)
        pool = [stems(one.hit.record.text) for one in found]
        features = sentence_features(question, candidates, [near[part] for part in parts], pool, met)
        subject = subject_of(question)
        favour = [
            (PREFERENCE if passage.title in prefer else 0.0)
            + (DEFINITION if number == 0 and opens_article_on(passage, subject) else 0.0)
            for passage, cut in zip(passages, borders, strict=True)
            for number in range(len(cut))
        ]
        scores = features @ (WEIGHTS_WITHOUT_TOKENS if met is None else WEIGHTS) + favour
        return [
            _evidence(passage, one.cosine, cut, features[part], scores[part])
            for passage, one, cut, part in zip(passages, shortlist, borders, parts, strict=True)
        ]

    async def _compared(
        self, question: str, asked: NDArray[np.float32], candidates: Sequence[Candidate], parts: Sequence[slice]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float64]] | None]:
        """The cosines of all sentences with the question, and for each candidate how its tokens are met."""
        import numpy as np  # not at import time: the module is imported at start

        # A sentence that says «it» or «they» is near the question only with the title before it.
        texts = [f"{one.title}: {sentence}" for one in candidates for sentence in one.sentences]
        if self._tokens is None:
            return (await self._embedder.encode(texts, urgent=True)) @ asked, None
        question_read, *read = await self._tokens.read([question, *texts])
        near = np.stack([one.vector for one in read]) @ asked
        best = match(question_read, read)
        return near, [tokens_met(best[part], question_read.weights) for part in parts]


def _evidence(
    passage: Passage,
    cosine: float | None,
    borders: Sequence[tuple[int, int]],
    features: NDArray[np.float64],
    scores: NDArray[np.float64],
) -> Evidence:
    sentences = tuple(
        Sentence(start, end, passage.text[start:end], float(score), tuple(row.tolist()))
        for (start, end), row, score in zip(borders, features, scores, strict=True)
    )
    best = int(scores.argmax())
    return Evidence(passage, sentences[best].score, sentences, best, cosine)


class RecallArguments(BaseModel):
    """What the ``recall`` tool is called with."""

    question: Annotated[str, Field(min_length=1, description="A complete question or a few words to look for.")]
    limit: Annotated[int, Field(ge=1, le=20, description="How many passages at most.")] = 5
    titles: Annotated[
        list[str] | None, Field(description="Only passages of the pages with these exact titles; leave out for all.")
    ] = None


def build_recall_tool(recall: Recall, owner: str) -> BaseTool:
    """``recall`` as a LangChain tool bound to one owner's memory.

    The tool's text lists the passages with number, title, section and URL; its artifact is the list of ``Evidence``.
    """
    from langchain_core.tools import StructuredTool  # a fifth of a second of imports

    async def run(question: str, limit: int = 5, titles: list[str] | None = None) -> tuple[str, list[Evidence]]:
        evidence = await recall.search(question, owner=owner, limit=limit, titles=titles)
        return describe(evidence), evidence

    return StructuredTool.from_function(
        coroutine=run,
        name="recall",
        description=(
            "Look up passages of the encyclopaedia pages that have been read so far. Returns the best passages with "
            "their page title, section and URL, numbered for citation. Returns nothing about pages not read yet."
        ),
        args_schema=RecallArguments,
        response_format="content_and_artifact",
    )
