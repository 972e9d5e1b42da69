"""What memory has of the encyclopaedia: the facts behind the goals that something is read or can be searched."""

from __future__ import annotations

from collections.abc import Sequence

from agents.context import Context
from agents.spec import RunView
from memory.library import Coverage

ASKED_FOR = frozenset({"crawl", "index"})
"""Intents of those who want the source looked at, whatever memory holds."""


async def covered(context: Context, run: RunView, topic: str | None) -> Coverage | None:
    """The latest crawl from a topic, if it covers what the request asks for and none of its pages was forgotten.

    Whoever asks for a crawl wants the source looked at: then it has to be a crawl of this run.
    """
    request, source = run.request, context.source.name
    if request.intent in ASKED_FOR and f"crawled[{topic}]" not in run.results:
        return None
    coverage = await context.library.coverage(request.owner, source, topic or request.message)
    if coverage is None or not coverage.includes(request.hops, request.max_nodes):
        return None
    return coverage if await context.library.keeps_all(request.owner, source, coverage.titles) else None


async def linked_pages(context: Context, owner: str, title: str) -> list[str] | None:
    """The pages that a link to ``title`` leads to, if they were read and not forgotten.

    That is the page itself, redirects followed, or what was read instead of a page that only lists meanings.
    """
    library, source = context.library, context.source.name
    name = (await library.aliases(owner, source, [title])).get(title, title)
    if await library.keeps_all(owner, source, [name]):
        return [name]
    coverage = await library.coverage(owner, source, title)
    if coverage is None or not await library.keeps_all(owner, source, coverage.titles):
        return None
    return coverage.titles or None


async def indexed(context: Context, owner: str, titles: Sequence[str], phase: str) -> bool:
    """Whether every passage of these pages has been through a phase: ``text`` or ``dense``."""
    progress = await context.library.progress(owner, context.source.name, titles)
    return (progress.indexed if phase == "text" else progress.embedded) >= progress.passages
