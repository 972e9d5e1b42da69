"""The vector store: one small protocol, two engines behind it.

A collection holds records (text and payload) under two vectors: a BM25 sparse one, there from the first moment, and a
dense one that follows when the embedder has come round to it. Both engines keep the same layout, named here.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from errors import LuminaError
from memory.passages import Hit, Record, Seen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Id = TypeVar("Id", str, int)


class HasScore(Protocol):
    """A point as an engine gives it."""

    @property
    def score(self) -> float:
        """Higher is better."""
        ...


Scored = TypeVar("Scored", bound=HasScore)
Mode = Literal["hybrid", "dense", "sparse"]
Where = Mapping[str, str | Sequence[str]]
"""Payload key → the value it must have, or the values of which it must have one. All keys must match."""

DENSE = "dense"
"""Name of the dense vector (cosine)."""
SPARSE = "bm25"
"""Name of the sparse vector (inverse document frequency applied by the engine)."""
TEXT_KEY = "page_content"
METADATA_KEY = "metadata"
"""Where text and payload lie in a point; langchain-qdrant's own names, so that it can read the collection."""
PENDING_KEY = "pending"
"""Payload key of a point whose dense vector is still to come; indexed, removed by ``set_dense``."""
PENDING_VALUE = "dense"
VERSION_KEY = "version"
"""Payload key of what ``upsert`` gives every record anew, so that ``drop`` leaves what was stored again meanwhile."""

RRF_K = 2
"""Constant of reciprocal rank fusion (Cormack, Clarke and Büttcher 2009); Qdrant's and LangChain's default. Measured
against 10 and 60 and against distribution-based fusion in docs/decisions/retrieval.md."""

MIN_CANDIDATES = 30
"""Hits that each of the two searches gives to the fusion at least."""


class VectorStoreError(LuminaError):
    """The vector store refused what was asked."""


class VectorStoreHeld(VectorStoreError):
    """Another process has the folder open; the embedded engine belongs to one process."""


class VectorStoreMismatch(VectorStoreError):
    """The collection was made for another embedding model or dimension."""


class VectorStoreUnavailable(VectorStoreError):
    """The Qdrant server cannot be reached or failed."""


@dataclass(frozen=True, slots=True)
class Search:
    """One of several searches that are made together; what the fields say is said of ``VectorStore.search``."""

    text: str
    dense: NDArray[np.float32] | None = None
    where: Where | None = None
    limit: int = 10
    mode: Mode = "hybrid"


class VectorStore(Protocol):
    """Records that can be found by words and by meaning."""

    async def upsert(self, records: Iterable[Record]) -> list[str]:
        """Store records under their ids, at once searchable by their words.

        A record that is there with the same text keeps its dense vector; with another text it loses it and is pending.
        Ids are UUIDs; of several records with one id the last counts.

        Returns:
            The ids, of those given, that have no dense vector yet.
        """
        ...

    async def pending(self, limit: int) -> list[Record]:
        """Up to ``limit`` records without a dense vector, in no particular order. Survives restarts."""
        ...

    async def set_dense(
        self, ids: Sequence[str], vectors: NDArray[np.float32], *, texts: Sequence[str] | None = None
    ) -> list[str]:
        """Give records their dense vectors, shape (len(ids), dimensions).

        Records that have been deleted meanwhile are passed over; so are, when ``texts`` says what was embedded, those
        whose text is another by now.

        Returns:
            The ids that got their vector.

        Raises:
            ValueError: when the shapes do not fit.
        """
        ...

    async def search(
        self,
        text: str,
        *,
        dense: NDArray[np.float32] | None = None,
        where: Where | None = None,
        limit: int = 10,
        mode: Mode = "hybrid",
    ) -> list[Hit]:
        """The best records, best first; ties by id.

        ``hybrid`` fuses both searches inside the engine (reciprocal rank fusion) and is BM25 alone when ``dense`` is
        None. Scores are cosines for ``dense``, BM25 for ``sparse``, sums of reciprocal ranks for ``hybrid``.

        Args:
            text: The question, for BM25.
            dense: The same question's embedding, shape (dimensions,).
            where: Which records count.
            limit: How many at most.
            mode: Which vectors are searched.

        Raises:
            ValueError: when ``mode`` is ``dense`` and there is no vector.
        """
        ...

    async def search_together(
        self, searches: Sequence[Search], *, waiting: Where | None = None
    ) -> tuple[list[list[Hit]], int]:
        """Several searches for the time of one trip to the engine.

        Returns:
            What ``search`` gives for each, and how many records that match ``waiting`` have no dense vector yet.
        """
        ...

    async def get(self, ids: Sequence[str]) -> list[Record]:
        """The records that exist, in the order of ``ids``."""
        ...

    async def count(self, where: Where | None = None, embedded: bool | None = None) -> int:
        """How many records match; ``embedded`` asks for those with (True) or without (False) a dense vector."""
        ...

    async def delete(self, where: Where | None = None, *, ids: Sequence[str] | None = None) -> int:
        """Remove the records that match, or those with these ids; returns how many there were.

        Raises:
            ValueError: when neither or both are given, or ``where`` is empty (that would be everything).
        """
        ...

    async def listing(self, where: Where, *, limit: int, after: str | None = None) -> tuple[list[Seen], str | None]:
        """Some of the records that match, by id, without holding them all.

        Args:
            where: Which records.
            limit: How many at most.
            after: What the call before gave as second value.

        Returns:
            The records, and where to go on; None at the end.
        """
        ...

    async def drop(self, seen: Sequence[Seen]) -> set[str]:
        """Remove records unless they have been stored again since they were seen; returns the ids of those that went.

        Looking and removing are one step of the engine: an ``upsert`` beside it is either before, and the record
        stays, or after, and the record is new.
        """
        ...

    async def optimize(self) -> bool:
        """Bring indexes into shape if that pays by now; for quiet moments. True when something was done."""
        ...

    async def aclose(self) -> None:
        """Write out what is in memory and release the engine. May be called twice."""
        ...


