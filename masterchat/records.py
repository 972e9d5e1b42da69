"""What the server sends, typed. Fields that this version does not know are kept in ``data``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, ClassVar, Self


@dataclass(frozen=True)
class Record:
    """Something of the server; ``data`` is all that it sent."""

    data: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The record that a JSON object describes; what it lacks keeps its default, what is null too."""
        known = {one.name for one in fields(cls)} - {"data"}
        return cls(data=dict(data), **{name: data[name] for name in known if data.get(name) is not None})


@dataclass(frozen=True)
class Citation(Record):
    """What an answer rests on."""

    number: int = 0
    title: str = ""
    url: str = ""
    revision: str = ""
    quote: str = ""


@dataclass(frozen=True)
class Usage(Record):
    """Tokens as the providers counted them, and what they cost."""

    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0


@dataclass(frozen=True)
class Recalled(Record):
    """An earlier message that the model was given."""

    id: str = ""
    conversation_id: str = ""
    similarity: float = 0.0


@dataclass(frozen=True)
class Chunk:
    """One event of a run."""

    kind: str
    """``plan``, ``agent``, ``progress``, ``token``, ``citation``, ``usage``, ``restart``, ``done``, or a newer one."""
    data: dict[str, Any] = field(default_factory=dict)
    id: str | None = None
    """Names the run and the position in it."""

    @property
    def content(self) -> str:
        """The piece of the answer that this event carries; empty for everything but ``token``."""
        return ""

    @property
    def agent(self) -> str:
        """Whose event it is, where it is an agent's."""
        return str(self.data.get("agent", ""))

    @staticmethod
    def of(kind: str, data: dict[str, Any], id: str | None = None) -> Chunk:
        """The event of the type that its kind has; a kind that is not known here survives as a plain ``Chunk``."""
        return _CHUNKS.get(kind, Chunk)(kind, data, id)


class PlanChunk(Chunk):
    """What the planner has decided."""

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The goals that are still to be reached, each with its way."""
        return list((self.data.get("decision") or {}).get("plan") or [])

    @property
    def why(self) -> str:
        """Why so."""
        return str((self.data.get("decision") or {}).get("why", ""))


class AgentChunk(Chunk):
    """An agent begins, ends or fails."""

    @property
    def state(self) -> str:
        """``start``, ``step``, ``done`` or ``failed``."""
        return str(self.data.get("state", ""))

    @property
    def text(self) -> str:
        """What came out."""
        return str(self.data.get("text", ""))


class ProgressChunk(Chunk):
    """What an agent is doing."""

    @property
    def text(self) -> str:
        """In words."""
        return str(self.data.get("text", ""))


class TokenChunk(Chunk):
    """A piece of the answer."""

    @property
    def content(self) -> str:
        """The piece."""
        return str(self.data.get("text", ""))


class RestartChunk(Chunk):
    """The agent was interrupted and says something else now: what it has said so far is void."""


class CitationChunk(Chunk):
    """What the answer rests on."""

    @property
    def citation(self) -> Citation:
        """The same, typed."""
        return Citation.from_json(self.data)


class UsageChunk(Chunk):
    """What the run has used."""

    @property
    def usage(self) -> Usage:
        """The same, typed."""
        return Usage.from_json(self.data)


class DoneChunk(Chunk):
    """The end of the run."""

    @property
    def answer(self) -> str:
        """The whole answer."""
        return str(self.data.get("answer", ""))


_CHUNKS: dict[str, type[Chunk]] = {
    "plan": PlanChunk,
    "agent": AgentChunk,
    "progress": ProgressChunk,
    "token": TokenChunk,
    "restart": RestartChunk,
    "citation": CitationChunk,
    "usage": UsageChunk,
    "done": DoneChunk,
}


@dataclass(frozen=True)
class LogEvent:
    """An event of a task or of the planner's log."""

    type: str
    """For example ``task.start`` or ``plan.step``."""
    id: str | None = None
    """Its position: give it back to go on after it."""
    ts: int = 0
    """Milliseconds since the epoch, UTC."""
    agent: str = ""
    task_id: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, type_: str, data: Mapping[str, Any], id_: str | None = None) -> LogEvent:
        """The event of this type that a JSON object describes."""
        return cls(
            type=type_,
            id=id_,
            ts=int(data.get("ts") or 0),
            agent=str(data.get("agent") or ""),
            task_id=str(data.get("task_id") or ""),
            data=dict(data.get("data") or {}),
        )


@dataclass(frozen=True)
class Task(Record):
    """A task of the queue."""

    ENDED: ClassVar = frozenset({"complete", "dead", "cancelled"})
    """States in which nothing more happens."""

    id: str = ""
    kind: str = ""
    status: str = ""
    """``queued``, ``running``, ``retrying``, ``complete``, ``dead`` or ``cancelled``."""
    payload: dict[str, Any] = field(default_factory=dict)
    attempts: int = 0
    error: str = ""
    progress: dict[str, Any] | None = None
    result: dict[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.status in self.ENDED

    @property
    def created(self) -> datetime | None:
        """When it was submitted."""
        return _time(self.data.get("created"))

    @property
    def finished(self) -> datetime | None:
        """When it ended."""
        return _time(self.data.get("finished"))


@dataclass(frozen=True)
class TaskPage:
    """Tasks, newest first."""

    tasks: list[Task]
    cursor: str | None
    """Give it back for the next page; None on the last one."""


@dataclass(frozen=True)
class Message(Record):
    """A message of a conversation."""

    id: str = ""
    number: int = 0
    """Its place in the conversation, from 1."""
    role: str = ""
    content: str = ""
    ts: int = 0
    """Milliseconds since the epoch, UTC."""
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Conversation(Record):
    """A conversation. Times are milliseconds since the epoch, UTC."""

    id: str = ""
    title: str = ""
    created: int = 0
    updated: int = 0
    turns: int = 0
    """Messages ever stored."""
    before: int | None = None
    """Of ``conversations.get``: give it back for earlier messages; None when there are none."""

    @property
    def messages(self) -> list[Message]:
        """Of ``conversations.get``: the latest messages, oldest first."""
        return [Message.from_json(one) for one in self.data.get("messages", [])]


@dataclass(frozen=True)
class ConversationPage:
    """Conversations, latest first."""

    conversations: list[Conversation]
    next: str | None
    """Give it back as ``after`` for the next page; None on the last one."""


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
