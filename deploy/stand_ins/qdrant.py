"""The part of Qdrant's HTTP interface that Lumina speaks, on qdrant-client's local mode: where no server is to be had.

It stands for Qdrant in tests and in a smoke test, and is none: everything is in memory, one request at a time, and each
search looks at every point. Paths and bodies are those of https://api.qdrant.tech, as qdrant-client's models have them.
"""

from __future__ import annotations

import sys
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from qdrant_client import AsyncQdrantClient
from qdrant_client import models as qm
from qdrant_client.http.models import (
    CountRequest,
    CreateCollection,
    CreateFieldIndex,
    DeletePayload,
    PointRequest,
    PointsList,
    QueryRequestBatch,
    ScrollRequest,
    SetPayload,
    UpdateVectors,
)

PORT = 6333


def create_app() -> FastAPI:
    """The server, with nothing in it."""
    app = FastAPI(title="Qdrant's stand-in")
    store = AsyncQdrantClient(":memory:")
    _serve_collections(app, store)
    _serve_writes(app, store)
    _serve_reads(app, store)

    @app.exception_handler(ValueError)
    async def refuse(request: Request, error: ValueError) -> JSONResponse:
        status = 404 if "not found" in str(error) else 400
        return JSONResponse({"status": {"error": str(error)}, "time": 0}, status)

    @app.get("/readyz")
    async def ready() -> str:
        return "all shards are ready"

    return app


def _serve_collections(app: FastAPI, store: AsyncQdrantClient) -> None:
    @app.get("/collections/{name}/exists")
    async def exists(name: str) -> dict[str, Any]:
        return _answer({"exists": await store.collection_exists(name)})

    @app.put("/collections/{name}")
    async def create(name: str, body: CreateCollection) -> dict[str, Any]:
        if await store.collection_exists(name):
            raise HTTPException(409, f"Collection `{name}` already exists!")
        made = await store.create_collection(name, body.vectors, body.sparse_vectors, metadata=body.metadata)
        return _answer(made)

    @app.get("/collections/{name}")
    async def describe(name: str) -> dict[str, Any]:
        return _answer(await store.get_collection(name))

    @app.put("/collections/{name}/index")
    async def index(name: str, body: CreateFieldIndex) -> dict[str, Any]:
        await store.get_collection(name)  # it has no indexes, but must be there
        return _answer(qm.UpdateResult(operation_id=0, status=qm.UpdateStatus.COMPLETED))


def _serve_writes(app: FastAPI, store: AsyncQdrantClient) -> None:
    @app.put("/collections/{name}/points")
    async def upsert(name: str, body: PointsList) -> dict[str, Any]:
        return _answer(await store.upsert(name, body.points))

    @app.put("/collections/{name}/points/vectors")
    async def update_vectors(name: str, body: UpdateVectors) -> dict[str, Any]:
        return _answer(await store.update_vectors(name, body.points))

    @app.post("/collections/{name}/points/delete")
    async def delete(name: str, body: qm.PointIdsList | qm.FilterSelector) -> dict[str, Any]:
        return _answer(await store.delete(name, body))

    @app.post("/collections/{name}/points/payload")
    async def set_payload(name: str, body: SetPayload) -> dict[str, Any]:
        return _answer(await store.set_payload(name, body.payload, _chosen(body)))

    @app.put("/collections/{name}/points/payload")
    async def overwrite_payload(name: str, body: SetPayload) -> dict[str, Any]:
        return _answer(await store.overwrite_payload(name, body.payload, _chosen(body)))

    @app.post("/collections/{name}/points/payload/delete")
    async def delete_payload(name: str, body: DeletePayload) -> dict[str, Any]:
        return _answer(await store.delete_payload(name, body.keys, _chosen(body)))


def _serve_reads(app: FastAPI, store: AsyncQdrantClient) -> None:
    @app.post("/collections/{name}/points")
    async def retrieve(name: str, body: PointRequest) -> dict[str, Any]:
        found = await store.retrieve(name, body.ids, body.with_payload is not False, body.with_vector or False)
        return _answer(found)

    @app.post("/collections/{name}/points/scroll")
    async def scroll(name: str, body: ScrollRequest) -> dict[str, Any]:
        wanted = True if body.with_payload is None else body.with_payload
        points, following = await store.scroll(
            name, body.filter, body.limit or 10, offset=body.offset, with_payload=wanted
        )
        return _answer({"points": [_plain(point) for point in points], "next_page_offset": following})

    @app.post("/collections/{name}/points/count")
    async def count(name: str, body: CountRequest) -> dict[str, Any]:
        return _answer(await store.count(name, body.filter))

    @app.post("/collections/{name}/points/query/batch")
    async def query(name: str, body: QueryRequestBatch) -> dict[str, Any]:
        asked = [one.model_copy(update={"with_payload": one.with_payload or False}) for one in body.searches]
        return _answer(await store.query_batch_points(name, asked))


def _chosen(body: SetPayload | DeletePayload) -> qm.PointIdsList | qm.Filter:
    if body.points is not None:
        return qm.PointIdsList(points=body.points)
    if body.filter is not None:
        return body.filter
    raise HTTPException(400, "either points or filter is needed")


def _answer(result: Any) -> dict[str, Any]:
    return {"status": "ok", "time": 0.0, "result": _plain(result)}


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    return [_plain(one) for one in value] if isinstance(value, list) else value


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(create_app(), host=sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1", port=PORT, log_level="warning")
