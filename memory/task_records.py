"""What a task looks like from outside."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from errors import LuminaError

Status = Literal["queued", "running", "retrying", "complete", "dead", "cancelled"]


class UnknownTask(LuminaError):
    """No task has this id, or it belongs to somebody else."""


class TaskNotRetryable(LuminaError):
    """Only a task that ended without a result can be sent back."""


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
        texts = {name.decode(): value.decode() for name, value in fields.items()}
        numbers = ("attempts", "created_ms", "updated_ms", "started_ms", "finished_ms")
        known: dict[str, Any] = {name: texts.get(name, "") for name in ("id", "kind", "owner", "status", "worker")}
        known |= {name: json.loads(texts.get(name, "null")) for name in ("payload", "progress", "result")}
        known |= {name: int(texts.get(name, 0)) for name in numbers}
        return cls(error=json.loads(texts.get("error", '""')), **known)


@dataclass(frozen=True, slots=True)
class TaskPage:
    """Tasks, newest first."""

    tasks: list[Task]
    cursor: str | None
    """Give it back for the next page; ``None`` on the last one."""
