"""``POST /masterchat/chat``: a message in, a run of the graph, its events out, also after the connection broke."""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, HTTPException, Request
from fastapi.sse import format_sse_event
from loguru import logger
from pydantic import BaseModel, ConfigDict, Field
from redis.exceptions import RedisError
from starlette.responses import JSONResponse, Response, StreamingResponse

from agents.spec import RunRequest
from errors import LuminaError
from graphs.intents import find_intent
from graphs.runs import Runner, new_task_id
from memory.run_log import LoggedEvent, RunHead, UnknownRun
from serving.auth import Owner
from serving.dependencies import OpenRunner, OpenTurns
from serving.limits import admit
from serving.problems import problem
from serving.replies import ChatResponse, reply_to
from serving.turns import Turns

router = APIRouter(prefix="/masterchat", tags=["masterchat"])

KEEP_ALIVE_S = 15.0
"""Seconds without an event after which a comment is sent, as WHATWG HTML 9.2.7 advises against old proxies."""
RETRY_MS = 1_000
"""After how long an EventSource connects again."""
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
RUN_NAMES = uuid.UUID("2f0c3c0e-7f0d-5e0e-9c39-3b1f5b0d6a11")
"""Namespace of the ids that are made of an ``Idempotency-Key`` (RFC 9562, version 5)."""
EVENT_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}


