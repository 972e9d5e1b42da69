"""Real pages from a real MediaWiki, with text, links and revision: ``python -m benchmarks.crawl [--short]``.

*Lumina*: its source, as the crawl agent has it; once for all titles together, once 25 at a time as the agent asks.
*Limit*: the very same requests, recorded before, sent again with bare httpx, two at a time as Lumina does; the answers
are thrown away. *Peers*: LangChain's WikipediaLoader with all its metadata (links and revision are among them) and
wikipedia-api's asynchronous client, eight pages at a time; on fewer pages, for their speed does not depend on it.

Then the same articles out of a ZIM archive, beside reading their bytes alone and selectolax's bare tree of them.
``LUMINA_TEST_WIKI`` or ``--wiki`` is the address of ``api.php``; where none answers, the sample's ZIM is all there is.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx

from benchmarks.figures import Figures
from benchmarks.harness import ROOT, Work, finish, options, peers, rounds_of, run_peer, take_turns
from tools.encyclopaedia import ensure_sample
from tools.wikipedia.api import open_client
from tools.wikipedia.mediawiki import MediaWiki
from tools.wikipedia.zim import Zim

EXPECTATION = (
    "the wiki does nearly all of the work: 0.8 of its own rate with the same requests; at least five times the faster "
    "peer, which asks two or three times a page; 0.03 requests a page; more than 1,000 pages/s out of a ZIM"
)
WIKI = os.environ.get("LUMINA_TEST_WIKI", "http://127.0.0.1:8090/w/api.php")
CONTACT = "the benchmark of this checkout"
CONCURRENCY = 2
"""Requests at once: what ``MediaWiki`` has by itself."""
STEP = 25
"""Pages at a time that the crawl agent asks for."""
SMALLEST = 3_000
"""Bytes of wikitext: no stubs."""
RATE, REQUESTS = "pages/s", "requests a page"
ZIM_REAL, ZIM_SAMPLE = "ZIM of these articles, pages/s", "ZIM of the sample, pages/s"
Sent = tuple[str, httpx.URL, bytes, dict[str, str]]


async def titles_of(wiki: str, count: int) -> list[str]:
    """Articles of the wiki, spread over the alphabet."""
    query: dict[str, str | int] = {
        "action": "query",
        "list": "allpages",
        "apfilterredir": "nonredirects",
        "apminsize": SMALLEST,
        "aplimit": 500,
        "format": "json",
        "formatversion": 2,
    }
    found: list[str] = []
    async with httpx.AsyncClient(timeout=60.0) as client:
        more: dict[str, str] | None = {}
        while more is not None and len(found) < 1_500:
            answer = (await client.get(wiki, params={**query, **more})).raise_for_status().json()
            found += [page["title"] for page in answer["query"]["allpages"]]
            more = answer.get("continue")
    return found[:: max(1, len(found) // count)][:count]


async def with_lumina(wiki: str, titles: Sequence[str], step: int) -> Mapping[str, float]:
    source = MediaWiki(wiki, contact=CONTACT)
    began = time.perf_counter()
    for start in range(0, len(titles), step):
        fetched = await source.fetch(titles[start : start + step])
        assert not fetched.missing, fetched.missing
        assert all(page.revision and page.sections for page in fetched.pages)
    seconds = time.perf_counter() - began
    await source.aclose()
    return {RATE: len(titles) / seconds, REQUESTS: source.requests_sent / len(titles)}


async def recorded(wiki: str, titles: Sequence[str]) -> list[Sent]:
    """The requests that Lumina sends for these, in their order; warms the wiki's caches for everybody."""
    sent: list[Sent] = []

    async def note(request: httpx.Request) -> None:
        sent.append((request.method, request.url, request.content, dict(request.headers)))

    async with open_client(CONCURRENCY, 60.0) as client:
        client.event_hooks = {"request": [note]}
        await MediaWiki(wiki, contact=CONTACT, client=client).fetch(titles)
    return sent


async def replayed(sent: Sequence[Sent], pages: int) -> Mapping[str, float]:
    left = iter(sent)

    async def one(client: httpx.AsyncClient) -> None:
        for method, url, content, headers in left:
            (await client.request(method, url, content=content, headers=headers)).raise_for_status()

    async with open_client(CONCURRENCY, 60.0) as client:
        began = time.perf_counter()
        await asyncio.gather(*(one(client) for _ in range(CONCURRENCY)))
        return {RATE: pages / (time.perf_counter() - began), REQUESTS: len(sent) / pages}


async def peer(script: str, wiki: str, titles: Sequence[str]) -> Mapping[str, float]:
    return await run_peer(script, wiki, json.dumps(list(titles)))


# The same articles in an archive.


async def rendered(wiki: str, titles: Sequence[str]) -> list[tuple[str, str]]:
    """Title and HTML of each, as a ZIM has them: links lead to the page beside."""
    pages = []
    about = {"action": "query", "meta": "siteinfo", "format": "json"}
    async with httpx.AsyncClient(timeout=60.0) as client:
        site = (await client.get(wiki, params=about)).raise_for_status().json()["query"]["general"]
        beside = f'href="{site["articlepath"].removesuffix("$1")}'
        for title in titles:
            query = {"action": "parse", "page": title, "prop": "text", "format": "json", "formatversion": "2"}
            answer = (await client.get(wiki, params=query)).raise_for_status().json()
            head, body = f"<head><title>{title}</title></head>", answer["parse"]["text"].replace(beside, 'href="./')
            pages.append((title, f"<html>{head}<body>{body}</body></html>"))
    return pages


