"""Standing goals: what is to hold at all times, checked by SQL over the event store and mended by tasks.

A predicate that is false, and a cooldown that is over, give tasks. What was submitted when is kept with the planner's
lock. The idempotency key counts the submissions of a goal, so whoever repeats one that was cut off before it was
recorded, in this process or another, gets the tasks that are there already. What was found and submitted is told in the
planner's log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loguru import logger

from errors import LuminaError
from graphs.goals import Standing
from graphs.tasks import KINDS, InvalidTask, check_payload
from memory.events import EventStore
from memory.locks import Held
from memory.streams import Event, Streams
from memory.task_records import Task, UnknownTask
from memory.tasks import TaskQueue

SKEW_S = 60.0
"""How far the clocks of two hosts may be apart. A time further in the future means that a clock was set back."""
MAX_TASKS = 20
"""Tasks that one goal submits at a time; the rest comes with the next look."""
DEFAULT_OWNER = "local"
AGENT = "scheduler"
"""Whose events these are in the planner's log."""


class InvalidPredicate(LuminaError):
    """SQL of a standing goal that does not return what it has to."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What came of one look at the standing goals."""

    submitted: dict[str, list[Task]] = field(default_factory=dict)
    """Goal id → its new tasks."""
    problems: dict[str, str] = field(default_factory=dict)
    """Goal id → why it could not be looked at."""


class StandingGoals:
    """The standing goals of a goal file, on an open event store."""

    def __init__(self, goals: Sequence[Standing], events: EventStore, queue: TaskQueue, streams: Streams) -> None:
        self.goals = tuple(goals)
        self._events, self._queue, self._streams = events, queue, streams

    async def keep(self, held: Held, state: Mapping[str, str], now: float) -> Kept:
        """Look at every goal that is out of cooldown and submit the tasks of those that do not hold.

        Args:
            held: The planner's lock; what was submitted is written through it.
            state: What was written through it before.
            now: Seconds since the epoch.

        Raises:
            LockLost: another process is the planner now.
        """
        kept = Kept()
        for goal in self.goals:
            await held.renew()
            before = _Submission.from_text(state.get(goal.id, ""))
            if 0 <= now - before.at + SKEW_S < goal.cooldown_s + SKEW_S or await self._unfinished(before):
                continue
            try:
                wanted = [] if await self._holds(goal) else await self._wanted(goal)
            except LuminaError as error:
                logger.warning("standing goal {}: {}", goal.id, error)
                kept.problems[goal.id] = str(error)
                await self._tell(goal, DEFAULT_OWNER, holds=None, why=str(error))
                continue
            if wanted:
                kept.submitted[goal.id] = tasks = await self._submit(goal, wanted, before.number)
                after = _Submission(before.number + 1, now, tuple(task.id for task in tasks))
                await held.write({goal.id: after.to_text()})
                for owner in sorted({task.owner for task in tasks}):
                    own = [{"id": one.id, "kind": one.kind, **one.payload} for one in tasks if one.owner == owner]
                    why = f"«{goal.title or goal.id}» does not hold: {len(own)} submitted"
                    await self._tell(goal, owner, holds=False, why=why, tasks=own)
        return kept

    async def _tell(self, goal: Standing, owner: str, **found: Any) -> None:
        told = {"owner": owner, "standing": goal.id, "predicate": goal.predicate, **found}
        await self._streams.publish([Event("plan.step", told, agent=AGENT)])

    async def _holds(self, goal: Standing) -> bool:
        rows = (await self._events.query(goal.predicate)).rows
        if len(rows) != 1 or len(rows[0]) != 1 or not isinstance(rows[0][0], bool):
            raise InvalidPredicate(f"the predicate of {goal.id} returned {rows!r:.80}; accepted: one true or false")
        return rows[0][0]

    async def _wanted(self, goal: Standing) -> list[tuple[str, dict[str, Any]]]:
        """Owner and payload of each task."""
        shared = goal.task.model_dump(exclude={"kind"})
        rows: list[dict[str, Any]] = [{}]
        if goal.subjects is not None:
            found = await self._events.query(goal.subjects, max_rows=MAX_TASKS)
            rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
        wanted = []
        for row in rows:
            payload = {**shared, **row}
            owner = str(payload.pop("owner", DEFAULT_OWNER))
            kind = KINDS.get(goal.task.kind)
            if kind is None:
                raise InvalidTask(f"task kind «{goal.task.kind}» is not known; accepted: {', '.join(KINDS)}")
            if kind.intent is not None or kind.payload is not None:
                check_payload(goal.task.kind, payload, owner)
            wanted.append((owner, payload))
        return wanted

    async def _submit(self, goal: Standing, wanted: Sequence[tuple[str, dict[str, Any]]], number: int) -> list[Task]:
        tasks = []
        for position, (owner, payload) in enumerate(wanted):
            key = f"standing:{goal.id}:{number}:{position}"
            tasks.append(await self._queue.submit(goal.task.kind, payload, owner=owner, idempotency_key=key))
        logger.info("standing goal {} does not hold: submitted {}", goal.id, ", ".join(task.id for task in tasks))
        return tasks

    async def _unfinished(self, before: _Submission) -> bool:
        for task_id in before.tasks:
            try:
                if (await self._queue.get(task_id)).status in ("queued", "running", "retrying"):
                    return True
            except UnknownTask:
                continue
        return False


@dataclass(frozen=True, slots=True)
class _Submission:
    """The latest submission of a goal, as it is kept with the lock."""

    number: int
    """Submissions so far."""
    at: float
    """Seconds since the epoch."""
    tasks: tuple[str, ...]

    @classmethod
    def from_text(cls, text: str) -> _Submission:
        number, at, tasks = json.loads(text) if text else (0, float("-inf"), ())
        return cls(number, at, tuple(tasks))

    def to_text(self) -> str:
        return json.dumps([self.number, self.at, self.tasks])
