"""A ZIM archive (Kiwix, or Lumina's own sample) as an encyclopaedia.

The format is that of https://wiki.openzim.org/wiki/ZIM_file_format, read by libzim.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, unquote

from tools.wikipedia.html import read_html
from tools.wikipedia.site import Site
from tools.wikipedia.source import Fetched, InvalidSource, Page, SourceError
from tools.wikipedia.titles import clean_title, content_words, nearest, phrases, shrinking_prefixes, upper_first

if TYPE_CHECKING:
    from libzim.reader import Archive, Entry

T = TypeVar("T")
MAX_PAGE_BYTES = 8 * 2**20
"""HTML is several times as large as the wikitext it was made of."""
_MEDIA = re.compile(r"\.(?:png|jpe?g|gif|svg|webp|webm|ogg|ogv|mp[34]|css|js|pdf|json|ico|vtt)$", re.I)
_SCHEME = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|//)", re.I)
_MAX_REDIRECTS = 10
_LINKS_REMEMBERED = 16_384
_SHORT_LINK = 200
"""Characters; longer links are rare, and not worth the memory."""
_POOL = 200
"""Titles asked for per prefix when looking for the nearest ones."""


class Zim:
    """Reads a ``.zim`` file. libzim is called in one thread of its own, so the event loop never waits for the disk.

    Args:
        path: The file.
        max_page_bytes: Larger pages are skipped.

    Raises:
        InvalidSource: when the file is missing or no ZIM archive.
    """

    def __init__(self, path: str | Path, *, max_page_bytes: int = MAX_PAGE_BYTES) -> None:
        # libzim is a heavy import and the archive is mapped at once: not before somebody opens one.
        from libzim.reader import Archive

        self._path = Path(path)
        try:
            self._archive: Archive = Archive(self._path)
        except RuntimeError as error:
            raise InvalidSource(f"{path}: cannot be read as a ZIM archive: {' '.join(str(error).split())}") from error
        self._max_page_bytes = max_page_bytes
        self._site = Site()
        self.name = self._metadata("Name") or self._path.stem
        self._edition = self._metadata("Date") or str(self._archive.uuid)
        # The articles of a field link to one another and to the same few others, and libzim is slow to find nothing.
        self._linked = lru_cache(maxsize=_LINKS_REMEMBERED)(self._title_at)
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="zim")

    async def aclose(self) -> None:
        """Wait for the reading that is under way and release the file."""
        await asyncio.to_thread(self._thread.shutdown)
        if not self._closed:
            self._closed = True
            self._linked.cache_clear()
            del self._archive  # libzim closes the file with its last reference

    async def fetch(self, titles: Sequence[str]) -> Fetched:
        """Read articles by title; see ``WikiSource.fetch``."""
        return await self._run(lambda: self._fetch(titles))

    async def revisions(self, titles: Sequence[str]) -> dict[str, str]:
        """Title asked for → revision, for those that exist.

        The archive has no table of revisions: it is the page that states its own, so the pages are read.
        """

        def look() -> dict[str, str]:
            fetched = self._fetch(titles)
            by_name = {name: page.revision for page in fetched.pages for name in (page.title, *page.redirected_from)}
            return {title: by_name[title] for title in titles if title in by_name}

        return await self._run(look)

    async def suggest(self, text: str, limit: int = 5) -> list[str]:
        """Titles nearest to ``text``; see ``WikiSource.suggest``."""
        return await self._run(lambda: self._suggest(clean_title(text), limit))

    async def search(self, text: str, limit: int = 10) -> list[str]:
        """Titles of articles about ``text``; without a full-text index, those whose titles have words of it."""
        return await self._run(lambda: self._search(text, limit))

    async def titles(self, limit: int) -> list[str]:
        """Titles of the articles, at most ``limit``, in the order of their paths."""
        return await self._run(lambda: self._listed(limit))

    async def _run(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise SourceError(f"{self._path}: the archive is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except RuntimeError as error:  # what libzim raises for damaged clusters, entries and indexes
            raise SourceError(
                f"{self._path}: cannot be read: {' '.join(str(error).split())}; is it damaged?"
            ) from error

    # Everything below runs in the archive's thread.

    def _metadata(self, name: str) -> str:
        if name not in self._archive.metadata_keys:
            return ""
        return bytes(self._archive.get_metadata(name)).decode("utf-8", "replace").strip()

    def _fetch(self, titles: Sequence[str]) -> Fetched:
        pages: dict[str, Page | str] = {}
        asked_as: dict[str, list[str]] = {}
        missing: list[str] = []
        skipped: dict[str, str] = {}
        for asked in dict.fromkeys(titles):
            title = clean_title(asked)
            entry = self._entry(title) if title else None
            if not title:
                skipped[asked] = "invalid title: empty"
            elif entry is None:
                missing.append(asked)
            elif (target := self._target(entry)) is None:
                skipped[asked] = "redirect loop"
            else:
                asked_as.setdefault(target.path, []).append(asked)
                if target.path not in pages:
                    pages[target.path] = self._page(target)
        read: list[Page] = []
        for path, page in pages.items():
            if isinstance(page, str):
                skipped |= dict.fromkeys(asked_as[path], page)
            else:
                names = tuple(name for name in asked_as[path] if name != page.title)
                read.append(replace(page, redirected_from=names) if names else page)
        return Fetched(tuple(read), tuple(missing), skipped)

    def _entry(self, title: str) -> Entry | None:
        archive = self._archive
        for name in dict.fromkeys((title, upper_first(title))):
            if archive.has_entry_by_title(name):
                return archive.get_entry_by_title(name)
            underscored = name.replace(" ", "_")
            for path in (underscored, name, f"A/{underscored}", f"A/{name}"):
                if archive.has_entry_by_path(path):
                    return archive.get_entry_by_path(path)
        return None

    def _target(self, entry: Entry) -> Entry | None:
        for _ in range(_MAX_REDIRECTS):
            if not entry.is_redirect:
                return entry
            entry = entry.get_redirect_entry()
        return None

    def _page(self, entry: Entry) -> Page | str:
        """The article, or why it is not read."""
        item = entry.get_item()
        if not item.mimetype.startswith(("text/html", "application/xhtml")):
            return f"not an article: {entry.path} is {item.mimetype}"
        if item.size > self._max_page_bytes:
            return f"too large: {item.size} bytes, at most {self._max_page_bytes} are read"
        rendered = read_html(bytes(item.content), self._linked_from(entry.path))
        if not rendered.sections and not rendered.links:
            return "empty: the page has no text"
        title = entry.title if entry.title != entry.path else rendered.title or entry.title.replace("_", " ")
        revision = rendered.revision or self._edition
        return Page(
            title=title,
            url=rendered.revision_url or f"zim://{quote(self.name)}/{quote(entry.path)}?oldid={quote(revision)}",
            revision=revision,
            sections=rendered.sections,
            links=tuple(link for link in rendered.links if link != title),
            disambiguation=rendered.disambiguation or title.endswith("(disambiguation)"),
        )

    def _linked_from(self, path: str) -> Callable[[str], str | None]:
        """Which article a link on the page at ``path`` leads to; a link to what is not in the archive leads nowhere."""
        folder = path[: path.rfind("/") + 1]

        def title_of(href: str) -> str | None:
            target = href.partition("#")[0].partition("?")[0]
            return (self._linked if len(target) <= _SHORT_LINK else self._title_at)(folder, target)

        return title_of

    def _title_at(self, folder: str, target: str) -> str | None:
        if _SCHEME.match(target):
            return None
        target = unquote(target)
        if not target or _MEDIA.search(target):
            return None
        parts = [] if target.startswith("/") else folder.split("/")[:-1]
        for part in target.split("/"):
            if part == "..":
                del parts[-1:]
            elif part not in (".", ""):
                parts.append(part)
        beside = "/".join(parts)
        from_the_root = beside if target.startswith(".") else target.lstrip("/")
        for candidate in (beside,) if beside == from_the_root else (beside, from_the_root):
            if candidate and self._archive.has_entry_by_path(candidate):
                title = self._archive.get_entry_by_path(candidate).title
                title = title.replace("_", " ") if title == candidate else title
                return None if self._site.namespace_of(title) else title
        return None

    def _suggest(self, text: str, limit: int) -> list[str]:
        if not text or limit < 1:
            return []
        begun = self._completed(text, limit)
        if len(begun) >= limit:
            return begun[:limit]
        prefixes = [*shrinking_prefixes(text), *[word[:1] for word in content_words(text)]]
        pool = [title for prefix in dict.fromkeys(prefixes) for title in self._completed(prefix, _POOL)]
        return list(dict.fromkeys([*begun, *nearest(text, pool, limit)]))[:limit]

    def _completed(self, prefix: str, limit: int) -> list[str]:
        """Titles that begin with ``prefix`` or have a word that does, redirects followed."""
        from libzim.suggestion import SuggestionSearcher

        found = SuggestionSearcher(self._archive).suggest(prefix).getResults(0, limit)
        return self._titles(found)

    def _search(self, text: str, limit: int) -> list[str]:
        words = content_words(text)
        if not words or limit < 1:
            return []
        named = [entry for phrase in phrases(text) if (entry := self._entry(phrase)) is not None]
        titles = self._titles(entry.path for entry in named)
        look = self._full_text if self._archive.has_fulltext_index else self._completed
        found = look(" ".join(words), limit)
        if len(found) < limit and len(words) > 1:
            per_word = [look(word, limit) for word in sorted(words, key=len, reverse=True)[:6]]
            # A title that several words find stands before one that a single word finds.
            counts = {title: sum(title in hits for hits in per_word) for hits in per_word for title in hits}
            found += sorted(counts, key=lambda title: -counts[title])
        return list(dict.fromkeys([*titles, *found]))[:limit]

    def _full_text(self, text: str, limit: int) -> list[str]:
        from libzim.search import Query, Searcher

        return self._titles(Searcher(self._archive).search(Query().set_query(text)).getResults(0, limit))

    def _listed(self, limit: int) -> list[str]:
        found: list[str] = []
        for number in range(self._archive.all_entry_count):
            if len(found) >= limit:
                break
            entry = self._archive._get_entry_by_id(number)  # libzim has no other way to go through an archive
            if not entry.is_redirect and entry.get_item().mimetype.startswith("text/html"):
                found.append(entry.title)
        return found

    def _titles(self, paths: Iterable[str]) -> list[str]:
        """Titles of the articles at these paths, redirects followed, media left out."""
        titles: dict[str, None] = {}
        for path in paths:
            entry = self._target(self._archive.get_entry_by_path(path))
            if entry is not None and entry.get_item().mimetype.startswith("text/html"):
                titles.setdefault(entry.title)
        return list(titles)
