"""Pages by title, from memory where the source says that they have not changed, else from the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agents.context import Context
from tools.wikipedia.source import Fetched, Page


@dataclass(frozen=True, slots=True)
class Read:
    """What is known of some pages now."""

    fetched: Fetched
    """Those from memory have links and revision, and neither text nor address."""
    unchanged: frozenset[str]
    """Titles of the pages from memory."""


async def read_pages(context: Context, owner: str, titles: Sequence[str]) -> Read:
    """Ask for the revisions of the pages that memory holds, in one call, and fetch only those that changed or are new.

    Raises:
        SourceUnavailable: the encyclopaedia does not answer after every retry.
    """
    source, library = context.source, context.library
    aliases = await library.aliases(owner, source.name, titles)
    names = {title: aliases.get(title, title) for title in titles}
    kept = await library.kept(owner, source.name, list(dict.fromkeys(names.values())))
    links = {name: page.links for name, page in kept.items() if page.links is not None}
    asked = [title for title, name in names.items() if name in links]
    current = await source.revisions(asked) if asked else {}
    same = {names[title]: current[title] for title in asked if current.get(title) == kept[names[title]].revision}
    # A page that a prune forgets in this moment is not among those touched, and is fetched.
    unchanged = await library.touch(owner, source.name, same) if same else set()
    rest = [title for title, name in names.items() if name not in unchanged]
    fetched = await source.fetch(rest) if rest else Fetched()
    pages = [
        Page(
            title=name,
            url="",
            revision=same[name],
            sections=(),
            links=links[name],
            redirected_from=tuple(title for title in names if names[title] == name and title != name),
        )
        for name in unchanged
    ]
    place = {title: number for number, title in enumerate(titles)}

    def asked_first(page: Page) -> int:
        return min((place[name] for name in (page.title, *page.redirected_from) if name in place), default=len(place))

    in_order = tuple(sorted((*pages, *fetched.pages), key=asked_first))
    return Read(Fetched(in_order, fetched.missing, fetched.skipped), frozenset(unchanged))