@asynccontextmanager
async def open_vectors(
    url: str | None,
    path: Path,
    *,
    collection: str,
    dimensions: int,
    model: str,
    payload_indexes: Sequence[str] = (),
) -> AsyncIterator[VectorStore]:
    """Open a collection, making it when it is new, and close it at the end.

    Args:
        url: Address of a Qdrant server; None opens the engine inside this process.
        path: Folder of the embedded engine (one subfolder a collection); unused with ``url``.
        collection: Name, letters, digits, ``-`` and ``_``.
        dimensions: Length of the dense vectors.
        model: Name of the embedding model that makes them.
        payload_indexes: Payload keys that ``where`` will often name.

    Raises:
        VectorStoreHeld: when another process has the folder.
        VectorStoreMismatch: when the collection belongs to another model or dimension.
        VectorStoreUnavailable: when the server does not answer.
    """
    store: VectorStore
    if url is None:
        from memory.qdrant_edge_store import QdrantEdgeStore  # loads the engine's native library

        store = await QdrantEdgeStore.open(
            path / collection, dimensions=dimensions, model=model, payload_indexes=payload_indexes
        )
    else:
        from qdrant_client import AsyncQdrantClient  # half a second of imports

        from memory.qdrant_server_store import SERVER_TIMEOUT_S, QdrantServerStore

        # The version check would be a blocking request inside the constructor.
        client = AsyncQdrantClient(url=url, timeout=SERVER_TIMEOUT_S, check_compatibility=False)
        store = await QdrantServerStore.open(
            client, collection, url=url, dimensions=dimensions, model=model, payload_indexes=payload_indexes
        )
    try:
        yield store
    finally:
        await store.aclose()


def check_vectors(ids: Sequence[str], vectors: NDArray[np.float32], dimensions: int) -> None:
    """Raise ``ValueError`` unless there is one vector of the right length for each id."""
    if vectors.shape != (len(ids), dimensions):
        raise ValueError(f"{len(ids)} ids need vectors of shape ({len(ids)}, {dimensions}), not {vectors.shape}")


def check_selection(where: Where | None, ids: Sequence[str] | None) -> None:
    """Raise ``ValueError`` unless exactly one of the two says what to delete."""
    if (where is None) == (ids is None) or (where is not None and not where):
        raise ValueError("say what to delete: either a non-empty where or ids")


def new_version() -> str:
    """What no record had before."""
    return uuid.uuid4().hex


def point_payload(record: Record, *, pending: bool, version: str) -> dict[str, object]:
    """The payload of a point as both engines keep it."""
    payload: dict[str, object] = {TEXT_KEY: record.text, METADATA_KEY: dict(record.payload), VERSION_KEY: version}
    return {**payload, PENDING_KEY: PENDING_VALUE} if pending else payload


def point_seen(point_id: object, payload: Mapping[str, object] | None) -> Seen:
    """What a listing gives of a point."""
    return Seen(str(point_id), str((payload or {}).get(VERSION_KEY, "")), point_record(point_id, payload).payload)


def point_record(point_id: object, payload: Mapping[str, object] | None) -> Record:
    """The inverse of ``point_payload``; a point that others wrote without metadata has an empty payload."""
    payload = payload or {}
    metadata = payload.get(METADATA_KEY)
    return Record(str(point_id), str(payload.get(TEXT_KEY, "")), metadata if isinstance(metadata, dict) else {})


def wanted_mode(text_has_words: bool, dense: NDArray[np.float32] | None, mode: Mode) -> Mode | None:
    """What can be searched of what was asked; None when there is nothing to search by."""
    if mode == "dense" and dense is None:
        raise ValueError("mode 'dense' needs the embedding of the question: pass dense=")
    if mode == "hybrid" and dense is None:
        mode = "sparse"
    if mode == "hybrid" and not text_has_words:
        return "dense"
    return None if mode == "sparse" and not text_has_words else mode


def ranked(points: Sequence[Scored], limit: int, id_of: Callable[[Scored], Id]) -> list[tuple[Id, float]]:
    """The best ``limit`` of what was found, (id, score), ties by id.

    Engines leave the order of equal scores open, and fused ranks are often equal. ``id_of`` is asked for those alone
    that can be among the best: an id costs more than a score.
    """
    scores = [round(point.score, 5) for point in points]
    least = sorted(scores, reverse=True)[limit - 1] if 0 < limit < len(scores) else None
    best = [
        (-score, id_of(point), point.score)
        for point, score in zip(points, scores, strict=True)
        if least is None or score >= least
    ]
    return [(one, score) for _, one, score in sorted(best)[:limit]]