class Turn(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(extra="forbid")

    message: str = Field(min_length=1, max_length=20_000, examples=["Who proved that the Mandelbrot set is connected?"])
    conversation_id: str | None = Field(None, description="Go on with this conversation; a new one when left out.")
    stream: bool | None = Field(None, description="SSE when true, one JSON document when false; else Accept decides.")
    background: bool = Field(False, description="Go on when the client is gone; else the run is stopped after 5 s.")


class ChatRequest(Turn):
    """A message and how it is to be taken."""

    mode: str = Field("auto", description="auto, or an intent of the goal file: wiki_qa, crawl, summarise, chat, plan.")
    topics: list[str] = Field(default_factory=list, max_length=20, description="Articles to start from.")
    hops: int = Field(1, ge=0, le=5)
    max_nodes: int = Field(30, ge=1, le=5_000)

    def fingerprint(self) -> str:
        """The same for the same request, however it is to be answered."""
        return hashlib.sha256(self.model_dump_json(exclude={"stream"}).encode()).hexdigest()


class Delivery(BaseModel):
    """The headers that say how a turn is answered."""

    accept: str = "*/*"
    idempotency_key: str | None = Field(
        None, min_length=1, max_length=255, description="The same key again gives the same run, not another one."
    )
    last_event_id: str | None = Field(
        None, max_length=300, description="The id of the last event seen: go on after it instead of running anew."
    )


@router.post("/chat", response_model=ChatResponse, responses=EVENT_STREAM)
async def chat(
    body: ChatRequest,
    delivery: Annotated[Delivery, Header()],
    owner: Owner,
    runner: OpenRunner,
    turns: OpenTurns,
    request: Request,
) -> Response:
    """Route a message by its intent and run the graph.

    As SSE the events are ``plan``, ``agent``, ``progress``, ``token``, ``citation``, ``usage``, ``done`` and ``error``;
    ``restart`` takes the tokens of an agent back, when it was interrupted and says something else now. ``done`` carries
    the ``conversation_id`` to go on with; the header ``Link`` names the conversation before the first event. After a
    dropped connection the same request with ``Last-Event-ID`` goes on where it was.
    """
    return await answer(body, delivery, owner, runner, turns, request)


@router.get("/chat/{task_id}/events", responses={**EVENT_STREAM, 204: {"description": "Nothing follows."}})
async def events(
    task_id: str,
    owner: Owner,
    turns: OpenTurns,
    last_event_id: Annotated[str | None, Header(max_length=300)] = None,
) -> Response:
    """The events of a run, from the first or after ``Last-Event-ID``, kept for ten minutes after its last one."""
    run, after = parse_event_id(last_event_id) if last_event_id else (task_id, 0)
    if run != task_id:
        raise HTTPException(
            422, f"Last-Event-ID is of run {run}, and this is {task_id}; leave it out to see all events"
        )
    head = await turns.head(task_id, owner)
    if head.ended and after == head.position:
        return Response(status_code=204)  # what keeps an EventSource from connecting again
    await turns.check(head, after)
    return _stream(turns, head, after)


@router.delete("/chat/{task_id}", status_code=204)
async def cancel(task_id: str, owner: Owner, turns: OpenTurns) -> None:
    """Stop a run for good, within about a second; its last event is an ``error``. One that has ended stays as it is."""
    await turns.cancel(task_id, owner)


async def answer(
    body: ChatRequest, delivery: Delivery, owner: str, runner: Runner, turns: Turns, request: Request
) -> Response:
    """Begin the run of a turn, or find the one that the headers name, and answer with its events or its end."""
    streamed = body.stream if body.stream is not None else "text/event-stream" in delivery.accept
    after = 0
    if delivery.last_event_id:
        task_id, after = parse_event_id(delivery.last_event_id)
        head = await turns.head(task_id, owner)
    else:
        head = await _begin(body, delivery.idempotency_key, owner, runner, turns, request)
    request.state.task_id = head.task_id  # for the log
    if head.fingerprint != body.fingerprint():
        named = "Last-Event-ID" if delivery.last_event_id else "the Idempotency-Key"
        raise HTTPException(
            422, f"{named} stands for another request, run {head.task_id}; leave it out, or use a new one"
        )
    if streamed:
        await turns.check(head, after)
        return _stream(turns, head, after)
    return await _document(turns, head, request)


async def open_conversation(runner: Runner, owner: str, conversation_id: str | None) -> str:
    """The id of a conversation of this owner, or of a new one."""
    conversations = runner.context.conversations
    if conversation_id is None:
        return (await conversations.create(owner)).id
    return (await conversations.get(owner, conversation_id)).id


def parse_event_id(given: str) -> tuple[str, int]:
    """The run and the position that an event's id names."""
    found = re.fullmatch(r"([0-9a-f-]{36})\.(\d{1,15})", given, re.ASCII)
    if found is None:
        raise HTTPException(422, f"«{given[:80]}» is no id of an event; send the last `id:` that came, or leave it out")
    return found[1], int(found[2])


async def _begin(
    body: ChatRequest, key: str | None, owner: str, runner: Runner, turns: Turns, connection: Request
) -> RunHead:
    """The run of a new turn, or the one that was begun with the same key."""
    task_id, conversation_id = new_task_id(), body.conversation_id
    if key is not None:
        task_id = str(uuid.uuid5(RUN_NAMES, f"{owner}\x1f{key}"))
        try:
            return await turns.head(task_id, owner)
        except UnknownRun:
            pass
    mode = body.mode
    if mode == "auto":
        mode = await find_intent(runner.goals, runner.context.embedder, body.message)
    request = RunRequest(
        intent=mode,
        message=body.message,
        topics=body.topics,
        hops=body.hops,
        max_nodes=body.max_nodes,
        owner=owner,
    )
    if conversation_id is not None:
        await open_conversation(runner, owner, conversation_id)  # before a token is taken: it may not be there
    paid = await admit(connection, request)  # before one is made: who is refused shall find no empty conversation
    if conversation_id is None and key is not None:  # the same one for requests that come at the same time
        conversation_id = str(uuid.uuid5(RUN_NAMES, task_id))
        await runner.context.conversations.create(owner, conversation_id=conversation_id)
    request.conversation_id = await open_conversation(runner, owner, conversation_id)
    return await turns.start(request, task_id, fingerprint=body.fingerprint(), background=body.background, paid=paid)


def _stream(turns: Turns, head: RunHead, after: int) -> StreamingResponse:
    headers = {
        **STREAM_HEADERS,
        "Content-Location": f"{router.prefix}/chat/{head.task_id}/events",
        "Link": f'</conversations/{head.request["conversation_id"]}>; rel="collection"',  # RFC 6573
    }
    return StreamingResponse(_sse(turns, head, after), media_type="text/event-stream", headers=headers)


async def _sse(turns: Turns, head: RunHead, after: int) -> AsyncGenerator[bytes, None]:
    told, first = time.monotonic(), True
    try:
        async with aclosing(turns.follow(head, after)) as events:
            async for event in events:
                if event is not None:
                    yield _block(head.task_id, event, RETRY_MS if first else None)
                    told, first = time.monotonic(), False
                elif time.monotonic() - told >= KEEP_ALIVE_S:
                    yield format_sse_event(comment="keep-alive")
                    told = time.monotonic()
    except (LuminaError, RedisError, OSError) as error:  # the run may go on: who connects again hears more
        logger.warning("run {} cannot be followed: {}", head.task_id, error)
        yield format_sse_event(comment="the events cannot be read now; connect again")


def _block(task_id: str, event: LoggedEvent, retry_ms: int | None) -> bytes:
    id_ = f"{task_id}.{event.position}"
    return format_sse_event(event=event.kind, data_str=event.data, id=id_, retry=retry_ms)


async def _document(turns: Turns, head: RunHead, request: Request) -> Response:
    """The end of a run, when it has come."""
    async with aclosing(turns.follow(head, gaps=True)) as events:
        async for event in events:
            if event is None:
                if await request.is_disconnected():
                    break
            elif event.kind == "error":
                data = json.loads(event.data)
                return problem(data["status"], data["title"], data["detail"], task_id=head.task_id)
            elif event.kind == "done":
                reply = reply_to(RunRequest(**head.request), json.loads(event.data))
                outcome = reply.outcome or {}
                if outcome.get("status") == "failed":
                    return problem(422, "The run failed", outcome["reason"], task_id=head.task_id)
                return JSONResponse(reply.model_dump())
    return problem(
        503, "Not finished", "this server ends before the run does; send the request again", task_id=head.task_id
    )
