"""What somebody else's sentences rest on: the article's own sentences that are nearest to each of them.

A sentence is supported when one place of the article, a sentence with its two neighbours, has all its content words
(``reader.supported``), denies the same (``reader.denied``), and has its names in the same order, and its numbers: «Anna
beat Bert» is not what an article says that has «Bert beat Anna». The places are found by retrieval, nearest in meaning
first, so that words from the ends of a long article do not add up to a claim. What is said in other words than the
article's is refused as well; the nearest of its own sentences can stand in.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from memory.passages import Passage
from tools.evidence import Evidence, Sentence
from tools.lexical import stem, stems
from tools.reader import denied, supported
from tools.splitter import sentences

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.embeddings import Embedder

PLACES = 4
"""Places of the article that are looked at for each sentence."""
MOST_EMBEDDED = 400
"""Of a longer article only the sentences that share most words with one of the texts are compared in meaning."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class OwnSentence:
    """A sentence of the article."""

    text: str
    passage: Passage
    place: str
    """It and its neighbours in the passage."""


@dataclass(frozen=True, slots=True)
class Grounded:
    """A sentence that was checked."""

    text: str
    passage: Passage | None
    """What it rests on; None when the article does not support it."""
    nearest: OwnSentence
    nearness: float
    """Cosine of the two."""


def own_sentences(passages: Sequence[Passage]) -> list[OwnSentence]:
    """The article's sentences in their order, each once though passages overlap."""
    found: dict[tuple[int, int], OwnSentence] = {}
    for passage in passages:
        borders = sentences(passage.text)
        for at, (start, end) in enumerate(borders):
            first, last = borders[max(at - 1, 0)][0], borders[min(at + 1, len(borders) - 1)][1]
            own = OwnSentence(passage.text[start:end], passage, passage.text[first:last])
            key = passage.start + start, passage.start + end
            # Where passages overlap, the one that has more around the sentence is kept.
            if key not in found or len(found[key].place) < len(own.place):
                found[key] = own
    return [found[key] for key in sorted(found)]


async def ground(texts: Sequence[str], own: Sequence[OwnSentence], embedder: Embedder) -> list[Grounded]:
    """Look for each text, one sentence, in the article.

    Args:
        texts: Sentences.
        own: The article's; none means that nothing can be checked, and nothing comes back.
        embedder: Says which are near.
    """
    if not texts or not own:
        return []
    own = await asyncio.to_thread(_nearest_by_words, texts, own)
    vectors = await embedder.encode([*texts, *(one.text for one in own)])
    nearness = vectors[: len(texts)] @ vectors[len(texts) :].T
    return await asyncio.to_thread(_checked, texts, own, nearness)


def _nearest_by_words(texts: Sequence[str], own: Sequence[OwnSentence]) -> Sequence[OwnSentence]:
    if len(own) <= MOST_EMBEDDED:
        return own
    wanted = [set(stems(text)) for text in texts]
    shared = np.array([max(len(words.intersection(stems(one.text))) for words in wanted) for one in own])
    return [own[at] for at in np.sort(np.argsort(-shared, kind="stable")[:MOST_EMBEDDED])]


def _checked(texts: Sequence[str], own: Sequence[OwnSentence], nearness: NDArray[np.float32]) -> list[Grounded]:
    checked = []
    for text, row in zip(texts, nearness, strict=True):
        order = np.argsort(-row, kind="stable").tolist()
        resting = next((own[at].passage for at in order[:PLACES] if stands_in(text, own[at])), None)
        checked.append(Grounded(text, resting, own[order[0]], float(row[order[0]])))
    return checked


def stands_in(text: str, own: OwnSentence) -> bool:
    """Whether what the text says stands at this place of the article."""
    said = set(stems(text))
    if text == own.text or not said:
        return bool(said)
    cut = tuple(Sentence(start, end, own.place[start:end], 0.0, ()) for start, end in sentences(own.place))
    around = Evidence(replace(own.passage, text=own.place), 0.0, cut, 0)
    same_denials = denied(text) == denied(own.place) & said
    return same_denials and supported(text, [around]).holds and _same_order(text, own.place)


def _same_order(text: str, place: str) -> bool:
    """Whether the names of the text come in the order that the place has them in, and its numbers too."""
    return all(
        _inside([word for word in kind(text) if word in set(kind(place))], list(kind(place)))
        for kind in (_names, _numbers)
    )


def _names(text: str) -> Iterator[int]:
    return (number for word in _WORD.findall(text) if word[0].isupper() and (number := stem(word)) is not None)


def _numbers(text: str) -> Iterator[str]:
    return (word for word in _WORD.findall(text) if any(map(str.isdigit, word)))


def _inside(some: Sequence[object], every: Sequence[object]) -> bool:
    """Whether ``some`` are a subsequence of ``every``."""
    left = iter(every)
    return all(any(one == other for other in left) for one in some)
