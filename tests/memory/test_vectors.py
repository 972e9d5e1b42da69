"""The same cases on both engines: Qdrant inside the process, and qdrant-client, whose local mode stands for a server,
once called directly and once over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient, QdrantClient

from deploy.stand_ins.qdrant import create_app
from memory.bm25 import Bm25Encoder
from memory.passages import Record
from memory.qdrant_edge_store import QdrantEdgeStore
from memory.qdrant_server_store import QdrantServerStore
from memory.vectors import (
    Search,
    VectorStore,
    VectorStoreError,
    VectorStoreHeld,
    VectorStoreMismatch,
    VectorStoreUnavailable,
    open_vectors,
    ranked,
)

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant:UserWarning")

DIMENSIONS = 32
ROOT = Path(__file__).parents[2]

TEXTS = [
    "Bees\nBees collect nectar and make honey from it.",
    "Bees\nA queen bee may live for five years.",
    "Volcanoes\nMagma rises through a volcano and cools to basalt.",
    "Volcanoes\nThe volcano above the town last erupted in 1902.",
    "Bridges\nThe bridge across the strait hangs from steel cables.",
    "Bridges\nEngineers closed the bridge when the cables rusted.",
]


def point_id(text: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, text))


def record(text: str, owner: str = "ada", **payload: object) -> Record:
    return Record(point_id(owner + text), text, {"owner": owner, "title": text.split("\n")[0], **payload})


def embedding(text: str) -> NDArray[np.float32]:
    """A bag of hashed words, length 1: near when words are shared."""
    vector = np.full(DIMENSIONS, 1e-3, np.float32)
    for word in text.lower().replace(".", "").split():
        vector[int(hashlib.sha256(word.encode()).hexdigest(), 16) % DIMENSIONS] += 1
    return vector / np.linalg.norm(vector).astype(np.float32)


def embeddings(texts: list[str]) -> NDArray[np.float32]:
    return np.stack([embedding(text) for text in texts])


Opened = Callable[[str], Awaitable[VectorStore]]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    stores: list[VectorStore] = []

    async def open_engine(engine: str) -> VectorStore:
        store: VectorStore
        if engine == "edge":
            store = await QdrantEdgeStore.open(
                tmp_path / "passages", dimensions=DIMENSIONS, model="words", payload_indexes=["owner", "title"]
            )
        else:
            client = AsyncQdrantClient(":memory:") if engine == "server" else over_http()
            store = await QdrantServerStore.open(
                client,
                "passages",
                url=":memory:",
                dimensions=DIMENSIONS,
                model="words",
                payload_indexes=["owner", "title"],
            )
        stores.append(store)
        return store

    yield open_engine
    for store in stores:
        await store.aclose()


def over_http() -> AsyncQdrantClient:
    transport = httpx.ASGITransport(create_app())
    return AsyncQdrantClient("http://qdrant", check_compatibility=False, transport=transport)


@pytest.fixture(params=["edge", "server", "http"])
async def store(request: pytest.FixtureRequest, opened: Opened) -> VectorStore:
    return await opened(request.param)


async def embed_all(store: VectorStore) -> None:
    records = await store.pending(100)
    await store.set_dense([r.id for r in records], embeddings([r.text for r in records]))


async def test_record_is_found_by_its_words_before_it_has_a_dense_vector(store: VectorStore) -> None:
    assert set(await store.upsert(map(record, TEXTS))) == {record(text).id for text in TEXTS}

    hits = await store.search("Where does honey come from?", limit=3)

    assert [hit.record for hit in hits] == [record(TEXTS[0])]
    assert hits[0].score > 0


async def test_dense_search_finds_only_embedded_records(store: VectorStore) -> None:
    await store.upsert(map(record, TEXTS))
    ids = [record(text).id for text in TEXTS[:2]]
    await store.set_dense(ids, embeddings(TEXTS[:2]))

    hits = await store.search("", dense=embedding("bees make honey"), limit=10, mode="dense")

    assert [hit.record.id for hit in hits] == ids
    assert hits[0].score == pytest.approx(float(embedding("bees make honey") @ embedding(TEXTS[0])), abs=1e-4)


async def test_hybrid_puts_what_both_searches_like_first(store: VectorStore) -> None:
    await store.upsert(map(record, TEXTS))
    await embed_all(store)
    question = "when did the volcano erupt"

    hits = await store.search(question, dense=embedding(question), limit=6)

    assert hits[0].record == record(TEXTS[3])
    assert len(hits) == 6
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


async def test_where_keeps_owners_apart(store: VectorStore) -> None:
    await store.upsert([record(text, owner) for text in TEXTS for owner in ("ada", "bob", "cy")])
    await embed_all(store)
    question = "honey bees"
    for mode in ("hybrid", "dense", "sparse"):
        hits = await store.search(question, dense=embedding(question), where={"owner": "bob"}, limit=50, mode=mode)
        assert {hit.record.payload["owner"] for hit in hits} == {"bob"}

    both = {"owner": ["ada", "cy"], "title": "Bees"}
    hits = await store.search(question, dense=embedding(question), where=both, limit=50)
    assert {(hit.record.payload["owner"], hit.record.payload["title"]) for hit in hits} == {
        ("ada", "Bees"),
        ("cy", "Bees"),
    }
    assert await store.search(question, where={"owner": []}) == []
    assert await store.count({"owner": "bob"}) == 6
    assert await store.count({"owner": "nobody"}) == 0


async def test_searches_made_together_find_what_they_find_alone(store: VectorStore) -> None:
    await store.upsert([record(text, owner) for text in TEXTS for owner in ("ada", "bob")])
    mine = [record(text) for text in TEXTS[:4]]
    await store.set_dense([one.id for one in mine], embeddings(TEXTS[:4]))
    meaning, where = embedding("honey bees"), {"owner": "ada"}
    searches = [
        Search("honey bees", meaning, where, 3, "dense"),
        Search("the volcano erupted", None, where, 2, "sparse"),
        Search("of the", None, where, 5, "sparse"),  # nothing to search by
        Search("honey bees", meaning, where, 0, "dense"),
        Search("cables", meaning, {"owner": ["ada", "bob"]}, 4),
    ]

    together, waiting = await store.search_together(searches, waiting=where)

    alone = [
        await store.search(one.text, dense=one.dense, where=one.where, limit=one.limit, mode=one.mode)
        for one in searches
    ]
    assert together == alone
    assert [len(hits) for hits in together] == [3, 2, 0, 0, 4]
    assert waiting == len(TEXTS) - 4
    assert await store.search_together([]) == ([], 2 * len(TEXTS) - 4)
    with pytest.raises(ValueError, match="needs the embedding"):
        await store.search_together([Search("honey", mode="dense")])


async def test_what_was_found_before_is_found_as_it_was_written_last(store: VectorStore) -> None:
    await store.upsert(map(record, TEXTS))
    await embed_all(store)

    async def found(text: str) -> list[Record]:
        return [hit.record for hit in await store.search(text, where={"owner": "ada"}, limit=2)]

    assert await found("honey") == [record(TEXTS[0])]
    moved = record(TEXTS[0], revision="2")  # the same text
    await store.upsert([moved])
    assert await found("honey") == [moved]
    other = Record(moved.id, "Bees\nHoney keeps for years.", moved.payload)
    await store.upsert([other])
    assert await found("honey") == [other]
    await store.delete(ids=[other.id])
    assert await found("honey") == []
    await store.upsert([moved])
    assert await found("honey") == [moved]
    [seen], _ = await store.listing({"owner": "ada", "revision": "2"}, limit=1)
    assert await store.drop([seen]) == {moved.id}
    assert await found("honey") == []
    await store.delete({"owner": "ada"})
    assert await found("volcano") == []


async def test_pending_shrinks_as_vectors_arrive(store: VectorStore) -> None:
    await store.upsert(map(record, TEXTS))
    assert len(await store.pending(4)) == 4
    assert await store.pending(0) == []
    first = (await store.pending(100))[0]

    assert await store.set_dense([first.id], embeddings([first.text])) == [first.id]

    assert first not in await store.pending(100)
    assert (await store.count(embedded=True), await store.count(embedded=False)) == (1, 5)
    assert await store.count({"owner": "ada"}, embedded=False) == 5
    assert await store.get([first.id]) == [first]


async def test_unchanged_record_keeps_its_vector_and_changed_text_loses_it(store: VectorStore) -> None:
    await store.upsert(map(record, TEXTS))
    await embed_all(store)
    kept = record(TEXTS[0], revision="2")
    changed = Record(record(TEXTS[1]).id, "Bees\nDrones have no sting.", record(TEXTS[1]).payload)

    assert await store.upsert([kept, changed, record(TEXTS[2])]) == [changed.id]

    assert await store.pending(100) == [changed]
    assert await store.get([kept.id]) == [kept]
    assert await store.count() == len(TEXTS)
    found = await store.search("", dense=embedding(TEXTS[1]), mode="dense", limit=10)
    assert changed.id not in {hit.record.id for hit in found}
    assert [hit.record for hit in await store.search("queen")] == []
    assert [hit.record for hit in await store.search("drones")] == [changed]


async def test_upsert_of_nothing_and_of_the_same_id_twice(store: VectorStore) -> None:
    assert await store.upsert([]) == []
    later = Record(record(TEXTS[0]).id, "Bees\nWasps are not bees.", {"owner": "ada"})
    assert await store.upsert([record(TEXTS[0]), later]) == [later.id]
    assert await store.get([later.id]) == [later]
    assert await store.upsert([later]) == [later.id]  # unchanged, and still without its vector


async def test_vectors_for_vanished_or_changed_records_are_passed_over(store: VectorStore) -> None:
    await store.upsert(map(record, TEXTS[:3]))
    ids = [record(text).id for text in TEXTS[:3]]
    await store.delete(ids=[ids[0]])
    await store.upsert([Record(ids[1], "Bees\nNew text.", record(TEXTS[1]).payload)])

    assert await store.set_dense(ids, embeddings(TEXTS[:3]), texts=TEXTS[:3]) == [ids[2]]

    assert [r.id for r in await store.pending(10)] == [ids[1]]
    assert await store.set_dense([], np.zeros((0, DIMENSIONS), np.float32)) == []
    with pytest.raises(ValueError, match=r"\(1, 32\)"):
        await store.set_dense(ids[1:2], np.zeros((1, 8), np.float32))


async def test_delete_by_filter_and_by_id(store: VectorStore) -> None:
    await store.upsert([record(text, owner) for text in TEXTS for owner in ("ada", "bob")])
    assert await store.delete({"owner": "ada", "title": ["Bees", "Bridges"]}) == 4
    assert await store.delete(ids=[record(TEXTS[2]).id, point_id("never there")]) == 1
    assert await store.delete(ids=[]) == 0
    assert await store.count({"owner": "ada"}) == 1
    assert await store.count() == 7
    with pytest.raises(ValueError, match="say what to delete"):
        await store.delete({})
    with pytest.raises(ValueError, match="say what to delete"):
        await store.delete()


async def test_text_without_words_can_be_stored_and_asked(store: VectorStore) -> None:
    odd = Record(point_id("odd"), "???", {"owner": "ada", "section": ["a", "b"], "start": 3})
    await store.upsert([odd, record(TEXTS[0])])
    assert await store.get([odd.id]) == [odd]
    assert await store.search("of the", limit=5) == []
    await embed_all(store)
    assert len(await store.search("of the", dense=embedding("honey"), limit=5)) == 2
    with pytest.raises(ValueError, match="needs the embedding"):
        await store.search("honey", mode="dense")


def test_equal_scores_are_settled_by_id_at_the_cut_too() -> None:
    points = [SimpleNamespace(id=one, score=score) for one, score in [(7, 0.5), (3, 0.9), (9, 0.1), (2, 0.5), (5, 0.5)]]
    assert ranked(points, 2, lambda point: point.id) == [(3, 0.9), (2, 0.5)]
    assert ranked(points, 9, lambda point: point.id) == [(3, 0.9), (2, 0.5), (5, 0.5), (7, 0.5), (9, 0.1)]
    assert ranked(points, 0, lambda point: point.id) == []
    assert ranked(points[:0], 2, lambda point: point.id) == []


async def test_both_engines_give_the_same_answers(opened: Opened) -> None:
    rng = np.random.default_rng(7)
    words = [f"word{n}" for n in range(60)]
    # Each has a length of its own: equal BM25 scores would be ranked by each engine's own order before the fusion.
    texts = [" ".join(rng.choice(words, length)) for length in range(20, 140)]
    dense = rng.standard_normal((len(texts), DIMENSIONS)).astype(np.float32)
    asked = rng.standard_normal((15, DIMENSIONS)).astype(np.float32)
    questions = [" ".join(rng.choice(words, 4)) for _ in range(15)]
    answers = []
    for engine in ("edge", "server"):
        store = await opened(engine)
        await store.upsert(record(text, "ada" if n % 3 else "bob") for n, text in enumerate(texts))
        embedded = [n for n in range(len(texts)) if n % 4]
        await store.set_dense([record(texts[n], "ada" if n % 3 else "bob").id for n in embedded], dense[embedded])
        answers.append(
            [
                await store.search(question, dense=vector, where={"owner": "ada"}, limit=8)
                for question, meaning in zip(questions, asked, strict=True)
                for vector in (meaning, None)
            ]
        )
    for ours, theirs in zip(*answers, strict=True):
        assert [hit.record.id for hit in ours] == [hit.record.id for hit in theirs]
        assert [hit.score for hit in ours] == pytest.approx([hit.score for hit in theirs], abs=1e-4)


def test_documents_and_queries_are_weighted_differently() -> None:
    encoder = Bm25Encoder()
    document, query = encoder.document("honey honey bees"), encoder.query("honey honey bees")
    assert set(document.indices) == set(query.indices)
    assert set(query.values) == {1.0}
    assert len(set(document.values)) == 2


async def test_langchain_reads_the_collection_in_hybrid_mode(tmp_path: Path) -> None:
    fake = DeterministicFakeEmbedding(size=DIMENSIONS)
    client = AsyncQdrantClient(path=str(tmp_path))
    store = await QdrantServerStore.open(client, "passages", url="", dimensions=DIMENSIONS, model="fake")
    await store.upsert(map(record, TEXTS))
    dense = np.asarray(fake.embed_documents(TEXTS), np.float32)
    await store.set_dense([record(text).id for text in TEXTS], dense)
    await store.aclose()

    with_folder = QdrantClient(path=str(tmp_path))
    found = store.as_langchain(fake, with_folder).similarity_search("magma and basalt", k=3)
    with_folder.close()

    assert found[0].page_content == TEXTS[2]
    assert found[0].metadata["owner"] == "ada"


async def test_edge_keeps_everything_over_a_restart(tmp_path: Path) -> None:
    def reopened(*payload_indexes: str) -> AbstractAsyncContextManager[VectorStore]:
        return open_vectors(
            None,
            tmp_path,
            collection="passages",
            dimensions=DIMENSIONS,
            model="words",
            payload_indexes=payload_indexes,
        )

    async with reopened("owner") as store:
        await store.upsert(map(record, TEXTS))
        first = (await store.pending(1))[0]
        await store.set_dense([first.id], embeddings([first.text]))
    with pytest.raises(VectorStoreError, match="closed"):
        await store.count()
    async with reopened("owner", "title") as store:
        assert await store.count(embedded=True) == 1
        assert len(await store.pending(100)) == 5
        assert [hit.record for hit in await store.search("honey")] == [record(TEXTS[0])]


async def test_edge_refuses_another_model_or_dimension(tmp_path: Path) -> None:
    await (await QdrantEdgeStore.open(tmp_path / "passages", dimensions=DIMENSIONS, model="words")).aclose()
    for dimensions, model in ((DIMENSIONS, "other"), (8, "words")):
        with pytest.raises(VectorStoreMismatch, match=r"32 dimensions of words.*EMBEDDING_MODEL"):
            await QdrantEdgeStore.open(tmp_path / "passages", dimensions=dimensions, model=model)
    await (await QdrantEdgeStore.open(tmp_path / "passages", dimensions=DIMENSIONS, model="words")).aclose()


async def test_server_refuses_another_model_or_dimension(tmp_path: Path) -> None:
    for model, dimensions, matching in (
        ("words", DIMENSIONS, None),
        ("words", 8, "32 dimensions of words"),
        ("other", DIMENSIONS, "32 dimensions of words"),
    ):
        client = AsyncQdrantClient(path=str(tmp_path))
        opening = QdrantServerStore.open(client, "passages", url="u", dimensions=dimensions, model=model)
        if matching is None:
            await (await opening).aclose()
        else:
            with pytest.raises(VectorStoreMismatch, match=matching):
                await opening


async def test_server_that_does_not_answer_is_one_clear_error(tmp_path: Path, unused_tcp_port: int) -> None:
    address = f"http://127.0.0.1:{unused_tcp_port}"
    with pytest.raises(VectorStoreUnavailable, match=f"{address} does not answer .*unset QDRANT_URL"):
        async with open_vectors(address, tmp_path, collection="passages", dimensions=8, model="words"):
            pass


async def test_edge_builds_its_index_in_a_child_process(tmp_path: Path) -> None:
    store = await QdrantEdgeStore.open(
        tmp_path / "passages", dimensions=DIMENSIONS, model="words", optimize_from_points=len(TEXTS)
    )
    await store.upsert(map(record, TEXTS[1:]))
    assert await store.optimize() is False
    await store.upsert(map(record, TEXTS[:1]))
    built = asyncio.create_task(store.optimize())
    turns = [0]
    while not built.done():  # a search waits for the child, and the event loop does not wait for the search
        searched = asyncio.create_task(store.search("honey"))
        turns.append(0)
        while not searched.done():
            turns[-1] += 1
            await asyncio.sleep(0.001)
        assert [hit.record for hit in await searched] == [record(TEXTS[0])]
    assert await built is True
    assert max(turns) > 5
    assert await store.optimize() is False
    assert [hit.record for hit in await store.search("honey")] == [record(TEXTS[0])]
    await store.aclose()


CHILD = """
import asyncio, sys
from pathlib import Path
import numpy as np
from memory.passages import Record
from memory.qdrant_edge_store import QdrantEdgeStore
import uuid

