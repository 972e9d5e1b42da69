"""Qdrant's engine inside this process (``qdrant-edge-py``), one folder a collection.

The engine sees one caller at a time. Writes run on a thread of the store's own, for they wait for the disk. A search
does so only while that thread is busy: the engine keeps Python's global lock for as long as it searches, so a thread
would not free the event loop, and the way there and back costs as much as searching a thousand passages. Updates go
through the engine's write-ahead log and survive ``kill -9``.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import qdrant_edge as qd

from memory.bm25 import Bm25Encoder
from memory.passages import Hit, Record, Seen
from memory.qdrant_edge_folder import check_same, create_shard, load_shard, lock_folder
from memory.qdrant_edge_requests import matching_filter, query_requests
from memory.record_cache import RecordCache
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
    Where,
    check_selection,
    check_vectors,
    new_version,
    point_payload,
    point_record,
    point_seen,
    ranked,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

OPTIMIZE_FROM_POINTS = 50_000
"""Points from which a vector index pays. Below, exact search takes under 10 ms (2 ms at 16,000), while building keeps
the store busy for 8 s at 16,000 and 86 s at 100,000 on two cores."""

GROWTH_TO_OPTIMIZE = 1.5
"""The index is built again when there are this many times the points of the last time."""

_OPTIMIZE = "import sys, qdrant_edge; s = qdrant_edge.EdgeShard.load(sys.argv[1]); s.optimize(); s.flush(); s.close()"


class QdrantEdgeStore:
    """A ``VectorStore`` in a folder of this machine, held by this process alone."""

    def __init__(self, path: Path, *, dimensions: int, optimize_from_points: int = OPTIMIZE_FROM_POINTS) -> None:
        self._path = path
        self._dimensions = dimensions
        self._optimize_from_points = optimize_from_points
        self._bm25 = Bm25Encoder()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"vectors-{path.name}")
        self._busy = threading.Lock()
        self._lock_file: int | None = None
        self._shard: qd.EdgeShard | None = None
        self._records = RecordCache()
        self._closed = False

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        dimensions: int,
        model: str,
        payload_indexes: Sequence[str] = (),
        optimize_from_points: int = OPTIMIZE_FROM_POINTS,
    ) -> QdrantEdgeStore:
        """Open the collection in the folder ``path``; see ``memory.vectors.open_vectors`` for the errors."""
        store = cls(path, dimensions=dimensions, optimize_from_points=optimize_from_points)
        try:
            await store._run(lambda: store._open(model, payload_indexes))
        except BaseException:  # whatever it is, cancellation too, passes on and leaves nothing open
            await store.aclose()
            raise
        return store

    async def upsert(self, records: Iterable[Record]) -> list[str]:
        """See ``VectorStore.upsert``."""
        latest = {record.id: record for record in records}
        return await self._run(lambda: self._upsert(latest)) if latest else []

    async def pending(self, limit: int) -> list[Record]:
        """See ``VectorStore.pending``."""
        if limit < 1:
            return []
        request = qd.ScrollRequest(limit=limit, filter=matching_filter(None, embedded=False), with_payload=True)
        points, _ = await self._run(lambda: self._open_shard.scroll(request))
        return [point_record(point.id, point.payload) for point in points]

    async def set_dense(
        self, ids: Sequence[str], vectors: NDArray[np.float32], *, texts: Sequence[str] | None = None
    ) -> list[str]:
        """See ``VectorStore.set_dense``."""
        check_vectors(ids, vectors, self._dimensions)
        return await self._run(lambda: self._set_dense(ids, vectors, texts)) if ids else []

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
        requests = query_requests([Search(text, dense, where, limit, mode)], self._bm25)
        [found] = await self._run_quickly(lambda: self._search(requests))
        return found

    async def search_together(
        self, searches: Sequence[Search], *, waiting: Where | None = None
    ) -> tuple[list[list[Hit]], int]:
        """See ``VectorStore.search_together``."""
        requests = query_requests(searches, self._bm25)
        count = qd.CountRequest(exact=True, filter=matching_filter(waiting, embedded=False))
        return await self._run_quickly(lambda: (self._search(requests), self._open_shard.count(count)))

    async def get(self, ids: Sequence[str]) -> list[Record]:
        """See ``VectorStore.get``."""
        found = await self._run(lambda: self._retrieve(ids)) if ids else {}
        return [point_record(i, found[i]) for i in ids if i in found]

    async def count(self, where: Where | None = None, embedded: bool | None = None) -> int:
        """See ``VectorStore.count``."""
        request = qd.CountRequest(exact=True, filter=matching_filter(where, embedded))
        return await self._run(lambda: self._open_shard.count(request))

    async def delete(self, where: Where | None = None, *, ids: Sequence[str] | None = None) -> int:
        """See ``VectorStore.delete``."""
        check_selection(where, ids)
        return await self._run(lambda: self._delete(where, ids))

    async def listing(self, where: Where, *, limit: int, after: str | None = None) -> tuple[list[Seen], str | None]:
        """See ``VectorStore.listing``."""
        fields = qd.PayloadSelector.Exclude([TEXT_KEY, f"{METADATA_KEY}.text"])
        request = qd.ScrollRequest(offset=after, limit=limit, filter=matching_filter(where), with_payload=fields)
        points, following = await self._run(lambda: self._open_shard.scroll(request))
        return [point_seen(point.id, point.payload) for point in points], str(following) if following else None

    async def drop(self, seen: Sequence[Seen]) -> set[str]:
        """See ``VectorStore.drop``."""
        return await self._run(lambda: self._drop(seen)) if seen else set()

    async def optimize(self) -> bool:
        """Build the vector index when enough points lack it; searches wait meanwhile.

        The engine keeps Python's global lock while it builds, which would stop the whole process; so the folder is
        closed, a child process builds, and the folder is opened again.
        """
        return await self._run(self._optimize)

    async def aclose(self) -> None:
        """See ``VectorStore.aclose``."""
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._alone, self._close)
        self._thread.shutdown(wait=False)

    async def _run(self, call: Callable[[], T]) -> T:
        """``call`` on the store's thread, after all that was given to it before."""
        with self._explained():
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._alone, call)

    async def _run_quickly(self, call: Callable[[], T]) -> T:
        """``call`` right here if nothing else uses the engine; for what keeps Python's global lock anyway."""
        if not self._busy.acquire(blocking=False):
            return await self._run(call)
        try:
            with self._explained():
                return call()
        finally:
            self._busy.release()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """The engine's errors as ``VectorStoreError``."""
        if self._closed:
            raise VectorStoreError(f"vector store {self._path} is closed: open it again with open_vectors()")
        try:
            yield
        except Exception as error:  # the engine raises nothing more precise
            if type(error) is not Exception:  # all else passes
                raise
            why = f"vector store {self._path}: {error}; is the disk full or the folder damaged?"
            raise VectorStoreError(why) from error

    def _alone(self, call: Callable[[], T]) -> T:
        with self._busy:
            return call()

    # Below runs with the engine to itself.

    @property
    def _open_shard(self) -> qd.EdgeShard:
        if self._shard is None:
            raise VectorStoreError(f"vector store {self._path} is closed: open it again with open_vectors()")
        return self._shard

    def _open(self, model: str, payload_indexes: Sequence[str]) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        self._lock_file = lock_folder(self._path)
        shard, about = self._path / "shard", self._path / "collection.json"
        wanted = {"model": model, "dimensions": self._dimensions}
        if shard.exists():
            check_same(self._path, json.loads(about.read_text()), wanted)
        else:
            create_shard(shard, self._dimensions)
            about.write_text(json.dumps(wanted))
            (self._path / "shard.new").rename(shard)  # the last step: a shard that exists is complete
        self._shard = load_shard(shard)
        indexed = self._shard.info().payload_schema
        for key in (PENDING_KEY, *(f"{METADATA_KEY}.{name}" for name in payload_indexes)):
            if key not in indexed:
                self._shard.update(qd.UpdateOperation.create_field_index(key, qd.PayloadSchemaType.Keyword))

    def _close(self) -> None:
        if self._shard is not None:
            self._shard.flush()
            self._shard.close()
            self._shard = None
        if self._lock_file is not None:
            os.close(self._lock_file)  # releases the lock
            self._lock_file = None

    def _search(self, requests: Sequence[tuple[qd.QueryRequest | None, int]]) -> list[list[Hit]]:
        asked = [request for request, _ in requests if request]
        answers = iter(self._open_shard.query_batch(qd.QueryBatchRequest(asked)) if asked else [])
        # Payloads are read for those alone that are wanted, and only when they are not known: they cost more than the
        # search itself. Ids are UUIDs throughout, which the package's stub does not say.
        found: list[list[tuple[int, float]]] = []
        for request, limit in requests:
            points: list[Any] = next(answers) if request else []
            found.append(ranked(points, limit, lambda point: point.id.int))
        records = self._records.get({number for one in found for number, _ in one}, self._read)
        return [[Hit(records[number], score) for number, score in one] for one in found]

    def _read(self, ids: Sequence[uuid.UUID]) -> list[Record]:
        points = self._open_shard.retrieve(list(ids), with_payload=True, with_vector=False)
        return [point_record(point.id, point.payload) for point in points]

    def _retrieve(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        points = self._open_shard.retrieve(list(ids), with_payload=True, with_vector=False)
        return {str(point.id): point.payload or {} for point in points}

    def _upsert(self, records: Mapping[str, Record]) -> list[str]:
        shard = self._open_shard
        known = self._retrieve(list(records))
        self._records.forget(records)
        points, pending, same, version = [], [], [], new_version()
        for record in records.values():
            before = known.get(record.id)
            if before is None or point_record(record.id, before).text != record.text:
                words = self._bm25.document(record.text)
                vector: dict[str, Any] = {SPARSE: qd.SparseVector(words.indices, words.values)}
                points.append(qd.Point(record.id, vector, point_payload(record, pending=True, version=version)))
                pending.append(record.id)
                continue
            waits = PENDING_KEY in before
            payload = point_payload(record, pending=waits, version=version)
            if {**payload, VERSION_KEY: before.get(VERSION_KEY)} == before:
                same.append(record.id)
            else:
                shard.update(qd.UpdateOperation.overwrite_payload([record.id], payload))
            if waits:
                pending.append(record.id)
        if same:
            shard.update(qd.UpdateOperation.set_payload(list(same), {VERSION_KEY: version}))
        if points:
            shard.update(qd.UpdateOperation.upsert_points(points))
        return pending

    def _set_dense(self, ids: Sequence[str], vectors: NDArray[np.float32], texts: Sequence[str] | None) -> list[str]:
        known = {i: point_record(i, payload).text for i, payload in self._retrieve(ids).items()}
        fits = [n for n, i in enumerate(ids) if i in known and (texts is None or known[i] == texts[n])]
        done = [ids[n] for n in fits]
        if done:
            updates = [qd.PointVectors(ids[n], {DENSE: vectors[n].tolist()}) for n in fits]
            # In this order: killed between the two, a record is embedded once more, never forgotten.
            self._open_shard.update(qd.UpdateOperation.update_vectors(updates))
            self._open_shard.update(qd.UpdateOperation.delete_payload(list(done), [PENDING_KEY]))
        return done

    def _delete(self, where: Where | None, ids: Sequence[str] | None) -> int:
        shard = self._open_shard
        if ids is not None:
            found = list(self._retrieve(ids)) if ids else []
            if found:
                self._records.forget(found)
                shard.update(qd.UpdateOperation.delete_points(list(found)))
            return len(found)
        matching = matching_filter(where)
        assert matching is not None  # check_selection has refused an empty where
        number = shard.count(qd.CountRequest(exact=True, filter=matching))
        self._records.clear()
        shard.update(qd.UpdateOperation.delete_points_by_filter(matching))
        return number

    def _drop(self, seen: Sequence[Seen]) -> set[str]:
        found = self._retrieve([one.id for one in seen])  # nothing comes in between: this thread is the only one
        same = [one.id for one in seen if one.id in found and found[one.id].get(VERSION_KEY, "") == one.version]
        if same:
            self._records.forget(same)
            self._open_shard.update(qd.UpdateOperation.delete_points(list(same)))
        return set(same)

    def _optimize(self) -> bool:
        built, points = self._path / "optimized", self._open_shard.info().points_count
        before = int(built.read_text()) if built.exists() else 0
        if points < max(self._optimize_from_points, GROWTH_TO_OPTIMIZE * before):
            return False
        self._open_shard.flush()
        self._open_shard.close()
        self._shard = None
        command = [sys.executable, "-c", _OPTIMIZE, str(self._path / "shard")]
        child = subprocess.run(command, capture_output=True, text=True)
        self._shard = load_shard(self._path / "shard")
        if child.returncode != 0:
            reason = child.stderr.strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
            raise VectorStoreError(f"vector store {self._path}: building the index failed ({reason[0]})")
        built.write_text(str(points))
        return True
