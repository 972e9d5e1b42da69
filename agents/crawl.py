"""The crawl agent: reads articles best-first from a topic, grows the graph and sends passages to be indexed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from pydantic import BaseModel, Field

from agents.context import Context
from agents.frontier import Candidate, Frontier
from agents.progress import report
from agents.spec import AgentOutput, AgentSpec, Assignment, RunView
from errors import LuminaError
from memory.graph import Edge, Node, node_id
from memory.library import Coverage
from memory.passages import Passage
from memory.streams import Event
from tools.splitter import plain_text, split
from tools.wikipedia.source import Fetched, Page

PAGES_PER_STEP = 25
"""Pages read between two checkpoints: half of what MediaWiki gives in one request, so that later links can overtake."""

CANDIDATES_PER_PAGE = 20
"""The frontier keeps this many candidates for every page that may still be read."""

PASSAGES_PER_ENTRY = 200
"""Passages in one stream entry, about 200 kB."""


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
    skipped: dict[str, str] = Field(default_factory=dict, description="Title → why it was not read.")


class _Crawl:
    """One crawl in progress; everything that lasts between two steps goes through ``carry``."""

    def __init__(self, context: Context, request: CrawlInput, task_id: str) -> None:
        self._context, self._request, self._task_id = context, request, task_id
        capacity = CANDIDATES_PER_PAGE * request.max_nodes
        self._frontier = Frontier(request.question, request.topic, capacity=capacity)
        self._aliases: dict[str, str] = {}
        self.output = CrawlOutput(topic=request.topic, title=request.topic)
        if request.carry:
            self._frontier.restore(request.carry["frontier"])
            self._aliases = request.carry["aliases"]
            self.output = CrawlOutput.model_validate(request.carry["output"])

    async def step(self, pages: int) -> bool:
        """Read up to ``pages`` more pages; whether there is more to do."""
        if not self.output.titles:
            await self._read_topic()
        else:
            batch = self._frontier.take(min(pages, self._room()))
            await self._take_in(batch, await self._context.source.fetch([c.title for c in batch]))
        more = self._room() > 0 and len(self._frontier) > 0
        if not more:
            await self._finish()
        return more

    def carry(self) -> dict[str, Any]:
        """The state after a step, as JSON values."""
        state = self.output.model_dump(exclude={"carry", "usage"})
        return {"frontier": self._frontier.to_json(), "aliases": self._aliases, "output": state}

    def _room(self) -> int:
        return self._request.max_nodes - len(self.output.titles)

    async def _read_topic(self) -> None:
        topic = self._request.topic
        fetched = await self._context.source.fetch([topic])
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
            fetched = await self._context.source.fetch([c.title for c in batch])
            if not fetched.pages:
                raise LuminaError(f"«{topic}» is a disambiguation page whose links lead to no article")
            await self._take_in(batch, fetched)
            return
        self.output.title = page.title
        await self._take_in([Candidate(topic, 0, 0.0)], fetched)

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
        await self._store(pages, by_title)
        depth = {p.title: max(0, min(c.depth for c in _candidates(p, by_title))) + 1 for p in pages}
        await asyncio.to_thread(self._extend, pages, depth)
        for title, reason in fetched.skipped.items():
            await self._event("error", {"kind": "skipped", "title": title, "error": reason})
        report(
            "progress",
            agent="crawl",
            topic=self.output.topic,
            text=f"read {len(self.output.titles)} of up to {self._request.max_nodes} pages",
            pages=len(self.output.titles),
            nodes=self.output.nodes,
            edges=self.output.edges,
            passages=self.output.passages,
            latest=[page.title for page in pages],
        )

    async def _store(self, pages: Sequence[Page], by_title: dict[str, Candidate]) -> None:
        owner, source = self._request.owner, self._context.source.name
        passages = await asyncio.to_thread(lambda: [split(page, owner=owner, source=source) for page in pages])
        everything = list(chain.from_iterable(passages))
        await self._context.library.expect(everything)
        await self._context.streams.publish([self._indexing(chunk) for group in passages for chunk in _chunks(group)])
        nodes = [_node(page, source, len(group)) for page, group in zip(pages, passages, strict=True)]
        self.output.titles += [page.title for page in pages]
        edges = self._edges(pages, by_title)
        await self._context.graph.add(nodes, edges, owner=owner, agent="crawl", task_id=self._task_id)
        self.output.nodes += len(nodes)
        self.output.edges += len(edges)
        self.output.passages += len(everything)

    def _edges(self, pages: Sequence[Page], by_title: dict[str, Candidate]) -> list[Edge]:
        """Links between pages that are both read: from these pages to older ones, and from older ones to these."""
        read = set(self.output.titles)
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

    def _indexing(self, passages: Sequence[Passage]) -> Event:
        data = {"owner": self._request.owner, "passages": [passage.to_dict() for passage in passages]}
        return Event("passages.add", data, agent="crawl", task_id=self._task_id)

    async def _event(self, type_: str, data: dict[str, Any]) -> None:
        event = Event(type_, {"owner": self._request.owner, **data}, agent="crawl", task_id=self._task_id)
        await self._context.streams.publish([event])

    async def _finish(self) -> None:
        request, output = self._request, self.output
        exhausted = len(self._frontier) == 0
        for topic in {request.topic, output.title}:
            coverage = Coverage(topic, output.titles, request.hops, request.max_nodes, exhausted)
            await self._context.library.cover(request.owner, self._context.source.name, coverage)


def _candidates(page: Page, by_title: dict[str, Candidate]) -> list[Candidate]:
    found = [by_title[title] for title in (page.title, *page.redirected_from) if title in by_title]
    return found or [Candidate(page.title, 0, 0.0)]


def _chunks(passages: Sequence[Passage]) -> list[Sequence[Passage]]:
    return [passages[at : at + PASSAGES_PER_ENTRY] for at in range(0, len(passages), PASSAGES_PER_ENTRY)]


def _node(page: Page, source: str, passages: int) -> Node:
    data = {"passages": passages, "links": len(page.links), "timestamp": page.timestamp}
    return Node(node_id(page.title), page.title, page.url, page.revision, source, data)


def build_crawl(context: Context) -> Runnable[CrawlInput, CrawlOutput]:
    """The crawl agent on these services.

    Raises, when run:
        UnknownTopic: the encyclopaedia has no such article; the error carries suggestions.
        SourceUnavailable: the encyclopaedia does not answer after every retry.
    """

    async def crawl(request: CrawlInput, config: RunnableConfig) -> CrawlOutput:
        work = _Crawl(context, request, str(config.get("configurable", {}).get("thread_id", "")))
        more = await work.step(request.pages_per_step or PAGES_PER_STEP)
        while more and request.pages_per_step is None:
            more = await work.step(PAGES_PER_STEP)
        return work.output.model_copy(update={"carry": work.carry() if more else None})

    return RunnableLambda(crawl, name="crawl").with_types(input_type=CrawlInput, output_type=CrawlOutput)


def _request(assignment: Assignment, run: RunView) -> CrawlInput:
    request = run.request
    return CrawlInput(
        topic=assignment.topic or request.message,
        question=request.message,
        hops=request.hops,
        max_nodes=request.max_nodes,
        owner=request.owner,
        pages_per_step=PAGES_PER_STEP,
        carry=dict(assignment.carry) if assignment.carry else None,
    )


async def _crawled(context: Context, run: RunView, topic: str | None) -> bool:
    """A finished crawl from this topic covers at least what the request asks for."""
    coverage = await context.library.coverage(run.request.owner, context.source.name, topic or run.request.message)
    return coverage is not None and coverage.includes(run.request.hops, run.request.max_nodes)


def _explain(output: CrawlOutput) -> str:
    return f"{len(output.titles)} pages, {output.edges} links, {output.passages} passages from «{output.title}»"


SPEC = AgentSpec(
    name="crawl",
    description="Reads articles best-first over links from a topic, and grows the knowledge graph.",
    input_type=CrawlInput,
    output_type=CrawlOutput,
    build=build_crawl,
    request=_request,
    achieves={"crawled": _crawled},
    runs_per_minute=5,
    explain=_explain,
)
