"""What has been read: the pages of every owner, how far they are indexed, and what each crawl covered.

The facts behind the goals «crawled», «searchable» and «embedded» come from here. A passage's progress is one bit, set
under the page's revision, so that a redelivered passage changes nothing.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from redis.asyncio import Redis

from memory import keys
from memory.fencing import ensure_held
from memory.library_scripts import EXPECT, LINK, TOUCH
from memory.passages import Passage, passage_id
from memory.streams import now_ms

TEXT, DENSE = "text", "dense"
BATCH = 200
"""Pages of one script, which holds the server for less than a millisecond."""
SEPARATOR = "\x1f"
"""Between the parts of a page's or a reading's name; no title has it."""


def page_name(source: str, title: str) -> str:
    """A page as ``keys.pages`` lists it."""
    return f"{source}{SEPARATOR}{title}"


@dataclass(frozen=True, slots=True)
class Coverage:
    """The extent of a finished crawl."""

    topic: str
    titles: list[str]
    """Canonical titles of the pages read, in the order read; the first is the topic's own page."""
    hops: int
    max_nodes: int
    exhausted: bool
    """Whether everything within ``hops`` was read, so that a larger ``max_nodes`` would add nothing."""
    ts: int = 0
    """When it ended, in milliseconds since the epoch."""

    def includes(self, hops: int, max_nodes: int) -> bool:
        """Whether a crawl of this extent would find nothing that is not there."""
        same_reach = self.hops >= hops if not self.exhausted else self.hops == hops
        return same_reach and (self.exhausted or self.max_nodes >= max_nodes)


@dataclass(frozen=True, slots=True)
class ReadPage:
    """What the library records of a page that was read just now."""

    title: str
    revision: str
    passages: int
    links: Sequence[str] | None = None
    """Titles that it links to, in order; None where that is not known."""


@dataclass(frozen=True, slots=True)
class KeptPage:
    """A page as it was last read."""

    revision: str
    links: tuple[str, ...] | None
    """Titles that it links to, in order; None where nobody has said so."""


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """How far some pages are indexed."""

    pages: int
    passages: int
    indexed: int
    """Passages whose text can be searched."""
    embedded: int
    """Passages that have a dense vector."""


