"""What the engine in this process is asked: filters and searches in its own words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import qdrant_edge as qd

from memory.bm25 import Bm25Encoder, SparseWeights
from memory.vectors import (
    DENSE,
    METADATA_KEY,
    MIN_CANDIDATES,
    PENDING_KEY,
    PENDING_VALUE,
    RRF_K,
    SPARSE,
    Mode,
    Search,
    Where,
    wanted_mode,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def matching_filter(where: Where | None, embedded: bool | None = None) -> qd.Filter | None:
    """The points that match; see ``VectorStore.count``. None where all do."""
    must: list[Any] = [
        qd.FieldCondition(
            key=f"{METADATA_KEY}.{key}",
            match=qd.MatchValue(value) if isinstance(value, str) else qd.MatchAny(list(value)),
        )
        for key, value in (where or {}).items()
    ]
    waits: Any = qd.FieldCondition(key=PENDING_KEY, match=qd.MatchValue(PENDING_VALUE))
    if embedded is False:
        must.append(waits)
    must_not = [waits] if embedded else None
    return qd.Filter(must=must or None, must_not=must_not) if must or must_not else None


def query_requests(searches: Sequence[Search], bm25: Bm25Encoder) -> list[tuple[qd.QueryRequest | None, int]]:
    """What to ask for each search, None where there is nothing to search by, and how many hits it wants."""
    words = {text: bm25.query(text) for text in {one.text for one in searches}}
    requests: list[tuple[qd.QueryRequest | None, int]] = []
    for one in searches:
        said = words[one.text]
        wanted = wanted_mode(bool(said.indices), one.dense, one.mode)
        if wanted is None or one.limit < 1:
            requests.append((None, 0))
        else:
            request = _query_request(said, one.dense, matching_filter(one.where), one.limit, wanted)
            requests.append((request, one.limit))
    return requests


def _query_request(
    words: SparseWeights, dense: NDArray[np.float32] | None, matching: qd.Filter | None, limit: int, mode: Mode
) -> qd.QueryRequest:
    """One search, for ids and scores; see ``VectorStore.search``."""
    by_words = qd.Query.Nearest(qd.SparseVector(words.indices, words.values), using=SPARSE)
    if mode == "sparse":
        return qd.QueryRequest(limit=limit, query=by_words, filter=matching)
    assert dense is not None  # wanted_mode has seen to it
    by_meaning = qd.Query.Nearest(dense.tolist(), using=DENSE)
    # Where points that do not match cut the index's graph into pieces, a plain walk misses a fifth of the nearest and
    # now and then all but one; ACORN walks across them.
    across = qd.SearchParams(acorn=qd.AcornSearchParams(enable=True)) if matching else None
    if mode == "dense":
        return qd.QueryRequest(limit=limit, query=by_meaning, filter=matching, params=across)
    depth = max(limit, MIN_CANDIDATES)
    prefetches = [
        qd.Prefetch(limit=depth, query=by_meaning, filter=matching, params=across),
        qd.Prefetch(limit=depth, query=by_words, filter=matching),
    ]
    fusion: Any = qd.Fusion.Rrf(k=RRF_K)  # the package's stub does not say that it is a Fusion
    # All candidates are asked for, so that equal fused scores at the cut are settled by id and not by the engine.
    return qd.QueryRequest(limit=2 * depth, query=fusion, prefetches=prefetches)
