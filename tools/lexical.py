"""Words in common: how much of a question a piece of text covers, rare words counting more.

Words are cut, stemmed and rid of stop words by the same encoder that BM25 search uses.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

from memory.bm25 import Bm25Encoder

_WORD = re.compile(r"\w+")

Stems = tuple[int, ...]
"""Hashes of the content words of a text, stemmed, in order."""


@lru_cache(maxsize=1)
def _encoder() -> Bm25Encoder:
    return Bm25Encoder()


@lru_cache(maxsize=50_000)
def stem(word: str) -> int | None:
    """The hash of a word's stem; None for a stop word."""
    indices = _encoder().query(word).indices
    return indices[0] if indices else None


@lru_cache(maxsize=20_000)
def stems(text: str) -> Stems:
    """The content words of a text, in order."""
    found = (stem(word) for word in _WORD.findall(text))
    return tuple(number for number in found if number is not None)


class Rarity:
    """Inverse document frequency over some texts (Robertson and Spärck Jones, as BM25 takes it)."""

    def __init__(self, texts: Iterable[Stems]) -> None:
        self._texts = 0
        self._containing: Counter[int] = Counter()
        self._known: dict[int, float] = {}
        for text in texts:
            self._texts += 1
            self._containing.update(set(text))

    def __call__(self, word: int) -> float:
        """The weight of a word, above 0."""
        if (known := self._known.get(word)) is None:
            containing = self._containing[word]
            known = self._known[word] = math.log(1 + (self._texts - containing + 0.5) / (containing + 0.5))
        return known


def covered(weights: Mapping[int, float], text: Collection[int]) -> float:
    """The share of the question's words that the text has, weighted: 0 to 1.

    Args:
        weights: The rarity of each word of the question.
        text: The words of the text.
    """
    total = sum(weights.values())
    return sum([weight for word, weight in weights.items() if word in text]) / total if total else 0.0


def pairs(words: Sequence[int]) -> set[tuple[int, int]]:
    """Neighbouring words."""
    return set(itertools.pairwise(words))


def pairs_covered(question: Sequence[int], text: Sequence[int], rarity: Rarity) -> float:
    """The share of the question's neighbouring word pairs, weighted by rarity, that are neighbours in the text too."""
    weights = {pair: rarity(pair[0]) + rarity(pair[1]) for pair in pairs(question)}
    total = sum(weights.values())
    there = pairs(text)
    return sum(weight for pair, weight in weights.items() if pair in there) / total if total else 0.0
