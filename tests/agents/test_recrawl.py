"""Crawling what memory holds: the source is asked for revisions, and only pages that changed are fetched."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs

import httpx
import pytest

from agents.intake import Intake
from agents.memory_pages import read_pages
from agents.spec import RunRequest
from graphs.runs import Runner
from memory.pruning import Limits, Pruner
from memory.streams import Event, Streams
from tools.wikipedia.mediawiki import MediaWiki
from tools.wikipedia.source import Fetched, Section, WikiSource
from tools.wikipedia.zim import Zim

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]
API = os.environ.get("LUMINA_TEST_WIKI", "http://127.0.0.1:8090/w/api.php")


class Edited:
    """An encyclopaedia whose pages can be edited; it counts what it is asked."""

    def __init__(self, source: WikiSource) -> None:
        self._source, self.name = source, source.name
        self.edits: dict[str, str] = {}
        self.links: dict[str, tuple[str, ...]] = {}
        self.deleted: set[str] = set()
        self.fetched: list[str] = []
        self.checked: list[str] = []

    def forget(self) -> None:
        self.fetched, self.checked = [], []

    async def fetch(self, titles: Sequence[str]) -> Fetched:
        self.fetched += titles
        gone = [title for title in titles if title in self.deleted]
        found = await self._source.fetch([title for title in titles if title not in gone])
        pages = [
            replace(
                page,
                revision=self.edits[page.title],
                sections=(*page.sections, Section(("News",), f"{page.title} was edited.")),
                links=(*page.links, *self.links.get(page.title, ())),
            )
            if page.title in self.edits
            else page
            for page in found.pages
        ]
        return Fetched(tuple(pages), (*found.missing, *gone), found.skipped)

    async def revisions(self, titles: Sequence[str]) -> dict[str, str]:
        self.checked += titles
        found = await self._source.revisions([title for title in titles if title not in self.deleted])
        return {title: self.edits.get(title, revision) for title, revision in found.items()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


@pytest.fixture
async def source(sample: Path) -> AsyncIterator[Edited]:
    zim = Zim(sample)
    yield Edited(zim)
    await zim.aclose()


async def crawl(runner: Runner, number: int, *, topic: str = "Mandelbrot set", **fields: Any) -> dict[str, Any]:
    request = RunRequest(intent=fields.pop("intent", "crawl"), topics=[topic], **{"max_nodes": 12, **fields})
    done = {event.kind: event.data async for event in runner.stream(request, f"crawl-{number}")}["done"]
    assert done["outcome"]["status"] == "done", done["outcome"]
    crawls: list[dict[str, Any]] = done["report"]["crawls"]
    return crawls[0] if crawls else {}


async def until_indexed(runner: Runner, titles: Sequence[str]) -> None:
    async with asyncio.timeout(30):
        while True:
            progress = await runner.context.library.progress("local", runner.context.source.name, titles)
            if progress.indexed >= progress.passages:
                return
            await asyncio.sleep(0.02)


async def test_a_second_crawl_fetches_only_what_changed(lumina: Lumina, source: Edited) -> None:
    async with lumina(source=source) as runner:
        first = await crawl(runner, 1)
        assert source.checked == []
        source.forget()
        source.edits["Julia set"] = "9000"
        second = await crawl(runner, 2)
        assert second["titles"] == first["titles"]
        assert sorted(source.checked) == sorted(first["titles"])
        assert source.fetched == ["Julia set"]
        assert (second["unchanged"], second["nodes"]) == (11, 1)
        library, name = runner.context.library, source.name
        assert await library.revision("local", name, "Julia set") == "9000"
        assert (await runner.context.graph.node("local", "Julia_set")).revision == "9000"
        source.forget()
        third = await crawl(runner, 3)
        assert (third["unchanged"], source.fetched) == (12, [])
        await until_indexed(runner, third["titles"])
        assert runner.context.vectors is not None
        pruner = Pruner(runner.context.redis, runner.context.vectors)
        batches = [batch async for batch in pruner.prune("local", Limits())]
        assert {one.title for batch in batches for one in batch} == {"Julia set"}


async def test_memory_alone_answers_a_question(lumina: Lumina, source: Edited) -> None:
    async with lumina(source=source) as runner:
        await crawl(runner, 1)
        source.forget()
        await crawl(runner, 2, intent="wiki_qa", message="Who proved that the Mandelbrot set is connected?")
    assert (source.fetched, source.checked) == ([], [])


async def test_a_wider_crawl_takes_what_is_stored_from_memory(lumina: Lumina, source: Edited) -> None:
    async with lumina(source=source) as runner:
        first = await crawl(runner, 1)
        source.forget()
        wider = await crawl(runner, 2, max_nodes=20)
        assert not set(source.fetched) & set(first["titles"])
        assert len(wider["titles"]) == 20
        assert wider["titles"][0] == "Mandelbrot set"
        assert wider["unchanged"] + wider["nodes"] == 20
        neighbours = await runner.context.graph.neighbours("local", "Mandelbrot_set")
    new = {title.replace(" ", "_") for title in set(wider["titles"]) - set(first["titles"])}
    assert new & {node.id for node in neighbours.nodes}, "links of pages from memory become edges"


async def test_a_new_link_of_a_changed_page_is_followed_where_all_was_read(lumina: Lumina, source: Edited) -> None:
    async with lumina(source=source) as runner:
        first = await crawl(runner, 1, topic="Koch snowflake", hops=1, max_nodes=200)
        others = (await source.fetch(["Logistic map", "Newton fractal", "Chaos theory"])).pages
        new = next(page.title for page in others if page.title not in first["titles"])
        source.edits["Koch snowflake"], source.links["Koch snowflake"] = "9000", (new,)
        source.forget()
        second = await crawl(runner, 2, topic="Koch snowflake", hops=1, max_nodes=200)
    assert set(second["titles"]) == {*first["titles"], new}
    assert {"Koch snowflake", new} <= set(source.fetched)
    assert not set(source.fetched) & (set(first["titles"]) - {"Koch snowflake"})


async def test_a_redirect_leads_to_the_stored_page(lumina: Lumina, source: Edited) -> None:
    names = ["Mandelbrot fractal", "Julia sets", "Von Koch curve", "Koch curve", "Chaos game"]
    page = next(page for page in (await source.fetch(names)).pages if page.redirected_from)
    alias, title = page.redirected_from[0], page.title
    async with lumina(source=source) as runner:
        first = await crawl(runner, 1, topic=alias)
        source.forget()
        second = await crawl(runner, 2, topic=alias)
    assert first["title"] == second["title"] == title
    assert second["titles"] == first["titles"]
    assert source.fetched == []


async def test_a_page_that_is_gone_from_the_source_is_named_and_no_longer_covered(
    lumina: Lumina, source: Edited
) -> None:
    async with lumina(source=source) as runner:
        first = await crawl(runner, 1)
        source.deleted.add(first["titles"][3])
        second = await crawl(runner, 2)
        assert second["skipped"] == {first["titles"][3]: "no such article"}
        assert first["titles"][3] not in second["titles"]


async def test_a_topic_that_is_gone_from_the_source_is_unknown(lumina: Lumina, source: Edited) -> None:
    async with lumina(source=source) as runner:
        await crawl(runner, 1)
        source.deleted.add("Mandelbrot set")
        request = RunRequest(intent="crawl", topics=["Mandelbrot set"], max_nodes=12)
        done = {event.kind: event.data async for event in runner.stream(request, "gone")}["done"]
    assert "no article «Mandelbrot set»" in done["outcome"]["reason"]


async def test_a_topic_of_which_a_page_was_forgotten_is_crawled_again(lumina: Lumina, source: Edited) -> None:
    question = "Who proved that the Mandelbrot set is connected?"
    async with lumina(source=source) as runner:
        first = await crawl(runner, 1)
        assert runner.context.vectors is not None
        await until_indexed(runner, first["titles"])
        pruner, most = Pruner(runner.context.redis, runner.context.vectors), await runner.context.vectors.count() - 1
        gone = [one.title async for batch in pruner.prune("local", Limits(max_passages=most)) for one in batch]
        assert len(gone) == 1
        source.forget()
        await crawl(runner, 2, intent="wiki_qa", message=question)
        assert source.fetched == gone
        assert await runner.context.library.keeps_all("local", source.name, first["titles"])


WIKI_PAGES = {f"Page {number}": [f"Page {n}" for n in range(60)] for number in range(60)}


class Wiki:
    """A MediaWiki whose pages can be edited; it remembers what it was asked."""

    def __init__(self) -> None:
        self.revision = dict.fromkeys(WIKI_PAGES, 7)
        self.asked: list[dict[str, str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        text = request.url.query.decode() or request.content.decode()
        params = {name: values[0] for name, values in parse_qs(text).items()}
        if params.get("meta") == "siteinfo":
            return httpx.Response(200, json={"query": {"general": {"script": "/w/index.php"}}})
        self.asked.append(params)
        pages = [self.page(title, "revisions" in params["prop"]) for title in params["titles"].split("|")]
        return httpx.Response(200, json={"batchcomplete": True, "query": {"pages": pages}})

    def page(self, title: str, whole: bool) -> dict[str, Any]:
        if title not in self.revision:
            return {"ns": 0, "title": title, "missing": True}
        about = {"pageid": 1, "ns": 0, "title": title, "lastrevid": self.revision[title]}
        if not whole:
            return about
        content = f"'''{title}''' is one of many pages. " + " ".join(f"[[{link}]]" for link in WIKI_PAGES[title])
        slot = {"contentmodel": "wikitext", "content": content}
        revision = {"revid": self.revision[title], "timestamp": "2024-01-02T03:04:05Z", "size": 99}
        return {**about, "revisions": [{**revision, "slots": {"main": slot}}]}


async def test_a_mediawiki_is_asked_for_the_revisions_of_many_pages_at_once(lumina: Lumina) -> None:
    wiki = Wiki()
    client = httpx.AsyncClient(transport=httpx.MockTransport(wiki))
    source = MediaWiki("https://wiki.test/w/api.php", contact="tests", client=client)
    async with lumina(source=source) as runner:
        await crawl(runner, 1, topic="Page 0", max_nodes=40)
        wiki.asked.clear()
        again = await crawl(runner, 2, topic="Page 0", max_nodes=40)
        assert again["unchanged"] == 40
        assert [params["prop"] for params in wiki.asked] == ["info", "info"], "a step of the crawl is 25 pages"
        assert sum(len(params["titles"].split("|")) for params in wiki.asked) == 40
        wiki.asked.clear()
        wiki.revision[again["titles"][30]] = 8
        changed = await crawl(runner, 3, topic="Page 0", max_nodes=40)
        assert changed["unchanged"] == 39
        assert [p["titles"] for p in wiki.asked if "revisions" in p["prop"]] == [again["titles"][30]]
        assert len(wiki.asked) == 3
    await client.aclose()


@pytest.fixture
async def real_wiki() -> AsyncIterator[MediaWiki]:
    try:
        async with httpx.AsyncClient(timeout=5) as client:
            (await client.get(API, params={"action": "query", "format": "json"})).raise_for_status()
    except httpx.HTTPError as error:
        pytest.skip(f"no MediaWiki answers at {API}: {error}")
    source = MediaWiki(API, contact="tests")
    yield source
    await source.aclose()


async def test_a_real_mediawiki_is_asked_little_for_what_has_not_changed(lumina: Lumina, real_wiki: MediaWiki) -> None:
    async with lumina(source=real_wiki) as runner:
        first = await crawl(runner, 1, topic="Fractal", max_nodes=20)
        before, name = real_wiki.requests_sent, real_wiki.name
        second = await crawl(runner, 2, topic="Fractal", max_nodes=20)
        assert second["titles"] == first["titles"]
        assert second["unchanged"] == len(first["titles"])
        assert real_wiki.requests_sent - before <= 2, "one for the revisions, one if the wiki is busy"
        stored = await runner.context.library.revision("local", name, "Fractal")
        assert (await real_wiki.revisions(["Fractal"])) == {"Fractal": stored}


class Unreachable:
    """Streams that nothing can be sent to."""

    async def publish(self, events: Sequence[Event]) -> None:
        raise ConnectionError(f"{len(events)} events were not sent")


async def test_pages_whose_passages_were_never_sent_are_read_again(lumina: Lumina) -> None:
    async with lumina() as runner:
        context = runner.context
        pages = (await context.source.fetch(["Mandelbrot set"])).pages
        broken = replace(context, streams=cast(Streams, Unreachable()))
        with pytest.raises(ConnectionError, match="not sent"):  # as a kill between the two
            await Intake(broken, "local", "task").store(pages, [])
        assert not (await read_pages(context, "local", ["Mandelbrot set"])).unchanged

        await Intake(context, "local", "task").store(pages, [])
        assert (await read_pages(context, "local", ["Mandelbrot set"])).unchanged == {"Mandelbrot set"}
