"""Numbered citations: what a sentence rests on."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, Field

from memory.passages import Passage


class Citation(BaseModel):
    """One passage at one revision."""

    number: int = Field(description="The number in brackets in the text.")
    title: str
    url: str = Field(description="Address of exactly this revision.")
    revision: str
    section: list[str] = Field(default_factory=list, description="Headings from the top down; empty for the lead.")
    passage_id: str
    quote: str = Field(description="The passage's words that the sentence rests on.")


def citation(number: int, passage: Passage, quote: str) -> Citation:
    """A citation of a passage."""
    return Citation(
        number=number,
        title=passage.title,
        url=passage.url,
        revision=passage.revision,
        section=list(passage.section),
        passage_id=passage.id,
        quote=quote,
    )


def cite(sentences: Sequence[tuple[str, Passage]]) -> tuple[str, list[Citation]]:
    """Sentences joined, each followed by the number of its passage; passages are numbered as they first appear."""
    citations: dict[str, Citation] = {}
    parts = []
    for text, passage in sentences:
        made = citations.setdefault(passage.id, citation(len(citations) + 1, passage, passage.text))
        parts.append(f"{text} [{made.number}]")
    return " ".join(parts), list(citations.values())
