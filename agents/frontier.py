"""The crawl's frontier: which link is read next.

Best-first search (Pearl 1984; for the web: Cho, Garcia-Molina & Page 1998, «Efficient crawling through URL ordering»).
The order is lexical on purpose: a crawl worker needs no model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tools.lexical import stems

CONTEXT_CHARS = 160
"""How much of the text on either side of a link's words counts as its context, within the sentence."""


def terms(text: str) -> frozenset[int]:
    """The words of a text that carry meaning, stemmed (as ``tools.lexical`` does it)."""
    return frozenset(stems(text))


@dataclass(slots=True)
class Candidate:
    """A title that some page read so far links to."""

    title: str
    depth: int
    relevance: float
    """What its title and its context share with the question, 0 to about 3, and how early its page names it."""
    parents: list[str] = field(default_factory=list)
    """Pages read so far that link to it."""

    @property
    def priority(self) -> float:
        """Higher is read earlier: relevance, raised by every page that links to it, lowered by distance."""
        return (self.relevance + 0.3 * math.log1p(len(self.parents))) / self.depth


class Frontier:
    """Candidates by title, best first, bounded in number. Its state is plain JSON."""

    def __init__(self, question: str, topic: str, *, capacity: int) -> None:
        self._wanted = terms(question) - terms(topic) or terms(topic)
        self._capacity = capacity
        self._candidates: dict[str, Candidate] = {}
        self._seen: set[str] = set()

    def __len__(self) -> int:
        return len(self._candidates)

    def close(self, titles: Iterable[str]) -> None:
        """Never offer these titles (again)."""
        self._seen.update(titles)
        for title in titles:
            self._candidates.pop(title, None)

    def add(self, parent: str, text: str, links: Sequence[str], depth: int) -> None:
        """Take in the links of a page read at ``depth - 1``."""
        lowered = text.lower()
        for rank, title in enumerate(links):
            if title in self._seen:
                continue
            candidate = self._candidates.get(title)
            relevance = self._relevance(title, lowered) + 0.5 / (1 + rank / 20)
            if candidate is None:
                self._candidates[title] = Candidate(title, depth, relevance, [parent])
            else:
                candidate.depth = min(candidate.depth, depth)
                candidate.relevance = max(candidate.relevance, relevance)
                if parent not in candidate.parents:
                    candidate.parents.append(parent)
        for candidate in self._ordered()[self._capacity :]:
            del self._candidates[candidate.title]

    def take(self, count: int) -> list[Candidate]:
        """Remove and return the best candidates; ties by title, so that the same pages give the same crawl."""
        best = self._ordered()[:count]
        self.close([candidate.title for candidate in best])
        return best

    def _ordered(self) -> list[Candidate]:
        return sorted(self._candidates.values(), key=lambda candidate: (-candidate.priority, candidate.title))

    def _relevance(self, title: str, lowered: str) -> float:
        own = terms(title)
        named = len(own & self._wanted) / max(1, len(own))
        at = lowered.find(title.lower())
        if at < 0:
            return 2 * named
        before = lowered[max(0, at - CONTEXT_CHARS) : at].rpartition(". ")[2]
        after = lowered[at : at + len(title) + CONTEXT_CHARS].partition(". ")[0]
        context = terms(before + after) - own
        return 2 * named + len(context & self._wanted) / max(1, len(self._wanted))

    def to_json(self) -> dict[str, Any]:
        """The state, for a checkpoint."""
        rows = [[c.title, c.depth, round(c.relevance, 4), c.parents] for c in self._ordered()]
        return {"candidates": rows, "seen": sorted(self._seen)}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of ``to_json``."""
        self._candidates = {row[0]: Candidate(*row) for row in state["candidates"]}
        self._seen = set(state["seen"])
