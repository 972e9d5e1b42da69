"""The figures as Prometheus knows them: families of metrics with their names, help and bounded labels."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Literal

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from memory.event_figures import Durations, EventFigures, ModelFigures
from memory.streams import StreamBacklog
from models.embedding_cache import CacheCounts

MAX_MODELS = 20
"""Chat models with labels of their own: the most used ones."""


Moment = Literal["newest_node_s", "oldest_queued_s", "oldest_lease_s"]


@dataclass(frozen=True)
class Figures:
    """One reading of everything that is counted."""

    events: EventFigures | None
    """None in a process that does not hold the event store."""
    streams: dict[str, StreamBacklog]
    dead_letters: dict[str, int]
    """Stream → entries that could not be handled."""
    tasks: dict[str, int]
    """Status → tasks."""
    leases: int
    """Tasks that a worker holds."""
    cache: CacheCounts
    passages: int | None
    embedded: int | None
    """None in a process that does not hold the vectors."""
    budget_usd: float
    """What one run may spend."""
    budget_left_usd: float
    """What the running task that has spent most has left; the whole budget when none runs."""
    rate_limited: dict[str, int]
    """Agent → requests and tasks that had to wait for it."""
    followers: dict[str, int]
    """What they follow, ``events`` or ``runs`` → clients."""
    followers_dropped: int
    """Clients that were sent away, for they were too slow."""

    def age_s(self, moment: Moment) -> float | None:
        """Seconds since a moment that the event store knows; None when there is none."""
        since_s = getattr(self.events, moment) if self.events is not None else None
        return None if since_s is None else round(max(0.0, time.time() - since_s), 1)


def build_info(version: str) -> Metric:
    """Always 1; its labels say what runs."""
    family = InfoMetricFamily("lumina_build", "What runs here.")
    family.add_metric((), {"version": version, "python": platform.python_version()})
    return family


def metric_families(figures: Figures, agents: Iterable[str], kinds: Iterable[str]) -> Iterator[Metric]:
    """Every figure but the requests'.

    Args:
        figures: What was read.
        agents: The names of the agents that there are; what others did, in earlier times, is not shown.
        kinds: The kinds of tasks that there are; others are not shown.
    """
    yield _gauge("lumina_leases", "Tasks that a worker holds.", {"": figures.leases})
    yield _counter("lumina_rate_limited", "Requests and tasks that had to wait.", figures.rate_limited, "agent")
    yield _gauge("lumina_followers", "Clients that follow events or runs.", figures.followers, "of")
    yield _counter("lumina_followers_dropped", "Clients that were too slow.", {"": figures.followers_dropped})
    if figures.events is not None:
        yield from _task_families(figures, kinds)
        yield from _agent_families(figures.events, agents)
        yield from _model_families(figures.events)
        yield from _graph_families(figures.events)
    yield from _stream_families(figures.streams)
    yield _gauge("lumina_dead_letters", "Entries that could not be handled.", figures.dead_letters, "stream")
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
    decisions = HistogramMetricFamily("lumina_planner_seconds", "Seconds of the planner's decisions.", labels=())
    decisions.add_metric((), *_histogram(events.decisions))
    yield from (runs, tokens, usd, seconds, planning, decisions)


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


def _task_families(figures: Figures, kinds: Iterable[str]) -> Iterator[Metric]:
    """What is still to be done and how old it is; ages are of now, not of the reading."""
    assert figures.events is not None
    family = GaugeMetricFamily("lumina_open_tasks", "Tasks that have not ended.", labels=("kind", "status"))
    for kind, status in product(kinds, ("queued", "retrying", "running")):
        family.add_metric((kind, status), figures.events.open_tasks.get((kind, status), 0))
    yield family
    told: dict[str, tuple[Moment, str]] = {
        "lumina_queue_age_seconds": ("oldest_queued_s", "Seconds that the oldest task waits for a worker."),
        "lumina_lease_age_seconds": ("oldest_lease_s", "Seconds since the running task was taken that runs longest."),
    }
    for name, (moment, what) in told.items():
        yield _gauge(name, what, {"": figures.age_s(moment) or 0.0})
    if (age_s := figures.age_s("newest_node_s")) is not None:
        yield _gauge("lumina_graph_newest_node_age_seconds", "Seconds since the latest node came.", {"": age_s})


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


def _counter(name: str, what: str, values: Any, label: str | None = None) -> Metric:
    family = CounterMetricFamily(name, what, labels=(label,) if label else ())
    for key, value in values.items():
        family.add_metric((key,) if label else (), value)
    return family


def _histogram(durations: Durations) -> tuple[list[tuple[str, float]], float]:
    bounds = [*(str(bound) for bound in durations.bounds_s), "+Inf"]
    return list(zip(bounds, map(float, durations.counts), strict=True)), durations.total_s
