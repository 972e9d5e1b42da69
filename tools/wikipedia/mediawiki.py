"""A MediaWiki, Wikipedia first of all, as an encyclopaedia."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from urllib.parse import urlsplit

import httpx

from tools.wikipedia.api import Api, RefusedByWiki, together
from tools.wikipedia.reading import Reading, Revision, TextFrom, revision_of
from tools.wikipedia.resolution import Resolution, to_ask
from tools.wikipedia.site import Site, read_site
from tools.wikipedia.source import Fetched, Page
from tools.wikipedia.titles import (
    clean_title,
    content_words,
    nearest,
    phrases,
    shrinking_prefixes,
    with_letters_swapped,
)

BATCH = 50
"""Titles a request; the limit of ``api.php`` for those without special rights."""
MAX_PAGE_BYTES = 2 * 2**20
"""MediaWiki's own limit for a page ($wgMaxArticleSize, 2,048 KiB); larger pages are skipped."""
_DISAMBIGUATION_CATEGORIES = (
    "Category:Disambiguation pages|Category:All disambiguation pages|Category:All article disambiguation pages|"
    "Category:Disambiguation|Category:Human name disambiguation pages|Category:Place name disambiguation pages"
)
_SUGGESTION_POOL = 100
"""Titles asked for per prefix when looking for the nearest ones."""


