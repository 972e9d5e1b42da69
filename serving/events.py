"""``POST /events/query``: read-only SQL over the event store."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, Field

from serving.auth import Owner
from serving.dependencies import OpenRunner

router = APIRouter(prefix="/events", tags=["events"])


class Query(BaseModel):
    """One statement that reads."""

    sql: str = Field(min_length=1, max_length=100_000, examples=["SELECT type, count(*) FROM events GROUP BY ALL"])
    max_rows: int = Field(1_000, ge=1, le=10_000)


@router.post("/query")
async def query(body: Query, request: Request, owner: Owner, runner: OpenRunner) -> dict[str, Any]:
    """Rows of one reading statement, which sees the events of every owner: only where there is one owner."""
    owners = set(request.state.api_keys.values()) or {owner}
    if len(owners) > 1:
        raise HTTPException(403, "SQL sees every owner's events; it is open where all keys belong to one owner")
    if runner.context.events is None:
        raise HTTPException(503, "this process does not hold the event store; ask the one that does")
    return asdict(await runner.context.events.query(body.sql, max_rows=body.max_rows))
