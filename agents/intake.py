"""What pages become when they were read: passages to be indexed, nodes and edges of the graph."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agents.context import Context
from memory.graph import Edge, Node, node_id
from memory.library import ReadPage
from memory.passages import Passage
from memory.streams import Event
from tools.splitter import split
from tools.wikipedia.source import Page

PASSAGES_PER_ENTRY = 200
"""Passages in one stream entry, about 200 kB."""


class Intake:
    """Takes pages into the memory of an owner, for one task."""

    def __init__(self, context: Context, owner: str, task_id: str) -> None:
        self._context, self._owner, self._task_id = context, owner, task_id

    async def store(self, pages: Sequence[Page], edges: Sequence[Edge]) -> int:
        """Keep pages and the links that came with them; library and passages first, then the graph.

        Returns:
            How many passages the pages were split into.
        """
        context, owner, source = self._context, self._owner, self._context.source.name
        passages = await asyncio.to_thread(lambda: [split(page, owner=owner, source=source) for page in pages])
        read = [ReadPage(p.title, p.revision, len(group), p.links) for p, group in zip(pages, passages, strict=True)]
        # Without links until all is sent: who is killed in between must not find pages there that nobody will index.
        await context.library.expect_pages(owner, source, [replace(page, links=None) for page in read])
        await context.streams.publish([self._indexing(chunk) for group in passages for chunk in _chunks(group)])
        nodes = [_node(page, source, len(group)) for page, group in zip(pages, passages, strict=True)]
        await context.graph.add(nodes, edges, owner=owner, agent="crawl", task_id=self._task_id)
        await context.library.link(owner, source, read)
        return sum(map(len, passages))

    async def skip(self, reasons: Mapping[str, str]) -> None:
        """Tell of pages that were not read: title → why."""
        events = [
            self._event("error", {"kind": "skipped", "title": title, "error": why}) for title, why in reasons.items()
        ]
        if events:
            await self._context.streams.publish(events)

    def _indexing(self, passages: Sequence[Passage]) -> Event:
        return self._event("passages.add", {"passages": [passage.to_dict() for passage in passages]})

    def _event(self, type_: str, data: dict[str, Any]) -> Event:
        return Event(type_, {"owner": self._owner, **data}, agent="crawl", task_id=self._task_id)


def _chunks(passages: Sequence[Passage]) -> list[Sequence[Passage]]:
    return [passages[at : at + PASSAGES_PER_ENTRY] for at in range(0, len(passages), PASSAGES_PER_ENTRY)]


def _node(page: Page, source: str, passages: int) -> Node:
    data = {"passages": passages, "links": len(page.links), "timestamp": page.timestamp}
    return Node(node_id(page.title), page.title, page.url, page.revision, source, data)
