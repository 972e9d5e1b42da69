"""``POST /masterchat/plan``: what would be done and why. ``GET /planner/logs``: every choice, as it is made."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Header, HTTPException, Query
from fastapi.sse import format_sse_event
from loguru import logger
from pydantic import BaseModel, ConfigDict, Field
from redis.exceptions import RedisError
from starlette.responses import StreamingResponse

from graphs.explaining import describe_request
from memory.keys import PLANNER_STREAM
from memory.streams import Delivered, Streams
from serving.auth import Owner
from serving.dependencies import OpenRunner

router = APIRouter(tags=["planner"])

KEEP_ALIVE_S = 15.0
"""Seconds without an event after which a comment is sent, as WHATWG HTML 9.2.7 advises against old proxies."""
BLOCK_MS = 2_000
"""How long one read of the stream waits; well under the 30 s after which the Redis client gives up."""
HIGHEST = 2**64 - 1
"""The largest half of a stream id."""


class PlanRequest(BaseModel):
    """A message and how it is to be taken."""

    model_config = ConfigDict(extra="forbid")

    message: str = Field("", max_length=20_000, examples=["Who proved that the Mandelbrot set is connected?"])
    mode: str = Field("auto", description="auto, or an intent of the goal file: wiki_qa, crawl, summarise, chat.")
    topics: list[str] = Field(default_factory=list, max_length=20, description="Articles to start from.")
    hops: int = Field(1, ge=0, le=5)
    max_nodes: int = Field(30, ge=1, le=5_000)
    execute: bool = Field(False, description="Not possible yet: POST the message to /masterchat/chat instead.")


@router.post("/masterchat/plan", tags=["masterchat"])
async def plan(body: PlanRequest, owner: Owner, runner: OpenRunner) -> dict[str, Any]:
    """The plan for a message from the facts of this moment, with costs, alternatives, reasons and a Mermaid picture.

    Nothing is run.
    """
    if body.execute:
        raise HTTPException(501, "a plan cannot be submitted here yet; send the message to POST /masterchat/chat")
    return await describe_request(runner, {**body.model_dump(exclude={"mode", "execute"}), "intent": body.mode}, owner)


@router.get("/planner/logs", responses={200: {"content": {"text/event-stream": {}}}}, response_class=StreamingResponse)
async def logs(
    owner: Owner,
    runner: OpenRunner,
    after: Annotated[str, Query(description="Begin after this id; 0: what is kept, $: only what is new.")] = "0",
    task_id: Annotated[str | None, Query(description="Only events of this task.")] = None,
    last_event_id: Annotated[str | None, Header(description="Goes before `after`: sent by who reconnects.")] = None,
) -> StreamingResponse:
    """The caller's planning events as SSE: ``plan.start``, ``plan.step``, ``plan.done``.

    The id of each is its id in the stream, so that a client that reconnects goes on where it was.
    """
    streams = runner.context.streams
    position = await _position(streams, last_event_id or after)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    events = follow(streams, position, owner, task_id)
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def _position(streams: Streams, given: str) -> str:
    if given == "$":
        return await streams.last_id(PLANNER_STREAM)
    parts = given.split("-")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and int(part[:21]) <= HIGHEST for part in parts):
        raise HTTPException(422, f"«{given[:60]}» is no stream id; send one like 1700000000000-0, or 0, or $")
    return given


async def follow(
    streams: Streams, position: str, owner: str, task_id: str | None = None, *, keep_alive_s: float = KEEP_ALIVE_S
) -> AsyncGenerator[bytes, None]:
    """The planner's log of an owner as SSE, until nobody reads any more.

    Args:
        streams: Where the log is.
        position: Stream id after which to begin.
        owner: Whose events are shown; those of others are passed over.
        task_id: Show this task only.
        keep_alive_s: Seconds of silence before a comment is sent.
    """
    yield format_sse_event(comment="planner log", retry=1_000)
    told = time.monotonic()
    while True:
        block_ms = max(1, min(BLOCK_MS, int(keep_alive_s * 1_000)))
        try:
            entries = await streams.tail(PLANNER_STREAM, position, block_ms=block_ms)
        except RedisError as error:
            logger.warning("the planner's log cannot be read: {}", error)
            yield format_sse_event(comment="the log cannot be read now; connect again")
            return
        for entry in entries:
            position = entry.id
            if entry.event.data.get("owner") == owner and task_id in (None, entry.event.task_id):
                yield _event(entry)
                told = time.monotonic()
        if time.monotonic() - told >= keep_alive_s:
            yield format_sse_event(comment="keep-alive")
            told = time.monotonic()
        await asyncio.sleep(0)  # a backlog of somebody else's events must not keep the loop to itself


def _event(entry: Delivered) -> bytes:
    event = entry.event
    data = {"ts": event.ts, "agent": event.agent, "task_id": event.task_id, "data": event.data}
    return format_sse_event(event=event.type, data_str=json.dumps(data, ensure_ascii=False), id=entry.id)
