"""``/events/days``: the event store as Parquet, a file a day, for ``lumina export`` beside a running server.

The server hands the files out and writes none where a caller says: a key must not be a way to the server's disk.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator
from datetime import date
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from memory.events import EventStore
from serving.auth import OwnerOrNone
from serving.dependencies import OpenRunner

router = APIRouter(prefix="/events/days", tags=["events"])

PARQUET = "application/vnd.apache.parquet"
_PIECE = 256 * 1024


class DayView(BaseModel):
    """A day (UTC) that has events."""

    day: date
    events: int


@router.get("")
async def list_days(
    owner: OwnerOrNone,
    runner: OpenRunner,
    since: Annotated[date | None, Query(description="First day.", examples=["2026-11-01"])] = None,
    until: Annotated[date | None, Query(description="Last day.")] = None,
) -> list[DayView]:
    """The days that have events of the caller, with their number; where no keys are set, of everybody."""
    days = await _store(runner).days(since, until, owner=owner)
    return [DayView(day=day.day, events=day.events) for day in days]


@router.get("/{day}", response_class=StreamingResponse, responses={200: {"content": {PARQUET: {}}}})
async def get_day(day: date, owner: OwnerOrNone, runner: OpenRunner) -> StreamingResponse:
    """The events of a day as one Parquet file."""
    store = _store(runner)
    if not await store.days(day, day, owner=owner):
        raise HTTPException(404, f"no events on {day}; GET {router.prefix} lists the days that have some")
    file = await _written(store, day, owner)
    length = str(os.fstat(file.fileno()).st_size)
    headers = {"Content-Length": length, "Content-Disposition": f'attachment; filename="events-{day}.parquet"'}
    return StreamingResponse(_pieces(file), media_type=PARQUET, headers=headers)


async def _written(store: EventStore, day: date, owner: str | None) -> BinaryIO:
    """The day's file, which has no name any more and so is gone when it is closed, whoever closes it."""
    with tempfile.TemporaryDirectory(prefix=".export.", dir=store.path.parent) as folder:
        path = Path(folder, f"{day}.parquet")
        await store.write_day(day, path, owner=owner)
        return await asyncio.to_thread(path.open, "rb")


async def _pieces(file: BinaryIO) -> AsyncGenerator[bytes]:
    with file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece


def _store(runner: Any) -> EventStore:
    events: EventStore | None = runner.context.events
    if events is None:
        raise HTTPException(503, "this process does not hold the event store; ask the one that does")
    return events
