"""What ``lumina plan`` and ``lumina goals`` do, once their options are read."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import masterchat
from commands.running import ServerError, running_server
from errors import LuminaError
from graphs.application import load_application
from graphs.drawing import goals_mermaid, hasse_mermaid, hasse_svg
from graphs.explaining import describe_request, explain_log
from graphs.lattice import Lattice
from graphs.planner import replay
from memory.events import open_events
from memory.planner_log import chain, decisions, stored_steps, streamed_steps
from memory.redis_server import open_redis
from memory.streams import Streams
from services import open_runner
from settings import DEFAULT_OWNER, Settings


class UnknownTask(LuminaError):
    """The planner's log has nothing of a task."""


class NotDrawable(LuminaError):
    """A picture that cannot be written."""


async def show_plan(settings: Settings, asked: dict[str, Any], *, explain: bool = False, as_json: bool = False) -> bool:
    """Print what would be done for a request and why; whether there is a plan. A running server is asked first."""
    url = running_server(settings)
    if url:
        body = {**asked, "mode": asked["intent"]}
        del body["intent"]
        try:
            async with masterchat.MasterChat(url, api_key=next(iter(settings.api_keys()), None)) as client:
                found = await client.plan(**body)
        except masterchat.MasterChatError as error:
            raise ServerError(f"{url}: {error}") from error
    else:
        async with open_runner(settings) as runner:
            found = await describe_request(runner, asked, DEFAULT_OWNER)
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
    elif explain:
        print(found["explanation"], end="")
    else:
        print_plan(Console(), found)
    return bool(found["verdict"] != "stuck")


def print_plan(console: Console, found: Mapping[str, Any]) -> None:
    """A plan as a table: what runs when, what it is expected to cost, and what else there was."""
    console.print(f"[bold]{found['intent']}[/]: {escape(found['why'])}", highlight=False)
    if not found["plan"]:
        return
    now = {step["way"] for step in found["run"]}
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("step", "goal", "way", "cost (s)", "instead, in all (s)"):
        table.add_column(heading)
    for number, candidate in enumerate(found["candidates"], 1):
        others = ", ".join(_other(other) for other in candidate["others"])
        mark = f"[yellow]{number} now[/]" if candidate["way"] in now else str(number)
        table.add_row(mark, escape(candidate["goal"]), escape(candidate["way"]), f"{candidate['cost']:.4g}", others)
    console.print(table)


def _other(way: Mapping[str, Any]) -> str:
    return escape(f"{way['way']} {way['total']:.4g}" if way["total"] is not None else f"{way['way']}: {way['reason']}")


async def replay_task(settings: Settings, task_id: str, *, explain: bool = False, as_json: bool = False) -> bool:
    """Decide again from a task's log and print what was decided; with ``explain``, why.

    Raises:
        UnknownTask: the log has nothing of the task.
        ReplayDiffers: naming the first round that would now be decided in another way.
    """
    _, goals = load_application(settings.goal_file)
    log = await task_decisions(settings, task_id)
    made = replay(goals, log)
    if as_json:
        print(json.dumps({"task_id": task_id, "decisions": [decision.to_json() for decision in made]}, indent=2))
        return True
    if explain:
        print(explain_log(goals, log))
    for entry, decision in zip(log, made, strict=True):
        ways = ", ".join(step.way for step in decision.steps)
        print(f"round {entry['round']}: {decision.verdict} {ways}".rstrip())
    print(f"{len(made)} decisions of task {task_id}: each is decided the same again")
    return True


async def task_decisions(settings: Settings, task_id: str) -> list[dict[str, Any]]:
    """The decisions of a task, in order: from the event store, and from the stream what that has not taken in yet.

    Raises:
        UnknownTask: there are none.
    """
    url = running_server(settings)
    if url:
        stored = await _ask_steps(url, settings, task_id)
    else:
        async with open_events(settings.data_dir / "events.duckdb") as events:
            stored = await stored_steps(events, task_id)
    redis_url = settings.redis_url.get_secret_value() if settings.redis_url else None
    async with open_redis(redis_url, settings.data_dir) as redis:
        log = decisions(stored, await streamed_steps(Streams(redis), task_id))
    if not log:
        hint = "lumina sql \"SELECT DISTINCT task_id FROM events WHERE type = 'plan.start'\" lists those that are known"
        raise UnknownTask(f"the planner's log has nothing of task «{task_id}»; {hint}")
    return log


STEPS_SQL = """
SELECT id, data FROM events
WHERE stream = 'planner_log/v1' AND type = 'plan.step' AND task_id = '{task_id}' AND data ->> 'decision' IS NOT NULL
ORDER BY stream_order(id) LIMIT {rows} OFFSET {start}
"""
PAGE = 200
"""Decisions asked of a server at a time; one is some kilobytes."""


async def _ask_steps(url: str, settings: Settings, task_id: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    try:
        async with masterchat.MasterChat(url, api_key=next(iter(settings.api_keys()), None)) as client:
            while len(found) % PAGE == 0:
                sql = STEPS_SQL.format(task_id=task_id.replace("'", "''"), rows=PAGE, start=len(found))
                rows = (await client.query(sql))["rows"]
                if not rows:
                    break
                found |= {row[0]: json.loads(row[1]) if isinstance(row[1], str) else row[1] for row in rows}
    except masterchat.MasterChatError as error:
        raise ServerError(f"{url}: {error}") from error
    return found


async def draw_goals(
    settings: Settings, path: Path, *, topics: Sequence[str], states: bool, file: Path | None, task_id: str | None
) -> bool:
    """Check a goal file, then print it as Mermaid, or write the lattice of its states to a picture.

    Args:
        settings: Where the log is.
        path: The goal file.
        topics: Draw it for these.
        states: Print the lattice of states and not the goals.
        file: Write the lattice of states there; .svg or .mmd.
        task_id: Draw what this task wanted, for its topics, with the chain that it walked.
    """
    if file is not None and file.suffix not in (".svg", ".mmd"):
        raise NotDrawable(f"{file}: a picture is an .svg or an .mmd file (Mermaid)")
    _, loaded = load_application(path)
    lattice, walked = loaded.ground(topics or ["topic"]), list[Collection[str]]()
    if task_id is not None:
        log = await task_decisions(settings, task_id)
        last = log[-1]["situation"]
        whole = loaded.ground(last["topics"])
        walked += chain(log)
        wanted = loaded.instances(last["targets"], last["topics"])
        lattice = whole.leading_to((wanted | frozenset(walked[-1])) & whole.goals)
    text = _picture(lattice, walked, file, states=states)
    if file is None:
        print(text)
    else:
        _write(file, text)
    print(f"%% {path.name}: {len(loaded.goals)} goals, {len(loaded.intents)} intents, no problems", file=sys.stderr)
    return True


def _picture(lattice: Lattice, walked: Sequence[Collection[str]], file: Path | None, *, states: bool) -> str:
    if file is not None and file.suffix == ".svg":
        return hasse_svg(lattice, walked)
    return hasse_mermaid(lattice, walked) if states or file is not None else goals_mermaid(lattice, walked)


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise NotDrawable(f"{file} cannot be written: {error.strerror}") from error
    print(f"{file} written", file=sys.stderr)
