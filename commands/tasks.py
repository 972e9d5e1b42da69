"""Where ``lumina tasks`` asks, the running server or the queue itself, and how it shows what it is told."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, cast, get_args

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import masterchat
from commands.running import ServerError, running_server
from commands.terminal import show_outcome
from errors import LuminaError
from graphs.application import load_application
from graphs.goals import GoalFile
from masterchat import MasterChat
from memory.redis_server import open_redis
from memory.task_records import Status, Task
from memory.tasks import TaskQueue
from serving.tasks import TaskRequest, TaskView, list_tasks, own_task, submit_checked
from settings import DEFAULT_OWNER, Settings

COLOURS = {"complete": "green", "dead": "red", "running": "yellow", "retrying": "yellow", "cancelled": "dim"}


class TaskRefused(LuminaError):
    """The server, or the queue, did not do what was asked of it."""


class Desk(Protocol):
    """Where tasks are handed in and asked for; tasks are as ``GET /tasks`` shows them."""

    async def tasks(self, *, status: str | None, kind: str | None, cursor: str | None, limit: int) -> dict[str, Any]:
        """A page of one's own tasks."""
        ...

    async def submit(self, key: str | None, fields: dict[str, Any]) -> dict[str, Any]:
        """A new task, or the one that has the key."""
        ...

    async def get(self, task_id: str) -> dict[str, Any]:
        """One task."""
        ...

    async def cancel(self, task_id: str) -> dict[str, Any]:
        """The task, cancelled."""
        ...

    async def retry(self, task_id: str) -> dict[str, Any]:
        """The task, queued again."""
        ...


class ServerDesk:
    """A running server."""

    def __init__(self, client: MasterChat) -> None:
        self._tasks = client.tasks

    async def tasks(self, *, status: str | None, kind: str | None, cursor: str | None, limit: int) -> dict[str, Any]:
        """See ``Desk``."""
        page = await self._tasks.list(status=status, kind=kind, cursor=cursor, limit=limit)
        return {"tasks": [task.data for task in page.tasks], "cursor": page.cursor}

    async def submit(self, key: str | None, fields: dict[str, Any]) -> dict[str, Any]:
        """See ``Desk``."""
        return (await self._tasks.submit(idempotency_key=key, **fields)).data

    async def get(self, task_id: str) -> dict[str, Any]:
        """See ``Desk``."""
        return (await self._tasks.get(task_id)).data

    async def cancel(self, task_id: str) -> dict[str, Any]:
        """See ``Desk``."""
        return (await self._tasks.cancel(task_id)).data

    async def retry(self, task_id: str) -> dict[str, Any]:
        """See ``Desk``."""
        return (await self._tasks.retry(task_id)).data


class QueueDesk:
    """The queue itself, where no server runs."""

    def __init__(self, queue: TaskQueue, goals: GoalFile, owner: str) -> None:
        self._queue, self._goals, self._owner = queue, goals, owner

    async def tasks(self, *, status: str | None, kind: str | None, cursor: str | None, limit: int) -> dict[str, Any]:
        """See ``Desk``."""
        page = await list_tasks(self._owner, self._queue, _checked_status(status), kind, _checked(cursor), limit)
        return page.model_dump(mode="json")

    async def submit(self, key: str | None, fields: dict[str, Any]) -> dict[str, Any]:
        """See ``Desk``."""
        try:
            body = TaskRequest(**fields)
        except ValidationError as error:
            found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise TaskRefused(found) from error
        return _seen(await submit_checked(self._queue, self._goals, body, self._owner, key))

    async def get(self, task_id: str) -> dict[str, Any]:
        """See ``Desk``."""
        return _seen(await own_task(self._queue, task_id, self._owner))

    async def cancel(self, task_id: str) -> dict[str, Any]:
        """See ``Desk``."""
        await self.get(task_id)
        return _seen(await self._queue.cancel(task_id))

    async def retry(self, task_id: str) -> dict[str, Any]:
        """See ``Desk``."""
        await self.get(task_id)
        return _seen(await self._queue.retry(task_id))


