"""``lumina tasks``: what is queued, for a running server or, where there is none, for the next one."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.options import AsJson, DataDir, carry_out, read_settings

if TYPE_CHECKING:
    from commands.tasks import Desk

app = typer.Typer(
    no_args_is_help=True,
    help="Queue work, see how far it is, cancel it, send it back.\n\n"
    "A running server on the same DATA_DIR is asked; where there is none, the queue itself. Tasks run in "
    "[bold]lumina serve[/] and in every [bold]lumina worker[/].",
    rich_markup_mode="rich",
)

TaskId = Annotated[str, typer.Argument(metavar="TASK_ID", help="As `lumina tasks list` shows it.", show_default=False)]


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

    _do(ask, data_dir, as_json)


@app.command()
def show(task_id: TaskId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show one task: its progress and, at the end, its result or error."""
    _do(lambda desk: desk.get(task_id), data_dir, as_json)


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
    _do(lambda desk: desk.submit(key, fields), data_dir, as_json)


@app.command()
def cancel(task_id: TaskId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Cancel a task; one that runs stops within two seconds, and one that has ended stays as it is."""
    _do(lambda desk: desk.cancel(task_id), data_dir, as_json)


@app.command()
def retry(task_id: TaskId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Queue a dead or cancelled task again, with all its attempts."""
    _do(lambda desk: desk.retry(task_id), data_dir, as_json)


def _do(ask: Callable[[Desk], Awaitable[dict[str, Any]]], data_dir: Path | None, as_json: bool) -> None:
    from rich.console import Console

    from commands.tasks import open_desk, show

    async def run() -> bool:
        async with open_desk(read_settings(data_dir=data_dir)) as desk:
            found = await ask(desk)
        if as_json:
            print(json.dumps(found, ensure_ascii=False, indent=2))
        else:
            show(Console(), found)
        return True

    carry_out(run())
