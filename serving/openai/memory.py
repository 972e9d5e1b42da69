"""Conversations of clients that send their whole history: each message is stored once, and edits branch off."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents.context import Context
from memory.conversations import Message as Turn
from memory.histories import Histories, Said, digest
from serving.openai.wire import Message

HEADER = "x-conversation-id"
RESENT_HEADER = "idempotency-key"


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a question was stored."""

    conversation_id: str
    history: list[Said]
    key: str
    """The same for the same request sent again."""
    named: bool
    """Whether the client named the conversation."""


def spoken(messages: Sequence[Message]) -> list[Said]:
    """What was said by both sides, up to the last message of the user; empty when there is none.

    Instructions of the client (``system``, ``developer``) and results of tools are no part of a conversation.
    """
    said: list[Said] = [
        (one.role, one.text) for one in messages if one.role in ("user", "assistant") and one.text.strip()
    ]
    while said and said[-1][0] != "user":
        said.pop()
    return said


async def keep_question(
    context: Context, owner: str, history: list[Said], metadata: Mapping[str, Any], headers: Mapping[str, str]
) -> Kept:
    """Store what is new in a history, and say where.

    A conversation that the client names gets the last message, or everything when it is new. Else the history leads
    to it, see ``memory.histories``.

    Raises:
        UnknownConversation: the name is no UUID.
        InvalidTurn: a message cannot be stored.
    """
    conversations = context.conversations
    named = metadata.get("conversation_id") or headers.get(HEADER)
    if named:
        conversation = await conversations.create(owner, conversation_id=str(named))
        id_, new = conversation.id, history if not conversation.turns else history[-1:]
        # One message alone may well be said twice; a whole history is the same only when it is sent again.
        alone = headers.get(RESENT_HEADER, "")[:200] or uuid.uuid4().hex
        key = digest(history) if len(history) > 1 else alone
    else:
        claim = await Histories(context.redis).claim(owner, history)
        id_ = (await conversations.create(owner, conversation_id=claim.conversation_id)).id
        new, key = history[claim.stored :], claim.digest
    turns = [Turn(role, text) for role, text in new]
    await conversations.append(owner, id_, turns, idempotency_key=f"{key}:asked")
    return Kept(id_, history, key, bool(named))


async def keep_answer(context: Context, owner: str, kept: Kept, text: str, metadata: Mapping[str, Any]) -> None:
    """Store an answer. A second answer to the same request is not stored; it is when the client goes on from it."""
    if not text.strip():
        return
    turn = Turn("assistant", text, metadata)
    stored = await context.conversations.append(
        owner, kept.conversation_id, [turn], idempotency_key=f"{kept.key}:answered"
    )
    if not kept.named and stored and stored[0].content == text:
        history = [*kept.history, ("assistant", text)]
        await Histories(context.redis).keep(owner, history, kept.conversation_id)
