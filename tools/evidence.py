"""Evidence: a passage that was found for a question, with its sentences scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from memory.passages import Passage
from tools.ranking import SPAN_WEIGHTS
from tools.span_reader import FoundSpan, PassageSpans

UNLIKELY = 10.0
"""What a sentence beyond the transformer's reach is behind the passage's best span, in log odds."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a passage."""

    start: int
    """Offset in the passage's text, in code points."""
    end: int
    text: str
    score: float
    """How well it answers the question: comparable within one search, among all its passages."""
    features: tuple[float, ...]
    """What the score is made of before a span reader looks, in the order of ``ranking.FEATURES``."""
    span: FoundSpan | None = None
    """The best span in it, where a span reader read the passage; offsets are those of the passage's text."""

    @property
    def cosine(self) -> float:
        """Similarity of meaning, title in front."""
        return self.features[2]

    @property
    def covered(self) -> float:
        """Share of the question's words in it, the title or the sentence before; 0 to 1, rare words counting more."""
        return self.features[4]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A passage found, with what speaks for it."""

    passage: Passage
    score: float
    """Comparable within one search."""
    sentences: tuple[Sentence, ...]
    best: int
    """Index of its best sentence."""
    null: float | None = None
    """Log probability that it has no answer (first and last token together), where a span reader read it."""

    @property
    def best_sentence(self) -> Sentence:
        """The sentence that answers best."""
        return self.sentences[self.best]


def with_spans(
    evidence: Sequence[Evidence], found: Sequence[PassageSpans], weights: Sequence[float] = SPAN_WEIGHTS
) -> list[Evidence]:
    """The passages, in the same order, with what a span reader found in the first of them.

    A sentence's score rises by what its best span and the passage's best span are worth; a passage that was not read
    loses what the one that lost most did.

    Args:
        evidence: Best first, as it was found.
        found: For the first few, in order.
        weights: See ``ranking.SPAN_WEIGHTS``.
    """
    read = [_read(one, spans, weights) for one, spans in zip(evidence, found, strict=False)]
    gain = min((new.score - old.score for old, new in zip(evidence, read, strict=False)), default=0.0)
    return [*read, *(_raised(one, [gain] * len(one.sentences)) for one in evidence[len(read) :])]


def _read(one: Evidence, found: PassageSpans, weights: Sequence[float]) -> Evidence:
    whole = found.best()
    if whole is None:
        return one
    spans = [found.best(sentence.start, sentence.end) for sentence in one.sentences]
    worth = [span.score if span else whole.score - UNLIKELY for span in spans]
    raised = _raised(one, [weights[0] * score + weights[1] * whole.score for score in worth])
    sentences = tuple(replace(s, span=span) for s, span in zip(raised.sentences, spans, strict=True))
    return replace(raised, sentences=sentences, null=found.scores.null)


def _raised(one: Evidence, gains: Sequence[float]) -> Evidence:
    sentences = tuple(
        replace(sentence, score=sentence.score + gain) for sentence, gain in zip(one.sentences, gains, strict=True)
    )
    best = max(range(len(sentences)), key=lambda n: sentences[n].score)
    return replace(one, score=sentences[best].score, sentences=sentences, best=best)


def describe(evidence: Sequence[Evidence]) -> str:
    """The passages as a numbered list for a reader, human or model."""
    if not evidence:
        return "Nothing in memory about this."
    return "\n\n".join(
        f"[{number}] {' > '.join((one.passage.title, *one.passage.section))} ({one.passage.url})\n{one.passage.text}"
        for number, one in enumerate(evidence, 1)
    )