def _seen(task: Task) -> dict[str, Any]:
    return TaskView.of(task).model_dump(mode="json")


def _checked_status(status: str | None) -> Status | None:
    if status is not None and status not in get_args(Status):
        raise TaskRefused(f"--status {status} is not known; accepted: {', '.join(get_args(Status))}")
    return cast("Status | None", status)


def _checked(cursor: str | None) -> str | None:
    if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise TaskRefused(f"--cursor {cursor} is none that a page ended with")
    return cursor


@contextlib.asynccontextmanager
async def open_desk(settings: Settings) -> AsyncIterator[Desk]:
    """The running server, or else the queue, as the owner of the first key."""
    key, owner = next(iter(settings.api_keys().items()), (None, DEFAULT_OWNER))
    url = running_server(settings)
    if url:
        try:
            async with masterchat.MasterChat(url, api_key=key) as client:
                yield ServerDesk(client)
        except masterchat.MasterChatError as error:
            raise ServerError(f"{url}: {error}") from error
        return
    _, goals = load_application(settings.goal_file)
    redis_url = settings.redis_url.get_secret_value() if settings.redis_url else None
    async with open_redis(redis_url, settings.data_dir) as redis:
        yield QueueDesk(TaskQueue(redis), goals, owner)


def show(console: Console, found: Mapping[str, Any]) -> None:
    """Print a page of tasks, or one task."""
    (show_page if "tasks" in found else show_task)(console, found)


def show_page(console: Console, page: Mapping[str, Any]) -> None:
    """Print a page of tasks, a line each."""
    if not page["tasks"]:
        console.print("no tasks; `lumina tasks submit --help` says how to queue one")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    now = datetime.now(UTC)
    for heading, width in {"id": 36, "kind": 9, "status": 9, "age": 4, "what": 8}.items():
        table.add_column(heading, no_wrap=heading != "what", min_width=width, overflow="fold")
    for task in page["tasks"]:
        age = _age((now - datetime.fromisoformat(task["created"])).total_seconds())
        table.add_row(task["id"], task["kind"], _status(task), age, escape(_what(task)))
    console.print(table)
    if page["cursor"]:
        console.print(f"[dim]more with --cursor {page['cursor']}[/]", highlight=False)


def show_task(console: Console, task: Mapping[str, Any]) -> None:
    """Print all that is known of a task, and its result."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_row("id", task["id"])
    table.add_row("kind", task["kind"])
    table.add_row("status", _status(task))
    table.add_row("what", escape(_what(task)))
    for name in ("attempts", "created", "started", "finished"):
        value = task[name]
        table.add_row(name, (_time(value) if name != "attempts" else str(value)) if value is not None else "")
    progress = task["progress"] or {}
    if progress.get("text"):
        table.add_row("progress", escape(f"{progress.get('agent', '')}: {progress['text']}"))
    if task["error"]:
        table.add_row("error", f"[red]{escape(task['error'])}[/]")
    console.print(table)
    result = task["result"] or {}
    if "explanation" in result:
        console.print(result["explanation"], markup=False, highlight=False)
    elif "report" in result:
        started, finished = (datetime.fromisoformat(task[name]) for name in ("started", "finished"))
        show_outcome(console, result, seconds=(finished - started).total_seconds(), details=True)
    elif result:
        console.print_json(json.dumps(result))


def _what(task: Mapping[str, Any]) -> str:
    payload = task["payload"]
    parts = [payload.get("message", ""), ", ".join(payload.get("topics") or [])]
    return ": ".join(part for part in parts if part)


def _status(task: Mapping[str, Any]) -> str:
    return f"[{COLOURS.get(task['status'], 'default')}]{task['status']}[/]"


def _age(seconds: float) -> str:
    """``5 s``, ``12 m``, ``3 h`` or ``40 d``."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _time(text: str) -> str:
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
