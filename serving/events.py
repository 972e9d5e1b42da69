"""``POST /events/query``: read-only SQL over the event store."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, Field

from serving.auth import OwnerOrNone
from serving.dependencies import OpenRunner

router = APIRouter(prefix="/events", tags=["events"])


class Query(BaseModel):
    """One statement that reads."""

    sql: str = Field(min_length=1, max_length=100_000, examples=["SELECT type, count(*) FROM events GROUP BY ALL"])
    max_rows: int = Field(1_000, ge=1, le=10_000)


@router.post("/query")
async def query(body: Query, owner: OwnerOrNone, runner: OpenRunner) -> dict[str, Any]:
    """Rows of one reading statement over the caller's own events; where no keys are set, over all there are."""
    if runner.context.events is None:
        raise HTTPException(503, "this process does not hold the event store; ask the one that does")
    return asdict(await runner.context.events.query(body.sql, owner=owner, max_rows=body.max_rows))
