"""Which intent a message has, by its nearness to the examples of the goal file. No model is called."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from graphs.goals import GoalFile

FALLBACK = "chat"
MARGIN = 0.02
"""When the two nearest intents are this close, in cosine, the message is ambiguous."""
FLOOR = 0.2
"""A message whose nearest example is further than this, in cosine, is like none of them."""


class Encoder(Protocol):
    """Turns texts into unit vectors."""

    async def encode(self, texts: list[str], *, query: bool = False) -> NDArray[np.float32]:
        """(n,) texts → (n, d) rows of length one."""
        ...


async def find_intent(goals: GoalFile, embedder: Encoder, message: str) -> str:
    """The intent of a message: that of its nearest example, judged by the mean of the two nearest of each intent.

    A question mark breaks a tie towards ``wiki_qa``; everything else that is ambiguous is plain chat.
    """
    examples = [(name, text) for name, intent in goals.intents.items() for text in intent.examples]
    if not examples:
        return FALLBACK
    vectors = await embedder.encode([text for _, text in examples] + [message])
    cosines = vectors[:-1] @ vectors[-1]
    scores: dict[str, float] = {}
    for name in goals.intents:
        own = np.sort(np.array([c for (intent, _), c in zip(examples, cosines, strict=True) if intent == name]))[::-1]
        if own.size:
            scores[name] = float(own[:2].mean())
    best, *rest = sorted(scores, key=lambda name: -scores[name])
    close = bool(rest) and scores[best] - scores[rest[0]] < MARGIN
    if scores[best] < FLOOR or close:
        return "wiki_qa" if message.rstrip().endswith("?") and "wiki_qa" in goals.intents else FALLBACK
    return best


async def find_planned_intent(goals: GoalFile, embedder: Encoder, message: str) -> str:
    """The intent to plan a message for: one that has goals, for the plan of a plan would be empty."""
    aimed = {name: intent for name, intent in goals.intents.items() if intent.goals}
    return await find_intent(goals.model_copy(update={"intents": aimed}), embedder, message)
