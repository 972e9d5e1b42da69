"""How well a sentence answers a question: ten features and a linear model over them.

The weights were fitted by ``benchmarks/token_match_fit.py DATA``, those without tokens by ``benchmarks/recall.py DATA
--fit``, on the answerable questions of SQuAD's development articles: softmax over all sentences of the shortlisted
passages, the sentences that hold a gold answer being the right ones. What held-out articles gave is in
docs/decisions/retrieval.md. Nothing in it knows a title or an id.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, repeat
from typing import TYPE_CHECKING

from tools.answer_types import AnswerType, expected_type, typed_spans
from tools.lexical import Stems, rarities, stems, weighted_pairs
from tools.passage_parts import Parts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEATURES = (
    "passage's dense score",
    "passage's BM25 score",
    "sentence's cosine",
    "question's words in the sentence and the title",
    "the same, with the sentence before",
    "span of the expected type",
    "question's word pairs in the passage",
    "best cosine of the passage's sentences",
    "question's tokens met by tokens of the sentence",
    "the same, or by tokens of the sentence before",
)
WEIGHTS = (0.38, 0.24, 3.96, 0.98, 0.63, 0.8, 2.87, 4.8, 13.89, 9.4)
"""One a feature, in this order."""
WEIGHTS_WITHOUT_TOKENS = (0.4, 0.26, 8.0, 3.25, 2.7, 0.67, 3.05, 7.4, 0.0, 0.0)
"""The same where no token matcher knows the embedding model."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage on the shortlist."""

    parts: Parts
    dense: float
    """z-score of its cosine among all candidates; 0 where it has no dense vector yet."""
    words: float
    """z-score of its BM25 score among all candidates."""


def standardised(scores: Sequence[float | None], missing: float | None) -> list[float]:
    """z-scores of what one search found.

    Args:
        scores: One for each candidate; None where the search did not find it.
        missing: The score that stands for None; None makes those 0, neither good nor bad.
    """
    import numpy as np  # not at import time: the module is imported at start

    values = [missing if score is None else score for score in scores]
    known = np.array([value for value in values if value is not None])
    if not known.size:
        return [0.0] * len(scores)
    # What ndarray.mean and ndarray.std do, in a third of their time: they are called for every question.
    mean = float(np.add.reduce(known)) / known.size
    deviation = known - mean
    spread = math.sqrt(np.add.reduce(deviation * deviation) / known.size) or 1.0
    return [0.0 if value is None else (value - mean) / spread for value in values]


def sentence_features(
    question: str,
    candidates: Sequence[Candidate],
    cosines: Sequence[float],
    pool: Sequence[bytes],
    met: Sequence[tuple[float, float]] | None = None,
) -> list[tuple[float, ...]]:
    """The features of every sentence of the shortlist, in order.

    A question is asked of some forty sentences: so few that lists are faster than arrays.

    Args:
        question: The question.
        candidates: The shortlist.
        cosines: Of all its sentences with the question.
        pool: The ``words_of`` all candidates, on the shortlist or not; they say which words are rare.
        met: What ``tokens_met`` says of all its sentences; None where nothing matches tokens.
    """
    asked = stems(question)
    rarity = rarities(asked, pool)
    neighbours = weighted_pairs(asked, rarity)
    asked_pairs = frozenset(neighbours)
    everything, all_pairs = sum(rarity.values()) or 1.0, sum(neighbours.values()) or 1.0
    tokens = iter(met or repeat((0.0, 0.0)))
    near = iter(cosines)
    rows: list[tuple[float, ...]] = []
    for candidate in candidates:
        parts = candidate.parts
        here, with_before = words_covered(rarity, parts)
        pairs = sum([neighbours[pair] for pair in asked_pairs & parts.pairs]) / all_pairs
        cues = type_cues(question, parts.sentences)
        nearness = list(islice(near, len(here)))
        best = max(nearness)
        rows += [
            (candidate.dense, candidate.words, cosine, own / everything, wider / everything, cue, pairs, best, *token)
            for cosine, own, wider, cue, token in zip(nearness, here, with_before, cues, tokens, strict=False)
        ]
    return rows


def words_covered(weights: Mapping[int, float], parts: Parts) -> tuple[list[float], list[float]]:
    """What the words weigh that each sentence has, or its title; and the same with the words of the sentence before."""
    count = len(parts.sentences)
    here, with_before = [0.0] * count, [0.0] * (count + 1)
    for word in weights.keys() & parts.places.keys():
        weight = weights[word]
        reached = -1  # the sentence that has had its weight from the one before
        for place in parts.places[word]:
            here[place] += weight
            if place != reached:
                with_before[place] += weight
            reached = place + 1
            with_before[reached] += weight
    return here, with_before[:count]


def tokens_met(
    best: NDArray[np.float32], weights: NDArray[np.float32], starts: Sequence[int] = (0,)
) -> list[tuple[float, float]]:
    """How well the question's tokens are met by each sentence, and by it or the one before; to 1.

    Args:
        best: The best cosine of each token of the question, shape (sentences, tokens of the question).
        weights: What each of those tokens weighs; they sum to 1.
        starts: The sentences that begin a passage and so have none before.
    """
    import numpy as np  # not at import time: the module is imported at start

    with_before = best.copy()
    with_before[1:] = np.maximum(best[1:], best[:-1])
    with_before[list(starts)] = best[list(starts)]
    return list(zip((best @ weights).tolist(), (with_before @ weights).tolist(), strict=True))


def type_cues(question: str, sentences: Sequence[str]) -> list[float]:
    """Whether each sentence has a span of the kind the question asks for, not counting what the question says itself.

    1 when it has one, -1 when it has none, 0 when the question asks for no recognisable kind.
    """
    kind = expected_type(question)
    if kind in (AnswerType.PHRASE, AnswerType.CLAUSE):
        return [0.0] * len(sentences)
    asked = set(stems(question))
    return [
        1.0 if any(not words or not asked.issuperset(words) for words in _spans(sentence, kind)) else -1.0
        for sentence in sentences
    ]


@lru_cache(maxsize=8_000)
def _spans(sentence: str, kind: AnswerType) -> tuple[Stems, ...]:
    """The words of each span of a kind."""
    return tuple(stems(sentence[span.start : span.end]) for span in typed_spans(sentence, kind))
