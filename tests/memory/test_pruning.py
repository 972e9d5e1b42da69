"""Pruning on a real Redis and both engines of the vector store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from memory import keys
from memory.conversations import Conversations, Message
from memory.indexer import Indexer
from memory.library import Coverage, Library, ReadPage
from memory.passages import Passage, Record, Seen
from memory.pruning import SETTLED_MS, Limits, Pruned, Pruner
from memory.qdrant_edge_store import QdrantEdgeStore
from memory.qdrant_server_store import QdrantServerStore
from memory.streams import Delivered, Event, now_ms
from memory.vectors import VectorStore

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant:UserWarning")

Redis = Any
"""The stubs of redis-py give every reply as a union of all protocols' shapes."""
DAY_MS = 24 * 3600 * 1000
INDEXES = ("owner", "source", "title", "revision")


class OneVector:
    dimensions = 4

    async def encode(self, texts: Sequence[str], *, query: bool = False) -> Any:
        return np.full((len(texts), 4), 0.5, np.float32)


@pytest.fixture(params=["edge", "server"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[VectorStore]:
    opened: VectorStore
    if request.param == "edge":
        opened = await QdrantEdgeStore.open(tmp_path / "p", dimensions=4, model="m", payload_indexes=INDEXES)
    else:
        client = AsyncQdrantClient(":memory:")
        opened = await QdrantServerStore.open(
            client, "p", url=":memory:", dimensions=4, model="m", payload_indexes=INDEXES
        )
    yield opened
    await opened.aclose()


def passages(title: str, revision: str = "1", count: int = 3, owner: str = "ada") -> list[Passage]:
    return [
        Passage(owner, "wiki", title, f"http://w/{title}", revision, (), f"{title} {revision} part {n}.", 0, 9, n)
        for n in range(count)
    ]


class Memory:
    """What a crawl and the indexer do, without the streams between them."""

    def __init__(self, redis: Redis, store: VectorStore) -> None:
        self.redis, self.store = redis, store
        self.library = Library(redis)
        self.indexer = Indexer(store, OneVector(), self.library)

    async def read(self, title: str, revision: str = "1", *, days_ago: float = 0, **how: Any) -> list[Passage]:
        found = passages(title, revision, **how)
        await self.library.expect(found)
        await self.index(found)
        if days_ago:
            owner = found[0].owner
            await self.redis.zadd(keys.pages(owner), {f"wiki\x1f{title}": now_ms() - int(days_ago * DAY_MS)})
        return found

    async def index(self, found: Sequence[Passage]) -> None:
        event = Event("passages.add", {"passages": [passage.to_dict() for passage in found]})
        await self.indexer.handle([Delivered("1-1", event)])

    async def cite(self, *found: Passage, owner: str = "ada") -> str:
        conversations = Conversations(self.redis)
        id_ = (await conversations.create(owner)).id
        citations = [{"number": n, "passage_id": passage.id} for n, passage in enumerate(found, 1)]
        await conversations.append(owner, id_, [Message("assistant", "So it is [1].", {"citations": citations})])
        return id_

    async def prune(self, *, dry_run: bool = False, owner: str = "ada", **limits: Any) -> list[Pruned]:
        pruner = Pruner(self.redis, self.store)
        return [one async for batch in pruner.prune(owner, Limits(**limits), dry_run=dry_run) for one in batch]

    async def left(self, owner: str = "ada") -> list[str]:
        points, _ = await self.store.listing({"owner": owner}, limit=1_000)
        return sorted(f"{p.payload['title']}@{p.payload['revision']}#{p.payload['index']}" for p in points)


@pytest.fixture
def memory(redis: Redis, store: VectorStore) -> Memory:
    return Memory(redis, store)


def told(pruned: Sequence[Pruned]) -> list[tuple[str, str, str, int, int]]:
    return sorted((one.title, one.revision, one.reason, one.passages, one.cited) for one in pruned)


async def test_only_what_a_newer_revision_superseded_goes_by_itself(memory: Memory) -> None:
    await memory.read("A", "1")
    await memory.read("B", "1", days_ago=900)
    await memory.read("A", "2", count=2)
    await memory.read("A", "1", owner="bob")
    assert told(await memory.prune()) == [("A", "1", "superseded", 3, 0)]
    assert await memory.left() == ["A@2#0", "A@2#1", "B@1#0", "B@1#1", "B@1#2"]
    assert len(await memory.left("bob")) == 3
    assert await memory.prune() == []
    progress = await memory.library.progress("ada", "wiki", ["A", "B"])
    assert (progress.pages, progress.passages, progress.indexed) == (2, 5, 5)


async def test_superseded_revisions_stay_when_asked(memory: Memory) -> None:
    await memory.read("A", "1")
    await memory.read("A", "2")
    assert await memory.prune(superseded=False) == []
    assert len(await memory.left()) == 6


async def test_a_page_that_came_back_to_an_earlier_revision_keeps_that(memory: Memory) -> None:
    for revision in ("1", "2", "1"):
        await memory.read("A", revision)
    assert told(await memory.prune()) == [("A", "2", "superseded", 3, 0)]
    assert await memory.left() == ["A@1#0", "A@1#1", "A@1#2"]


async def test_old_pages_go_whole_and_are_no_longer_counted_on(memory: Memory) -> None:
    await memory.read("Old", days_ago=31)
    await memory.read("New", days_ago=29)
    await memory.library.cover("ada", "wiki", Coverage("Old", ["Old", "New"], 1, 2, False))
    assert await memory.library.keeps_all("ada", "wiki", ["Old", "New"])
    assert told(await memory.prune(older_than_ms=30 * DAY_MS)) == [("Old", "1", "older_than", 3, 0)]
    assert await memory.left() == ["New@1#0", "New@1#1", "New@1#2"]
    assert not await memory.library.keeps_all("ada", "wiki", ["Old", "New"])
    assert (await memory.library.progress("ada", "wiki", ["Old", "New"])).pages == 1
    assert await memory.library.passage_ids("ada", "wiki", "Old") == []


async def test_a_page_that_was_checked_lately_is_not_old(memory: Memory) -> None:
    await memory.read("A", days_ago=31)
    await memory.read("B", days_ago=31)
    assert await memory.library.touch("ada", "wiki", {"A": "1", "B": "2", "C": "1"}) == {"A"}
    assert told(await memory.prune(older_than_ms=30 * DAY_MS)) == [("B", "1", "older_than", 3, 0)]


async def test_the_quota_takes_the_pages_read_longest_ago(memory: Memory) -> None:
    for days_ago, title in ((1, "D"), (4, "A"), (2, "C"), (3, "B")):
        await memory.read(title, days_ago=days_ago)
    await memory.read("A", owner="bob", days_ago=99)
    assert await memory.prune(max_passages=12) == []
    assert told(await memory.prune(max_passages=7)) == [
        ("A", "1", "max_passages", 3, 0),
        ("B", "1", "max_passages", 3, 0),
    ]
    assert await memory.left() == [f"{title}@1#{n}" for title in "CD" for n in range(3)]
    assert len(await memory.left("bob")) == 3


async def test_what_a_kept_answer_cites_stays_until_the_answer_is_gone(memory: Memory) -> None:
    old = await memory.read("A", "1")
    await memory.read("A", "2", days_ago=40)
    await memory.cite(*await memory.read("B", days_ago=50, count=1))
    conversation = await memory.cite(old[1], passages("A", "2")[0])
    limits: dict[str, Any] = {"older_than_ms": 30 * DAY_MS, "max_passages": 1}
    assert told(await memory.prune(**limits)) == [("A", "1", "superseded", 2, 1), ("A", "2", "older_than", 2, 1)]
    assert await memory.left() == ["A@1#1", "A@2#0", "B@1#0"]
    assert await memory.prune(**limits) == []
    assert await memory.library.keeps_all("ada", "wiki", ["B"]), "a page of which nothing went is still there"
    await Conversations(memory.redis).delete("ada", conversation)
    assert told(await memory.prune(**limits)) == [("A", "1", "forgotten", 1, 0), ("A", "2", "forgotten", 1, 0)]
    assert await memory.left() == ["B@1#0"]


async def test_another_owners_answer_keeps_nothing(memory: Memory) -> None:
    old = await memory.read("A", "1")
    await memory.read("A", "2")
    await memory.cite(*old, owner="bob")
    assert told(await memory.prune()) == [("A", "1", "superseded", 3, 0)]


async def test_answers_stored_before_citations_were_noted_are_safe(memory: Memory) -> None:
    old = await memory.read("A", "1")
    await memory.read("A", "2")
    first, second = await memory.cite(old[0]), await memory.cite(old[1])
    await memory.redis.delete(keys.cited("ada"))
    for id_ in (first, second):
        await memory.redis.hdel(keys.conversation("ada", id_)[0], "cited")
    await Conversations(memory.redis).append("ada", second, [Message("user", "And then?")])
    assert told(await memory.prune()) == [("A", "1", "superseded", 1, 2)]
    assert await memory.redis.hget(keys.conversation("ada", second)[0], "cited") == b"2"


async def test_a_turn_that_was_trimmed_or_has_expired_keeps_nothing(memory: Memory) -> None:
    old = await memory.read("A", "1")
    await memory.read("A", "2")
    short = Conversations(memory.redis, max_turns=1)
    id_ = (await short.create("ada")).id
    for passage in old[:2]:
        await short.append("ada", id_, [Message("assistant", "x", {"citations": [{"passage_id": passage.id}]})])
    expired = await memory.cite(old[2])
    await memory.redis.delete(*keys.conversation("ada", expired))
    assert told(await memory.prune()) == [("A", "1", "superseded", 2, 1)]
    assert await memory.redis.zcard(keys.cited("ada")) == 1


@pytest.mark.parametrize("citations", [None, 7, {"passage_id": "x"}, [None, 3, "x", {}, {"passage_id": ["x"]}]])
async def test_odd_citations_are_stored_and_keep_nothing(memory: Memory, citations: Any) -> None:
    conversations = Conversations(memory.redis)
    id_ = (await conversations.create("ada")).id
    metadata = {"citations": [*citations, {"passage_id": "a b 3"}] if isinstance(citations, list) else citations}
    [turn] = await conversations.append("ada", id_, [Message("assistant", "x", metadata)])
    assert turn.metadata == metadata
    assert not await memory.redis.exists(keys.cited("ada"))


async def test_a_dry_run_says_exactly_what_would_go(memory: Memory) -> None:
    await memory.cite((await memory.read("A", "1"))[2])
    await memory.read("A", "2", days_ago=40)
    for days_ago, title in ((50, "B"), (3, "C"), (2, "D"), (1, "E")):
        await memory.read(title, days_ago=days_ago)
    before = await memory.left()
    limits: dict[str, Any] = {"older_than_ms": 30 * DAY_MS, "max_passages": 4}
    would = await memory.prune(dry_run=True, **limits)
    assert await memory.left() == before
    assert told(await memory.prune(dry_run=True, **limits)) == told(would)
    assert [one.reason for one in would] == ["superseded", "older_than", "older_than", "max_passages", "max_passages"]
    assert await memory.prune(**limits) == would
    assert await memory.left() == ["A@1#2", *(f"E@1#{n}" for n in range(3))]


class Interleaved:
    """A store in which something else happens between a look and a removal."""

    def __init__(self, store: VectorStore, meanwhile: Any) -> None:
        self._store, self._meanwhile = store, meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def drop(self, seen: Sequence[Seen]) -> set[str]:
        await self._meanwhile()
        return await self._store.drop(seen)


@pytest.mark.parametrize("limits", [{"older_than_ms": 30 * DAY_MS}, {"max_passages": 1}, {}])
async def test_a_passage_that_is_read_again_during_the_prune_survives(memory: Memory, limits: dict[str, Any]) -> None:
    await memory.read("A", "1", days_ago=40)
    if not limits:
        await memory.read("A", "2")

    async def read_again() -> None:
        await memory.read("A", "1")

    pruner = Pruner(memory.redis, Interleaved(memory.store, read_again))
    assert [one async for batch in pruner.prune("ada", Limits(**limits)) for one in batch] == []
    assert [left for left in await memory.left() if left.startswith("A@1")] == ["A@1#0", "A@1#1", "A@1#2"]
    progress = await memory.library.progress("ada", "wiki", ["A"])
    assert (progress.passages, progress.indexed) == (3, 3)
    await memory.prune()
    assert await memory.left() == ["A@1#0", "A@1#1", "A@1#2"]


async def test_pages_that_are_read_again_beside_a_prune_are_whole_afterwards(memory: Memory) -> None:
    titles = [f"T{number:02}" for number in range(30)]
    for title in titles:
        await memory.read(title, days_ago=40)
    begun = asyncio.Event()

    async def crawl() -> None:
        for number, title in enumerate(titles):
            await memory.read(title)
            if number == 3:
                begun.set()

    async def prune() -> None:
        await begun.wait()
        await memory.prune(older_than_ms=30 * DAY_MS)

    await asyncio.gather(crawl(), prune())
    assert await memory.left() == [f"{title}@1#{n}" for title in titles for n in range(3)]
    progress = await memory.library.progress("ada", "wiki", titles)
    assert (progress.pages, progress.passages, progress.indexed) == (30, 90, 90)


class Killed(Exception):
    pass


async def test_a_prune_that_was_cut_off_is_finished_by_the_next(memory: Memory) -> None:
    for title in "ABC":
        await memory.read(title, days_ago=40)
    calls = 0

    async def die_at_the_second() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Killed

    pruner = Pruner(memory.redis, Interleaved(memory.store, die_at_the_second))
    with pytest.raises(Killed):
        _ = [batch async for batch in pruner.prune("ada", Limits(older_than_ms=30 * DAY_MS))]
    assert len(await memory.left()) == 6
    assert {one.reason for one in await memory.prune(older_than_ms=30 * DAY_MS)} == {"forgotten"}
    assert await memory.left() == []


async def test_passages_that_arrive_after_their_page_was_pruned_go_with_the_next(memory: Memory) -> None:
    await memory.read("A", "1")
    late = passages("A", "1", count=5)[3:]
    await memory.read("A", "2")
    await memory.prune()
    await memory.index(late)
    assert told(await memory.prune()) == [("A", "1", "superseded", 2, 0)]
    name = await memory.redis.zrange(keys.stale("ada"), 0, -1)
    assert name == [b"wiki\x1fA\x1f1"]
    await memory.redis.zadd(keys.stale("ada"), {name[0]: now_ms() - SETTLED_MS - 1000})
    assert await memory.prune() == []
    assert not await memory.redis.exists(keys.stale("ada"))


async def test_what_was_stored_before_the_lists_were_kept_is_found(memory: Memory) -> None:
    await memory.read("A", "1")
    await memory.read("A", "2")
    await memory.store.upsert([Record(passages("X")[0].id, "x", {"owner": "ada", "note": "somebody else's"})])
    await memory.index(passages("Unknown page"))
    await memory.redis.delete(keys.pages("ada"), keys.stale("ada"), keys.survey("ada"))
    assert told(await memory.prune(older_than_ms=DAY_MS, max_passages=100)) == [("A", "1", "superseded", 3, 0)]
    assert await memory.redis.zrange(keys.pages("ada"), 0, -1) == [b"wiki\x1fA"], "its age counts from now"
    assert await memory.store.count({"owner": "ada"}) == 7


async def test_many_pages_are_pruned_in_batches(memory: Memory) -> None:
    everything = [passage for n in range(130) for passage in passages(f"T{n:03}", count=2)]
    await memory.library.expect(everything)
    await memory.index(everything)
    await memory.library.expect_pages("ada", "wiki", [ReadPage(f"T{n:03}", "2", 0) for n in range(120)])
    pruner = Pruner(memory.redis, memory.store)
    batches = [batch async for batch in pruner.prune("ada", Limits())]
    assert len(batches) > 1
    assert sum(one.passages for batch in batches for one in batch) == 240
    assert await memory.store.count({"owner": "ada"}) == 20
