"""A Qdrant server or cluster (``qdrant-client``), with the layout that langchain-qdrant reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client import models as qm
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from memory.bm25 import Bm25Encoder, build_sparse_embeddings
from memory.passages import Hit, Record, Seen
from memory.qdrant_server_requests import matching_filter, query_request, sparse_vector, unchanged_filter
from memory.vectors import (
    DENSE,
    METADATA_KEY,
    PENDING_KEY,
    SPARSE,
    TEXT_KEY,
    VERSION_KEY,
    Mode,
    Search,
    VectorStoreError,
    VectorStoreMismatch,
    VectorStoreUnavailable,
    Where,
    check_selection,
    check_vectors,
    new_version,
    point_payload,
    point_record,
    point_seen,
    ranked,
    wanted_mode,
)

if TYPE_CHECKING:
    import numpy as np
    from langchain_core.embeddings import Embeddings
    from langchain_qdrant import QdrantVectorStore
    from numpy.typing import NDArray

T = TypeVar("T")

SERVER_TIMEOUT_S = 15
"""For one request; an upsert of a thousand passages takes about 0.1 s on a loaded server."""

MODEL_KEY = "embedding_model"
"""Key of the collection's metadata (Qdrant ≥ 1.16) that names the model; older servers drop it, and only the dimension
is checked."""


class QdrantServerStore:
    """A ``VectorStore`` on a Qdrant server, shared by any number of processes."""

    def __init__(self, client: AsyncQdrantClient, collection: str, *, url: str, dimensions: int) -> None:
        self._client = client
        self._collection = collection
        self._url = url
        self._dimensions = dimensions
        self._bm25 = Bm25Encoder()

    @classmethod
    async def open(
        cls,
        client: AsyncQdrantClient,
        collection: str,
        *,
        url: str,
        dimensions: int,
        model: str,
        payload_indexes: Sequence[str] = (),
    ) -> QdrantServerStore:
        """Open or make the collection; the client is closed with the store. ``url`` is for messages and LangChain."""
        store = cls(client, collection, url=url, dimensions=dimensions)
        try:
            if not await store._ask(client.collection_exists(collection)):
                await store._create(model)
            await store._check(model)
            for key in (PENDING_KEY, *(f"{METADATA_KEY}.{name}" for name in payload_indexes)):
                await store._ask(client.create_payload_index(collection, key, qm.PayloadSchemaType.KEYWORD))
        except BaseException:  # whatever it is, cancellation too, passes on and leaves nothing open
            await store.aclose()
            raise
        return store

    def as_langchain(self, embeddings: Embeddings, client: QdrantClient | None = None) -> QdrantVectorStore:
        """The same collection as LangChain's vector store, hybrid, for those who have a chain of their own.

        Args:
            embeddings: The model that the collection was made with.
            client: A synchronous client; by default a new one to the same address.
        """
        from langchain_qdrant import QdrantVectorStore, RetrievalMode  # only those who ask pay for the import

        return QdrantVectorStore(
            client=client or QdrantClient(url=self._url, timeout=SERVER_TIMEOUT_S, check_compatibility=False),
            collection_name=self._collection,
            embedding=embeddings,
            sparse_embedding=build_sparse_embeddings(self._bm25),
            retrieval_mode=RetrievalMode.HYBRID,
            vector_name=DENSE,
            sparse_vector_name=SPARSE,
            content_payload_key=TEXT_KEY,
            metadata_payload_key=METADATA_KEY,
            # Both would make requests here and now; the layout was checked when the store was opened.
            validate_embeddings=False,
            validate_collection_config=False,
        )

    async def upsert(self, records: Iterable[Record]) -> list[str]:
        """See ``VectorStore.upsert``."""
        latest = {record.id: record for record in records}
        version = new_version()
        known = await self._kept(list(latest), version)
        points, pending = [], []
        for record in latest.values():
            before = known.get(record.id)
            if before is None or point_record(record.id, before).text != record.text:
                words = sparse_vector(self._bm25.document(record.text))
                points.append(
                    qm.PointStruct(
                        id=record.id,
                        vector={SPARSE: words},
                        payload=point_payload(record, pending=True, version=version),
                    )
                )
                pending.append(record.id)
                continue
            waits = PENDING_KEY in before
            payload = point_payload(record, pending=waits, version=version)
            if payload != before:
                await self._ask(self._client.overwrite_payload(self._collection, payload, points=[record.id]))
            if waits:
                pending.append(record.id)
        if points:
            await self._ask(self._client.upsert(self._collection, points, wait=True))
        return pending

    async def pending(self, limit: int) -> list[Record]:
        """See ``VectorStore.pending``."""
        if limit < 1:
            return []
        waiting = matching_filter(None, embedded=False)
        points, _ = await self._ask(self._client.scroll(self._collection, waiting, limit=limit, with_payload=True))
        return [point_record(point.id, point.payload) for point in points]

    async def set_dense(
        self, ids: Sequence[str], vectors: NDArray[np.float32], *, texts: Sequence[str] | None = None
    ) -> list[str]:
        """See ``VectorStore.set_dense``."""
        check_vectors(ids, vectors, self._dimensions)
        known = {i: point_record(i, payload).text for i, payload in (await self._retrieve(ids)).items()}
        fits = [n for n, i in enumerate(ids) if i in known and (texts is None or known[i] == texts[n])]
        done = [ids[n] for n in fits]
        if done:
            updates = [qm.PointVectors(id=ids[n], vector={DENSE: vectors[n].tolist()}) for n in fits]
            # In this order: killed between the two, a record is embedded once more, never forgotten.
            await self._ask(self._client.update_vectors(self._collection, updates, wait=True))
            await self._ask(self._client.delete_payload(self._collection, [PENDING_KEY], points=list(done), wait=True))
        return done

    async def search(
        self,
        text: str,
        *,
        dense: NDArray[np.float32] | None = None,
        where: Where | None = None,
        limit: int = 10,
        mode: Mode = "hybrid",
    ) -> list[Hit]:
        """See ``VectorStore.search``."""
        [found] = await self._search([Search(text, dense, where, limit, mode)])
        return found

    async def search_together(
        self, searches: Sequence[Search], *, waiting: Where | None = None
    ) -> tuple[list[list[Hit]], int]:
        """See ``VectorStore.search_together``: two requests side by side."""
        found, count = await asyncio.gather(self._search(searches), self.count(waiting, embedded=False))
        return found, count

    async def get(self, ids: Sequence[str]) -> list[Record]:
        """See ``VectorStore.get``."""
        found = await self._retrieve(ids)
        return [point_record(i, found[i]) for i in ids if i in found]

    async def count(self, where: Where | None = None, embedded: bool | None = None) -> int:
        """See ``VectorStore.count``."""
        answer = await self._ask(self._client.count(self._collection, matching_filter(where, embedded), exact=True))
        return answer.count

    async def delete(self, where: Where | None = None, *, ids: Sequence[str] | None = None) -> int:
        """See ``VectorStore.delete``."""
        check_selection(where, ids)
        if ids is not None:
            found = list(await self._retrieve(ids))
            if found:
                selector = qm.PointIdsList(points=list(found))
                await self._ask(self._client.delete(self._collection, selector, wait=True))
            return len(found)
        number = await self.count(where)
        matching = matching_filter(where)
        assert matching is not None  # check_selection has refused an empty where
        await self._ask(self._client.delete(self._collection, qm.FilterSelector(filter=matching), wait=True))
        return number

    async def listing(self, where: Where, *, limit: int, after: str | None = None) -> tuple[list[Seen], str | None]:
        """See ``VectorStore.listing``."""
        fields = qm.PayloadSelectorExclude(exclude=[TEXT_KEY, f"{METADATA_KEY}.text"])
        points, following = await self._ask(
            self._client.scroll(
                self._collection, matching_filter(where), limit=limit, offset=after, with_payload=fields
            )
        )
        return [point_seen(point.id, point.payload) for point in points], str(following) if following else None

    async def drop(self, seen: Sequence[Seen]) -> set[str]:
        """See ``VectorStore.drop``."""
        went: set[str] = set()
        for versioned in (True, False):
            ids = [one.id for one in seen if bool(one.version) is versioned]
            if not ids:
                continue
            there = await self._retrieve(ids)
            selector = qm.FilterSelector(filter=unchanged_filter(ids, {one.version for one in seen} - {""}, versioned))
            await self._ask(self._client.delete(self._collection, selector, wait=True))
            went |= there.keys() - (await self._retrieve(ids)).keys()
        return went

    async def optimize(self) -> bool:
        """Nothing to do: a server optimises by itself."""
        return False

    async def aclose(self) -> None:
        """See ``VectorStore.aclose``."""
        await self._client.close()

    async def _search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        """Each search's hits, in one request."""
        found: list[list[Hit]] = [[] for _ in searches]
        asked, requests = [], []
        for place, one in enumerate(searches):
            words = self._bm25.query(one.text)
            wanted = wanted_mode(bool(words.indices), one.dense, one.mode)
            if wanted is not None and one.limit > 0:
                asked.append(place)
                requests.append(query_request(words, one.dense, matching_filter(one.where), one.limit, wanted))
        if not requests:
            return found
        answers = await self._ask(self._client.query_batch_points(self._collection, requests))
        for place, answer in zip(asked, answers, strict=True):
            payloads = {str(point.id): point.payload for point in answer.points}
            best = ranked(answer.points, searches[place].limit, lambda point: str(point.id))
            found[place] = [Hit(point_record(one, payloads[one]), score) for one, score in best]
        return found

    async def _kept(self, ids: Sequence[str], version: str) -> dict[str, Mapping[str, Any]]:
        """Those that are there, after they got a new version: from then on no ``drop`` takes them."""
        if found := await self._retrieve(ids):
            fields = {VERSION_KEY: version}
            await self._ask(self._client.set_payload(self._collection, fields, points=list(found), wait=True))
            found = await self._retrieve(list(found))
        return found

    async def _retrieve(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        if not ids:
            return {}
        points = await self._ask(self._client.retrieve(self._collection, list(ids), with_payload=True))
        return {str(point.id): point.payload or {} for point in points}

    async def _create(self, model: str) -> None:
        try:
            await self._ask(
                self._client.create_collection(
                    self._collection,
                    vectors_config={DENSE: qm.VectorParams(size=self._dimensions, distance=qm.Distance.COSINE)},
                    sparse_vectors_config={SPARSE: qm.SparseVectorParams(modifier=qm.Modifier.IDF)},
                    metadata={MODEL_KEY: model},
                )
            )
        except VectorStoreError:
            # Another process may have made it in the same moment; then ours is the second call and that is fine.
            if not await self._ask(self._client.collection_exists(self._collection)):
                raise

    async def _check(self, model: str) -> None:
        config = (await self._ask(self._client.get_collection(self._collection))).config
        dense = config.params.vectors.get(DENSE) if isinstance(config.params.vectors, dict) else None
        sparse = (config.params.sparse_vectors or {}).get(SPARSE)
        if dense is None or sparse is None:
            raise VectorStoreMismatch(
                f"collection {self._collection} on {self._url} has no vectors named {DENSE} and {SPARSE}: it is not "
                "Lumina's; rename or remove it"
            )
        there = (config.metadata or {}).get(MODEL_KEY, model)
        if (dense.size, there) != (self._dimensions, model):
            raise VectorStoreMismatch(
                f"collection {self._collection} on {self._url} holds {dense.size} dimensions of {there}, not "
                f"{self._dimensions} of {model}: set EMBEDDING_MODEL back, or remove the collection and crawl again"
            )

    async def _ask(self, answer: Awaitable[T]) -> T:
        """Await a request; failures become Lumina's errors."""
        try:
            return await answer
        except UnexpectedResponse as error:
            if error.status_code is not None and error.status_code < 500 and error.status_code != 429:
                raise VectorStoreError(f"Qdrant at {self._url} refused the request: {_reason(error)}") from error
            raise self._unavailable(error) from error
        except (ResponseHandlingException, ApiException, httpx.HTTPError, OSError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> VectorStoreUnavailable:
        return VectorStoreUnavailable(
            f"Qdrant at {self._url} does not answer ({_reason(error)}): start it, or unset QDRANT_URL to use the "
            "embedded engine"
        )


def _reason(error: Exception) -> str:
    """One line of what went wrong."""
    return " ".join(str(error).split())[:300] or type(error).__name__
