"""The fact behind «crawled», which «searchable» and «embedded» rest on."""

from __future__ import annotations

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
