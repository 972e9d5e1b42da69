"""What a Qdrant server is asked: filters and searches in its own words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qdrant_client import models as qm

from memory.bm25 import SparseWeights
from memory.vectors import (
    DENSE,
    METADATA_KEY,
    MIN_CANDIDATES,
    PENDING_KEY,
    PENDING_VALUE,
    RRF_K,
    SPARSE,
    VERSION_KEY,
    Mode,
    Where,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def sparse_vector(words: SparseWeights) -> qm.SparseVector:
    """A text's words as the server takes them."""
    return qm.SparseVector(indices=words.indices, values=words.values)


def matching_filter(where: Where | None, embedded: bool | None = None) -> qm.Filter | None:
    """The points that match; see ``VectorStore.count``. None where all do."""
    must: list[qm.Condition] = [
        qm.FieldCondition(
            key=f"{METADATA_KEY}.{key}",
            match=qm.MatchValue(value=value) if isinstance(value, str) else qm.MatchAny(any=list(value)),
        )
        for key, value in (where or {}).items()
    ]
    waits = qm.FieldCondition(key=PENDING_KEY, match=qm.MatchValue(value=PENDING_VALUE))
    if embedded is False:
        must.append(waits)
    must_not: list[qm.Condition] | None = [waits] if embedded else None
    return qm.Filter(must=must or None, must_not=must_not) if must or must_not else None


def unchanged_filter(ids: Sequence[str], versions: set[str], versioned: bool) -> qm.Filter:
    """Those of the points that still have one of these versions, or none."""
    same: qm.Condition = qm.FieldCondition(key=VERSION_KEY, match=qm.MatchAny(any=sorted(versions)))
    none: qm.Condition = qm.IsEmptyCondition(is_empty=qm.PayloadField(key=VERSION_KEY))
    return qm.Filter(must=[qm.HasIdCondition(has_id=list(ids)), same if versioned else none])


def query_request(
    words: SparseWeights, dense: NDArray[np.float32] | None, matching: qm.Filter | None, limit: int, mode: Mode
) -> qm.QueryRequest:
    """One search; see ``VectorStore.search``."""
    if mode == "sparse":
        return qm.QueryRequest(
            query=sparse_vector(words), using=SPARSE, filter=matching, limit=limit, with_payload=True
        )
    assert dense is not None  # wanted_mode has seen to it
    if mode == "dense":
        return qm.QueryRequest(query=dense.tolist(), using=DENSE, filter=matching, limit=limit, with_payload=True)
    depth = max(limit, MIN_CANDIDATES)
    prefetch = [
        qm.Prefetch(query=dense.tolist(), using=DENSE, filter=matching, limit=depth),
        qm.Prefetch(query=sparse_vector(words), using=SPARSE, filter=matching, limit=depth),
    ]
    # All candidates are asked for, so that equal fused scores at the cut are settled by id and not by the engine.
    return qm.QueryRequest(
        prefetch=prefetch, query=qm.RrfQuery(rrf=qm.Rrf(k=RRF_K)), limit=2 * depth, with_payload=True
    )
