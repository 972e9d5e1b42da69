"""How well a sentence answers a question: ten features and a linear model over them.

The weights were fitted by ``benchmarks/token_match_fit.py DATA``, those without tokens by ``benchmarks/recall.py DATA
--fit``, on the answerable questions of SQuAD's development articles: softmax over all sentences of the shortlisted
passages, the sentences that hold a gold answer being the right ones. What held-out articles gave is in
docs/decisions/retrieval.md. Nothing in it knows a title or an id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tools.answer_types import AnswerType, expected_type, typed_spans
from tools.lexical import Rarity, Stems, covered, pairs_covered, stems

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

    title: str
    text: str
    sentences: tuple[str, ...]
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

    known = np.array([missing if score is None else score for score in scores if not (score is missing is None)])
    if known.size == 0:
        return [0.0] * len(scores)
    mean, spread = float(known.mean()), float(known.std()) or 1.0
    values = [missing if score is None else score for score in scores]
    return [0.0 if value is None else (value - mean) / spread for value in values]


def sentence_features(
    question: str,
    candidates: Sequence[Candidate],
    cosines: Sequence[NDArray[np.float32]],
    pool: Sequence[Stems],
    met: Sequence[NDArray[np.float64]] | None = None,
) -> NDArray[np.float64]:
    """The features of every sentence of every candidate, shape (sentences, len(FEATURES)).

    Args:
        question: The question.
        candidates: The shortlist.
        cosines: For each candidate the cosines of its sentences with the question.
        pool: The words of all candidates, on the shortlist or not; they say which words are rare.
        met: For each candidate what ``tokens_met`` says of its sentences; None where nothing matches tokens.
    """
    import numpy as np  # not at import time: the module is imported at start

    asked = stems(question)
    rarity = Rarity(pool)
    weights = {word: rarity(word) for word in asked}
    rows = []
    if met is None:
        met = [np.zeros((len(nearness), 2)) for nearness in cosines]
    for candidate, nearness, tokens in zip(candidates, cosines, met, strict=True):
        title = set(stems(candidate.title))
        pairs = pairs_covered(asked, stems(f"{candidate.title} {candidate.text}"), rarity)
        before: set[int] = set()
        for sentence, cosine, here in zip(candidate.sentences, nearness, tokens, strict=True):
            words = set(stems(sentence))
            rows.append(
                (
                    candidate.dense,
                    candidate.words,
                    float(cosine),
                    covered(weights, words | title),
                    covered(weights, words | title | before),
                    type_cue(question, sentence),
                    pairs,
                    float(nearness.max()),
                    *here.tolist(),
                )
            )
            before = words
    return np.array(rows).reshape(-1, len(FEATURES))


def tokens_met(best: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """How well the question's tokens are met by each sentence of a passage, and by it or the one before; to 1.

    Args:
        best: The best cosine of each token of the question, shape (sentences, tokens of the question).
        weights: What each of those tokens weighs; they sum to 1.

    Returns:
        Shape (sentences, 2).
    """
    import numpy as np  # not at import time: the module is imported at start

    with_before = best.copy()
    with_before[1:] = np.maximum(best[1:], best[:-1])
    return np.stack([best @ weights, with_before @ weights], axis=1).astype(np.float64)


def type_cue(question: str, sentence: str) -> float:
    """Whether the sentence has a span of the kind the question asks for, not counting what the question says itself.

    1 when it has one, -1 when it has none, 0 when the question asks for no recognisable kind.
    """
    kind = expected_type(question)
    if kind in (AnswerType.PHRASE, AnswerType.CLAUSE):
        return 0.0
    asked = set(stems(question))
    spans = (stems(sentence[span.start : span.end]) for span in typed_spans(sentence, kind))
    return 1.0 if any(not words or not asked.issuperset(words) for words in spans) else -1.0
