"""BM25 as sparse vectors: the one encoder that documents and queries of every engine go through.

The encoder is Qdrant's own (``qdrant_edge.Bm25``): it splits, lower-cases, drops stop words, stems and hashes the words
to indices. Document weights carry term frequency and length; query weights are 1; the inverse document frequency is
multiplied in by the engine at query time (modifier IDF), so that it follows the collection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from langchain_qdrant.sparse_embeddings import SparseEmbeddings

LANGUAGE = "english"
"""Stop words and stemmer."""

AVERAGE_LENGTH = 160.0
"""Words (after stop words) that count as a passage of usual length. Passages of 60 to 256 words were measured with 100,
160 and 256: recall@1 differs by 0.002 (docs/decisions/retrieval.md)."""


class SparseWeights(NamedTuple):
    """A sparse vector: unique indices and their weights, equally long; both empty for text without a single word."""

    indices: list[int]
    values: list[float]


class Bm25Encoder:
    """Turns text into BM25 sparse vectors; documents and queries are weighted differently."""

    def __init__(self) -> None:
        from qdrant_edge import Bm25, Bm25Config  # loads the engine's native library

        self._model = Bm25(Bm25Config(language=LANGUAGE, avg_len=AVERAGE_LENGTH))

    def document(self, text: str) -> SparseWeights:
        """The weights under which a text is stored."""
        vector = self._model.embed_document(text)
        return SparseWeights(vector.indices, vector.values)

    def query(self, text: str) -> SparseWeights:
        """The weights with which a question is asked."""
        vector = self._model.embed_query(text)
        return SparseWeights(vector.indices, vector.values)


def build_sparse_embeddings(encoder: Bm25Encoder) -> SparseEmbeddings:
    """The same encoder in the form that ``langchain_qdrant.QdrantVectorStore`` takes."""
    from langchain_qdrant.sparse_embeddings import SparseEmbeddings, SparseVector  # pulls in qdrant_client

    class Bm25SparseEmbeddings(SparseEmbeddings):
        def embed_documents(self, texts: Sequence[str]) -> list[SparseVector]:
            return [self._vector(encoder.document(text)) for text in texts]

        def embed_query(self, text: str) -> SparseVector:
            return self._vector(encoder.query(text))

        @staticmethod
        def _vector(weights: SparseWeights) -> SparseVector:
            return SparseVector(indices=weights.indices, values=weights.values)

    return Bm25SparseEmbeddings()
