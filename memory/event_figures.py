"""What the event store can tell of the whole system in numbers, whichever process did the work and whenever.

Every figure only ever grows, as long as no event is removed, so that it can be exported as a counter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from memory.events import EventStore

BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the durations' histograms, in seconds: from an extract out of memory to a long crawl."""
DECISION_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""The same for the planner's decisions, which take milliseconds."""

WIDTH = len(BUCKETS_S) + 2
"""Columns of a histogram: a count for each bound, one of all, and the sum."""


@dataclass(frozen=True, slots=True)
class Durations:
    """A histogram of durations."""

    counts: tuple[int, ...]
    """Durations of at most each bound, and all: one more than there are bounds, never falling."""
    total_s: float
    bounds_s: tuple[float, ...] = BUCKETS_S

    def quantile(self, share: float) -> float | None:
        """The bound below which this share of the durations lies, in seconds; the largest for those beyond it."""
        if not self.counts[-1]:
            return None
        wanted = share * self.counts[-1]
        return next(
            (bound for bound, count in zip(self.bounds_s, self.counts, strict=False) if count >= wanted),
            self.bounds_s[-1],
        )


@dataclass(frozen=True, slots=True)
class AgentFigures:
    """What one agent did."""

    ok: int
    failed: int
    seconds: Durations
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """What one chat model did."""

    calls: int
    input_tokens: int
    output_tokens: int
    usd: float
    fallbacks: int
    """Providers that failed before this one answered."""
    refused: int
    """Calls for which the budget refused a dearer one."""
    seconds: float
    """Of all calls together; tokens by seconds is its speed."""
    first_token: Durations


@dataclass(frozen=True, slots=True)
class EventFigures:
    """Everything that is counted from events."""

    agents: Mapping[str, AgentFigures]
    models: Mapping[tuple[str, str], ModelFigures]
    """(provider, model) → its figures."""
    events: Mapping[str, int]
    """Type → how many events."""
    planning: Durations
    """Of whole runs, from ``plan.start`` to ``plan.done``."""
    decisions: Durations
    """Of the planner's steps: looking at the facts and choosing."""
    conversations: int
    """Conversations in which something was ever said."""
    nodes: int
    edges: int
    nodes_last_hour: int
    newest_node_s: float | None
    """When the latest node came, in seconds since the epoch."""
    open_tasks: Mapping[tuple[str, str], int]
    """(kind, status) → tasks that have not ended."""
    oldest_queued_s: float | None
    """When the oldest task was submitted that no worker has taken, in seconds since the epoch."""
    oldest_lease_s: float | None
    """When the running task was first taken that runs longest, in seconds since the epoch."""


def _histogram(seconds: str, bounds_s: tuple[float, ...] = BUCKETS_S) -> str:
    """SQL of a histogram's columns: one count for each bound, one of all, and the sum."""
    counts = [f"count(*) FILTER ({seconds} <= {bound})" for bound in bounds_s]
    return ", ".join([*counts, f"count({seconds})", f"coalesce(sum({seconds}), 0)"])


