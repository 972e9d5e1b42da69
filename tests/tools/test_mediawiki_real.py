"""Real articles from a real MediaWiki; skipped where none answers (``LUMINA_TEST_WIKI`` names another)."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import AsyncIterator

import httpx
import pytest

from tools.splitter import plain_text, sentences, split
from tools.wikipedia.mediawiki import MediaWiki
from tools.wikipedia.reading import TextFrom
from tools.wikipedia.source import Page

API = os.environ.get("LUMINA_TEST_WIKI", "http://127.0.0.1:8090/w/api.php")
TOPICS = ["Fractal", "Chaos theory", "Normans", "Black Death", "Geology", "Force", "Imperialism", "Africa", "Oxygen"]
MARKUP = re.compile(
    r"\[\[|\]\]|\{\{|\}\}|\{\||\|\}|thumb\||\|left|</?(?:ref|div|span|br)\b|&nbsp;|'''|^=+ |\( ?\)", re.M
)


@pytest.fixture(scope="module", autouse=True)
def _answering() -> None:
    try:
        httpx.get(API, params={"action": "query", "format": "json"}, timeout=5).raise_for_status()
    except httpx.HTTPError as error:
        pytest.skip(f"no MediaWiki answers at {API}: {error}")


@pytest.fixture
async def wiki() -> AsyncIterator[MediaWiki]:
    source = MediaWiki(API, contact="tests")
    yield source
    await source.aclose()


async def read(text: TextFrom, titles: list[str]) -> dict[str, Page]:
    source = MediaWiki(API, contact="tests", text=text)
    fetched = await source.fetch(titles)
    await source.aclose()
    assert not fetched.missing
    assert not fetched.skipped
    return {page.title: page for page in fetched.pages}


def said(page: Page) -> set[str]:
    text = plain_text(page)
    bare = (re.sub(r"\W+", "", unicodedata.normalize("NFKC", text[start:end])) for start, end in sentences(text))
    return {sentence for sentence in bare if len(sentence) > 15}


async def test_real_articles_are_clean_prose_with_links_and_revisions(wiki: MediaWiki) -> None:
    fetched = await wiki.fetch([*TOPICS, "benoit B. Mandelbrot"])
    assert len(fetched.pages) == len(TOPICS) + 1
    assert wiki.requests_sent <= 3, "the site's facts, one batch, at most one expansion of templates"
    for page in fetched.pages:
        text = plain_text(page)
        assert not MARKUP.search(text), (page.title, MARKUP.search(text))
        assert len(text) > 3000
        assert page.links
        assert page.revision.isdigit()
        assert page.timestamp.endswith("Z")
        assert f"oldid={page.revision}" in page.url
        async with httpx.AsyncClient(timeout=30) as browser:
            assert (await browser.get(page.url)).status_code == 200
        for passage in split(page, owner="o", source=wiki.name):
            assert text[passage.start : passage.end] == passage.text
    mandelbrot = next(page for page in fetched.pages if page.redirected_from)
    assert mandelbrot.title == "Benoît Mandelbrot"


async def test_wikitext_extracts_and_parse_say_the_same() -> None:
    ways = {text: await read(text, TOPICS) for text in ("wikitext", "extracts", "parse")}
    for other in ("extracts", "parse"):
        ours = {(title, sentence) for title, page in ways["wikitext"].items() for sentence in said(page)}
        theirs = {(title, sentence) for title, page in ways[other].items() for sentence in said(page)}
        assert len(ours & theirs) / len(ours) > 0.97
        assert len(ours & theirs) / len(theirs) > 0.95
    for title in TOPICS:
        linked = set(ways["wikitext"][title].links)
        assert linked
        assert len(linked & set(ways["parse"][title].links)) >= 0.9 * len(linked)


async def test_real_titles_resolve_as_on_wikipedia(wiki: MediaWiki) -> None:
    asked = ["AlgeriA", "fractal#History", "No such page here", "Bad[Title", "Talk:Fractal", "fr:Foo", "é" * 127]
    fetched = await wiki.fetch(asked)
    assert {page.title: page.redirected_from for page in fetched.pages} == {
        "Algeria": ("AlgeriA",),
        "Fractal": ("fractal#History",),
    }
    assert fetched.missing == ("No such page here", "é" * 127)
    assert set(fetched.skipped) == {"Bad[Title", "Talk:Fractal", "fr:Foo"}
    revisions = await wiki.revisions(asked)
    assert set(revisions) == {"AlgeriA", "fractal#History"}
    assert revisions["AlgeriA"] == next(page.revision for page in fetched.pages if page.title == "Algeria")


async def test_real_suggestions_and_search(wiki: MediaWiki) -> None:
    assert (await wiki.suggest("Frctal"))[0] == "Fractal"
    assert "Benoît Mandelbrot" in await wiki.suggest("Mandelbort set")
    assert (await wiki.suggest("Chaos theroy"))[0] == "Chaos theory"
    assert (await wiki.search("Who coined the term fractal?"))[0] == "Fractal"
    assert "Normans" in await wiki.search("When did the Normans settle in France?")
    assert await wiki.search("?!") == []
