"""Words in common: how much of a question a piece of text covers, rare words counting more.

Words are cut, stemmed and rid of stop words by the same encoder that BM25 search uses.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

from memory.bm25 import Bm25Encoder

KEPT_STEMS = 50_000
"""Words whose stems are kept, 200 bytes each."""

_WORD = re.compile(r"\w+")

Stems = tuple[int, ...]
"""Hashes of the content words of a text, stemmed, in order."""


@lru_cache(maxsize=1)
def _encoder() -> Bm25Encoder:
    return Bm25Encoder()


class _Stems(dict[str, int | None]):
    """Word → the hash of its stem. A mapping and no ``lru_cache``: it is asked for every word of every new passage."""

    def __missing__(self, word: str) -> int | None:
        if len(self) >= KEPT_STEMS:
            self.clear()
        indices = _encoder().query(word).indices
        found = self[word] = indices[0] if indices else None
        return found


_STEMS = _Stems()


def stem(word: str) -> int | None:
    """The hash of a word's stem; None for a stop word."""
    return _STEMS[word]


@lru_cache(maxsize=20_000)
def stems(text: str) -> Stems:
    """The content words of a text, in order."""
    return tuple([number for number in map(_STEMS.__getitem__, _WORD.findall(text)) if number is not None])


def content_words(text: str) -> bytes:
    """The content words of a text, each once, four bytes a word: a tenth of a set. Not kept."""
    found = set(map(_STEMS.__getitem__, set(_WORD.findall(text))))
    return array("I", [number for number in found if number is not None]).tobytes()


def rarities(words: Iterable[int], texts: Sequence[bytes]) -> dict[int, float]:
    """How rare each word is in some texts, above 0: inverse document frequency (Robertson and Spärck Jones, as BM25
    takes it).

    Args:
        words: The words.
        texts: What ``content_words`` says of each text.
    """
    import numpy as np  # not at import time: the module is imported at start

    # One look through an array that fits into a processor's cache, for each word, in place of one into each of sixty
    # sets, which do not.
    every = np.frombuffer(b"".join(texts), np.uint32)
    having = {word: int(np.count_nonzero(every == word)) for word in words}
    return {word: math.log(1 + (len(texts) - number + 0.5) / (number + 0.5)) for word, number in having.items()}


def pairs(words: Sequence[int]) -> set[int]:
    """Neighbouring words, each pair as one number: the hash of a stem has 32 bits."""
    return {first << 32 | second for first, second in pairwise(words)}


def weighted_pairs(question: Sequence[int], rarity: Mapping[int, float]) -> dict[int, float]:
    """The question's neighbouring words, each pair as rare as both of its words together."""
    return {first << 32 | second: rarity[first] + rarity[second] for first, second in pairwise(question)}
