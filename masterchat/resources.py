"""What a server keeps: tasks and conversations."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

from masterchat.connection import Connection
from masterchat.exceptions import MasterChatError, RunFailed
from masterchat.records import Conversation, ConversationPage, LogEvent, Task, TaskPage

POLL_S = (0.1, 2.0)
"""First and longest wait between two looks at a task."""


class Tasks:
    """The task queue. Every call raises ``Unreachable`` or ``Refused`` when it fails."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def submit(
        self,
        *,
        crawl: Sequence[str] = (),
        kind: str | None = None,
        message: str = "",
        topics: Sequence[str] = (),
        hops: int = 1,
        max_nodes: int = 30,
        idempotency_key: str | None = None,
    ) -> Task:
        """Queue a task: ``crawl=[…]``, or a kind with its fields.

        Args:
            crawl: Articles to start from.
            kind: ``crawl``, ``ask``, ``summarise`` or ``plan``; left out where ``crawl`` says it.
            message: The question, or what will be asked.
            topics: Articles to start from, for the other kinds.
            hops: How many links away from a topic a crawl goes.
            max_nodes: How many pages a crawl reads at most.
            idempotency_key: The same key gives the same task; without one, this call alone is protected.
        """
        body: dict[str, Any] = {"message": message, "hops": hops, "max_nodes": max_nodes}
        given = {"kind": kind, "crawl": list(crawl), "topics": list(topics)}
        body |= {name: value for name, value in given.items() if value}
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return Task.from_json(await self._connection.request("POST", "/tasks", json=body, headers=headers))

    async def prune(
        self,
        *,
        superseded: bool = True,
        older_than: str | None = None,
        max_passages: int | None = None,
        dry_run: bool = False,
    ) -> Task:
        """Queue the forgetting of stored passages; what kept answers cite stays.

        Args:
            superseded: Those of a revision when a newer one was read.
            older_than: Those of pages last read or checked longer ago: ``90m``, ``12h``, ``30d``, ``8w``.
            max_passages: Those beyond so many, the ones read longest ago first.
            dry_run: Say what would go, and remove nothing.
        """
        body: dict[str, Any] = {"kind": "prune", "superseded": superseded, "dry_run": dry_run}
        given = {"older_than": older_than, "max_passages": max_passages}
        body |= {name: value for name, value in given.items() if value is not None}
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return Task.from_json(await self._connection.request("POST", "/tasks", json=body, headers=headers))

    async def get(self, task_id: str) -> Task:
        """A task as it is now."""
        return Task.from_json(await self._connection.request("GET", _path("tasks", task_id)))

    async def list(
        self, *, status: str | None = None, kind: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> TaskPage:
        """A page of your tasks, newest first."""
        params = {"status": status, "kind": kind, "limit": limit, "cursor": cursor}
        page = await self._connection.request("GET", "/tasks", params=params)
        return TaskPage([Task.from_json(one) for one in page["tasks"]], page.get("cursor"))

    async def cancel(self, task_id: str) -> Task:
        """Cancel a task; one that has ended stays as it is."""
        return Task.from_json(await self._connection.request("DELETE", _path("tasks", task_id)))

    async def retry(self, task_id: str) -> Task:
        """Send a dead or cancelled task back to the queue."""
        return Task.from_json(await self._connection.request("POST", _path("tasks", task_id, "retry"), safe=False))

    async def wait(self, task_id: str, *, timeout_s: float | None = None) -> Task:
        """The task, once it is complete.

        Raises:
            RunFailed: it died or was cancelled.
            TimeoutError: it has not ended after ``timeout_s``.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        pause_s, longest_s = POLL_S
        while not (task := await self.get(task_id)).ended:
            if deadline is not None and time.monotonic() + pause_s > deadline:
                raise TimeoutError(f"task {task_id} is {task.status} after {timeout_s:g} s")
            await asyncio.sleep(pause_s)
            pause_s = min(longest_s, 1.5 * pause_s)
        if task.status != "complete":
            raise RunFailed(f"task {task_id} is {task.status}: {task.error or 'no reason was given'}", task_id=task_id)
        return task

    async def events(self, task_id: str, *, after: str | None = None) -> AsyncGenerator[LogEvent, None]:
        """What happens to a task, to its end, over as many connections as it takes.

        Args:
            task_id: The task.
            after: ``id`` of the event after which to begin.
        """

        async def open_again(last_id: str | None) -> Any:
            headers = {} if last_id is None else {"Last-Event-ID": last_id}
            return await self._connection.open("GET", _path("tasks", task_id, "events"), headers=headers)

        ended = False
        async with aclosing(self._connection.follow(open_again, after)) as events:
            async for event in events:
                if event is not None:
                    ended = False
                    yield LogEvent.from_json(event.type, event.data, event.id)
                elif ended:
                    return
                else:
                    # The server has closed the stream: one more look, for what came after the task was seen to end.
                    ended = (await self.get(task_id)).ended


class Conversations:
    """Your conversations. Every call raises ``Unreachable`` or ``Refused`` when it fails."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def list(self, *, limit: int = 50, after: str | None = None) -> ConversationPage:
        """A page of them, latest first."""
        page = await self._connection.request("GET", "/conversations", params={"limit": limit, "after": after})
        return ConversationPage([Conversation.from_json(one) for one in page["conversations"]], page.get("next"))

    async def get(self, conversation_id: str, *, limit: int = 50, before: int | None = None) -> Conversation:
        """A conversation with its latest messages, or with those before a number."""
        path = _path("conversations", conversation_id)
        return Conversation.from_json(
            await self._connection.request("GET", path, params={"limit": limit, "before": before})
        )

    async def delete(self, conversation_id: str) -> None:
        """Drop a conversation with all that was said in it."""
        await self._connection.request("DELETE", _path("conversations", conversation_id))


async def planner_logs(
    connection: Connection, *, task_id: str | None = None, after: str | None = None
) -> AsyncGenerator[LogEvent, None]:
    """See ``MasterChat.planner_logs``."""
    query: Mapping[str, str | None] = {"task_id": task_id, "after": after}
    given = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items() if value is not None)
    path = f"/planner/logs?{given}" if given else "/planner/logs"

    async def open_again(last_id: str | None) -> Any:
        return await connection.open("GET", path, headers={} if last_id is None else {"Last-Event-ID": last_id})

    async with aclosing(connection.follow(open_again)) as events:
        async for event in events:
            if event is not None:
                yield LogEvent.from_json(event.type, event.data, event.id)


def _path(*parts: str) -> str:
    if not all(parts) or {".", ".."} & set(parts):
        raise MasterChatError(f"{parts[1]!r} is no id")
    return "".join(f"/{quote(part, safe='')}" for part in parts)
