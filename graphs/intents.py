"""Which intent a message has, by its likeness to the examples of the goal file. No model is called.

Two texts are alike by the cosine of their vectors (what they mean) plus the shares of words and of pieces of words in
common (how they put it, typing errors included): vectors of short texts show above all the topic, and the topic of a
request is not its intent. A message's score for an intent is the estimate, by regularised least squares over all
examples with that likeness as the kernel, of the function that is 1 at the intent's own examples and 0 at the others
(Rifkin, Yeo & Poggio, "Regularized least-squares classification", 2003). A message like no example therefore scores 0
for all. Figures: docs/decisions/intents.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from graphs.goals import GoalFile

FALLBACK = "chat"
"""Where a message goes that is like no example, or as much like those of two intents; the cheapest mistake."""
MARGIN = 0.01
"""When the two best scores are this close, the message is ambiguous."""
FLOOR = 0.15
"""A message whose best score is below this is like no example."""
RIDGE = 0.4
"""Regularisation of the least squares; between 0.1 and 1.6 the accuracy changes by 0.02 at most."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?|\?")
"""Words as they are counted. A question mark is one: it tells as much as a question word."""


class Encoder(Protocol):
    """Turns texts into unit vectors."""

    async def encode(self, texts: list[str], *, query: bool = False) -> NDArray[np.float32]:
        """(n,) texts → (n, d) rows of length one."""
        ...


async def find_intent(goals: GoalFile, embedder: Encoder, message: str) -> str:
    """The intent of a message; plain chat when it is like no example, or ambiguous.

    A goal file without ``chat`` has nothing to fall back to: then the best intent counts in any case.
    """
    scores = await intent_scores(goals, embedder, message)
    if not scores:
        return FALLBACK
    best, *rest = scores
    unclear = scores[best] < FLOOR or (rest and scores[best] - scores[rest[0]] < MARGIN)
    return FALLBACK if unclear and FALLBACK in goals.intents else best


async def find_planned_intent(goals: GoalFile, embedder: Encoder, message: str) -> str:
    """The intent to plan a message for: one that has goals, for the plan of a plan would be empty."""
    aimed = {name: intent for name, intent in goals.intents.items() if intent.goals}
    return await find_intent(goals.model_copy(update={"intents": aimed}), embedder, message)


async def intent_scores(goals: GoalFile, embedder: Encoder, message: str) -> dict[str, float]:
    """How much a message is like the examples of each intent that has some, best first: about 1 is alike, 0 is not."""
    examples = [(name, text) for name, intent in goals.intents.items() for text in intent.examples]
    if not examples:
        return {}
    texts = tuple(text for _, text in examples)
    # The embedder keeps the examples' vectors. As a query, for it must not wait behind passages that are embedded.
    vectors = np.asarray(await embedder.encode([*texts, message], query=True), np.float64)
    known, asked = vectors[:-1], vectors[-1]
    places, words = _word_rows(texts)
    likeness = known @ known.T + words @ words.T
    names = list(dict.fromkeys(name for name, _ in examples))
    targets = np.array([[float(name == own) for name in names] for own, _ in examples])
    weights = np.linalg.solve(likeness + RIDGE * np.eye(len(examples)), targets)
    scores = (known @ asked + words @ _word_row(message, places)) @ weights
    return dict(sorted(zip(names, scores.tolist(), strict=True), key=lambda item: -item[1]))


@lru_cache(maxsize=8)
def _word_rows(texts: Sequence[str]) -> tuple[dict[str, int], NDArray[np.float64]]:
    """The place of each word and piece of a word that occurs, and a row for each text."""
    found = dict.fromkeys(one for text in texts for part in _parts(text) for one in part)
    places = {one: place for place, one in enumerate(found)}
    return places, np.stack([_word_row(text, places) for text in texts])


def _word_row(text: str, places: dict[str, int]) -> NDArray[np.float64]:
    """The product of two rows is Ochiai's coefficient |A ∩ B| / √(|A| |B|) of the words plus that of their pieces."""
    row = np.zeros(len(places))
    for part in _parts(text):
        row[[places[one] for one in part if one in places]] = 1 / np.sqrt(max(1, len(part)))
    return row


def _parts(text: str) -> tuple[set[str], set[str]]:
    """The words of a text, and all pieces of three letters of them, «<» and «>» for their ends."""
    words = set(_WORD.findall(text.lower()))
    # The blank in front keeps a word of three letters from being taken for a piece.
    return {f" {word}" for word in words}, {f"<{word}>"[at : at + 3] for word in words for at in range(len(word))}
