"""What a task looks like from outside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from errors import LuminaError

Status = Literal["queued", "running", "retrying", "complete", "dead", "cancelled"]


class UnknownTask(LuminaError):
    """No task has this id, or it belongs to somebody else."""


class TaskNotRetryable(LuminaError):
    """Only a task that ended without a result can be sent back."""


FIELDS = (
    "status fence seq entry attempts kind owner worker started_ms updated_ms id payload progress result created_ms"
    " finished_ms error"
).split()
"""The names in the hash of a task; the scripts count on the places of the first ten."""
_RAW = [name.encode() for name in FIELDS]


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
    def submitted(cls, task_id: str, kind: str, owner: str, payload: Any, now_ms: int) -> Task:
        """A task that nobody has begun."""
        return cls(task_id, kind, owner, payload, "queued", 0, now_ms, now_ms, 0, 0, "", "", None, None)

    @classmethod
    def from_values(cls, values: Sequence[bytes | None]) -> Task:
        """From the values of ``FIELDS`` as HMGET gives them."""
        status, _, _, _, attempts, kind, owner, worker, started, updated, *rest = values
        task_id, payload, progress, result, created, finished, error = rest
        return cls(
            id=_text(task_id),
            kind=_text(kind),
            owner=_text(owner),
            payload=_value(payload),
            status=cast(Status, _text(status)),
            attempts=int(attempts or 0),
            created_ms=int(created or 0),
            updated_ms=int(updated or 0),
            started_ms=int(started or 0),
            finished_ms=int(finished or 0),
            worker=_text(worker),
            error=_value(error) or "",
            progress=_value(progress),
            result=_value(result),
        )

    @classmethod
    def from_hash(cls, fields: Mapping[bytes, bytes]) -> Task:
        """From the raw reply to HGETALL."""
        return cls.from_values([fields.get(name) for name in _RAW])

    @classmethod
    def from_words(cls, words: Sequence[bytes]) -> Task:
        """From names and values that take turns, as a script returns a hash."""
        return cls.from_hash(dict(zip(words[::2], words[1::2], strict=True)))


def _text(raw: bytes | None) -> str:
    return raw.decode() if raw else ""


def _value(raw: bytes | None) -> Any:
    return None if raw is None else json.loads(raw)


@dataclass(frozen=True, slots=True)
class TaskPage:
    """Tasks, newest first."""

    tasks: list[Task]
    cursor: str | None
    """Give it back for the next page; ``None`` on the last one."""
