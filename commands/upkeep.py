"""What the commands do that keep, mend and prune what is stored: through the running server where there is one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

import masterchat
from commands.running import ServerError, running_server
from errors import LuminaError
from graphs.pruning import PruneRequest, prune
from graphs.tasks import check_payload
from memory.event_export import Day, DaySource, export_days
from memory.events import open_events
from memory.graph import GraphStore
from memory.graph_export import Selection, to_graphml, to_json
from memory.graph_rebuild import TYPES, GraphRebuild
from memory.keys import GRAPH_STREAM
from memory.redis_server import open_redis
from memory.streams import Streams
from services import open_runner
from settings import DEFAULT_OWNER, Settings


async def export_events(settings: Settings, folder: Path, since: date | None, until: date | None) -> bool:
    """Write the events as Parquet, a folder a day, and say which days were written."""
    url = running_server(settings, "masterchat")
    async with AsyncExitStack() as stack:
        source: DaySource
        if url:
            source = ServedDays(await stack.enter_async_context(_server(url, settings)))
        else:
            source = await stack.enter_async_context(open_events(settings.data_dir / "events.duckdb"))
        written = kept = 0
        async for day in export_days(source, folder, since, until):
            written, kept = written + day.written, kept + (not day.written)
            if day.written:
                print(f"{day.path}  {day.events} events", flush=True)
    print(f"{written} written, {kept} complete before")
    return True


class ServedDays:
    """The days of the event store that a running server holds."""

    def __init__(self, server: masterchat.MasterChat) -> None:
        self._server = server

    async def days(self, since: date | None, until: date | None) -> list[Day]:
        """The days that have events, in order."""
        async with self._server.open("GET", "/events/days", since=since, until=until) as response:
            listed = json.loads(await response.aread())
        return [Day(date.fromisoformat(one["day"]), one["events"]) for one in listed]

    async def write_day(self, day: date, path: Path) -> None:
        """Write the day's events to a Parquet file."""
        async with self._server.open("GET", f"/events/days/{day}") as response:
            await _save(response.aiter_bytes(), path)


async def rebuild_graph(settings: Settings) -> bool:
    """Make the graph in Redis again from the events, in the running server when there is one."""
    url = running_server(settings, "masterchat")
    async with AsyncExitStack() as stack:
        if url:
            server = await stack.enter_async_context(_server(url, settings))
            response = await stack.enter_async_context(server.open("POST", "/graph/rebuild"))
            steps = (json.loads(line) async for line in response.aiter_lines())
        else:
            events = await stack.enter_async_context(open_events(settings.data_dir / "events.duckdb"))
            redis = await stack.enter_async_context(_redis(settings))
            rebuild = GraphRebuild(redis, lambda: events.replay(GRAPH_STREAM, TYPES))
            steps = (asdict(step) async for step in rebuild.run())
        step: dict[str, Any] = {}
        with Progress("{task.description}", console=Console(stderr=True), transient=True) as progress:
            shown = progress.add_task("reading the events …")
            async for step in steps:
                if "error" in step:
                    raise ServerError(f"{url}: {step['error']}")
                progress.update(shown, description=f"{step['events']} events, {step['corrected']} corrected")
    if not step.get("done"):
        raise ServerError(f"{url}: the rebuild broke off; run it again, it has done no harm")
    print(
        f"{step['events']} events read ({step['skipped']} skipped), {step['corrected']} nodes and edges corrected, "
        f"{step['removed']} removed"
    )
    return True


async def export_graph(settings: Settings, file: Path) -> bool:
    """Write the graph to a file, which appears whole or not at all."""
    formats = {".graphml": "graphml", ".json": "json"}
    if file.suffix not in formats:
        raise LuminaError(f"{file}: the name must end in {' or '.join(formats)}")
    url = running_server(settings)
    part = file.with_name(f".{file.name}.part")
    async with AsyncExitStack() as stack:
        stack.callback(part.unlink, missing_ok=True)
        if url:
            server = await stack.enter_async_context(_server(url, settings))
            response = await stack.enter_async_context(server.open("GET", "/graph", format=formats[file.suffix]))
            await _save(response.aiter_bytes(), part)
        else:
            redis = await stack.enter_async_context(_redis(settings))
            selection = Selection(GraphStore(redis, Streams(redis)), DEFAULT_OWNER)
            texts = to_graphml(selection) if file.suffix == ".graphml" else to_json(selection)
            await _save((text.encode() async for text in texts), part)
        part.replace(file)
    print(file)
    return True


