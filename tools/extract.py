"""Which of an article's own sentences summarise it.

The lead comes first: encyclopaedias are written so. The rest, or everything where there is no lead, is ranked by the
sum of six signals, each in units of its spread over the article. Which signals was measured against leads that were
held out (docs/decisions/summaries.md); nothing is fitted to a title.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from memory.passages import Passage
from tools.grounding import OwnSentence
from tools.lexical import stems

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.embeddings import Embedder

SIGNALS = (
    "words of the title",
    "how many other sentences have its words",
    "length",
    "numbers in it",
    "first of its section",
    "cosine with the title",
)
WEIGHTS = (1.0, 1.0, 0.5, -0.5, 0.5, 1.0)
"""One a signal, in this order; only the last one needs vectors."""
LEAD_SENTENCES = 2
"""The lead's first sentences, which a summary begins with."""
MOST_EMBEDDED = 400
"""Of a longer article only the sentences that are best by words are embedded, which takes some seconds."""
SAME = 0.9
"""Cosine from which a sentence says what one before it has said."""
_CHARS = range(40, 401)
_END = re.compile(r"[.!?…。][\"'”’»)\]]*$")
_LEANS = frozenset(
    "it its this that these those he she his her they their there such thus however also but and so then"
    " therefore hence moreover furthermore one another both here".split()
)


def reads_alone(text: str) -> bool:
    """Whether a sentence can be read out of its place: whole, of usual length, not beginning with «it» or «however»."""
    first = re.search(r"\w+", text)
    if first is None or len(text) not in _CHARS:
        return False
    return not first[0][0].islower() and first[0].lower() not in _LEANS and bool(_END.search(text))


async def extract(own: Sequence[OwnSentence], most: int, embedder: Embedder) -> list[tuple[str, Passage]]:
    """At most ``most`` of an article's sentences, in its order, each with its passage.

    Args:
        own: The article's sentences; see ``grounding.own_sentences``.
        most: How many.
        embedder: Says how near they are to the title, and to each other.
    """
    lead = [at for at, one in enumerate(own) if not one.passage.section][: min(LEAD_SENTENCES, most)]
    rest = [at for at, one in enumerate(own) if one.passage.section or not lead]
    chosen = list(lead)
    if rest and len(chosen) < most:
        rest, words = await asyncio.to_thread(_by_words, own, rest)
        title, *vectors = await embedder.encode([own[0].passage.title, *(own[at].text for at in rest)])
        matrix = np.array(vectors)
        scores = words + WEIGHTS[-1] * _standard(matrix @ title)
        chosen += [rest[place] for place in _different(scores, matrix, most - len(chosen))]
    chosen += [at for at in range(len(own)) if at not in chosen][: most - len(chosen)]
    return [(own[at].text, own[at].passage) for at in sorted(chosen)]


def _by_words(own: Sequence[OwnSentence], rest: Sequence[int]) -> tuple[list[int], NDArray[np.float64]]:
    """The places to look at, and their scores by all signals but the last."""
    content = {at: set(stems(own[at].text)) for at in rest}
    having = Counter(word for words in content.values() for word in words)
    title = set(stems(own[0].passage.title))
    begins = {at for at in rest if at == 0 or own[at].passage.section != own[at - 1].passage.section}
    alone = [at for at in rest if reads_alone(own[at].text)] or list(rest)
    rows = [
        (
            len(title & content[at]) / max(1, len(title)),
            float(np.mean([np.log(having[word]) for word in content[at]] or [0.0])),
            np.log(1 + len(own[at].text.split())),
            any(map(str.isdigit, own[at].text)),
            at in begins,
        )
        for at in alone
    ]
    columns = np.array(rows, float).T
    scores = sum((weight * _standard(column) for weight, column in zip(WEIGHTS, columns, strict=False)), np.zeros(1))
    kept = np.sort(np.argsort(-scores, kind="stable")[:MOST_EMBEDDED])
    return [alone[place] for place in kept.tolist()], scores[kept]


def _standard(values: NDArray[np.float64] | NDArray[np.float32]) -> NDArray[np.float64]:
    """z-scores; zeros where all are equal."""
    spread = float(values.std())
    return np.asarray((values - values.mean()) / spread if spread > 1e-9 else np.zeros(len(values)), float)


def _different(scores: NDArray[np.float64], vectors: NDArray[np.float32], most: int) -> list[int]:
    """Places of the best that do not say the same."""
    chosen: list[int] = []
    for place in np.argsort(-scores, kind="stable").tolist():
        if len(chosen) == most:
            break
        if not chosen or float((vectors[chosen] @ vectors[place]).max()) < SAME:
            chosen.append(place)
    return chosen
