"""Events and the Redis streams that carry them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def now_ms() -> int:
    """Milliseconds since the epoch, UTC."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. Its identity, once sent, is (stream, stream id)."""

    type: str
    """For example ``node.add``; the list is in docs/queries.md."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """JSON object; ``owner`` in it says whose event this is."""
    agent: str = ""
    task_id: str = ""
    ts: int = field(default_factory=now_ms)
    """Milliseconds since the epoch, UTC."""

    def to_fields(self) -> dict[str, str | int]:
        """The fields of the stream entry."""
        return {
            "type": self.type,
            "ts": self.ts,
            "agent": self.agent,
            "task_id": self.task_id,
            "data": json.dumps(self.data, ensure_ascii=False, separators=(",", ":")),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> Event:
        """The inverse of ``to_fields``, from the raw reply of a client that does not decode.

        Raises:
            ValueError: when the entry is not an event (a field is missing, ``data`` is no JSON object).
        """
        try:
            data = json.loads(fields[b"data"])
            event = cls(
                type=fields[b"type"].decode(),
                data=data,
                agent=fields.get(b"agent", b"").decode(),
                task_id=fields.get(b"task_id", b"").decode(),
                ts=int(fields[b"ts"]),
            )
        except (KeyError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"not an event: {error}") from error
        if not isinstance(data, dict):
            raise ValueError("not an event: data is not a JSON object")
        return event
