"""``GET /metrics`` for Prometheus, ``GET /metrics/summary`` for people and the console.

What agents and models did is counted from the event store, so it is the same from whichever process did it and survives
a restart; queues and streams are asked of Redis; requests and the embedding cache are this process's own. Labels come
from the registry of agents, the routes and the streams, never from what a client sends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from redis.exceptions import RedisError
from starlette.responses import JSONResponse, Response

from graphs.runs import Runner
from memory.event_figures import read_figures
from memory.tasks import TaskQueue
from serving.auth import Caller, Owner, check_owner
from serving.dependencies import OpenRunner, Tasks
from serving.http_metrics import HttpMetrics
from serving.metric_families import Figures, metric_families, most_used

router = APIRouter(tags=["metrics"])

READY_S = 2.0
"""A probe is told after so long that Redis does not answer."""
FRESH_S = 5.0
"""Figures are read again after so long; scrapers and consoles that come together share one reading."""


class FiguresReader:
    """Reads the figures of a process, at most once in ``FRESH_S`` however many ask."""

    def __init__(self, runner: Runner, queue: TaskQueue) -> None:
        self._runner, self._queue = runner, queue
        self._lock = asyncio.Lock()
        self._latest: tuple[float, Figures] | None = None

    async def read(self) -> Figures:
        """The figures of this moment, or of up to ``FRESH_S`` ago."""
        async with self._lock:
            if self._latest is None or time.monotonic() - self._latest[0] > FRESH_S:
                self._latest = (time.monotonic(), await self._read())
            return self._latest[1]

    async def _read(self) -> Figures:
        context = self._runner.context
        events, streams, tasks, passages, embedded, left = await asyncio.gather(
            read_figures(context.events) if context.events else _none(),
            context.streams.backlog(),
            self._queue.counts(),
            context.vectors.count() if context.vectors else _none(),
            context.vectors.count(embedded=True) if context.vectors else _none(),
            self._budget_left(),
        )
        limit = context.budget.limit_usd
        return Figures(events, streams, tasks, context.embedder.counts, passages, embedded, limit, left)

    async def _budget_left(self) -> float:
        budget = self._runner.context.budget
        running = (await self._queue.list(status="running")).tasks
        spent = await asyncio.gather(*(budget.spent(task.id) for task in running))
        return max(0.0, budget.limit_usd - max(spent, default=0.0))


async def _none() -> None:
    return None


async def _reader(request: Request) -> FiguresReader:
    reader: FiguresReader = request.state.figures
    return reader


async def _http(request: Request) -> HttpMetrics:
    metrics: HttpMetrics = request.state.http_metrics
    return metrics


Reader = Annotated[FiguresReader, Depends(_reader)]


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(
    request: Request,
    caller: Caller,
    runner: OpenRunner,
    reader: Reader,
    http: Annotated[HttpMetrics, Depends(_http)],
    ready: Annotated[bool, Query(description="Only whether this process can work, as JSON; needs no key.")] = False,
    accept: Annotated[str, Header()] = "text/plain",
) -> Response:
    """Every figure in Prometheus's text format, or OpenMetrics where the scraper asks for it."""
    if ready:
        return await _readiness(runner)
    check_owner(request, caller)
    encoder, content_type = choose_encoder(accept)
    figures = await reader.read()
    families = [*http.registry.collect(), *metric_families(figures, runner.registry)]
    return Response(encoder(_Collected(families)), media_type=content_type)


async def _readiness(runner: Runner) -> JSONResponse:
    try:
        async with asyncio.timeout(READY_S):
            await runner.context.redis.ping()
    except (RedisError, OSError, TimeoutError):
        return JSONResponse({"status": "degraded", "redis": "does not answer"}, status_code=503)
    return JSONResponse({"status": "ok"})


@router.get("/metrics/summary")
async def summary(owner: Owner, runner: OpenRunner, reader: Reader, queue: Tasks) -> dict[str, Any]:
    """The same for people: conversations, tokens, vectors, what each agent did, how the graph grew."""
    figures = await reader.read()
    found = figures.events
    agents = {} if found is None else found.agents
    models = [] if found is None else [{"provider": p, "model": m, **asdict(one)} for (p, m), one in most_used(found)]
    return {
        "conversations": found.conversations if found else None,
        "tokens": {
            "input": sum(agent.input_tokens for agent in agents.values()),
            "output": sum(agent.output_tokens for agent in agents.values()),
            "usd": round(sum(agent.usd for agent in agents.values()), 6),
        },
        "vectors": {"passages": figures.passages, "embedded": figures.embedded},
        "agents": {name: _agent_summary(figures, name) for name in runner.registry},
        "models": [{name: value for name, value in one.items() if name != "first_token"} for one in models],
        "graph": {
            "nodes": found.nodes if found else None,
            "edges": found.edges if found else None,
            "nodes_last_hour": found.nodes_last_hour if found else None,
        },
        "tasks": figures.tasks,
        "streams": {
            name: {"length": one.length, "groups": {group: asdict(each) for group, each in one.groups.items()}}
            for name, one in figures.streams.items()
        },
        "cache": asdict(figures.cache),
    }


def _agent_summary(figures: Figures, name: str) -> dict[str, Any]:
    one = figures.events.agents.get(name) if figures.events else None
    if one is None:
        return {"runs": 0, "failed": 0, "mean_s": None, "tokens": 0, "usd": 0.0}
    runs = one.seconds.counts[-1]
    return {
        "runs": one.ok + one.failed,
        "failed": one.failed,
        "mean_s": round(one.seconds.total_s / runs, 3) if runs else None,
        "tokens": one.input_tokens + one.output_tokens,
        "usd": round(one.usd, 6),
    }


class _Collected:
    """What has been collected, as the encoder wants it."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
