"""From a revision's wikitext to prose, with the wiki's help where the wikitext alone does not tell."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from tools.wikipedia.api import Api, together
from tools.wikipedia.expansion import Expansions
from tools.wikipedia.extracts import read_extract
from tools.wikipedia.html import read_html
from tools.wikipedia.site import Site
from tools.wikipedia.source import Section
from tools.wikipedia.titles import clean_title, upper_first, why_invalid
from tools.wikipedia.wikitext import Draft, read_wikitext

TextFrom = Literal["auto", "wikitext", "extracts", "parse"]
Prose = tuple[tuple[Section, ...], tuple[str, ...]]
"""Sections and links."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision as the batch request gave it."""

    title: str
    id: str
    timestamp: str
    wikitext: str
    disambiguation: bool
    """Whether a property or category of the page says so."""


@dataclass(frozen=True, slots=True)
class Article:
    """What a revision says."""

    sections: tuple[Section, ...]
    links: tuple[str, ...]
    disambiguation: bool


class Reading:
    """Reads revisions the way ``text`` says (see ``MediaWiki``)."""

    def __init__(self, api: Api, text: TextFrom) -> None:
        self._api, self._text = api, text
        self._expansions = Expansions(api)

    async def read(self, revisions: Sequence[Revision], site: Site) -> list[Article]:
        """Each revision's article, in order."""
        # The parser is pure CPU work of some milliseconds a page: off the event loop.
        drafts = await asyncio.to_thread(lambda: [read_wikitext(one.wikitext, site, one.title) for one in revisions])
        expansions: Mapping[str, str] | None = {}
        if self._text == "auto":
            expansions = await self._expansions.of(source for draft in drafts for source in draft.unknown)
        written = await asyncio.to_thread(lambda: [draft.sections(expansions) for draft in drafts])

        async def finish(revision: Revision, draft: Draft, sections: tuple[Section, ...]) -> Article:
            marked = revision.disambiguation or draft.disambiguation or revision.title.endswith("(disambiguation)")
            unfaithful = not sections or (expansions is None and bool(draft.unknown))
            if self._text in ("extracts", "parse") or (self._text == "auto" and unfaithful):
                return Article(*await self._rendered(revision, draft, site), marked)
            return Article(sections, draft.links, marked)

        return await together(map(finish, revisions, drafts, written))

    async def _rendered(self, revision: Revision, draft: Draft, site: Site) -> Prose:
        """Sections and links of a page that the wiki itself renders."""
        if site.has_extracts and self._text != "parse":
            async for query in self._api.pages_of(
                action="query",
                prop="extracts",
                titles=revision.title,
                explaintext=True,
                exsectionformat="wiki",
                exlimit=1,
            ):
                for page in query.get("pages") or []:
                    if extract := page.get("extract"):
                        return await asyncio.to_thread(read_extract, str(extract)), draft.links
            return (), draft.links
        answer = await self._api.ask(
            action="parse",
            oldid=revision.id,
            prop="text",
            disableeditsection=True,
            disabletoc=True,
            disablelimitreport=True,
        )
        body = str((answer.get("parse") or {}).get("text") or "")
        page = await asyncio.to_thread(read_html, body, lambda href: _title_of(href, site))
        return page.sections, tuple(link for link in page.links if link != revision.title)


def revision_of(page: Mapping[str, Any], max_page_bytes: int) -> Revision | str:
    """The revision in a page object of the batch answer, or why it is not read."""
    revisions = page.get("revisions") or []
    if not revisions:
        return "not readable: the wiki gave no revision"
    revision = revisions[0]
    slot: Mapping[str, Any] = (revision.get("slots") or {}).get("main") or revision
    size = int(revision.get("size") or page.get("length") or 0)
    if size > max_page_bytes:
        return f"too large: {size} bytes, at most {max_page_bytes} are read"
    if (model := slot.get("contentmodel", "wikitext")) != "wikitext":
        return f"not an article: its content is {model}"
    if "content" not in slot:
        return "not readable: the wiki hides or lost this revision's text"
    wikitext = str(slot["content"])
    if not wikitext.strip():
        return "empty: the page has no text"
    marked = "disambiguation" in (page.get("pageprops") or {}) or bool(page.get("categories"))
    return Revision(str(page["title"]), str(revision["revid"]), str(revision.get("timestamp", "")), wikitext, marked)


def _title_of(href: str, site: Site) -> str | None:
    """The article that a link of rendered HTML leads to."""
    address = urlsplit(href)
    if address.netloc and address.netloc != urlsplit(site.script_url).netloc:
        return None
    head, _, tail = site.article_path.partition("$1")
    path = unquote(address.path)
    if head and path.startswith(head) and path.endswith(tail) and not address.query:
        title = path[len(head) : len(path) - len(tail)]
    elif "redlink" in (query := parse_qs(address.query)):
        title = query.get("title", [""])[0]
    else:
        return None
    title = clean_title(title)
    if not title or why_invalid(title) or site.namespace_of(title) != 0 or site.is_interwiki(title):
        return None
    return title if site.keeps_first_letter else upper_first(title)
