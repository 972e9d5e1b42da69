"""The options that several commands have, and what each of them does first and last."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from logs import open_logs

if TYPE_CHECKING:
    from settings import Settings

Topics = Annotated[
    list[str] | None, typer.Option("--topic", "-t", help="Article to start from; give it again for more than one.")
]
Hops = Annotated[int, typer.Option(min=0, max=5, help="How many links away from a topic the crawl goes.")]
MaxNodes = Annotated[int, typer.Option(min=1, max=5000, help="How many pages a crawl reads at most, per topic.")]
Source = Annotated[
    str | None,
    typer.Option(help="URL of a MediaWiki's api.php, or a .zim file. [dim]WIKI_SOURCE[/]", show_default=False),
]
DataDir = Annotated[
    Path | None, typer.Option(help="Where everything is kept. [dim]DATA_DIR[/]", show_default=".lumina")
]
TaskId = Annotated[
    str | None, typer.Option(help="Go on with this task from its last checkpoint, or give the task an id.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def fill_lines(app: typer.Typer) -> None:
    """Let the help of every command fill the terminal's width: Typer keeps the line breaks of its docstring."""
    for command in app.registered_commands:
        text = inspect.cleandoc(command.help or (command.callback and command.callback.__doc__) or "")
        command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    for group in app.registered_groups:
        if group.typer_instance is not None:
            fill_lines(group.typer_instance)


def read_settings(**overrides: Any) -> Settings:
    """The settings, with the options that were given; log records go where they say, warnings and worse by default."""
    from settings import load_settings

    settings = load_settings(**overrides)
    chosen = settings.log_level if "log_level" in settings.model_fields_set else "WARNING"
    open_logs(level=chosen, format=settings.log_format, secrets=settings.secrets(), times=False)
    return settings


MAX_THREADS = 32
"""So many that those which hang leave some to those which close the stores; asyncio's own are six on two cores."""


class _LooseThreads(ThreadPoolExecutor):
    """Threads that hold nobody up at the end.

    What matters of their work has been awaited by then. The rest hangs: a name server that has gone away keeps each
    look-up of Redis for 20 s, and a container that does not end in time is killed.
    """

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


def carry_out(work: Coroutine[Any, Any, bool]) -> None:
    """Run a command's coroutine; False means that it did not come to a good end."""

    async def with_loose_threads() -> bool:
        asyncio.get_running_loop().set_default_executor(_LooseThreads(MAX_THREADS))
        return await work

    if not asyncio.run(with_loose_threads()):
        raise typer.Exit(1)