async def packed(pages: Sequence[tuple[str, str]], target: Path) -> None:
    """Write a ZIM of them, in a process of its own, for libzim talks on the standard output."""
    paths = {title: title.replace(" ", "_") for title, _ in pages}
    job: dict[str, Any] = {
        "pages": [[paths[title], title, html] for title, html in pages],
        "redirects": [],
        "main": paths[pages[0][0]],
        "metadata": {"Name": "bench", "Title": "bench", "Language": "eng", "Date": "2026-11-23"},
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tools.encyclopaedia", "--write-pages", str(target)),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    await process.communicate(json.dumps(job).encode())
    assert process.returncode == 0


async def out_of_zim(measure: str, path: Path, titles: Sequence[str], repeats: int) -> Mapping[str, float]:
    archive = Zim(path)
    began = time.perf_counter()
    for _ in range(repeats):
        fetched = await archive.fetch(titles)
        assert len(fetched.pages) == len(titles), (fetched.missing, fetched.skipped)
    seconds = time.perf_counter() - began
    await archive.aclose()
    return {measure: repeats * len(titles) / seconds}


async def bytes_of_zim(
    measure: str, path: Path, titles: Sequence[str], repeats: int, *, parse: bool
) -> Mapping[str, float]:
    from libzim.reader import Archive
    from selectolax.lexbor import LexborHTMLParser

    archive = Archive(path)
    began = time.perf_counter()
    for _ in range(repeats):
        for title in titles:
            html = bytes(archive.get_entry_by_title(title).get_item().content)
            assert not parse or LexborHTMLParser(html).body is not None
    return {measure: repeats * len(titles) / (time.perf_counter() - began)}


async def read_zim(figures: Figures, measure: str, path: Path, titles: Sequence[str], rounds: int, least: int) -> None:
    repeats = max(1, least // len(titles))
    contenders: dict[str, Work] = {
        "lumina": partial(out_of_zim, measure, path, titles, repeats),
        "libzim, bytes alone": partial(bytes_of_zim, measure, path, titles, repeats, parse=False),
        "libzim and selectolax's tree": partial(bytes_of_zim, measure, path, titles, repeats, parse=True),
    }
    await take_turns(figures, contenders, rounds)


def titles_in(path: Path) -> list[str]:
    """Titles of the articles of an archive, redirects left out."""
    from libzim.reader import Archive

    archive = Archive(path)
    entries = [archive._get_entry_by_id(number) for number in range(archive.all_entry_count)]
    kept = [one for one in entries if not one.is_redirect and one.get_item().mimetype.startswith("text/html")]
    return [one.title for one in kept]


async def answers(wiki: str) -> bool:
    try:
        async with httpx.AsyncClient(timeout=30.0) as client:
            found = await client.get(wiki, params={"action": "query", "meta": "siteinfo", "format": "json"})
        return found.status_code == 200
    except httpx.TransportError:
        return False


async def main(figures: Figures, wiki: str, rounds: int, *, pages: int, few: int, archived: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if await answers(wiki):
            titles = await titles_of(wiki, pages)
            sent = await recorded(wiki, titles)
            some = titles[:: max(1, len(titles) // few)][:few]
            contenders: dict[str, Work] = {
                "lumina": partial(with_lumina, wiki, titles, len(titles)),
                "lumina, 25 at a time": partial(with_lumina, wiki, titles, STEP),
                "the same requests alone": partial(replayed, sent, len(titles)),
                **peers(
                    figures,
                    {
                        "WikipediaLoader": partial(peer, "with_wikipedia_loader", wiki, some),
                        "wikipedia-api": partial(peer, "with_wikipedia_api", wiki, some),
                    },
                ),
            }
            await take_turns(figures, contenders, rounds)
            path = Path(folder) / "real.zim"
            await packed(await rendered(wiki, titles[:archived]), path)
            await read_zim(figures, ZIM_REAL, path, titles[:archived], rounds, archived)
        else:
            figures.left_out["the wiki"] = f"{wiki} does not answer; `--wiki URL` or LUMINA_TEST_WIKI names another"
        sample = await asyncio.to_thread(ensure_sample, Path(folder) / "sample.zim")
        await read_zim(figures, ZIM_SAMPLE, sample, titles_in(sample), rounds, 500)


if __name__ == "__main__":
    parser = options(__doc__, rounds=5)
    parser.add_argument("--wiki", default=WIKI, help="address of api.php (%(default)s)")
    given = parser.parse_args()
    collected = Figures("crawl", expectation=EXPECTATION)
    sizes = {"pages": 100, "few": 8, "archived": 40} if given.short else {"pages": 300, "few": 40, "archived": 150}
    asyncio.run(main(collected, given.wiki, rounds_of(given), **sizes))
    finish(collected, given)
