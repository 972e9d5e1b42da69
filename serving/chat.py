"""``POST /chat``: a conversation with memory. ``/conversations``: what was said in it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from memory.conversations import Conversation
from serving.auth import Owner
from serving.dependencies import OpenRunner, OpenTurns
from serving.masterchat import EVENT_STREAM, ChatRequest, Delivery, Turn, answer
from serving.replies import ChatResponse

router = APIRouter(tags=["chat"])

MODE = "chat"
"""The intent of a plain turn."""


class ConversationView(BaseModel):
    """A conversation. Times are milliseconds since the epoch, UTC."""

    id: str
    title: str
    created: int
    updated: int
    turns: int = Field(description="Messages ever stored; the latest 1,000 are kept.")


class ConversationList(BaseModel):
    """One page of conversations, latest first."""

    conversations: list[ConversationView]
    next: str | None = Field(description="Give it as `after` for the next page; null on the last one.")


class MessageView(BaseModel):
    """A message of a conversation."""

    id: str
    number: int = Field(description="Its place in the conversation, from 1.")
    role: str
    content: str
    ts: int = Field(description="Milliseconds since the epoch, UTC.")
    metadata: dict[str, Any]


class ConversationMessages(ConversationView):
    """A conversation with a page of its messages, oldest first."""

    messages: list[MessageView]
    before: int | None = Field(description="Give it as `before` for the page of earlier messages; null when none are.")


@router.post("/chat", response_model=ChatResponse, responses=EVENT_STREAM)
async def chat(
    body: Turn,
    delivery: Annotated[Delivery, Header()],
    owner: Owner,
    runner: OpenRunner,
    turns: OpenTurns,
    request: Request,
) -> Response:
    """Talk, with the latest turns and the three most similar earlier messages in the model's mind.

    The same as ``POST /masterchat/chat`` with mode ``chat``: events, ids, ``Last-Event-ID`` and the JSON document.
    """
    return await answer(ChatRequest(**body.model_dump(), mode=MODE), delivery, owner, runner, turns, request)


@router.get("/conversations")
async def list_conversations(
    owner: Owner,
    runner: OpenRunner,
    after: Annotated[str | None, Query(max_length=80)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> ConversationList:
    """The owner's conversations, latest first."""
    page = await runner.context.conversations.page(owner, limit=limit, after=after)
    return ConversationList(conversations=[_view(one) for one in page.conversations], next=page.next)


@router.get("/conversations/{conversation_id}")
async def get_conversation(
    conversation_id: str,
    owner: Owner,
    runner: OpenRunner,
    before: Annotated[int | None, Query(ge=1, lt=2**53, description="Only messages before this number.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> ConversationMessages:
    """A conversation with its latest messages, or those before a number."""
    conversations = runner.context.conversations
    head = await conversations.get(owner, conversation_id)
    turns = await conversations.turns(owner, conversation_id, last=limit + 1, before=before)
    shown = turns[-limit:]
    return ConversationMessages(
        **_view(head).model_dump(),
        messages=[MessageView(**asdict(turn)) for turn in shown],
        before=shown[0].number if len(turns) > limit else None,
    )


@router.delete("/conversations/{conversation_id}", status_code=204)
async def delete_conversation(conversation_id: str, owner: Owner, runner: OpenRunner) -> None:
    """Drop a conversation; none of its messages is recalled any more."""
    await runner.context.conversations.delete(owner, conversation_id)


def _view(conversation: Conversation) -> ConversationView:
    return ConversationView(**asdict(conversation))
