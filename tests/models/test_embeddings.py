"""The embedder with the real MiniLM and a real Redis: right vectors, computed once, queries first."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from redis.asyncio import Redis

from models.embedding_cache import VectorCache
from models.embedding_engine import Engine, EngineClosed
from models.embedding_model import DEFAULT_MODEL, NoEmbeddingModel, compute, declared_dimensions, load_model, model_path
from models.embeddings import Embedder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """One loaded model for all tests of this module; each test has its own cache in front of it."""
    engine = Engine(DEFAULT_MODEL, threads=1)
    engine.load().result()
    yield engine
    engine.close()


@pytest.fixture
async def embedder(redis: Redis, engine: Engine) -> Embedder:
    return Embedder(redis=redis, cache_size=100, engine=engine)


def words(number: int, length: int = 12) -> str:
    return " ".join(f"fractal {number} number {n}" for n in range(length))


async def test_vectors_are_unit_length_float32_and_mean_something(embedder: Embedder) -> None:
    vectors = await embedder.encode(
        ["The cat sits on the mat.", "A kitten rests on a rug.", "Bond yields rose on Tuesday."]
    )
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, await embedder.load())
    assert embedder.dimensions == 384
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3


async def test_no_texts_give_an_empty_matrix(embedder: Embedder) -> None:
    assert (await embedder.encode([])).shape == (0, 384)


async def test_texts_of_any_kind_are_taken_and_keep_their_order(embedder: Embedder) -> None:
    texts = ["", " ", "x", "é" * 3_000, "\ud800 lone surrogate", "日本語", "word " * 5_000, "x"]
    together = await embedder.encode(texts)
    assert np.isfinite(together).all()
    assert embedder.counts.shared == 1
    for text, vector in zip(texts, together, strict=True):
        alone = (await embedder.encode([text]))[0]
        np.testing.assert_array_equal(alone, vector)


async def test_fast_arithmetic_agrees_with_float32_of_sentence_transformers() -> None:
    texts = [words(n, 20) for n in range(4)] + ["What is a fractal?"]
    model = load_model(DEFAULT_MODEL, "cpu", 1)
    exact = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    assert (compute(model, texts, True) * exact).sum(axis=1).min() > 0.9999
    np.testing.assert_allclose(compute(model, texts, False), exact, atol=1e-5)


async def test_second_ask_comes_from_memory_and_another_process_from_redis(
    redis: Redis, engine: Engine, embedder: Embedder
) -> None:
    texts = [words(n) for n in range(5)]
    first = await embedder.encode(texts)
    assert (embedder.counts.misses, embedder.counts.hits_memory, embedder.counts.hits_redis) == (5, 0, 0)
    np.testing.assert_array_equal(await embedder.encode(texts), first)
    assert embedder.counts.hits_memory == 5

    other = Embedder(redis=redis, cache_size=100, engine=engine)
    np.testing.assert_array_equal(await other.encode([*texts, "new"]), [*first, (await other.encode(["new"]))[0]])
    assert (other.counts.hits_redis, other.counts.misses) == (5, 1)
    keys = await redis.keys("lumina:embedding:*")
    assert len(keys) == 6
    assert all([23 * 3600 < await redis.ttl(key) <= 24 * 3600 for key in keys])


async def test_memory_keeps_only_the_latest(redis: Redis, engine: Engine) -> None:
    small = Embedder(redis=redis, cache_size=2, engine=engine)
    for text in ("a", "b", "c", "b", "a"):
        await small.encode([text])
    assert (small.counts.misses, small.counts.hits_memory, small.counts.hits_redis) == (3, 1, 1)


async def test_thirty_two_callers_of_the_same_texts_cause_one_computation(embedder: Embedder) -> None:
    texts = [words(n) for n in range(3)]
    results = await asyncio.gather(*(embedder.encode(texts) for _ in range(32)))
    assert embedder.counts.misses == 3
    assert embedder.counts.shared == 31 * 3
    assert all((result == results[0]).all() for result in results)


async def test_a_caller_who_leaves_takes_nothing_from_those_who_wait(embedder: Embedder) -> None:
    texts = [words(n, 30) for n in range(12)]
    leaver = asyncio.create_task(embedder.encode(texts))
    await until(lambda: embedder.counts.misses == 12)
    stayer = asyncio.create_task(embedder.encode(texts[:2]))
    await until(lambda: embedder.counts.shared == 2)
    leaver.cancel()
    assert (await stayer).shape == (2, 384)
    assert embedder.counts.misses == 12
    with pytest.raises(asyncio.CancelledError):
        await leaver


async def test_work_that_nobody_waits_for_is_dropped(embedder: Embedder) -> None:
    leaver = asyncio.create_task(embedder.encode([words(n, 60) for n in range(400)]))
    await until(lambda: embedder.counts.misses == 400)
    leaver.cancel()
    async with asyncio.timeout(10):  # 400 passages take longer than that on one core
        await embedder.encode(["after"])
    assert not embedder._flights


async def test_a_query_does_not_wait_behind_a_large_batch(embedder: Embedder) -> None:
    batch = asyncio.create_task(embedder.encode([words(n, 40) for n in range(60)]))
    await until(lambda: embedder.counts.misses == 60)
    await embedder.encode(["What is a fractal?"], query=True)
    assert not batch.done()
    await embedder.encode(["A sentence that an answer waits for."], urgent=True)
    assert not batch.done()
    batch.cancel()


async def test_redis_that_is_down_is_done_without(engine: Engine, tmp_path: Path) -> None:
    nowhere: Redis = Redis.from_url(f"unix://{tmp_path}/absent")
    embedder = Embedder(redis=nowhere, cache_size=10, engine=engine)
    first = await embedder.encode(["still here"])
    np.testing.assert_array_equal(await embedder.encode(["still here"]), first)
    assert embedder.counts.hits_memory == 1
    assert embedder.counts.redis_errors == 1  # then it is left alone for a while
    await nowhere.aclose()


async def test_langchains_four_methods_agree(embedder: Embedder) -> None:
    wanted = (await embedder.encode(["one text"]))[0].tolist()
    assert (await embedder.aembed_documents(["one text"]))[0] == wanted
    assert await embedder.aembed_query("one text") == wanted
    assert (await asyncio.to_thread(embedder.embed_documents, ["one text", "two"]))[0] == wanted
    assert await asyncio.to_thread(embedder.embed_query, "one text") == wanted


async def test_a_damaged_entry_in_redis_is_computed_again(redis: Redis, embedder: Embedder) -> None:
    whole = await embedder.encode(["text"])
    (key,) = await redis.keys("*")
    await redis.set(key, b"12345")
    again = Embedder(redis=redis, cache_size=10, engine=embedder._engine)
    np.testing.assert_array_equal(await again.encode(["text"]), whole)
    assert again.counts.misses == 1


async def test_an_unknown_model_is_named_and_can_be_tried_again(tmp_path: Path) -> None:
    async with Embedder(str(tmp_path / "absent")) as embedder:
        for _ in range(2):
            with pytest.raises(NoEmbeddingModel, match=r"absent cannot be loaded .*EMBEDDING_MODEL"):
                await embedder.encode(["text"])


async def test_a_closed_embedder_says_so() -> None:
    embedder = Embedder()
    await embedder.close()
    with pytest.raises(EngineClosed):
        await embedder.encode(["text"])


def test_the_packaged_weights_are_used_under_both_names() -> None:
    assert model_path("all-MiniLM-L6-v2") == model_path(DEFAULT_MODEL)
    assert (Path(model_path(DEFAULT_MODEL)) / "model.safetensors").is_file()
    assert model_path("some/other") == "some/other"


def test_nomics_model_gets_its_prefixes() -> None:
    nomic = Embedder("nomic-ai/nomic-embed-text-v1")
    assert nomic._keyed(["a"], True)[1] == ["search_query: a"]
    assert nomic._keyed(["a"], False)[1] == ["search_document: a"]


def test_models_never_share_a_vector() -> None:
    caches = [VectorCache(None, model=model, size=1, prefix="p") for model in ("one", "two")]
    assert caches[0].key("text") != caches[1].key("text")
    assert caches[0].key("text") == VectorCache(None, model="one", size=9, prefix="q").key("text")


async def test_concurrent_first_callers_load_the_model_once(redis: Redis) -> None:
    before = {thread.ident for thread in threading.enumerate()}
    async with Embedder(redis=redis, threads=1) as embedder:
        assert set(await asyncio.gather(embedder.load(), embedder.load())) == {384}
        new = [t for t in threading.enumerate() if t.name == "embedding" and t.ident not in before]
        assert len(new) == 1
    assert not new[0].is_alive()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


def test_the_packaged_model_declares_its_dimensions_and_an_unknown_one_does_not(tmp_path: Path) -> None:
    assert declared_dimensions("all-MiniLM-L6-v2") == 384
    assert declared_dimensions(str(tmp_path)) is None
