"""Pruning: stored passages that are superseded, old or too many go, those that a kept answer cites stay.

Nothing is locked. Each batch is looked up first, judged second, removed third. Whoever reads a page again meanwhile
changes the page's record in Redis before it stores passages, and a passage's version when it stores one; what has
changed since the lookup is left alone. A page's record goes before its passages, and what was begun is on the list of
stale readings, so a prune that was cut off is finished by the next.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from memory import keys
from memory.cited import CitedPassages
from memory.library import DENSE, SEPARATOR, TEXT, page_name
from memory.library_scripts import FORGET, IS_STALE, SETTLE
from memory.passages import Seen
from memory.streams import now_ms

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from memory.vectors import VectorStore

Reason = Literal["superseded", "forgotten", "older_than", "max_passages"]

PAGES = 50
"""Pages of one batch: about a thousand passages."""
POINTS = 1_000
"""Passages of one listing."""
SETTLED_MS = 24 * 3600 * 1000
"""A stale reading stays on the list for so long, since some of its passages may still be on their way to the store."""
SURVEY_TTL_S = 30 * 24 * 3600
"""After so long the whole store is gone through again, for what a program older than the lists has put there."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What may stay of an owner's passages."""

    superseded: bool = True
    """Whether passages of a revision go when a newer one was read."""
    older_than_ms: int | None = None
    """Pages that were last read or checked longer ago go."""
    max_passages: int | None = None
    """More than these go, page by page, the one that was read or checked longest ago first."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went of one page at one revision."""

    source: str
    title: str
    revision: str
    reason: Reason
    """``forgotten``: what was left of a page that an earlier prune took."""
    passages: int
    """How many went."""
    cited: int
    """How many stay because kept answers cite them."""


class Reading(NamedTuple):
    """A page at one revision."""

    source: str
    title: str
    revision: str
    ms: int
    """Since when it is stale, or when it was read: what must not have changed."""

    @property
    def name(self) -> str:
        """As ``keys.stale`` lists it."""
        return f"{page_name(self.source, self.title)}{SEPARATOR}{self.revision}"

    def keys(self, owner: str) -> list[str]:
        """The page and the reading's progress."""
        bits = (keys.page_bits(owner, self.source, self.title, self.revision, phase) for phase in (TEXT, DENSE))
        return [keys.page(owner, self.source, self.title), *bits]


@dataclass(slots=True)
class _Found:
    """What is stored of a reading."""

    free: list[Seen]
    cited: int