async def main():
    store = await QdrantEdgeStore.open(Path(sys.argv[1]), dimensions=4, model="m", payload_indexes=["owner"])
    ids = [str(uuid.uuid5(uuid.NAMESPACE_URL, str(n))) for n in range(300)]
    await store.upsert(Record(i, f"text number{n}", {"owner": "ada"}) for n, i in enumerate(ids))
    await store.set_dense(ids[:100], np.eye(4, dtype=np.float32)[[0] * 100])
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.slow
async def test_edge_survives_kill_9_and_is_held_until_then(tmp_path: Path) -> None:
    folder = tmp_path / "passages"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(folder), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"ready\n"
    with pytest.raises(VectorStoreHeld, match=f"process {child.pid}.*QDRANT_URL"):
        await QdrantEdgeStore.open(folder, dimensions=4, model="m")
    child.kill()
    await child.wait()

    store = await QdrantEdgeStore.open(folder, dimensions=4, model="m")
    assert (await store.count(embedded=True), await store.count(embedded=False)) == (100, 200)
    assert len(await store.pending(1000)) == 200
    hits = await store.search("number299")
    assert [hit.record.text for hit in hits] == ["text number299"]
    await store.aclose()


@pytest.mark.slow
async def test_with_a_vector_index_one_owners_search_still_finds_the_nearest(tmp_path: Path) -> None:
    """Points of others may cut the index's graph into pieces: a walk that keeps to one's own then finds a handful."""
    number, dimensions, limit = 6_000, 2_048, 30  # large enough that the engine walks its graph
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(30, dimensions))
    vectors = centres[rng.integers(0, 30, number)] + 0.7 * rng.normal(size=(number, dimensions))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    records = [record(f"Text {n}", f"owner-{n % 4}") for n in range(number)]
    store = await QdrantEdgeStore.open(
        tmp_path / "many", dimensions=dimensions, model="given", payload_indexes=["owner"], optimize_from_points=1
    )
    try:
        await store.upsert(records)
        await store.set_dense([one.id for one in records], vectors)
        assert await store.optimize()
        for asked in range(0, number, 120):
            similar = vectors @ vectors[asked]
            nearest = sorted(range(1, number, 4), key=lambda n: -similar[n])[:limit]
            for mode in ("dense", "hybrid"):
                hits = await store.search(
                    "Unheard", dense=vectors[asked], where={"owner": "owner-1"}, limit=limit, mode=mode
                )
                found = {hit.record.id for hit in hits}
                assert len(found & {records[n].id for n in nearest}) >= 0.9 * limit, (asked, mode, len(found))
    finally:
        await store.aclose()
