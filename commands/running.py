"""What the commands of the ``lumina`` tool do, once their options are read."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from loguru import logger
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import masterchat
from agents.spec import RunRequest
from commands.terminal import RunView, show_outcome
from errors import LuminaError
from graphs.intents import find_intent
from graphs.runs import RunEvent, Runner, new_task_id
from memory.events import open_events
from server import address_file
from services import open_runner
from settings import DEFAULT_OWNER, Settings

CONNECT_S = 0.5
"""A server on this machine that takes longer to accept a connection counts as gone."""


class ServerError(LuminaError):
    """The running server refused or failed."""


async def run(
    settings: Settings,
    asked: dict[str, Any],
    task_id: str | None = None,
    *,
    started: float,
    as_json: bool = False,
    details: bool = False,
) -> bool:
    """Run a request where the engines are: in the server on the same DATA_DIR when one runs, else in this process.

    Args:
        settings: Which services, and where.
        asked: The fields of a ``RunRequest``.
        task_id: Go on with this task; that is always done in this process.
        started: When the user began to wait, on the monotonic clock.
        as_json: Print one JSON document.
        details: Print the chain of states and the counts as well.

    Returns:
        True; a run that failed raises.
    """
    url = running_server(settings) if task_id is None else None
    if url:
        return await run_there(url, settings, asked, started=started, as_json=as_json, details=details)
    return await run_here(settings, asked, task_id, started=started, as_json=as_json, details=details)


async def run_here(
    settings: Settings, asked: dict[str, Any], task_id: str | None, *, started: float, as_json: bool, details: bool
) -> bool:
    """Open the engines in this process, run a request, show it; whether it came to a good end."""
    async with open_runner(settings) as runner:
        request = await _request(runner, asked)
        events = runner.stream(request, task_id or new_task_id())
        return await _show(events, started=started, as_json=as_json, details=details)


async def run_there(
    url: str, settings: Settings, asked: dict[str, Any], *, started: float, as_json: bool, details: bool
) -> bool:
    """Let a running server do it."""
    key = next(iter(settings.api_keys()), None)
    body = {**asked, "mode": asked["intent"]}
    del body["intent"]
    body["message"] = body["message"] or f"Read {', '.join(body['topics'])}"
    try:
        async with masterchat.MasterChat(url, api_key=key) as client:
            stream = await client.chat(**body)
            events = (RunEvent(chunk.kind, chunk.data) async for chunk in stream)
            return await _show(events, started=started, as_json=as_json, details=details)
    except masterchat.MasterChatError as error:
        raise ServerError(f"{url}: {error}") from error


def running_server(settings: Settings, role: str = "hub") -> str | None:
    """The address of the server that runs on the same DATA_DIR, if one does: with everything in it, or this role."""
    return _address(settings, "all") or _address(settings, role)


def _address(settings: Settings, role: str) -> str | None:
    with contextlib.suppress(OSError, ValueError, KeyError):
        announced = json.loads(address_file(settings.data_dir, role).read_text())
        os.kill(announced["pid"], 0)
        url = urlsplit(announced["url"])
        # The file of a server that was killed may name a process that is another one by now.
        with socket.create_connection((url.hostname or "", url.port or 80), timeout=CONNECT_S):
            return str(announced["url"])
    return None


async def run_sql(settings: Settings, query: str, *, as_json: bool = False) -> bool:
    """Ask the event store: the running server when there is one, else the file itself."""
    url = running_server(settings, "masterchat")
    if url:
        key = next(iter(settings.api_keys()), None)
        try:
            async with masterchat.MasterChat(url, api_key=key) as client:
                found = await client.query(query)
        except masterchat.MasterChatError as error:
            raise ServerError(f"{url}: {error}") from error
    else:
        async with open_events(settings.data_dir / "events.duckdb") as events:
            found = asdict(await events.query(query))
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return True
    table = Table(*(escape(column) for column in found["columns"]), box=None, padding=(0, 2, 0, 0), header_style="bold")
    for row in found["rows"]:
        table.add_row(*(escape(value if isinstance(value, str) else json.dumps(value)) for value in row))
    Console().print(table)
    if found["truncated"]:
        logger.warning("only the first {} rows are shown; add a LIMIT or a condition", len(found["rows"]))
    return True


async def _request(runner: Runner, asked: dict[str, Any]) -> RunRequest:
    intent = asked["intent"]
    if intent == "auto":
        intent = await find_intent(runner.goals, runner.context.embedder, asked["message"])
    return RunRequest(**{**asked, "intent": intent}, owner=DEFAULT_OWNER)


async def _show(events: AsyncIterator[RunEvent], *, started: float, as_json: bool, details: bool) -> bool:
    if as_json:
        outcome = {event.kind: event.data async for event in events}.get("done", {})
        print(json.dumps(outcome, ensure_ascii=False, indent=2))
        _judge(outcome)
        return True
    console = Console()
    with RunView(console, started) as view:
        outcome = await view.follow(events)
    _judge(outcome)
    seconds = time.monotonic() - started
    show_outcome(console, outcome, seconds=seconds, details=details, answer_shown=view.answer_shown)
    return True


def _judge(outcome: dict[str, Any]) -> None:
    """Raise when a run failed; warn when something was lost on the way."""
    status = outcome.get("outcome") or {}
    if status.get("status") == "failed":
        raise LuminaError(status["reason"])
    if status.get("status") == "partial":
        logger.warning("not everything was reached: {}", status["reason"])