class Pruner:
    """Prunes one owner's passages at a time. Several at once take nothing twice."""

    def __init__(self, redis: Redis, vectors: VectorStore) -> None:
        self._redis, self._vectors = redis, vectors
        self._cited = CitedPassages(redis)
        self._forget = redis.register_script(FORGET)
        self._is_stale = redis.register_script(IS_STALE)
        self._settle = redis.register_script(SETTLE)

    async def prune(self, owner: str, limits: Limits, *, dry_run: bool = False) -> AsyncGenerator[list[Pruned], None]:
        """Prune, batch by batch; each batch is gone when it is yielded, or would be in a dry run.

        Both kinds of run first complete the lists that this rests on, for what was stored before they were kept.

        Args:
            owner: Whose passages.
            limits: What may stay.
            dry_run: Remove nothing.
        """
        await self._cited.catch_up(owner)
        await self._survey(owner)
        gone = 0
        async for batch in self._prune_stale(owner, limits, dry_run):
            gone += sum(one.passages for one in batch)
            yield batch
        # What is read from now on is left alone, or a prune beside a crawl would go on for as long as that.
        began, aged = now_ms(), 0
        if limits.older_than_ms is not None:
            before = began - limits.older_than_ms
            async for batch in self._prune_pages(owner, "older_than", dry_run, before=before):
                gone += sum(one.passages for one in batch)
                yield batch
            aged = int(await self._redis.zcount(keys.pages(owner), "-inf", f"({before}")) if dry_run else 0
        if limits.max_passages is not None:
            excess = await self._vectors.count({"owner": owner}) - limits.max_passages - (gone if dry_run else 0)
            how: dict[str, Any] = {"before": began + 1, "excess": excess, "start": aged}
            async for batch in self._prune_pages(owner, "max_passages", dry_run, **how):
                yield batch

    async def unsettled(self, owner: str) -> int:
        """Stale readings that are looked at again, for passages that may still be on their way."""
        return int(await self._redis.zcount(keys.stale(owner), now_ms() - SETTLED_MS, "+inf"))

    async def _prune_stale(self, owner: str, limits: Limits, dry_run: bool) -> AsyncGenerator[list[Pruned], None]:
        place = 0
        while True:
            rows: Any = await self._redis.zrange(keys.stale(owner), place, place + PAGES - 1, withscores=True)
            if not rows:
                return
            readings = [_reading(name.decode(), int(score)) for name, score in rows]
            found = await self._stored(owner, readings)
            current = await self._revisions(owner, readings)
            batch: list[Pruned] = []
            settled: list[Reading] = []
            for reading, revision in zip(readings, current, strict=True):
                one = found[reading]
                if revision == reading.revision:
                    settled.append(reading)
                elif limits.superseded or revision is None:
                    if dry_run or await self._is_stale(reading.keys(owner), [reading.revision]):
                        reason: Reason = "forgotten" if revision is None else "superseded"
                        batch += await self._taken(reading, one, reason, dry_run)
                    if not one.free and not one.cited and reading.ms < now_ms() - SETTLED_MS:
                        settled.append(reading)
            place += len(rows)
            if not dry_run:
                for reading in settled:
                    place -= int(await self._settle([keys.stale(owner)], [reading.name, reading.ms]))
            if batch:
                yield batch

    async def _prune_pages(
        self,
        owner: str,
        reason: Reason,
        dry_run: bool,
        *,
        before: int,
        excess: int | None = None,
        start: int = 0,
    ) -> AsyncGenerator[list[Pruned], None]:
        """Pages read before a time, longest ago first: all of them, or until ``excess`` passages went."""
        while excess is None or excess > 0:
            rows: Any = await self._redis.zrangebyscore(
                keys.pages(owner), "-inf", f"({before}", start, PAGES, withscores=True
            )
            if not rows:
                return
            names = [(*name.decode().split(SEPARATOR, 1), int(score)) for name, score in rows]
            pages = [Reading(source, title, "", read) for source, title, read in names]
            current = await self._revisions(owner, pages)
            readings = [page._replace(revision=rev) for page, rev in zip(pages, current, strict=True) if rev]
            found = await self._stored(owner, readings)
            chosen: list[Reading] = []
            for reading in readings:
                if found[reading].free and (excess is None or excess > 0):
                    chosen.append(reading)
                    excess = None if excess is None else excess - len(found[reading].free)
            gone = chosen if dry_run else await self._forgotten(owner, chosen)
            batch = [one for reading in gone for one in await self._taken(reading, found[reading], reason, dry_run)]
            if excess is not None:  # what was read again meanwhile has not gone
                excess += sum(len(found[reading].free) for reading in chosen) - sum(one.passages for one in batch)
            start += len(rows) - (0 if dry_run else len(gone))
            if batch:
                yield batch

    async def _taken(self, reading: Reading, found: _Found, reason: Reason, dry_run: bool) -> list[Pruned]:
        """Remove the passages of a reading that nobody cites; empty when none went."""
        count = len(found.free) if dry_run else len(await self._vectors.drop(found.free))
        pruned = Pruned(reading.source, reading.title, reading.revision, reason, count, found.cited)
        return [pruned] if count else []

    async def _forgotten(self, owner: str, readings: Sequence[Reading]) -> list[Reading]:
        """Drop the records of pages, so that no crawl counts on them; those that were read meanwhile stay."""
        if not readings:
            return []
        names = [key for reading in readings for key in reading.keys(owner)]
        words = [word for r in readings for word in (page_name(r.source, r.title), r.revision, r.ms)]
        gone = await self._forget([keys.pages(owner), keys.stale(owner), *names], [now_ms(), *words])
        return [reading for reading, went in zip(readings, gone, strict=True) if went]

    async def _revisions(self, owner: str, readings: Sequence[Reading]) -> list[str | None]:
        """The revision at which each page is kept now."""
        pipe = self._redis.pipeline(transaction=False)
        for reading in readings:
            pipe.hget(keys.page(owner, reading.source, reading.title), "revision")
        return [revision and revision.decode() for revision in await pipe.execute()]

    async def _stored(self, owner: str, readings: Sequence[Reading]) -> dict[Reading, _Found]:
        """What the store has of each reading, and what of it is cited."""
        found = {reading: _Found([], 0) for reading in readings}
        by_name = {reading.name: reading for reading in readings}
        for source in {reading.source for reading in readings}:
            wanted = [reading for reading in readings if reading.source == source]
            where = {
                "owner": owner,
                "source": source,
                "title": sorted({reading.title for reading in wanted}),
                "revision": sorted({reading.revision for reading in wanted}),
            }
            after: str | None = None
            while True:
                points, after = await self._vectors.listing(where, limit=POINTS, after=after)
                cited = await self._cited.among(owner, [point.id for point in points])
                for point in points:
                    reading = by_name.get(_name(point))
                    if reading is not None and point.id in cited:
                        found[reading].cited += 1
                    elif reading is not None:
                        found[reading].free.append(point)
                if after is None:
                    break
        return found

    async def _survey(self, owner: str) -> None:
        """Go once through the store for what was there before the lists of pages and of stale readings were kept."""
        mark: Any = await self._redis.get(keys.survey(owner))
        if mark == b"done":
            return
        after = mark.decode() if mark else None
        while True:
            points, after = await self._vectors.listing({"owner": owner}, limit=POINTS, after=after)
            readings = [_reading(name, 0) for name in {_name(point) for point in points} if name]
            current = await self._revisions(owner, readings)
            now, pipe = now_ms(), self._redis.pipeline(transaction=False)
            for reading, revision in zip(readings, current, strict=True):
                if revision == reading.revision:
                    pipe.zadd(keys.pages(owner), {page_name(reading.source, reading.title): now}, nx=True)
                elif revision is not None:  # a page of which nothing is known may be somebody else's: it stays
                    pipe.zadd(keys.stale(owner), {reading.name: now}, nx=True)
            pipe.set(keys.survey(owner), after or "done", ex=SURVEY_TTL_S)
            await pipe.execute()
            if after is None:
                return


def _reading(name: str, ms: int) -> Reading:
    page, _, revision = name.rpartition(SEPARATOR)
    source, _, title = page.partition(SEPARATOR)
    return Reading(source, title, revision, ms)


def _name(point: Seen) -> str:
    """The reading that a record belongs to; empty where it is no passage."""
    parts = [point.payload.get(key) for key in ("source", "title", "revision")]
    return SEPARATOR.join(map(str, parts)) if all(isinstance(part, str) for part in parts) else ""