@contextlib.asynccontextmanager
async def _server(url: str, settings: Settings) -> AsyncIterator[masterchat.MasterChat]:
    """A client of the running server, with the first key."""
    try:
        async with masterchat.MasterChat(url, api_key=next(iter(settings.api_keys()), None)) as client:
            yield client
    except masterchat.MasterChatError as error:
        raise ServerError(f"{url}: {error}") from error


def _redis(settings: Settings) -> contextlib.AbstractAsyncContextManager[Redis]:
    url = settings.redis_url.get_secret_value() if settings.redis_url else None
    return open_redis(url, settings.data_dir)


async def _save(pieces: AsyncIterator[bytes], file: Path) -> None:
    try:
        with await asyncio.to_thread(file.open, "wb") as opened:
            async for piece in pieces:
                await asyncio.to_thread(opened.write, piece)
    except OSError as error:
        raise LuminaError(f"{file} cannot be written: {error}; choose another place") from error


async def prune_passages(settings: Settings, asked: Mapping[str, Any], owner: str, *, as_json: bool = False) -> bool:
    """Prune an owner's passages, as a task of the running server when there is one; print what went.

    Raises:
        InvalidTask: what is asked is not accepted.
        ServerError: the server refused or failed, or none of its keys is the owner's.
    """
    check_payload("prune", dict(asked), owner)
    url = running_server(settings)
    if url:
        found = await _prune_there(url, settings, asked, owner)
    else:
        async with open_runner(settings) as runner:
            found = await prune(runner.context, PruneRequest(**asked), owner=owner)
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        _show_pruned(Console(), found)
    return True


async def _prune_there(url: str, settings: Settings, asked: Mapping[str, Any], owner: str) -> dict[str, Any]:
    keys = settings.api_keys()
    key = next((key for key, name in keys.items() if name == owner), None)
    if key is None and (keys or owner != DEFAULT_OWNER):
        raise ServerError(f"{url}: the server has no key of owner «{owner}»; add one to LUMINA_API_KEYS, or stop it")
    try:
        async with masterchat.MasterChat(url, api_key=key) as client:
            task = await client.tasks.prune(**asked)
            result: dict[str, Any] = (await client.tasks.wait(task.id)).data["result"]
    except masterchat.MasterChatError as error:
        raise ServerError(f"{url}: {error}") from error
    return result


def _show_pruned(console: Console, found: Mapping[str, Any]) -> None:
    """What went, by reason; in a dry run each page too."""
    dry = found["dry_run"]
    if found["reasons"]:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for heading in ("reason", "page", "revision") if dry else ("reason",):
            table.add_column(heading)
        for heading in ("passages", "cited, stay") if dry else ("pages", "passages"):
            table.add_column(heading, justify="right")
        if dry:
            for one in found["listed"]:
                counts = (str(one["passages"]), str(one["cited"]))
                table.add_row(_REASONS[one["reason"]], escape(one["title"]), escape(one["revision"]), *counts)
        else:
            for reason, counted in found["reasons"].items():
                table.add_row(_REASONS[reason], str(counted["pages"]), str(counted["passages"]))
        console.print(table)
    if dry and (more := found["pages"] - len(found["listed"])):
        console.print(f"… and {more} more pages", highlight=False)
    verb = "would go" if dry else "went"
    stay = f"; {found['cited']} of the same pages stay, for kept answers cite them" if found["cited"] else ""
    text = f"{found['passages']} passages of {found['pages']} pages of {found['owner']} {verb}{stay}"
    console.print(text, highlight=False, markup=False, soft_wrap=True)


_REASONS = {
    "superseded": "superseded",
    "forgotten": "left of a forgotten page",
    "older_than": "old",
    "max_passages": "over the quota",
}
