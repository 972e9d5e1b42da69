"""Evidence: a passage that was found for a question, with its sentences scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from memory.passages import Passage
from tools.span_reader import FoundSpan, PassageSpans


class Sentence(NamedTuple):
    """A sentence of a passage. A tuple, for a recall makes forty, and a frozen dataclass takes four times as long."""

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
    cosine: float | None = None
    """Similarity of meaning of the whole passage; None where no search by meaning found it."""

    @property
    def best_sentence(self) -> Sentence:
        """The sentence that answers best."""
        return self.sentences[self.best]


def with_spans(one: Evidence, found: PassageSpans) -> Evidence:
    """The same, each sentence with the best span that a span reader found in it; scores and order stay."""
    sentences = tuple(sentence._replace(span=found.best(sentence.start, sentence.end)) for sentence in one.sentences)
    return replace(one, sentences=sentences)


def describe(evidence: Sequence[Evidence]) -> str:
    """The passages as a numbered list for a reader, human or model."""
    if not evidence:
        return "Nothing in memory about this."
    return "\n\n".join(
        f"[{number}] {' > '.join((one.passage.title, *one.passage.section))} ({one.passage.url})\n{one.passage.text}"
        for number, one in enumerate(evidence, 1)
    )
