"""Figures counted from events, on a real DuckDB."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from memory.event_figures import BUCKETS_S, read_figures
from memory.events import open_events
from memory.streams import Event

T0 = time.time_ns() // 1_000_000


def made(*events: tuple[str, str, int, dict[str, Any]]) -> list[tuple[str, str, Event]]:
    """(type, agent, milliseconds after the start, data) of each."""
    return [
        ("any/v1", f"{number}-0", Event(type_, data, agent, f"t{after % 2}", T0 + after))
        for number, (type_, agent, after, data) in enumerate(events, 1)
    ]


def walked(seconds: Any, *, ok: Any = True) -> dict[str, Any]:
    return {"way": "answered.quoted", "ok": ok, "seconds": seconds}


async def test_an_empty_store_counts_nothing(tmp_path: Path) -> None:
    async with open_events(tmp_path / "events.duckdb") as store:
        found = await read_figures(store)
    assert (found.agents, found.models, found.nodes, found.conversations) == ({}, {}, 0, 0)
    assert found.newest_node_s is None
    assert found.planning.counts == (0,) * (len(BUCKETS_S) + 1)


async def test_everything_is_counted_once_and_where_it_belongs(tmp_path: Path) -> None:
    model = {"provider": "ollama", "model": "m", "seconds": 2, "first_token_s": 0.3, "fallbacks": 1, "refused": 0}
    events = made(
        ("plan.start", "planner", 0, {}),
        ("plan.step", "qa", 2, walked(0.2)),
        ("plan.step", "qa", 4, walked(7, ok=False)),
        ("plan.step", "qa", 6, walked(1000)),
        ("plan.step", "qa", 8, walked("long", ok="maybe")),
        ("plan.step", "planner", 10, {"decision": {}}),
        ("llm.usage", "qa", 12, {**model, "input_tokens": 5, "output_tokens": 7, "usd": 0.5}),
        ("llm.usage", "summarise", 14, {**model, "input_tokens": 1, "output_tokens": 1, "first_token_s": None}),
        ("chat.message", "", 16, {"conversation_id": "c"}),
        ("chat.message", "", 18, {"conversation_id": "c"}),
        ("node.add", "crawl", 20, {"id": "A", "owner": "ada"}),
        ("node.add", "crawl", 22, {"id": "A", "owner": "ada"}),
        ("task.submit", "", 25, {"kind": "crawl", "owner": "ada"}),
        ("plan.done", "planner", 4000, {}),
    )
    async with open_events(tmp_path / "events.duckdb") as store:
        await store.append(events)
        await store.append(events)
        found = await read_figures(store)
    qa, summarise = found.agents["qa"], found.agents["summarise"]
    assert (qa.ok, qa.failed, qa.input_tokens, qa.output_tokens, qa.usd) == (2, 1, 5, 7, 0.5)
    by_bound = dict(zip(BUCKETS_S, qa.seconds.counts, strict=False))
    assert (by_bound[0.1], by_bound[0.25], by_bound[10.0], by_bound[300.0]) == (0, 1, 2, 2)
    assert (qa.seconds.counts[-1], qa.seconds.total_s) == (3, 1007.2)
    assert (summarise.ok, summarise.input_tokens) == (0, 1)
    ollama = found.models["ollama", "m"]
    assert (ollama.calls, ollama.input_tokens, ollama.fallbacks, ollama.seconds) == (2, 6, 2, 4)
    assert (ollama.first_token.counts[-1], ollama.first_token.total_s) == (1, 0.3)
    assert found.events["node.add"] == 2
    assert (found.nodes, found.nodes_last_hour, found.conversations) == (1, 1, 1)
    assert found.newest_node_s == (T0 + 20) / 1000
    assert found.oldest_queued_s == (T0 + 25) / 1000
    assert (found.planning.counts[-1], found.planning.total_s) == (1, 4.0)
