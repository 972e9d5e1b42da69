"""``lumina tasks``: what is queued, for a running server or, where there is none, for the next one.

The options are read here, and everything heavy is imported inside the commands, as in ``cli``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, cast

import typer

from errors import LuminaError

if TYPE_CHECKING:
    from rich.console import Console

    from graphs.goals import GoalFile
    from masterchat import MasterChat
    from memory.task_records import Status, Task
    from memory.tasks import TaskQueue
    from settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    help="Queue work, see how far it is, cancel it, send it back.\n\n"
    "A running server on the same DATA_DIR is asked; where there is none, the queue itself. Tasks run in "
    "[bold]lumina serve[/] and in every [bold]lumina worker[/].",
    rich_markup_mode="rich",
)

TaskId = Annotated[str, typer.Argument(metavar="TASK_ID", help="As `lumina tasks list` shows it.", show_default=False)]
DataDir = Annotated[
    Path | None, typer.Option(help="Where everything is kept. [dim]DATA_DIR[/]", show_default=".lumina")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

COLOURS = {"complete": "green", "dead": "red", "running": "yellow", "retrying": "yellow", "cancelled": "dim"}


class TaskRefused(LuminaError):
    """The server, or the queue, did not do what was asked of it."""


@app.command("list")
def list_tasks(
    status: Annotated[
        str | None, typer.Option(help="queued, running, retrying, complete, dead or cancelled.", show_default="any")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="crawl, ask, summarise, plan …", show_default="any")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many at most.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on after a page that ended with this.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List your tasks, newest first."""

    async def ask(desk: Desk) -> dict[str, Any]:
        return await desk.tasks(status=status, kind=kind, cursor=cursor, limit=limit)

    _do(ask, data_dir, as_json, _show_page)


@app.command()
def show(task_id: TaskId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show one task: its progress and, at the end, its result or error."""
    _do(lambda desk: desk.get(task_id), data_dir, as_json, _show_task)


@app.command()
def submit(
    message: Annotated[str, typer.Argument(help="The question or instruction.", show_default=False)] = "",
    topic: Annotated[
        list[str] | None, typer.Option("--topic", "-t", help="Article to start from; again for more than one.")
    ] = None,
    kind: Annotated[str, typer.Option(help="crawl, ask, summarise or plan.")] = "crawl",
    hops: Annotated[int, typer.Option(min=0, max=5, help="How many links away from a topic the crawl goes.")] = 1,
    max_nodes: Annotated[int, typer.Option(min=1, max=5000, help="How many pages a crawl reads at most.")] = 30,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key gives the same task.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Queue a task, for example: lumina tasks submit --topic "Mandelbrot set" --max-nodes 10."""
    fields = {"kind": kind, "message": message, "topics": topic or [], "hops": hops, "max_nodes": max_nodes}
    _do(lambda desk: desk.submit(key, fields), data_dir, as_json, _show_task)


@app.command()
def cancel(task_id: TaskId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Cancel a task; one that runs stops within two seconds, and one that has ended stays as it is."""
    _do(lambda desk: desk.cancel(task_id), data_dir, as_json, _show_task)


@app.command()
def retry(task_id: TaskId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Queue a dead or cancelled task again, with all its attempts."""
    _do(lambda desk: desk.retry(task_id), data_dir, as_json, _show_task)


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
        from serving.tasks import list_tasks

        page = await list_tasks(self._owner, self._queue, _checked_status(status), kind, _checked(cursor), limit)
        return page.model_dump(mode="json")

    async def submit(self, key: str | None, fields: dict[str, Any]) -> dict[str, Any]:
        """See ``Desk``."""
        from pydantic import ValidationError

        from serving.tasks import TaskRequest, submit_checked

        try:
            body = TaskRequest(**fields)
        except ValidationError as error:
            found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise TaskRefused(found) from error
        return _seen(await submit_checked(self._queue, self._goals, body, self._owner, key))

    async def get(self, task_id: str) -> dict[str, Any]:
        """See ``Desk``."""
        from serving.tasks import get_task

        return (await get_task(task_id, self._owner, self._queue)).model_dump(mode="json")

    async def cancel(self, task_id: str) -> dict[str, Any]:
        """See ``Desk``."""
        await self.get(task_id)
        return _seen(await self._queue.cancel(task_id))

    async def retry(self, task_id: str) -> dict[str, Any]:
        """See ``Desk``."""
        await self.get(task_id)
        return _seen(await self._queue.retry(task_id))


def _seen(task: Task) -> dict[str, Any]:
    from serving.tasks import TaskView

    return TaskView.of(task).model_dump(mode="json")


def _checked_status(status: str | None) -> Status | None:
    from typing import get_args

    from memory.task_records import Status

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
    import masterchat
    from commands import ServerError, running_server
    from graphs.application import load_application
    from memory.redis_server import open_redis
    from memory.tasks import TaskQueue
    from settings import DEFAULT_OWNER

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


Show = Callable[["Console", Mapping[str, Any]], None]


def _do(ask: Callable[[Desk], Awaitable[dict[str, Any]]], data_dir: Path | None, as_json: bool, view: Show) -> None:
    from rich.console import Console

    from settings import load_settings

    async def run() -> dict[str, Any]:
        async with open_desk(load_settings(data_dir=data_dir)) as desk:
            return await ask(desk)

    found = asyncio.run(run())
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        view(Console(), found)


def _show_page(console: Console, page: Mapping[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

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


def _show_task(console: Console, task: Mapping[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

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
        from terminal import show_outcome

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
