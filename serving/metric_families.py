"""The figures as Prometheus knows them: families of metrics with their names, help and bounded labels."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from memory.event_figures import BUCKETS_S, Durations, EventFigures, ModelFigures
from memory.streams import StreamBacklog
from models.embedding_cache import CacheCounts

MAX_MODELS = 20
"""Chat models with labels of their own: the most used ones."""


@dataclass(frozen=True)
class Figures:
    """One reading of everything that is counted."""

    events: EventFigures | None
    """None in a process that does not hold the event store."""
    streams: dict[str, StreamBacklog]
    tasks: dict[str, int]
    """Status → tasks."""
    cache: CacheCounts
    passages: int | None
    embedded: int | None
    """None in a process that does not hold the vectors."""
    budget_usd: float
    """What one run may spend."""
    budget_left_usd: float
    """What the running task that has spent most has left; the whole budget when none runs."""


def metric_families(figures: Figures, agents: Iterable[str]) -> Iterator[Metric]:
    """Every figure but the requests'.

    Args:
        figures: What was read.
        agents: The names of the agents that there are; what others did, in earlier times, is not shown.
    """
    if figures.events is not None:
        yield from _agent_families(figures.events, agents)
        yield from _model_families(figures.events)
        yield from _graph_families(figures.events)
    yield from _stream_families(figures.streams)
    yield _gauge("lumina_tasks", "Tasks by status.", figures.tasks, "status")
    cache = {name: count for name, count in asdict(figures.cache).items() if name != "redis_errors"}
    yield _counter("lumina_embedding_cache_texts", "Texts by where their vector came from.", cache, "from")
    yield _gauge("lumina_llm_budget_usd", "What one run may spend.", {"": figures.budget_usd})
    left = {"": figures.budget_left_usd}
    yield _gauge("lumina_llm_budget_left_usd", "What the running task that has spent most has left.", left)
    if figures.passages is not None:
        counts = {"all": figures.passages, "embedded": figures.embedded or 0}
        yield _gauge("lumina_passages", "Passages in the index, and those with a dense vector.", counts, "which")


def _agent_families(events: EventFigures, agents: Iterable[str]) -> Iterator[Metric]:
    runs = CounterMetricFamily("lumina_agent_runs", "Ways walked, by agent.", labels=("agent", "outcome"))
    tokens = CounterMetricFamily("lumina_agent_tokens", "Tokens, as the providers counted.", labels=("agent", "kind"))
    usd = CounterMetricFamily("lumina_agent_usd", "US dollars spent on models.", labels=("agent",))
    seconds = HistogramMetricFamily("lumina_agent_seconds", "Seconds of a way walked.", labels=("agent",))
    for name in agents:
        one = events.agents.get(name)
        runs.add_metric((name, "ok"), one.ok if one else 0)
        runs.add_metric((name, "failed"), one.failed if one else 0)
        tokens.add_metric((name, "input"), one.input_tokens if one else 0)
        tokens.add_metric((name, "output"), one.output_tokens if one else 0)
        usd.add_metric((name,), one.usd if one else 0)
        if one:
            seconds.add_metric((name,), *_histogram(one.seconds))
    planning = HistogramMetricFamily("lumina_run_seconds", "Seconds of whole runs.", labels=())
    planning.add_metric((), *_histogram(events.planning))
    yield from (runs, tokens, usd, seconds, planning)


def most_used(events: EventFigures) -> list[tuple[tuple[str, str], ModelFigures]]:
    """(provider, model) and its figures, the most used first."""
    return sorted(events.models.items(), key=lambda item: -item[1].calls)[:MAX_MODELS]


def _model_families(events: EventFigures) -> Iterator[Metric]:
    labels = ("provider", "model")
    told = {
        "calls": "Calls that were answered.",
        "input_tokens": "Tokens read.",
        "output_tokens": "Tokens written.",
        "usd": "US dollars.",
        "fallbacks": "Providers that had failed before this one answered.",
        "refused": "Calls for which the budget refused a dearer model.",
        "seconds": "Seconds of all calls.",
    }
    top = most_used(events)
    for field, what in told.items():
        family = CounterMetricFamily(f"lumina_llm_{field}", what, labels=labels)
        for names, one in top:
            family.add_metric(names, getattr(one, field))
        yield family
    first = HistogramMetricFamily("lumina_llm_first_token_seconds", "Seconds until the first token.", labels=labels)
    for names, one in top:
        first.add_metric(names, *_histogram(one.first_token))
    yield first


def _graph_families(events: EventFigures) -> Iterator[Metric]:
    yield _counter("lumina_events", "Events in the event store.", events.events, "type")
    yield _gauge("lumina_graph_nodes", "Nodes of the graph.", {"": events.nodes})
    yield _gauge("lumina_graph_edges", "Edges of the graph.", {"": events.edges})
    yield _gauge("lumina_graph_nodes_last_hour", "Nodes first seen within an hour.", {"": events.nodes_last_hour})
    yield _gauge("lumina_conversations", "Conversations in which something was said.", {"": events.conversations})
    now = time.time()
    if events.newest_node_s is not None:
        age = {"": max(0.0, now - events.newest_node_s)}
        yield _gauge("lumina_graph_newest_node_age_seconds", "Seconds since the latest node came.", age)
    waiting = {"": max(0.0, now - events.oldest_queued_s) if events.oldest_queued_s is not None else 0.0}
    yield _gauge("lumina_queue_age_seconds", "Seconds that the oldest task waits for a worker.", waiting)


def _stream_families(streams: dict[str, StreamBacklog]) -> Iterator[Metric]:
    yield _gauge("lumina_stream_length", "Entries kept.", {name: one.length for name, one in streams.items()}, "stream")
    most = {name: one.max_length for name, one in streams.items()}
    yield _gauge("lumina_stream_max_length", "Entries kept beyond what is not acknowledged.", most, "stream")
    told = {
        "lag": "Entries that a group has not been handed.",
        "pending": "Entries handed out and not acknowledged.",
        "consumers": "Members of a group.",
    }
    for field, what in told.items():
        family = GaugeMetricFamily(f"lumina_stream_{field}", what, labels=("stream", "group"))
        for name, one in streams.items():
            for group, backlog in one.groups.items():
                family.add_metric((name, group), getattr(backlog, field))
        yield family


def _gauge(name: str, what: str, values: dict[str, Any], label: str | None = None) -> Metric:
    family = GaugeMetricFamily(name, what, labels=(label,) if label else ())
    for key, value in values.items():
        family.add_metric((key,) if label else (), value)
    return family


def _counter(name: str, what: str, values: Any, label: str) -> Metric:
    family = CounterMetricFamily(name, what, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


def _histogram(durations: Durations) -> tuple[list[tuple[str, float]], float]:
    bounds = [*(str(bound) for bound in BUCKETS_S), "+Inf"]
    return list(zip(bounds, map(float, durations.counts), strict=True)), durations.total_s
