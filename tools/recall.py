"""Recall: the passages that answer a question, with their sentences scored.

Two searches (dense vectors, BM25) give candidates; the best by the sum of their standardised scores are shortlisted;
their sentences are embedded and scored, and a passage counts for its best sentence. A token matcher and a span reader,
where they know the embedding model, compare question and sentences token by token and read the passage of the best one.
A passage whose dense vector is still to come takes part with its words and its sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Protocol

from pydantic import BaseModel, Field

from memory.passages import Passage, Record
from memory.vectors import Mode, Search, VectorStore
from tools.definitions import opens_article_on, possible_titles, subject_of
from tools.evidence import Evidence, Sentence, describe, with_spans
from tools.passage_parts import Parts, parts_of, words_of
from tools.ranking import WEIGHTS, WEIGHTS_WITHOUT_TOKENS, Candidate, sentence_features, standardised, tokens_met
from tools.span_reader import SpanFinder
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
class _Found:
    """A passage on the shortlist, with what the two searches say of it."""

    record: Record
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
        first = frozenset((*prefer, *possible_titles(question)))
        shortlist, pool = await self._shortlist(question, asked, where, limit, mode, first)
        if not shortlist:
            return []
        evidence = await self._scored(question, asked, shortlist, pool, frozenset(prefer), limit, mode == "hybrid")
        return await self._read(question, evidence)

    async def _read(self, question: str, evidence: list[Evidence]) -> list[Evidence]:
        """The same, the passage of the best sentence with its spans."""
        if self._spans is None:
            return evidence
        place = max(range(len(evidence)), key=lambda n: evidence[n].score)
        [found] = await self._spans.find(question, [evidence[place].passage.text])
        return [*evidence[:place], with_spans(evidence[place], found), *evidence[place + 1 :]]

    async def _shortlist(
        self,
        question: str,
        asked: NDArray[np.float32],
        where: dict[str, str | Sequence[str]],
        limit: int,
        mode: Mode,
        first: frozenset[str],
    ) -> tuple[list[_Found], list[bytes]]:
        """What has the best sum of standardised scores, pages in ``first`` before all; and the words of every passage
        that was found."""
        depth = max(CANDIDATES, limit)
        searches = [
            Search(question, asked, where, 0 if mode == "sparse" else depth, "dense"),
            Search(question, None, where, 0 if mode == "dense" else depth, "sparse"),
        ]
        if mode == "hybrid" and "title" not in where and (titles := possible_titles(question)):
            searches.append(Search(question, None, {**where, "title": titles}, DEFINING, "sparse"))
        (by_meaning, *lists), waiting = await self._vectors.search_together(searches, waiting=where)
        by_words = [hit for hits in lists for hit in hits]
        records = {hit.record.id: hit.record for hit in (*by_meaning, *by_words)}
        meaning = {hit.record.id: hit.score for hit in by_meaning}
        words = {hit.record.id: hit.score for hit in by_words}
        # What a search did not find is at most as good as the last it found; but while some records have no dense
        # vector yet, not being found by meaning says nothing.
        dense_missing = min(meaning.values()) if meaning and not waiting else None
        words_missing = 0.0 if len(by_words) < depth else min(words.values())
        dense = standardised([meaning.get(one) for one in records], dense_missing)
        lexical = standardised([words.get(one) for one in records], words_missing)
        best = sorted((-(d + w), one, d, w) for one, d, w in zip(records, dense, lexical, strict=True))
        if first:
            best.sort(key=lambda found: records[found[1]].payload["title"] not in first)
        shortlist = [_Found(records[one], d, w, meaning.get(one)) for _, one, d, w in best[: max(SHORTLIST, limit)]]
        return shortlist, [words_of(record.text) for record in records.values()]

    async def _scored(
        self,
        question: str,
        asked: NDArray[np.float32],
        shortlist: Sequence[_Found],
        pool: Sequence[bytes],
        prefer: frozenset[str],
        limit: int,
        by_sentence: bool,
    ) -> list[Evidence]:
        """The passages with their sentences scored, ``limit`` at most; those with the best sentence or, unless
        ``by_sentence``, the first."""
        import numpy as np  # not at import time: the module is imported at start

        passages = [Passage.from_record(one.record) for one in shortlist]
        candidates = [
            Candidate(parts_of(passage.title, passage.text), one.dense, one.words)
            for passage, one in zip(passages, shortlist, strict=True)
        ]
        ends = list(accumulate(len(one.parts.sentences) for one in candidates))
        starts = [0, *ends[:-1]]
        near, met = await self._compared(question, asked, candidates, starts)
        features = sentence_features(question, candidates, near, pool, met)
        subject = subject_of(question)
        favour = np.zeros(len(features))
        for passage, start, end in zip(passages, starts, ends, strict=True):
            if passage.title in prefer:
                favour[start:end] = PREFERENCE
            if opens_article_on(passage, subject):
                favour[start] += DEFINITION
        scores = (np.array(features) @ (WEIGHTS_WITHOUT_TOKENS if met is None else WEIGHTS) + favour).tolist()
        best = [max(range(start, end), key=scores.__getitem__) for start, end in zip(starts, ends, strict=True)]
        order = sorted(range(len(best)), key=lambda n: -scores[best[n]]) if by_sentence else range(len(best))
        return [
            Evidence(
                passages[n],
                scores[best[n]],
                _sentences(candidates[n].parts, features[starts[n] : ends[n]], scores[starts[n] : ends[n]]),
                best[n] - starts[n],
                shortlist[n].cosine,
            )
            for n in order[:limit]
        ]

    async def _compared(
        self, question: str, asked: NDArray[np.float32], candidates: Sequence[Candidate], starts: Sequence[int]
    ) -> tuple[list[float], list[tuple[float, float]] | None]:
        """The cosines of all sentences with the question, and how its tokens are met by them."""
        import numpy as np  # not at import time: the module is imported at start

        texts = [text for one in candidates for text in one.parts.titled]
        if self._tokens is None:
            return ((await self._embedder.encode(texts, urgent=True)) @ asked).tolist(), None
        question_read, *read = await self._tokens.read([question, *texts])
        near = (np.stack([one.vector for one in read]) @ asked).tolist()
        return near, tokens_met(match(question_read, read), question_read.weights, starts)


def _sentences(parts: Parts, rows: Sequence[tuple[float, ...]], scores: Sequence[float]) -> tuple[Sentence, ...]:
    return tuple(
        [
            Sentence(start, end, text, score, row)
            for (start, end), text, score, row in zip(parts.borders, parts.sentences, scores, rows, strict=True)
        ]
    )


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
