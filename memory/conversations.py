"""Conversations in Redis: turns under an owner's keys, and recall of what was said before.

Every key holds the owner's name, so that another owner's conversation is as unknown as one that never was.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from loguru import logger

from errors import LuminaError
from memory import keys
from memory.cited import cited_by
from memory.conversation_items import (
    MAX_IDEMPOTENCY_KEY,
    Conversation,
    ConversationPage,
    InvalidTurn,
    Message,
    MessageIndex,
    SimilarMessage,
    Turn,
    UnknownConversation,
    checked_id,
    checked_title,
    conversation_from,
    page_mark,
    stored_text,
    title_from,
    turn_from,
    unknown,
)
from memory.conversation_scripts import APPEND, CREATE, RENAME, SLICE
from memory.streams import Event, now_ms

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = [
    "Conversation",
    "ConversationPage",
    "Conversations",
    "InvalidTurn",
    "Message",
    "MessageIndex",
    "SimilarMessage",
    "Turn",
    "UnknownConversation",
]

MAX_PAGE = 200
"""Conversations of one page of a list."""


class Conversations:
    """The conversations of every owner."""

    def __init__(
        self,
        redis: Redis,
        index: MessageIndex | None = None,
        *,
        max_turns: int = 1_000,
        ttl_s: float | None = None,
        tell: Callable[..., None] = lambda *events: None,
    ) -> None:
        """Conversations on a Redis client whose replies are bytes.

        Args:
            redis: The client.
            index: Where messages are found again by meaning; without one, ``recall`` finds nothing.
            max_turns: Latest turns kept of each conversation.
            ttl_s: A conversation is dropped so long after its latest turn; None keeps it.
            tell: Takes a ``chat.message`` event of each turn that was stored; it must not wait.
        """
        self._tell = tell
        self._redis = redis
        self._index = index
        self._max_turns = max_turns
        self._ttl_ms = 0 if ttl_s is None else max(1, round(ttl_s * 1000))

    async def create(self, owner: str, *, title: str = "", conversation_id: str | None = None) -> Conversation:
        """A new conversation, or the owner's existing one with that id.

        Args:
            owner: Whose it is.
            title: Without one, the first message of the user gives it.
            conversation_id: A UUID chosen by the client; without one, a random UUID (RFC 9562, version 4).

        Raises:
            UnknownConversation: when ``conversation_id`` is no UUID.
            InvalidTurn: when the title is too long.
        """
        id_ = str(uuid.uuid4()) if conversation_id is None else checked_id(conversation_id)
        head, _, _ = keys.conversation(owner, id_)
        reply = await self._redis.eval(
            CREATE, 2, head, keys.conversations(owner), now_ms(), self._ttl_ms, id_, checked_title(title)
        )
        return conversation_from(id_, dict(zip(reply[::2], reply[1::2], strict=True)))

    async def append(
        self, owner: str, conversation_id: str, messages: Sequence[Message], *, idempotency_key: str = ""
    ) -> list[Turn]:
        """Store messages at the end, in one round trip, and index what users and assistants said.

        A failure of the index is logged and not raised, for the turns are stored; the same sent again with its key
        indexes them.

        Args:
            owner: Whose conversation.
            conversation_id: Which.
            messages: In order; all or none are stored.
            idempotency_key: The same key again, as long as the first turn sent with it is kept, stores nothing and
                returns the turns that the first sending stored.

        Raises:
            UnknownConversation: when the owner has no such conversation.
            InvalidTurn: when a message or the key is refused.
        """
        id_ = checked_id(conversation_id)
        if len(idempotency_key) > MAX_IDEMPOTENCY_KEY:
            raise InvalidTurn(
                f"the idempotency key has {len(idempotency_key)} characters; at most {MAX_IDEMPOTENCY_KEY} are accepted"
            )
        now = now_ms()
        texts = [(stored_text(message, now), " ".join(cited_by(message.metadata))) for message in messages]
        if not texts:
            await self.get(owner, id_)
            return []
        title = next((title_from(message.content) for message in messages if message.role == "user"), "")
        head, turns, sent = keys.conversation(owner, id_)
        reply: list[bytes] | None = await self._redis.eval(
            APPEND, 5, head, turns, sent, keys.conversations(owner), keys.cited(owner),
            now, self._max_turns, self._ttl_ms, id_, idempotency_key, title, *(word for pair in texts for word in pair),
        )  # fmt: skip
        if reply is None:
            raise unknown(conversation_id)
        stored = [turn_from(owner, id_, value) for value in reply]
        if stored and stored[0].ts == now:  # what was sent again has its first sending's time, and was told then
            self._tell(*(_told(owner, id_, turn) for turn in stored))
        if self._index is not None:
            await self._remember(self._index, owner, id_, stored)
        return stored

    async def get(self, owner: str, conversation_id: str) -> Conversation:
        """The head of a conversation.

        Raises:
            UnknownConversation: when the owner has no such conversation.
        """
        id_ = checked_id(conversation_id)
        fields = await self._redis.hgetall(keys.conversation(owner, id_)[0])
        if not fields:
            raise unknown(conversation_id)
        return conversation_from(id_, fields)

    async def turns(
        self, owner: str, conversation_id: str, *, last: int | None = None, before: int | None = None
    ) -> list[Turn]:
        """The latest turns, oldest first; all that are kept when ``last`` is None.

        Args:
            owner: Whose conversation.
            conversation_id: Which.
            last: Turns at most.
            before: Only turns with a lower number.

        Raises:
            UnknownConversation: when the owner has no such conversation.
        """
        id_ = checked_id(conversation_id)
        head, turns, _ = keys.conversation(owner, id_)
        limit = self._max_turns if last is None else max(last, 0)
        values: list[bytes] | None = await self._redis.eval(SLICE, 2, head, turns, before or 0, limit)
        if values is None:
            raise unknown(conversation_id)
        return [turn_from(owner, id_, value) for value in values]

    async def page(self, owner: str, *, limit: int = 20, after: str | None = None) -> ConversationPage:
        """The owner's conversations, latest first; one that gets a turn meanwhile moves to the first page.

        Args:
            owner: Whose.
            limit: Conversations at most, 1 to ``MAX_PAGE``.
            after: ``next`` of the page before.

        Raises:
            InvalidTurn: when ``after`` is no such mark.
        """
        limit = min(max(limit, 1), MAX_PAGE)
        mark = page_mark(after)
        found: list[Conversation] = []
        skip = 0
        while len(found) <= limit:
            entries: list[Any] = await self._redis.zrevrangebyscore(
                keys.conversations(owner), mark[0] if mark else "+inf", "-inf", skip, limit + 1, withscores=True
            )
            if not entries:
                break
            skip += len(entries)
            behind = [(int(score), id_.decode()) for id_, score in entries]
            found += await self._heads(owner, [id_ for score, id_ in behind if mark is None or (score, id_) < mark])
        shown = found[:limit]
        return ConversationPage(shown, f"{shown[-1].updated}:{shown[-1].id}" if len(found) > limit else None)

    async def rename(self, owner: str, conversation_id: str, title: str) -> None:
        """Give a conversation another title.

        Raises:
            UnknownConversation: when the owner has no such conversation.
            InvalidTurn: when the title is too long.
        """
        head, _, _ = keys.conversation(owner, checked_id(conversation_id))
        if not await self._redis.eval(RENAME, 1, head, checked_title(title)):
            raise unknown(conversation_id)

    async def delete(self, owner: str, conversation_id: str) -> None:
        """Drop a conversation with its turns, its keys and its messages in the index.

        Raises:
            UnknownConversation: when the owner has no such conversation.
        """
        id_ = checked_id(conversation_id)
        if self._index is not None:  # first, so that a failure leaves a conversation that can be deleted again
            await self.get(owner, id_)
            await self._index.forget(owner, id_)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(*keys.conversation(owner, id_))
            pipe.zrem(keys.conversations(owner), id_)
            removed, listed = await pipe.execute()
        if not removed and not listed:
            raise unknown(conversation_id)

    async def recall(
        self, owner: str, text: str, limit: int = 3, *, exclude_conversation: str | None = None
    ) -> list[SimilarMessage]:
        """The owner's earlier messages that are most like ``text``, best first; ask before appending it.

        Messages of conversations that are gone do not come back.

        Args:
            owner: Whose memory.
            text: What is being said now.
            limit: Messages at most.
            exclude_conversation: For example the current one, whose turns the model sees anyway.
        """
        if self._index is None or not text.strip() or limit < 1:
            return []
        found = await self._index.similar(owner, text, 2 * limit, exclude_conversation)  # some may be of expired ones
        if not found:
            return []
        async with self._redis.pipeline(transaction=False) as pipe:
            for message in found:
                pipe.exists(keys.conversation(owner, message.conversation_id)[0])
            there = await pipe.execute()
        return [message for message, exists in zip(found, there, strict=True) if exists][:limit]

    async def _remember(self, index: MessageIndex, owner: str, conversation_id: str, turns: Sequence[Turn]) -> None:
        try:
            for turn in turns:
                if turn.role in ("user", "assistant") and turn.content.strip():
                    await index.add(owner, conversation_id, turn.id, turn.content)
        except LuminaError as error:
            logger.warning("conversation {}: a message will not be recalled: {}", conversation_id, error)

    async def _heads(self, owner: str, ids: Sequence[str]) -> list[Conversation]:
        """Those that exist, in the same order; the list may still hold expired ones."""
        if not ids:
            return []
        async with self._redis.pipeline(transaction=False) as pipe:
            for id_ in ids:
                pipe.hgetall(keys.conversation(owner, id_)[0])
            heads = await pipe.execute()
        return [conversation_from(id_, fields) for id_, fields in zip(ids, heads, strict=True) if fields]


def _told(owner: str, conversation_id: str, turn: Turn) -> Event:
    """What the event store learns of a turn; never its text."""
    what = {"conversation_id": conversation_id, "turn_id": turn.id, "role": turn.role, "characters": len(turn.content)}
    task_id = turn.metadata.get("task_id")
    return Event("chat.message", {"owner": owner, **what}, task_id=task_id if isinstance(task_id, str) else "")