_AGENTS = f"""
WITH steps AS (
    SELECT agent, try_cast(data ->> 'ok' AS BOOLEAN) AS ok, try_cast(data ->> 'seconds' AS DOUBLE) AS seconds
    FROM events
    WHERE type = 'plan.step' AND data ->> 'way' IS NOT NULL
)
SELECT agent, count(*) FILTER (ok), count(*) FILTER (NOT ok), {_histogram("seconds")}
FROM steps WHERE ok IS NOT NULL GROUP BY agent
"""
_SPENT = "SELECT agent, sum(input_tokens)::BIGINT, sum(output_tokens)::BIGINT, sum(usd) FROM llm_usage GROUP BY agent"
_MODELS = f"""
WITH calls AS (
    SELECT
        coalesce(data ->> 'provider', '') AS provider,
        coalesce(data ->> 'model', '') AS model,
        coalesce(try_cast(data ->> 'input_tokens' AS BIGINT), 0) AS input_tokens,
        coalesce(try_cast(data ->> 'output_tokens' AS BIGINT), 0) AS output_tokens,
        coalesce(try_cast(data ->> 'usd' AS DOUBLE), 0) AS usd,
        coalesce(try_cast(data ->> 'fallbacks' AS BIGINT), 0) AS fallbacks,
        coalesce(try_cast(data ->> 'refused' AS BIGINT), 0) AS refused,
        coalesce(try_cast(data ->> 'seconds' AS DOUBLE), 0) AS seconds,
        try_cast(data ->> 'first_token_s' AS DOUBLE) AS first_token_s
    FROM events WHERE type = 'llm.usage'
)
SELECT
    provider, model, count(*), sum(input_tokens)::BIGINT, sum(output_tokens)::BIGINT, sum(usd), sum(fallbacks)::BIGINT,
    sum(refused)::BIGINT, sum(seconds), {_histogram("first_token_s")}
FROM calls WHERE model <> '' GROUP BY provider, model ORDER BY count(*) DESC
"""
_EVENTS = "SELECT type, count(*) FROM events GROUP BY type ORDER BY type"
_PLANNING = f"""
WITH runs AS (
    SELECT epoch(max(ts) FILTER (type = 'plan.done')) - epoch(min(ts) FILTER (type = 'plan.start')) AS seconds
    FROM events WHERE type IN ('plan.start', 'plan.done') AND task_id <> '' GROUP BY task_id
)
SELECT {_histogram("seconds")} FROM runs
"""
_DECISIONS = f"""
WITH decisions AS (
    SELECT try_cast(data ->> 'seconds' AS DOUBLE) AS seconds
    FROM events WHERE type = 'plan.step' AND agent = 'planner'
)
SELECT {_histogram("seconds", DECISION_BUCKETS_S)} FROM decisions
"""
_GRAPH = """
SELECT
    (SELECT count(DISTINCT data ->> 'conversation_id') FROM events WHERE type = 'chat.message'),
    (SELECT count(*) FROM nodes), (SELECT count(*) FROM edges),
    (SELECT count(*) FROM nodes WHERE first_seen > now() - INTERVAL 1 HOUR),
    (SELECT epoch(max(first_seen)) FROM nodes)
"""
_GRAPH_COLUMNS = ("conversations", "nodes", "edges", "nodes_last_hour", "newest_node_s")
_OPEN_TASKS = """
SELECT kind, status, count(*), epoch(min(submitted)), epoch(min(started))
FROM tasks WHERE status IN ('queued', 'retrying', 'running') GROUP BY kind, status
"""


async def read_figures(events: EventStore) -> EventFigures:
    """Count everything once; about 0.1 s for 100,000 events.

    Raises:
        InvalidQuery: the event store could not answer in time.
    """
    names = (_AGENTS, _SPENT, _MODELS, _EVENTS, _PLANNING, _DECISIONS, _OPEN_TASKS, _GRAPH)
    found = await asyncio.gather(*(events.query(sql) for sql in names))
    agents, spent, models, counted, planning, decisions, tasks, graph = (result.rows for result in found)
    tokens = {agent: (given, written, usd) for agent, given, written, usd in spent}
    ran = {agent: (ok, failed, _durations(rest)) for agent, ok, failed, *rest in agents}
    nothing = (0, 0, _durations([0] * WIDTH))
    return EventFigures(
        agents={
            agent: AgentFigures(*ran.get(agent, nothing), *tokens.get(agent, (0, 0, 0.0)))
            for agent in sorted({*ran, *tokens})
        },
        models={
            (provider, model): ModelFigures(*(*rest[:-WIDTH], _durations(rest[-WIDTH:])))
            for provider, model, *rest in models
        },
        events=dict(counted),
        planning=_durations(planning[0]),
        decisions=_durations(decisions[0], DECISION_BUCKETS_S),
        open_tasks={(kind, status): count for kind, status, count, *_ in tasks},
        oldest_queued_s=_earliest(submitted for _, status, _, submitted, _ in tasks if status == "queued"),
        oldest_lease_s=_earliest(started for _, status, _, _, started in tasks if status == "running"),
        **dict(zip(_GRAPH_COLUMNS, graph[0], strict=True)),
    )


def _earliest(times_s: Iterable[float | None]) -> float | None:
    return min((time_s for time_s in times_s if time_s is not None), default=None)


def _durations(columns: list[Any], bounds_s: tuple[float, ...] = BUCKETS_S) -> Durations:
    *counts, total_s = columns
    return Durations(tuple(counts), float(total_s), bounds_s)
