"""What scoring asks of a passage for every question, found once: its sentences, and where in it which words are.

The same passages are found again and again in a conversation; to cut one into sentences and stem its words takes longer
than to score it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from tools.lexical import content_words, pairs, stems
from tools.splitter import sentences as sentence_borders

KEPT = 1_000
"""Passages whose parts are kept, the latest used: 12 KB each, of 900 characters."""
KEPT_WORDS = 4_000
"""Texts whose words are kept, half a KB each: a question looks at the words of ten times as many as are cut up."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A passage, cut up."""

    borders: tuple[tuple[int, int], ...]
    """Where each sentence starts and ends, at least one."""
    titled: tuple[str, ...]
    """Each sentence with the passage's title in front: one that says «it» or «they» means little without."""
    sentences: tuple[str, ...]
    places: Mapping[int, Sequence[int]]
    """Word → the numbers of the sentences that have it, of all where the title has it."""
    pairs: frozenset[int]
    """Neighbouring words of title and text, see ``lexical.pairs``."""


@lru_cache(maxsize=KEPT)
def parts_of(title: str, text: str) -> Parts:
    """The parts of a passage."""
    borders = tuple(sentence_borders(text)) or ((0, len(text)),)
    sentences = tuple(text[start:end] for start, end in borders)
    words, named = [stems(sentence) for sentence in sentences], stems(title)
    places: dict[int, tuple[int, ...]] = {}
    for number, said in enumerate(words):
        for word in set(said):
            places[word] = (*places.get(word, ()), number)
    return Parts(
        borders,
        tuple([f"{title}: {sentence}" for sentence in sentences]),
        sentences,
        {**places, **dict.fromkeys(named, tuple(range(len(sentences))))},
        frozenset(pairs((*named, *chain.from_iterable(words)))),
    )


@lru_cache(maxsize=KEPT_WORDS)
def words_of(text: str) -> bytes:
    """The content words of a text, as ``rarities`` takes them."""
    return content_words(text)
