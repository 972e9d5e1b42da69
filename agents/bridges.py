"""Questions that need two articles: the first step from what was read, the second from the article that it leads on to.

The agent that answers finds the bridge. When the article at its end is not in memory, the agent says so in its
``carry``; the planner has it read, and the agent goes on from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from agents.context import Context
from agents.covered import indexed, linked_pages
from memory.passages import Passage
from tools.bridging import bridges, spoken, steps
from tools.evidence import Evidence, Sentence
from tools.ranking import FEATURES
from tools.reader import Reading, read

MAX_CANDIDATES = 4
"""Articles that one sentence may lead on to."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """The first of two steps, and where the second may lead. Kept between two calls as plain JSON."""

    first: str
    """The question of the first step."""
    passage: Passage
    start: int
    """Offset of the sentence in the passage's text, in code points."""
    end: int
    described: str
    """The words of the question that the sentence makes clear."""
    coverage: float
    """Share of those words that were found, 0 to 1."""
    rival: float
    """Confidence of the answer in one step, which the second step has to pass; 0 where that rests on this sentence."""
    questions: Mapping[str, str]
    """Title of an article that may be meant → the question of the second step; most likely first."""
    asked_for: tuple[str, ...] = ()
    """Those of the titles that were not in memory, and that the planner was told of."""

    @property
    def sentence(self) -> str:
        """What the first step rests on."""
        return self.passage.text[self.start : self.end]

    def evidence(self) -> Evidence:
        """The sentence as evidence."""
        only = Sentence(self.start, self.end, self.sentence, 0.0, (0.0,) * len(FEATURES))
        return Evidence(self.passage, 0.0, (only,), 0)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "passage": self.passage.to_dict(), "asked_for": list(self.asked_for)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Bridge:
        """The inverse of ``to_json``."""
        return cls(**{**data, "passage": Passage.from_dict(data["passage"]), "asked_for": tuple(data["asked_for"])})


@dataclass(frozen=True, slots=True)
class Crossing:
    """What came of the second step."""

    evidence: Sequence[Evidence] = ()
    """What ``reading`` is from; without one, all that was looked at."""
    reading: Reading | None = None
    """None: no article says it."""
    question: str = ""
    """The question that ``reading`` answers."""
    missing: str | None = None
    """An article that would have to be read first."""


async def find_bridge(
    context: Context,
    question: str,
    evidence: Sequence[Evidence],
    single: Reading | None,
    *,
    owner: str,
    prefer: Sequence[str],
) -> Bridge | None:
    """The first step of a question that needs two; None for one that a sentence answers, which most do.

    Costs nothing where the question describes nothing, else one more search.

    Args:
        context: The open services.
        question: As it was asked.
        evidence: What was found for it.
        single: What that says to it in one step.
        owner: Whose memory is searched.
        prefer: Pages that the question is about.
    """
    found_steps = steps(question, evidence)
    if context.recall is None or not found_steps:
        return None
    library, source = context.library, context.source.name
    pages = await library.kept(owner, source, list(dict.fromkeys(one.passage.title for one in evidence)))
    if not any(page.links for page in pages.values()):
        return None
    for split in found_steps:
        found = await context.recall.search(split.first, owner=owner, limit=len(evidence), prefer=prefer)
        reading = read(split.first, found)
        if reading is None or not reading.known:
            continue
        passage = found[reading.evidence].passage
        kept = (await library.kept(owner, source, [passage.title])).get(passage.title)
        if kept is None or kept.links is None:
            continue
        again = split.by(reading.sentence, passage.title)
        titles = bridges(question, again, passage.title, reading.sentence, kept.links)[:MAX_CANDIDATES]
        if titles:
            start = passage.text.index(reading.sentence)
            return Bridge(
                first=again.first,
                passage=passage,
                start=start,
                end=start + len(reading.sentence),
                described=again.described,
                coverage=split.coverage,
                rival=single.confidence if single and single.sentence != reading.sentence else 0.0,
                questions={title: again.second(spoken(title)) for title in titles},
            )
    return None


async def cross(context: Context, bridge: Bridge, *, owner: str, limit: int) -> Crossing:
    """Ask the second question of every article that is in memory, and name the next one that is not.

    Args:
        context: The open services.
        bridge: The first step.
        owner: Whose memory is searched.
        limit: Passages to look at, for each article.
    """
    best, missing, seen = Crossing(), None, list[Evidence]()
    for title, question in bridge.questions.items():
        pages = await linked_pages(context, owner, title)
        if pages is None or not await indexed(context, owner, pages, "text"):
            missing = missing or (None if title in bridge.asked_for else title)
            continue
        if context.recall is None:
            break
        found = await context.recall.search(question, owner=owner, limit=limit, titles=pages)
        reading = read(question, found)
        seen += found
        if reading is None or not reading.known or reading.sentence == bridge.sentence:
            continue
        if reading.confidence > max(bridge.rival, best.reading.confidence if best.reading else 0.0):
            best = Crossing(found, reading, question)
    return best if best.reading else Crossing(seen, missing=missing)


def ask_for(bridge: Bridge, title: str) -> dict[str, Any]:
    """The ``carry`` that makes the planner have an article read."""
    why = (
        f"«{bridge.passage.title}» says of «{bridge.described}»: «{bridge.sentence}»; what is asked, «{title}» may say"
    )
    told = replace(bridge, asked_for=(*bridge.asked_for, title))
    return {"bridge": told.to_json(), "links": {title: {"page": bridge.passage.title, "why": why}}}