class Library:
    """Page records, index progress and crawl coverage, in Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._expect = redis.register_script(EXPECT)
        self._link = redis.register_script(LINK)
        self._touch = redis.register_script(TOUCH)

    async def expect(self, passages: Sequence[Passage]) -> None:
        """Record pages whose passages are about to be sent for indexing; these are all passages of each."""
        rows: dict[tuple[str, str], list[ReadPage]] = {}
        for (owner, source, title, revision), group in _by_page(passages):
            rows.setdefault((owner, source), []).append(ReadPage(title, revision, sum(1 for _ in group)))
        for (owner, source), pages in rows.items():
            await self.expect_pages(owner, source, pages)

    async def expect_pages(self, owner: str, source: str, pages: Sequence[ReadPage]) -> None:
        """Record pages before their passages are sent; what was read of another revision is stale from now."""
        await ensure_held()
        for start in range(0, len(pages), BATCH):
            part = pages[start : start + BATCH]
            names = [keys.page(owner, source, page.title) for page in part]
            words = [
                word
                for page in part
                for word in (page_name(source, page.title), page.revision, page.passages, _packed(page.links))
            ]
            await self._expect([keys.pages(owner), keys.stale(owner), *names], [now_ms(), *words])

    async def link(self, owner: str, source: str, pages: Sequence[ReadPage]) -> None:
        """Say where pages link to that are stored with all that belongs to them: whose links are known is not read
        again until it changes."""
        for start in range(0, len(pages), BATCH):
            part = pages[start : start + BATCH]
            words = [word for page in part for word in (page.revision, _packed(page.links))]
            await self._link([keys.page(owner, source, page.title) for page in part], words)

    async def touch(self, owner: str, source: str, revisions: Mapping[str, str]) -> set[str]:
        """Count pages as read now, for their source says that they have not changed.

        Args:
            owner: Whose.
            source: Where from.
            revisions: Title → the revision that the source has.

        Returns:
            The titles that are kept at that very revision.
        """
        same: set[str] = set()
        titles = list(revisions)
        for start in range(0, len(titles), BATCH):
            part = titles[start : start + BATCH]
            words = [word for title in part for word in (page_name(source, title), revisions[title])]
            names = [keys.page(owner, source, title) for title in part]
            answers = await self._touch([keys.pages(owner), *names], [now_ms(), *words])
            same |= {title for title, answer in zip(part, answers, strict=True) if answer}
        return same

    async def kept(self, owner: str, source: str, titles: Sequence[str]) -> dict[str, KeptPage]:
        """Those of the pages that were read and not forgotten."""
        pipe = self._redis.pipeline(transaction=False)
        for title in titles:
            pipe.hmget(keys.page(owner, source, title), "revision", "links")
        return {
            title: KeptPage(revision.decode(), tuple(json.loads(zlib.decompress(links))) if links else None)
            for title, (revision, links) in zip(titles, await pipe.execute(), strict=True)
            if revision is not None
        }

    async def keeps_all(self, owner: str, source: str, titles: Sequence[str]) -> bool:
        """Whether every one of these pages was read and none was forgotten."""
        pages = {keys.page(owner, source, title) for title in titles}
        return not pages or int(await self._redis.exists(*pages)) == len(pages)

    async def learn_aliases(self, owner: str, source: str, aliases: Mapping[str, str]) -> None:
        """Remember titles that lead to another page."""
        if aliases:
            await self._redis.hset(keys.aliases(owner, source), mapping=dict[Any, Any](aliases))

    async def aliases(self, owner: str, source: str, titles: Sequence[str]) -> dict[str, str]:
        """Those of the titles that lead to another page, and its own title."""
        if not titles:
            return {}
        found: Any = await self._redis.hmget(keys.aliases(owner, source), list(titles))
        return {title: page.decode() for title, page in zip(titles, found, strict=True) if page is not None}

    async def indexed(self, passages: Sequence[Passage]) -> None:
        """Mark passages as searchable."""
        await self._mark(passages, TEXT)

    async def embedded(self, passages: Sequence[Passage]) -> None:
        """Mark passages as having a dense vector."""
        await self._mark(passages, DENSE)

    async def _mark(self, passages: Sequence[Passage], phase: str) -> None:
        pipe = self._redis.pipeline(transaction=False)
        for passage in passages:
            key = keys.page_bits(passage.owner, passage.source, passage.title, passage.revision, phase)
            pipe.setbit(key, passage.index, 1)
        await pipe.execute()

    async def progress(self, owner: str, source: str, titles: Sequence[str]) -> IndexProgress:
        """How far the current revisions of these pages are indexed. Unknown titles count for nothing."""
        pipe = self._redis.pipeline(transaction=False)
        for title in titles:
            pipe.hmget(keys.page(owner, source, title), "revision", "passages")
        known = [
            (title, revision.decode(), int(count))
            for title, (revision, count) in zip(titles, await pipe.execute(), strict=True)
            if revision is not None
        ]
        pipe = self._redis.pipeline(transaction=False)
        for title, revision, _ in known:
            for phase in (TEXT, DENSE):
                pipe.bitcount(keys.page_bits(owner, source, title, revision, phase))
        bits = await pipe.execute()
        return IndexProgress(
            pages=len(known),
            passages=sum(count for _, _, count in known),
            indexed=sum(min(bits[2 * i], count) for i, (_, _, count) in enumerate(known)),
            embedded=sum(min(bits[2 * i + 1], count) for i, (_, _, count) in enumerate(known)),
        )

    async def cover(self, owner: str, source: str, coverage: Coverage) -> None:
        """Record a finished crawl."""
        await ensure_held()
        stamped = {**asdict(coverage), "ts": now_ms()}
        await self._redis.hset(keys.coverage(owner, source), coverage.topic, json.dumps(stamped))

    async def coverage(self, owner: str, source: str, topic: str) -> Coverage | None:
        """What the latest crawl from ``topic`` covered."""
        raw = await self._redis.hget(keys.coverage(owner, source), topic)
        return Coverage(**json.loads(raw)) if raw is not None else None

    async def save_summary(self, owner: str, source: str, topic: str, summary: dict[str, Any]) -> None:
        """Keep the summary of a topic, with the revision it rests on."""
        await ensure_held()
        await self._redis.hset(keys.summaries(owner, source), topic, json.dumps(summary))

    async def summary(self, owner: str, source: str, topic: str) -> dict[str, Any] | None:
        """The kept summary of a topic."""
        raw = await self._redis.hget(keys.summaries(owner, source), topic)
        found: dict[str, Any] | None = json.loads(raw) if raw is not None else None
        return found

    async def revision(self, owner: str, source: str, title: str) -> str | None:
        """The revision of a page that was last sent for indexing."""
        raw = await self._redis.hget(keys.page(owner, source, title), "revision")
        return raw.decode() if isinstance(raw, bytes) else raw

    async def passage_ids(self, owner: str, source: str, title: str) -> list[str]:
        """Point ids of the passages of a page's latest revision, in order; none when it was never read."""
        revision, count = await self._redis.hmget(keys.page(owner, source, title), "revision", "passages")
        if revision is None or count is None:
            return []
        text = revision.decode() if isinstance(revision, bytes) else revision
        return [passage_id(owner, source, title, text, index) for index in range(int(count))]


def _packed(links: Sequence[str] | None) -> bytes:
    return b"" if links is None else zlib.compress(json.dumps(list(links), ensure_ascii=False).encode())


def _by_page(passages: Iterable[Passage]) -> Iterable[tuple[tuple[str, str, str, str], Iterable[Passage]]]:
    def page(passage: Passage) -> tuple[str, str, str, str]:
        return passage.owner, passage.source, passage.title, passage.revision

    return groupby(sorted(passages, key=page), key=page)
