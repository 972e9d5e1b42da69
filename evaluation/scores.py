"""Scores of answers, as SQuAD's official script counts them (Rajpurkar et al. 2016), and of rankings and refusals."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = Sequence[float] | NDArray[np.float64]
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Lower case, no ASCII punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, golds: Sequence[str]) -> bool:
    """Whether the answer is one of the gold answers, both normalised."""
    return any(normalised(answer) == normalised(gold) for gold in golds)


def token_f1(answer: str, golds: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of the words, the best over the gold answers; 0 without any."""
    ours = normalised(answer).split()

    def one(gold: str) -> float:
        theirs = normalised(gold).split()
        common = sum((Counter(ours) & Counter(theirs)).values())
        return 2 * common / (len(ours) + len(theirs)) if common else 0.0

    return max(map(one, golds), default=0.0)


def contains(text: str, golds: Sequence[str]) -> bool:
    """Whether a gold answer stands in the text, both normalised."""
    inside = normalised(text)
    return any(normalised(gold) in inside for gold in golds)


def auroc(positive: Numbers, negative: Numbers) -> float | None:
    """The share of (positive, negative) pairs in the right order, ties half (Mann and Whitney); None without pairs."""
    if not len(positive) or not len(negative):
        return None
    above, below = np.asarray(positive, float)[:, None], np.asarray(negative, float)[None, :]
    return float((above > below).mean() + (above == below).mean() / 2)


def share(hits: Sequence[bool]) -> float | None:
    """The share of True; None of nothing."""
    return sum(hits) / len(hits) if len(hits) else None


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return float(np.mean(values)) if len(values) else None


def quantile(values: Sequence[float], at: float) -> float | None:
    """The quantile, interpolated; None of nothing."""
    return float(np.quantile(values, at)) if len(values) else None
