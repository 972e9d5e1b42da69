"""Passages, questions and vectors by the thousand, random from fixed seeds, and embedders that have vectors at once."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

from memory.passages import Passage

DIMENSIONS = 384
OWNERS = 4
Vectors = NDArray[np.float32]


def rows_of(texts: Sequence[str], count: int) -> list[int]:
    """A row for each text, always the same."""
    return [zlib.crc32(text.encode()) % count for text in texts]


class Given:
    """Has the vector of any text at once."""

    dimensions = DIMENSIONS
    model_name = "given"

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    async def encode(self, texts: Sequence[str], *, query: bool = False, urgent: bool | None = None) -> Vectors:
        return self._vectors[rows_of(texts, len(self._vectors))]


class GivenToLangChain(Embeddings):
    """The same for LangChain."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        found: list[list[float]] = self._vectors[rows_of(texts, len(self._vectors))].tolist()
        return found

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def random_vectors(count: int) -> Vectors:
    """Vectors of length one around two hundred centres."""
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(200, DIMENSIONS))
    rows = centres[rng.integers(0, len(centres), count)] + 0.7 * rng.normal(size=(count, DIMENSIONS))
    unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def random_texts(count: int, sentences: int, seed: int) -> list[str]:
    """Texts of sentences of fifteen words, out of 20,000 that come as often as those of a language do (Zipf).

    The words are the same for every seed: a question has words of the passages.
    """
    rng = np.random.default_rng(2)
    words = np.array(["".join(rng.choice(list("abcdeiklmnoprstu"), 6)) for _ in range(20_000)])
    rng = np.random.default_rng(seed)
    ranks = np.minimum(rng.zipf(1.3, size=(count, sentences, 15)) - 1, len(words) - 1)
    return [" ".join(" ".join(line).capitalize() + "." for line in text) for text in words[ranks]]


def random_passages(count: int) -> list[Passage]:
    return [
        Passage(f"owner-{n % OWNERS}", "sample", f"Page {n // 8}", "", "1", (), text, 0, len(text), n % 8)
        for n, text in enumerate(random_texts(count, 4, seed=2))
    ]
