"""Articles whose lead section is held out: it is what a summary of the rest is compared with."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from errors import LuminaError
from evaluation.rouge import words
from memory.passages import Passage
from tools.grounding import OwnSentence, own_sentences
from tools.splitter import split
from tools.wikipedia.source import ListedSource, Page, WikiSource

OWNER = "evaluation"
MOST_TITLES = 20_000
"""Titles that a sample is drawn from at most; larger encyclopaedias want a list of titles."""
MIN_LEAD_WORDS = 20
"""A shorter lead says too little to be compared with."""
MIN_REST = 2
"""The rest must have so many times the sentences that are asked for, or there is nothing to choose."""
TITLES_PER_FETCH = 20


class NoArticles(LuminaError):
    """There is nothing to summarise."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """An article in two parts."""

    title: str
    url: str
    revision: str
    lead: str
    """The reference."""
    passages: Sequence[Passage]
    """The rest, as it would be indexed."""

    @property
    def rest(self) -> list[OwnSentence]:
        """The sentences of the rest, in their order."""
        return own_sentences(self.passages)


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn."""

    articles: list[HeldOut] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """Why articles were left out → how many."""


def hold_out(page: Page, source: str, sentences: int) -> HeldOut | str:
    """The article without its lead, or why it is left out.

    Args:
        page: As the source gives it.
        source: The source's name.
        sentences: How long summaries are to be.
    """
    if page.disambiguation:
        return "a list of meanings"
    lead = "\n".join(section.text for section in page.sections if not section.path)
    if len(words(lead)) < MIN_LEAD_WORDS:
        return f"a lead of fewer than {MIN_LEAD_WORDS} words"
    rest = replace(page, sections=tuple(section for section in page.sections if section.path))
    passages = split(rest, owner=OWNER, source=source)
    if len(own_sentences(passages)) < MIN_REST * sentences:
        return f"fewer than {MIN_REST * sentences} sentences after the lead"
    return HeldOut(page.title, page.url, page.revision, lead, passages)


async def draw(
    source: WikiSource,
    titles: Sequence[str] | None,
    *,
    size: int | None,
    seed: int,
    sentences: int,
    progress: Callable[[int], None],
) -> Drawn:
    """Read articles until there are enough that a lead can be held out of.

    Args:
        source: The encyclopaedia.
        titles: Which; None draws from all that it has.
        size: How many; None for all.
        seed: Of the draw.
        sentences: How long summaries are to be.
        progress: Told how many there are.

    Raises:
        NoArticles: none can be used, or the encyclopaedia is too large to be drawn from.
    """
    if titles is None:
        # Both sources list; a stand-in that does not is given titles.
        titles = await cast(ListedSource, source).titles(MOST_TITLES + 1)
        if len(titles) > MOST_TITLES:
            raise NoArticles(f"{source.name} has more than {MOST_TITLES} articles: name some with --titles FILE")
    order = list(dict.fromkeys(titles))
    if size is not None:
        random.Random(seed).shuffle(order)
    drawn = Drawn()
    seen: set[str] = set()
    for at in range(0, len(order), TITLES_PER_FETCH):
        fetched = await source.fetch(order[at : at + TITLES_PER_FETCH])
        drawn.left_out.update(why.partition(":")[0] for why in fetched.skipped.values())
        drawn.left_out.update("no such article" for _ in fetched.missing)
        for page in fetched.pages:
            held = "named twice" if page.title in seen else hold_out(page, source.name, sentences)
            seen.add(page.title)
            if isinstance(held, str):
                drawn.left_out[held] += 1
            else:
                drawn.articles.append(held)
            progress(len(drawn.articles))
            if len(drawn.articles) == size:
                return drawn
    if not drawn.articles:
        why = ", ".join(f"{count} × {reason}" for reason, count in drawn.left_out.most_common())
        raise NoArticles(f"{source.name} has no article here that a lead can be held out of ({why or 'no titles'})")
    return drawn


def read_titles(file: Path) -> list[str]:
    """One title a line; empty lines do not count.

    Raises:
        NoArticles: the file cannot be read, or names nothing.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise NoArticles(f"{file} cannot be read ({error}); --titles takes a text file, one title a line") from error
    if not (titles := [line.strip() for line in lines if line.strip()]):
        raise NoArticles(f"{file} names no article; --titles takes a text file, one title a line")
    return titles
