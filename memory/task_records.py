"""What a task looks like from outside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from errors import LuminaError

Status = Literal["queued", "running", "retrying", "complete", "dead", "cancelled"]


class UnknownTask(LuminaError):
    """No task has this id, or it belongs to somebody else."""


class TaskNotRetryable(LuminaError):
    """Only a task that ended without a result can be sent back."""


def _named(names: str) -> list[tuple[str, bytes]]:
    return [(name, name.encode()) for name in names.split()]


_TEXTS = _named("id kind owner status worker")
_VALUES = _named("payload progress result")
_NUMBERS = _named("attempts created_ms updated_ms started_ms finished_ms")


@dataclass(frozen=True, slots=True)
class Task:
    """A task as it was at one moment. Times are milliseconds since the epoch on the server's clock, 0 for not yet."""

    id: str
    kind: str
    owner: str
    payload: Any
    """What the task is about, a JSON value."""
    status: Status
    attempts: int
    """How often a worker has begun it."""
    created_ms: int
    updated_ms: int
    started_ms: int
    """When the last attempt began."""
    finished_ms: int
    worker: str
    """Who began it last."""
    error: str
    """Why the last attempt failed."""
    progress: Any
    """What the worker last said of it, a JSON value."""
    result: Any
    """A JSON value."""

    @classmethod
    def from_hash(cls, fields: dict[bytes, bytes]) -> Task:
        """From the raw reply to HGETALL."""
        known: dict[str, Any] = {name: fields.get(raw, b"").decode() for name, raw in _TEXTS}
        known |= {name: json.loads(fields[raw]) if raw in fields else None for name, raw in _VALUES}
        known |= {name: int(fields.get(raw, 0)) for name, raw in _NUMBERS}
        return cls(error=json.loads(fields.get(b"error", '""')), **known)

    @classmethod
    def from_words(cls, words: Sequence[bytes]) -> Task:
        """From names and values that take turns, as a script returns a hash."""
        return cls.from_hash(dict(zip(words[::2], words[1::2], strict=True)))


@dataclass(frozen=True, slots=True)
class TaskPage:
    """Tasks, newest first."""

    tasks: list[Task]
    cursor: str | None
    """Give it back for the next page; ``None`` on the last one."""