class MediaWiki:
    """Reads a wiki through its ``api.php``, fifty titles a request.

    Where the text comes from is chosen by ``text``: ``auto`` renders the wikitext that the batch request brought,
    lets the wiki expand the templates that are not understood (one more request a batch), and has the wiki render
    only those pages that come out empty; ``wikitext`` never asks more than the batch; ``extracts`` asks TextExtracts
    for each page, and ``action=parse`` where that extension is missing; ``parse`` asks ``action=parse`` for each page.

    Args:
        api_url: Address of ``api.php``.
        contact: How the operator can be reached; sent in the User-Agent.
        client: A client to use instead of an own one; it is not closed.
        concurrency: Requests under way at once; wikis ask for few.
        max_page_bytes: Larger pages are skipped.
        timeout_s: Limit for connecting and for each pause while reading.
        max_attempts: How often one request is tried.
        text: Where the text comes from.
        sleep: Waits some seconds.
        now: Seconds since the epoch.
        jitter: A number from 0 to 1, uniformly.
    """

    def __init__(
        self,
        api_url: str,
        *,
        contact: str,
        client: httpx.AsyncClient | None = None,
        concurrency: int = 2,
        max_page_bytes: int = MAX_PAGE_BYTES,
        timeout_s: float = 30.0,
        max_attempts: int = 5,
        text: TextFrom = "auto",
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = urlsplit(api_url).netloc
        self._api = Api(
            api_url,
            contact=contact,
            client=client,
            concurrency=concurrency,
            timeout_s=timeout_s,
            max_attempts=max_attempts,
            sleep=sleep,
            now=now,
            jitter=jitter,
        )
        self._max_page_bytes = max_page_bytes
        self._site: Site | None = None
        self._site_lock = asyncio.Lock()
        self._reading = Reading(self._api, text)

    @property
    def requests_sent(self) -> int:
        """HTTP requests sent so far, repetitions included."""
        return self._api.requests_sent

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()

    async def fetch(self, titles: Sequence[str]) -> Fetched:
        """Read articles by title; see ``WikiSource.fetch``."""
        wanted, skipped = to_ask(titles)
        if not wanted:
            return Fetched(skipped=skipped)
        site = await self._facts()
        resolution = await self._query(
            wanted.values(),
            prop="revisions|info|pageprops|categories",
            rvprop="ids|timestamp|content|size",
            rvslots="main",
            ppprop="disambiguation",
            clcategories=_DISAMBIGUATION_CATEGORIES,
            cllimit="max",
        )
        missing: list[str] = []
        asked_as: dict[str, list[str]] = {}
        for asked, cleaned in wanted.items():
            page, why = resolution.follow(cleaned)
            if page is not None:
                asked_as.setdefault(page["title"], []).append(asked)
            elif why:
                skipped[asked] = why
            else:
                missing.append(asked)
        revisions: list[Revision] = []
        for title in asked_as:
            found = revision_of(resolution.pages[title], self._max_page_bytes)
            if isinstance(found, str):
                skipped |= dict.fromkeys(asked_as[title], found)
            else:
                revisions.append(found)
        pages: list[Page] = []
        for revision, article in zip(revisions, await self._reading.read(revisions, site), strict=True):
            names = asked_as[revision.title]
            if not article.sections and not article.links:
                skipped |= dict.fromkeys(names, "empty: the page has no text")
                continue
            pages.append(
                Page(
                    title=revision.title,
                    url=site.revision_url(revision.title, revision.id),
                    revision=revision.id,
                    sections=article.sections,
                    links=article.links,
                    redirected_from=tuple(name for name in names if name != revision.title),
                    disambiguation=article.disambiguation,
                    timestamp=revision.timestamp,
                )
            )
        return Fetched(tuple(pages), tuple(missing), skipped)

    async def revisions(self, titles: Sequence[str]) -> dict[str, str]:
        """Title asked for → current revision; see ``WikiSource.revisions``."""
        wanted, _ = to_ask(titles)
        resolution = await self._query(wanted.values(), prop="info")
        found = {asked: resolution.follow(cleaned)[0] for asked, cleaned in wanted.items()}
        return {asked: str(page["lastrevid"]) for asked, page in found.items() if page and page.get("lastrevid")}

    async def suggest(self, text: str, limit: int = 5) -> list[str]:
        """Titles nearest to ``text``: what the wiki completes it to first, then what is spelt like it."""
        wanted = clean_title(text)
        if not wanted or limit < 1:
            return []
        begun = await self._prefixed(wanted, limit)
        if len(begun) >= limit:
            return begun[:limit]
        prefixes = shrinking_prefixes(wanted)[:6]
        pools = await together(
            [self._searched(wanted, _SUGGESTION_POOL // 5)]
            + [self._prefixed(prefix, _SUGGESTION_POOL) for prefix in prefixes]
        )
        alike = nearest(wanted, (title for pool in pools for title in pool), limit)
        if not begun and not alike:
            # Two letters in the wrong order hide a word from every index that does not search fuzzily.
            swapped = await together(self._searched(word, limit) for word in with_letters_swapped(wanted))
            alike = list(dict.fromkeys(title for titles in swapped for title in titles))
        return list(dict.fromkeys([*begun, *alike]))[:limit]

    async def search(self, text: str, limit: int = 10) -> list[str]:
        """Titles of articles about ``text``: first those that it names, then what the wiki's own search finds."""
        words = content_words(text)
        if not words or limit < 1:
            return []
        wanted, _ = to_ask(phrases(text, BATCH))
        resolution = await self._query(wanted.values(), prop="info")
        found = await self._searched(" ".join(words), limit)
        named = [page["title"] for cleaned in wanted.values() if (page := resolution.follow(cleaned)[0])]
        if not found and len(words) > 1:
            longest = sorted(words, key=len, reverse=True)[:4]
            per_word = await together(self._searched(word, limit) for word in longest)
            ranked = sorted((rank, title) for titles in per_word for rank, title in enumerate(titles))
            found = [title for _, title in ranked]
        return list(dict.fromkeys([*named, *found]))[:limit]

    async def titles(self, limit: int) -> list[str]:
        """Titles of the articles, at most ``limit``, in the wiki's alphabetical order."""
        found: list[str] = []
        async for part in self._api.pages_of(
            action="query", list="allpages", apnamespace=0, apfilterredir="nonredirects", aplimit="max"
        ):
            found += [str(page["title"]) for page in part.get("allpages") or []]
            if len(found) >= limit:
                break
        return found[:limit]

    # What is asked of the wiki.

    async def _facts(self) -> Site:
        async with self._site_lock:
            if self._site is None:
                answer = await self._api.ask(
                    action="query",
                    meta="siteinfo",
                    siprop="general|namespaces|namespacealiases|interwikimap|extensions",
                )
                self._site = read_site(answer.get("query") or {}, self._api.url)
        return self._site

    async def _query(self, titles: Iterable[str], **params: str) -> Resolution:
        unique = list(dict.fromkeys(titles))
        resolution = Resolution()

        async def ask(batch: Sequence[str]) -> None:
            query: dict[str, str | int | bool] = {
                "action": "query",
                "titles": "|".join(batch),
                "redirects": True,
                **params,
            }
            async for part in self._api.pages_of(**query):
                resolution.add(part)

        await together(ask(unique[start : start + BATCH]) for start in range(0, len(unique), BATCH))
        return resolution

    async def _prefixed(self, prefix: str, limit: int) -> list[str]:
        answer = await self._api.ask(action="opensearch", search=prefix, namespace=0, limit=limit, redirects="resolve")
        listed = answer.get("list") or []
        return [str(title) for title in listed[1]] if len(listed) > 1 else []

    async def _searched(self, text: str, limit: int) -> list[str]:
        try:
            answer = await self._api.ask(
                action="query", list="search", srsearch=text[:300], srnamespace=0, srlimit=min(limit, 50), srprop=""
            )
        except RefusedByWiki:  # search is off, or its syntax was hit; completing titles still works
            return []
        return [str(hit["title"]) for hit in (answer.get("query") or {}).get("search") or []]
