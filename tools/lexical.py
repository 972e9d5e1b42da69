"""Words in common: how much of a question a piece of text covers, rare words counting more.

Words are cut, stemmed and rid of stop words by the same encoder that BM25 search uses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise, repeat
from operator import contains

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
    return stemmed(text)


def stemmed(text: str) -> Stems:
    """The same, not kept: for those who keep what they make of it."""
    found = map(stem, _WORD.findall(text))
    return tuple([number for number in found if number is not None])


def rarities(words: Iterable[int], texts: Sequence[frozenset[int]]) -> dict[int, float]:
    """How rare each word is in some texts, above 0: inverse document frequency (Robertson and Spärck Jones, as BM25
    takes it)."""
    having = {word: sum(map(contains, texts, repeat(word))) for word in words}
    return {word: math.log(1 + (len(texts) - number + 0.5) / (number + 0.5)) for word, number in having.items()}


def pairs(words: Sequence[int]) -> set[int]:
    """Neighbouring words, each pair as one number: the hash of a stem has 32 bits."""
    return {first << 32 | second for first, second in pairwise(words)}


def weighted_pairs(question: Sequence[int], rarity: Mapping[int, float]) -> dict[int, float]:
    """The question's neighbouring words, each pair as rare as both of its words together."""
    return {first << 32 | second: rarity[first] + rarity[second] for first, second in pairwise(question)}
