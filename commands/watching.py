"""What ``lumina top`` shows: the panels of the dashboards, in a terminal, from a running server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

import masterchat
from commands.running import ServerError, running_server
from settings import Settings

REFRESH_S = 1.0
Figures = Mapping[str, Any]
"""What ``GET /metrics/summary`` answers."""


async def watch(settings: Settings, url: str | None = None, *, once: bool = False, as_json: bool = False) -> bool:
    """Show the figures of a running server, again every second until Ctrl-C.

    Args:
        settings: Where the server has announced itself, and the key for it.
        url: Another server.
        once: One frame, and no more.
        as_json: The figures as one JSON document; one only.

    Raises:
        ServerError: no server runs, or it refuses; one that goes away later is waited for.
    """
    address = url or running_server(settings)
    if address is None:
        raise ServerError(
            f"no server runs on {settings.data_dir}; start one with `lumina serve`, or name it with --url"
        )
    key = next(iter(settings.api_keys()), None)
    console = Console()
    try:
        async with masterchat.MasterChat(address, api_key=key, timeout_s=10.0, max_retries=0) as client:
            figures = await read(client)
            if as_json:
                print(json.dumps(figures, ensure_ascii=False, indent=2))
            elif once or not console.is_terminal:
                console.print(frame(figures, address))
            else:
                await _follow(client, console, figures, address)
    except masterchat.MasterChatError as error:
        raise ServerError(f"{address}: {error}") from error
    return True


async def read(client: masterchat.MasterChat) -> dict[str, Any]:
    """The figures of this moment.

    Raises:
        MasterChatError: no answer, or a refusal.
    """
    async with client.open("GET", "/metrics/summary") as response:
        found: dict[str, Any] = json.loads(await response.aread())
    return found


async def _follow(client: masterchat.MasterChat, console: Console, figures: Figures, url: str) -> None:
    with Live(frame(figures, url), console=console, screen=True, auto_refresh=False) as live:
        note = ""
        while True:
            live.update(frame(figures, url, note), refresh=True)
            await asyncio.sleep(REFRESH_S)
            try:
                figures, note = await read(client), ""
            except masterchat.Unreachable as error:
                note = f"no answer ({error}); these are the last figures, and it is asked again"


def frame(figures: Figures, url: str, note: str = "") -> RenderableType:
    """Everything at once; about 80 characters wide."""
    http = figures["http"]
    head = Text.assemble(
        ("Lumina ", "bold"),
        (figures["version"], "bold"),
        f"  {url}  {time.strftime('%H:%M:%S')}\n",
        f"{http['requests']:,} {'request' if http['requests'] == 1 else 'requests'}",
        (f"   {http['failed']:,} failed", "red" if http["failed"] else "dim"),
        f"   95 % of the answers begin within {_seconds(http['p95_s'])}",
    )
    parts: list[RenderableType] = [head]
    if note:
        parts.append(Text(note, "red"))
    parts.append(Columns([_knowledge(figures), _work(figures), _money(figures)], padding=(0, 1)))
    parts += [_agents(figures), _streams(figures)]
    if figures["models"]:
        parts.append(_models(figures))
    return Group(*parts)


def _knowledge(figures: Figures) -> Panel:
    graph, vectors = figures["graph"], figures["vectors"]
    return _facts(
        "memory",
        {
            "nodes": _count(graph["nodes"]),
            "new in 1 h": _count(graph["nodes_last_hour"]),
            "edges": _count(graph["edges"]),
            "passages": _count(vectors["passages"]),
            "embedded": _count(vectors["embedded"]),
            "conversations": _count(figures["conversations"]),
        },
    )


def _work(figures: Figures) -> Panel:
    tasks, queue, planner = figures["tasks"], figures["queue"], figures["planner"]
    return _facts(
        "tasks",
        {
            "queued": _with_age(tasks["queued"] + tasks["retrying"], queue["oldest_queued_age_s"]),
            "running": _with_age(queue["leases"], queue["oldest_lease_age_s"]),
            "complete": _count(tasks["complete"]),
            "dead": _alarming(tasks["dead"]),
            "decision p95": _at_most(planner["p95_s"] if planner else None),
            "followers": _count(figures["followers"]["events"] + figures["followers"]["runs"]),
        },
    )


def _money(figures: Figures) -> Panel:
    tokens, budget = figures["tokens"], figures["budget"]
    return _facts(
        "cost",
        {
            "tokens in": _count(tokens["input"]),
            "tokens out": _count(tokens["output"]),
            "spent": f"${tokens['usd']:.2f}",
            "run may spend": f"${budget['run_usd']:.2f}",
            "of it left": f"${budget['left_usd']:.2f}",
            "vectors made": _count(figures["cache"]["misses"]),
        },
    )


def _agents(figures: Figures) -> Table:
    table = _table("agent", "runs", "failed", "mean", "p95", "tokens", "USD", "limited")
    for name, one in figures["agents"].items():
        limited = figures["rate_limited"].get(name)
        table.add_row(
            escape(name), _count(one["runs"]), _alarming(one["failed"]), _seconds(one["mean_s"]),
            _at_most(one["p95_s"]), _count(one["tokens"]), f"{one['usd']:.4f}", _count(limited),
        )  # fmt: skip
    return table


def _streams(figures: Figures) -> Table:
    table = _table("stream", "kept", "of", "dead", "group", "lag", "pending", "members", left=(0, 4))
    for name, stream in figures["streams"].items():
        shown = [
            escape(name),
            _count(stream["length"]),
            _count(stream["max_length"]),
            _alarming(stream["dead_letters"]),
        ]
        for group, one in stream["groups"].items():
            behind = one["lag"] + one["pending"] > stream["max_length"] / 2
            lag = f"[red]{one['lag']:,}[/]" if behind else _count(one["lag"])
            table.add_row(*shown, escape(group), lag, _count(one["pending"]), _count(one["consumers"]))
            shown = [""] * 4
    return table


def _models(figures: Figures) -> Table:
    table = _table("model", "calls", "tok/s", "first p95", "fell back", "refused", "USD")
    for one in figures["models"]:
        speed = "–" if one["tokens_per_s"] is None else f"{one['tokens_per_s']:g}"
        table.add_row(
            escape(one["model"][-24:]), _count(one["calls"]), speed,
            _at_most(one["first_token_p95_s"]), _alarming(one["fallbacks"]), _alarming(one["refused"]),
            f"{one['usd']:.4f}",
        )  # fmt: skip
    return table


def _facts(title: str, facts: Mapping[str, str]) -> Panel:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim")
    table.add_column(justify="right", min_width=7)
    for name, value in facts.items():
        table.add_row(name, value)
    return Panel(table, title=title, title_align="left", border_style="dim", expand=False)


def _table(*headings: str, left: tuple[int, ...] = (0,)) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place in left else "right", no_wrap=True)
    return table


def _count(number: float | None) -> str:
    return "–" if number is None else f"{number:,}"


def _alarming(number: int) -> str:
    return f"[red]{number:,}[/]" if number else "0"


def _with_age(count: int, age_s: float | None) -> str:
    return f"{count:,} ({_seconds(age_s)})" if count and age_s is not None else f"{count:,}"


def _at_most(seconds: float | None) -> str:
    """A bound of a histogram: more is not known of what lies below it."""
    return "–" if seconds is None else f"≤ {_seconds(seconds)}"


def _seconds(seconds: float | None) -> str:
    """A span of time in at most four characters and its unit."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 600:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 36_000 else f"{seconds / 3600:.0f} h"
