"""The planner's log of one task: what the event store has of it, and what only the stream has yet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from memory import keys
from memory.events import EventStore
from memory.streams import Delivered, Streams


async def stored_steps(events: EventStore, task_id: str) -> dict[str, dict[str, Any]]:
    """Stream id → data of each ``plan.step`` of a task that the event store has taken in."""
    steps = events.replay(keys.PLANNER_STREAM, ["plan.step"])
    return {id_: dict(event.data) async for id_, event in steps if event.task_id == task_id}


async def streamed_steps(streams: Streams, task_id: str) -> dict[str, dict[str, Any]]:
    """Stream id → data of each ``plan.step`` of a task that the stream still has."""
    return {
        entry.id: dict(entry.event.data)
        async for entry in _all(streams)
        if entry.event.type == "plan.step" and entry.event.task_id == task_id
    }


async def _all(streams: Streams) -> AsyncIterator[Delivered]:
    position = "0"
    while entries := await streams.tail(keys.PLANNER_STREAM, position):
        for entry in entries:
            yield entry
        position = entries[-1].id


def decisions(*steps: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The data of the steps that hold a decision, in the order of their stream ids, each once."""
    merged = {id_: data for some in steps for id_, data in some.items()}
    return [merged[id_] for id_ in sorted(merged, key=_order) if "decision" in merged[id_]]


def chain(log: Iterable[dict[str, Any]]) -> list[list[str]]:
    """The lattice states that a task walked, from its decisions; none twice in a row."""
    walked: list[list[str]] = []
    for entry in log:
        if not walked or walked[-1] != entry["situation"]["holding"]:
            walked.append(entry["situation"]["holding"])
    return walked


def _order(stream_id: str) -> tuple[int, int]:
    milliseconds, _, number = stream_id.partition("-")
    return int(milliseconds), int(number or 0)
