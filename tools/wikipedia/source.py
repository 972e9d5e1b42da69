"""What every encyclopaedia offers, whatever it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from errors import LuminaError


class SourceError(LuminaError):
    """The encyclopaedia did not give what was asked."""


class SourceUnavailable(SourceError):
    """The encyclopaedia cannot be reached, or keeps answering with errors after every retry."""

    transient = exhausted = True


class InvalidSource(SourceError):
    """``WIKI_SOURCE`` names nothing that can be read."""


@dataclass(frozen=True, slots=True)
class Section:
    """The prose under one heading, without the prose of its subsections."""

    path: tuple[str, ...]
    """Headings from the top down; empty for the lead."""
    text: str
    """Paragraphs, separated by one blank line."""


@dataclass(frozen=True, slots=True)
class Page:
    """One article at one revision."""

    title: str
    """Canonical title, redirects followed."""
    url: str
    """Address of exactly this revision."""
    revision: str
    sections: tuple[Section, ...]
    links: tuple[str, ...] = ()
    """Titles of the articles it links to, in order of first appearance, no duplicates, main namespace only."""
    redirected_from: tuple[str, ...] = ()
    """Titles asked for that lead here."""
    disambiguation: bool = False
    timestamp: str = ""
    """When this revision was made (ISO 8601), where the source says so."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """The answer to one ``fetch``: every title asked for is in exactly one of the three."""

    pages: tuple[Page, ...] = ()
    missing: tuple[str, ...] = ()
    """Titles that no article has."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Title → why it was not read (not an article, redirect loop, empty, too large, invalid title …)."""


class WikiSource(Protocol):
    """An encyclopaedia that can be searched and read."""

    name: str
    """Short name for keys and citations, e.g. ``en.wikipedia.org`` or the ZIM's name."""

    async def fetch(self, titles: Sequence[str]) -> Fetched:
        """Read articles by title, redirects followed, in as few requests as the source allows.

        Raises:
            SourceUnavailable: when the source does not answer after every retry.
        """
        ...

    async def revisions(self, titles: Sequence[str]) -> dict[str, str]:
        """Title asked for → current revision, for those that exist; without reading the text."""
        ...

    async def suggest(self, text: str, limit: int = 5) -> list[str]:
        """Titles nearest to ``text`` (for «did you mean»), best first."""
        ...

    async def search(self, text: str, limit: int = 10) -> list[str]:
        """Titles of articles about ``text``, best first."""
        ...

    async def aclose(self) -> None:
        """Release connections and files."""
        ...


class ListedSource(WikiSource, Protocol):
    """An encyclopaedia that can say what it holds."""

    async def titles(self, limit: int) -> list[str]:
        """Titles of its articles, redirects and media left out, at most ``limit``, in the source's own order."""
        ...


class NoSource:
    """Stands where a process reads nothing, and says so should it be asked all the same."""

    name = "none"

    async def fetch(self, titles: Sequence[str]) -> Fetched:
        """Raises ``InvalidSource``."""
        raise _NOT_HERE

    async def revisions(self, titles: Sequence[str]) -> dict[str, str]:
        """Raises ``InvalidSource``."""
        raise _NOT_HERE

    async def suggest(self, text: str, limit: int = 5) -> list[str]:
        """Raises ``InvalidSource``."""
        raise _NOT_HERE

    async def search(self, text: str, limit: int = 10) -> list[str]:
        """Raises ``InvalidSource``."""
        raise _NOT_HERE

    async def aclose(self) -> None:
        """Nothing is open."""


_NOT_HERE = InvalidSource("this process reads no encyclopaedia; `lumina serve --role hub` and `lumina worker` do")
