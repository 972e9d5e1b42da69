"""A crawl from page to page: what is asked of it, which pages come next, and what it has read.

A page that memory holds is fetched again only when the source has another revision of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain
from typing import Any

from pydantic import BaseModel, Field

from agents.context import Context
from agents.frontier import Candidate, Frontier
from agents.intake import Intake
from agents.memory_pages import read_pages
from agents.progress import report
from agents.spec import AgentOutput
from errors import LuminaError
from memory.graph import Edge, node_id
from memory.library import Coverage
from tools.splitter import plain_text
from tools.wikipedia.source import Fetched, Page

PAGES_PER_STEP = 25
"""Pages read between two checkpoints: half of what MediaWiki gives in one request, so that later links can overtake."""

CANDIDATES_PER_PAGE = 20
"""The frontier keeps this many candidates for every page that may still be read."""


class UnknownTopic(LuminaError):
    """The encyclopaedia has no article of this title."""

    def __init__(self, topic: str, source: str, suggestions: Sequence[str]) -> None:
        self.suggestions = list(suggestions)
        near = f"; nearest titles: {', '.join(suggestions)}" if suggestions else ""
        super().__init__(f"{source} has no article «{topic}»{near}")


class CrawlInput(BaseModel):
    """Where to start and how far to go."""

    topic: str = Field(min_length=1, description="Title of the article to start from.")
    question: str = Field(default="", description="What the reader wants to know; decides which links are read first.")
    hops: int = Field(default=1, ge=0, le=5, description="How many links away from the topic.")
    max_nodes: int = Field(default=30, ge=1, le=5_000, description="How many pages at most.")
    linked_from: str = Field(default="", description="Page in memory that links to the topic; the graph gets the edge.")
    owner: str = "local"
    pages_per_step: int | None = Field(default=None, description="Return with `carry` after this many; None: run on.")
    carry: dict[str, Any] | None = None


class CrawlOutput(AgentOutput):
    """What was read."""

    topic: str
    title: str = Field(description="Title of the topic's own page, redirects followed.")
    titles: list[str] = Field(default_factory=list, description="Pages read, in order.")
    nodes: int = 0
    edges: int = 0
    passages: int = 0
    unchanged: int = Field(default=0, description="Pages that were not fetched: memory has their current revision.")
    skipped: dict[str, str] = Field(default_factory=dict, description="Title → why it was not read.")


class Walk:
    """One crawl in progress; everything that lasts between two steps goes through ``carry``."""

    def __init__(self, context: Context, request: CrawlInput, task_id: str) -> None:
        self._context, self._request = context, request
        self._intake = Intake(context, request.owner, task_id)
        capacity = CANDIDATES_PER_PAGE * request.max_nodes
        self._frontier = Frontier(request.question, request.topic, capacity=capacity)
        self._aliases: dict[str, str] = {}
        self._unchanged: frozenset[str] = frozenset()
        self._again: list[str] = []
        self._extent: list[int] | None = None
        self.output = CrawlOutput(topic=request.topic, title=request.topic)
        if request.carry:
            self._frontier.restore(request.carry["frontier"])
            self._aliases = request.carry["aliases"]
            self._again = request.carry.get("again", [])
            self._extent = request.carry.get("extent")
            self.output = CrawlOutput.model_validate(request.carry["output"])

    async def step(self, pages: int) -> bool:
        """Read up to ``pages`` more pages; whether there is more to do."""
        if not self.output.titles and not self._again:
            await self._look_back()
        if self._again:
            await self._read_again(pages)
        elif not self.output.titles:
            await self._read_topic()
        else:
            batch = self._frontier.take(min(pages, self._room()))
            await self._take_in(batch, await self._read([c.title for c in batch]))
        more = bool(self._again) if self._extent else self._room() > 0 and len(self._frontier) > 0
        if not more:
            await self._finish()
        return more

    def carry(self) -> dict[str, Any]:
        """The state after a step, as JSON values."""
        state = self.output.model_dump(exclude={"carry", "usage"})
        return {
            "frontier": self._frontier.to_json(),
            "aliases": self._aliases,
            "again": self._again,
            "extent": self._extent,
            "output": state,
        }

    def _room(self) -> int:
        return self._request.max_nodes - len(self.output.titles)

    async def _look_back(self) -> None:
        """Go through the same pages again when an earlier crawl was at least as wide, and stopped at its size.

        One that read all there was is walked again, for a page that changed may link to new ones.
        """
        request, library, source = self._request, self._context.library, self._context.source.name
        coverage = await library.coverage(request.owner, source, request.topic)
        if coverage is None or coverage.exhausted or not coverage.includes(request.hops, request.max_nodes):
            return
        if not await library.keeps_all(request.owner, source, coverage.titles):
            return
        self._again, self._extent = list(coverage.titles), [coverage.hops, coverage.max_nodes]

    async def _read_again(self, pages: int) -> None:
        """Look at the next pages of the earlier crawl; when its own page is gone, the topic is looked for anew."""
        first = not self.output.titles
        titles, self._again = self._again[:pages], self._again[pages:]
        fetched = await self._read(titles)
        if first and titles[0] in (*fetched.missing, *fetched.skipped):
            self._again, self._extent = [], None
            await self._read_topic()
            return
        if first:
            aliases = await self._context.library.aliases(
                self._request.owner, self._context.source.name, [self._request.topic]
            )
            self.output.title = aliases.get(self._request.topic, self._request.topic)
        await self._take_in([Candidate(title, 0, 0.0) for title in titles], fetched)

    async def _read(self, titles: Sequence[str]) -> Fetched:
        found = await read_pages(self._context, self._request.owner, titles)
        self._unchanged = found.unchanged
        return found.fetched

    async def _read_topic(self) -> None:
        topic = self._request.topic
        fetched = await self._read([topic])
        if fetched.missing:
            suggestions = await self._context.source.suggest(topic)
            raise UnknownTopic(topic, self._context.source.name, suggestions)
        if not fetched.pages:
            reason = next(iter(fetched.skipped.values()), "it could not be read")
            raise LuminaError(f"«{topic}» of {self._context.source.name}: {reason}")
        page = fetched.pages[0]
        if page.disambiguation:
            report("progress", agent="crawl", text=f"«{page.title}» can mean several things; reading what it lists")
            self._frontier.add(page.title, plain_text(page), page.links, 1)
            self._frontier.close([page.title])
            batch = self._frontier.take(min(PAGES_PER_STEP, self._room()))
            fetched = await self._read([c.title for c in batch])
            if not fetched.pages:
                raise LuminaError(f"«{topic}» is a disambiguation page whose links lead to no article")
            await self._take_in(batch, fetched)
            return
        self.output.title = page.title
        parents = [self._request.linked_from] if self._request.linked_from else []
        await self._take_in([Candidate(topic, 0, 0.0, parents)], fetched)

    async def _take_in(self, batch: Sequence[Candidate], fetched: Fetched) -> None:
        """Store the pages of one request: library and passages first, then the graph, then the frontier."""
        self.output.skipped |= fetched.skipped | dict.fromkeys(fetched.missing, "no such article")
        by_title = {candidate.title: candidate for candidate in batch}
        known = set(self.output.titles)
        pages = []
        for page in fetched.pages:
            self._aliases |= dict.fromkeys(page.redirected_from, page.title)
            self._frontier.close([page.title, *page.redirected_from])
            if page.disambiguation:
                self.output.skipped[page.title] = "a disambiguation page"
            elif page.title not in known:
                known.add(page.title)
                pages.append(page)
        await self._learn_aliases(pages)
        await self._store(pages, by_title)
        if self._extent is None:
            depth = {p.title: max(0, min(c.depth for c in _candidates(p, by_title))) + 1 for p in pages}
            await asyncio.to_thread(self._extend, pages, depth)
        await self._intake.skip(fetched.skipped)
        report(
            "progress",
            agent="crawl",
            topic=self.output.topic,
            text=f"read {len(self.output.titles)} of up to {self._request.max_nodes} pages{unchanged_of(self.output)}",
            pages=len(self.output.titles),
            nodes=self.output.nodes,
            edges=self.output.edges,
            passages=self.output.passages,
            latest=[page.title for page in pages],
        )

    async def _learn_aliases(self, pages: Sequence[Page]) -> None:
        """Remember by which titles these pages were found, and recall what other links mean."""
        owner, source, library = self._request.owner, self._context.source.name, self._context.library
        await library.learn_aliases(owner, source, {alias: p.title for p in pages for alias in p.redirected_from})
        links = {link for page in pages for link in page.links} - self._aliases.keys()
        self._aliases |= await library.aliases(owner, source, sorted(links))

    async def _store(self, pages: Sequence[Page], by_title: dict[str, Candidate]) -> None:
        changed = [page for page in pages if page.title not in self._unchanged]
        self.output.titles += [page.title for page in pages]
        edges = self._edges(pages, by_title)
        self.output.passages += await self._intake.store(changed, edges)
        self.output.unchanged += len(pages) - len(changed)
        self.output.nodes += len(changed)
        self.output.edges += len(edges)

    def _edges(self, pages: Sequence[Page], by_title: dict[str, Candidate]) -> list[Edge]:
        """Links between pages that are both read: from these pages to older ones, and from older ones to these."""
        read = {*self.output.titles, self._request.linked_from}
        pairs = dict.fromkeys(
            (page.title, target)
            for page in pages
            for link in page.links
            if (target := self._aliases.get(link, link)) in read and target != page.title
        )
        for page in pages:
            parents = chain.from_iterable(candidate.parents for candidate in _candidates(page, by_title))
            pairs |= dict.fromkeys((parent, page.title) for parent in parents if parent in read)
        return [Edge(node_id(source), node_id(target), "links_to", {}) for source, target in pairs]

    def _extend(self, pages: Sequence[Page], depth: dict[str, int]) -> None:
        for page in pages:
            if depth[page.title] <= self._request.hops:
                self._frontier.add(page.title, plain_text(page), page.links, depth[page.title])

    async def _finish(self) -> None:
        request, output = self._request, self.output
        hops, max_nodes = self._extent or (request.hops, request.max_nodes)
        exhausted = self._extent is None and len(self._frontier) == 0
        for topic in {request.topic, output.title}:
            coverage = Coverage(topic, output.titles, hops, max_nodes, exhausted)
            await self._context.library.cover(request.owner, self._context.source.name, coverage)


def _candidates(page: Page, by_title: dict[str, Candidate]) -> list[Candidate]:
    found = [by_title[title] for title in (page.title, *page.redirected_from) if title in by_title]
    return found or [Candidate(page.title, 0, 0.0)]


def unchanged_of(output: CrawlOutput) -> str:
    """How many of the pages were not fetched, as the end of a sentence; nothing when all were."""
    return f", {output.unchanged} of them unchanged" if output.unchanged else ""
