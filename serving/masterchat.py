"""``POST /masterchat/chat``: a message in, a run of the graph, its events out."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi.sse import format_sse_event
from loguru import logger
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response, StreamingResponse

from agents.spec import RunRequest
from errors import LuminaError
from graphs.intents import find_intent
from graphs.runs import RunEvent, Runner, new_task_id
from memory.conversations import Message
from serving.auth import Owner
from serving.dependencies import OpenRunner
from serving.problems import problem, status_of

router = APIRouter(prefix="/masterchat", tags=["masterchat"])


class ChatRequest(BaseModel):
    """A message and how it is to be taken."""

    model_config = ConfigDict(extra="forbid")

    message: str = Field(min_length=1, max_length=20_000, examples=["Who proved that the Mandelbrot set is connected?"])
    mode: str = Field("auto", description="auto, or an intent of the goal file: wiki_qa, crawl, summarise, chat, plan.")
    conversation_id: str | None = Field(None, description="Go on with this conversation; a new one when left out.")
    stream: bool | None = Field(None, description="SSE when true, one JSON document when false; else Accept decides.")
    topics: list[str] = Field(default_factory=list, max_length=20, description="Articles to start from.")
    hops: int = Field(1, ge=0, le=5)
    max_nodes: int = Field(30, ge=1, le=5_000)


class ChatResponse(BaseModel):
    """The JSON answer."""

    conversation_id: str
    task_id: str
    mode: str
    answer: str
    abstained: bool = False
    citations: list[dict[str, Any]] = Field(default_factory=list)
    summaries: list[dict[str, Any]] = Field(default_factory=list)
    usage: dict[str, Any] = Field(default_factory=dict)
    chain: list[list[str]] = Field(default_factory=list)
    outcome: dict[str, Any] | None = None
    notices: list[str] = Field(default_factory=list, description="What to know of it, e.g. that the budget is used up.")


@router.post("/chat", response_model=ChatResponse, responses={200: {"content": {"text/event-stream": {}}}})
async def chat(
    body: ChatRequest, owner: Owner, runner: OpenRunner, accept: Annotated[str, Header()] = "*/*"
) -> Response:
    """Route a message by its intent and run the graph.

    As SSE the events are ``plan``, ``agent``, ``progress``, ``token``, ``citation``, ``usage``, ``done``, ``error``.
    ``done`` carries the ``conversation_id`` to go on with.
    """
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
        conversation_id=await open_conversation(runner, owner, body.conversation_id),
    )
    runner.validate(request)
    task_id = new_task_id()
    if body.stream if body.stream is not None else "text/event-stream" in accept:
        events = _sse(run_turn(runner, request, task_id))
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
    async for event in run_turn(runner, request, task_id):
        if event.kind == "done":
            answer = response_of(request, event.data)
            failed = answer.outcome is not None and answer.outcome["status"] == "failed"
            if failed:
                return problem(
                    422, "The run failed", answer.outcome["reason"] if answer.outcome else "", task_id=task_id
                )
            return JSONResponse(answer.model_dump())
    raise LuminaError(f"task {task_id} ended without an outcome")


async def open_conversation(runner: Runner, owner: str, conversation_id: str | None) -> str:
    """The id of a conversation of this owner, or of a new one."""
    conversations = runner.context.conversations
    if conversation_id is None:
        return (await conversations.create(owner)).id
    return (await conversations.get(owner, conversation_id)).id


async def run_turn(runner: Runner, request: RunRequest, task_id: str) -> AsyncGenerator[RunEvent, None]:
    """A run, with both sides of it kept in the conversation."""
    conversations, id_ = runner.context.conversations, request.conversation_id or ""
    asked = Message("user", request.message)
    await conversations.append(request.owner, id_, [asked], idempotency_key=f"{task_id}:user")
    async with aclosing(runner.stream(request, task_id)) as events:
        async for event in events:
            if event.kind == "done":
                said = response_of(request, event.data)
                yield RunEvent("usage", said.usage)
                metadata = {"citations": said.citations, "tokens": said.usage, "task_id": task_id}
                answered = Message("assistant", said.answer, metadata)
                await conversations.append(request.owner, id_, [answered], idempotency_key=f"{task_id}:assistant")
                known = {"conversation_id": id_, "mode": request.intent, "answer": said.answer}
                event = RunEvent("done", {**event.data, **known})
            yield event


def response_of(request: RunRequest, done: dict[str, Any]) -> ChatResponse:
    """The answer, out of the ``done`` event of a run."""
    report, reply = done["report"], done["reply"] or {}
    outcome = done["outcome"] or {}
    texts = [reply.get("answer")] if reply else [s["text"] for s in report.get("summaries", [])]
    crawls = [f"Read {len(c['titles'])} pages around «{c['title']}»." for c in report.get("crawls", [])]
    answer = "\n\n".join(text for text in texts if text) or "\n".join(crawls) or outcome.get("reason", "")
    return ChatResponse(
        conversation_id=request.conversation_id or "",
        task_id=done["task_id"],
        mode=request.intent,
        answer=answer,
        abstained=bool(reply.get("abstained")),
        citations=reply.get("citations") or [],
        summaries=report.get("summaries", []),
        usage=done["usage"],
        chain=done["chain"],
        outcome=done["outcome"],
        notices=outcome.get("notices", []),
    )


async def _sse(events: AsyncGenerator[RunEvent, None]) -> AsyncGenerator[bytes, None]:
    number = 0
    try:
        async with aclosing(events):
            async for event in events:
                number += 1
                yield _event(event.kind, event.data, number)
    except LuminaError as error:
        data = {"title": type(error).__name__, "detail": str(error), "status": status_of(error)}
        yield _event("error", data, number + 1)
    except Exception as error:  # the response has begun: the client must hear of it, without a trace
        logger.opt(exception=error).error("a streamed run failed")
        detail = "something went wrong here; the log has the details"
        yield _event("error", {"title": "Internal error", "detail": detail, "status": 500}, number + 1)


def _event(kind: str, data: dict[str, Any], number: int) -> bytes:
    return format_sse_event(event=kind, data_str=json.dumps(data, ensure_ascii=False), id=str(number))
