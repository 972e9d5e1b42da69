"""What conversations are made of: messages, turns, their limits and how they are kept."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from errors import LuminaError

MAX_CONTENT_BYTES = 1_048_576
"""Bytes of UTF-8 that one message may have."""
MAX_METADATA_BYTES = 262_144
"""Bytes that the JSON of one message's metadata may have."""
MAX_TITLE = 80
"""Characters of a title."""
MAX_IDEMPOTENCY_KEY = 255
"""Characters of an idempotency key."""


class UnknownConversation(LuminaError):
    """No conversation of this owner has that id; it may be another's, deleted, expired, or never have been."""


class InvalidTurn(LuminaError):
    """A message or title that is refused; the text names the field, the value and the limit."""


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody says, before it is stored."""

    role: str
    """``user``, ``assistant``, ``system`` or ``tool``."""
    content: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """JSON: ``citations`` (a list), ``tokens`` (input and output), ``task_id`` and what else belongs to the turn."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A stored message."""

    id: str
    """A UUID that depends on owner, conversation and number only."""
    number: int
    """Its place in the conversation, from 1; it stays when earlier turns are trimmed."""
    role: str
    content: str
    ts: int
    """Milliseconds since the epoch, UTC."""
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a list shows of a conversation."""

    id: str
    title: str
    created: int
    """Milliseconds since the epoch, UTC."""
    updated: int
    """Milliseconds since the epoch, UTC, of the latest turn."""
    turns: int
    """Turns ever stored, trimmed ones included."""


@dataclass(frozen=True, slots=True)
class ConversationPage:
    """Some conversations, latest first."""

    conversations: list[Conversation]
    next: str | None
    """Give it as ``after`` to get the following page; None on the last."""


@dataclass(frozen=True, slots=True)
class SimilarMessage:
    """An earlier message, with the score of its likeness (higher is more alike)."""

    conversation_id: str
    turn_id: str
    text: str
    score: float


class MessageIndex(Protocol):
    """Finds messages by meaning. An engine's failure comes out as a ``LuminaError``."""

    async def add(self, owner: str, conversation_id: str, turn_id: str, text: str) -> None:
        """Index a message; ``turn_id`` is a UUID, and the same again replaces it."""

    async def similar(
        self, owner: str, text: str, limit: int, exclude_conversation: str | None = None
    ) -> list[SimilarMessage]:
        """The owner's messages that are most alike, best first."""

    async def forget(self, owner: str, conversation_id: str) -> None:
        """Drop every message of a conversation."""


def unknown(conversation_id: str) -> UnknownConversation:
    """The error for a conversation that the owner does not have."""
    return UnknownConversation(
        f"no conversation {conversation_id[:80]!r}: it was deleted, has expired, or never was; begin a new one"
    )


def checked_id(conversation_id: str) -> str:
    """The UUID in its canonical form.

    Raises:
        UnknownConversation: when it is none.
    """
    try:
        return str(uuid.UUID(conversation_id))
    except (ValueError, AttributeError, TypeError):
        raise unknown(str(conversation_id)) from None


def checked_title(title: str) -> str:
    """The same title.

    Raises:
        InvalidTurn: when it is too long.
    """
    if len(title) > MAX_TITLE:
        raise InvalidTurn(f"the title {title[:20]!r}… has {len(title)} characters; at most {MAX_TITLE} are kept")
    return title


def title_from(content: str) -> str:
    """A title for what a conversation begins with: its first line, cut at a word."""
    line = next((line.strip() for line in content.splitlines() if line.strip()), "")
    return line if len(line) <= MAX_TITLE else line[: MAX_TITLE - 1].rsplit(" ", 1)[0] + "…"


def stored_text(message: Message, now: int) -> str:
    """The message as Redis keeps it.

    Raises:
        InvalidTurn: when it has an unknown role, is too long, or cannot be stored.
    """
    if message.role not in ("user", "assistant", "system", "tool"):
        raise InvalidTurn(f"the role {message.role!r:.40} is unknown; accepted are user, assistant, system and tool")
    try:
        size = len(message.content.encode())
        metadata = json.dumps(dict(message.metadata), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        metadata_size = len(metadata.encode())
    except (TypeError, ValueError) as reason:  # UnicodeEncodeError is a ValueError
        raise InvalidTurn(f"a {message.role} message cannot be stored as JSON: {reason}") from reason
    for name, found, limit in (
        ("content", size, MAX_CONTENT_BYTES),
        ("metadata", metadata_size, MAX_METADATA_BYTES),
    ):
        if found > limit:
            raise InvalidTurn(f"the {name} of a {message.role} message has {found} bytes; at most {limit} are kept")
    head = {"role": message.role, "ts": now, "content": message.content}
    return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "metadata": {metadata}}}'


def turn_from(owner: str, conversation_id: str, value: bytes) -> Turn:
    """The turn that Redis keeps as its number and ``stored_text``."""
    number, _, text = value.partition(b" ")
    id_ = uuid.uuid5(uuid.UUID(conversation_id), f"{owner}\x1f{number.decode()}")  # RFC 9562, version 5
    return Turn(str(id_), int(number), **json.loads(text))


def conversation_from(id_: str, fields: Mapping[Any, Any]) -> Conversation:
    """The conversation that Redis keeps as this hash (keys and values are bytes)."""
    return Conversation(
        id=id_,
        title=fields[b"title"].decode(),
        created=int(fields[b"created"]),
        updated=int(fields[b"updated"]),
        turns=int(fields[b"turns"]),
    )


def page_mark(after: str | None) -> tuple[int, str] | None:
    """Date and id of the last conversation of the page before.

    Raises:
        InvalidTurn: when ``after`` is no such mark.
    """
    if after is None:
        return None
    updated, _, id_ = after.partition(":")
    if not updated.isdecimal():
        raise InvalidTurn(f"after is {after[:80]!r}; it must be the `next` of an earlier page")
    return int(updated), id_
