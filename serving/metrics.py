"""``GET /metrics`` for Prometheus, ``GET /metrics/summary`` for people and the console.

What agents and models did is counted from the event store, so it is the same from whichever process did it and survives
a restart; queues and streams are asked of Redis; requests, refusals, clients that follow and the embedding cache are
this process's own. Labels come from the registry of agents, the routes and the streams, never from what a client sends.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Header, Query, Request
from loguru import logger
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from redis.exceptions import RedisError
from starlette.responses import JSONResponse, Response

from errors import LuminaError
from graphs.runs import Runner
from graphs.tasks import KINDS
from memory.event_figures import ModelFigures, read_figures
from memory.fan_out import FanOut
from memory.tasks import TaskQueue
from serving.auth import Caller, Owner, check_owner
from serving.dependencies import OpenRunner
from serving.http_metrics import HttpMetrics
from serving.metric_families import Figures, build_info, metric_families, most_used
from serving.turns import Turns

router = APIRouter(tags=["metrics"])

READY_S = 2.0
"""A probe is told after so long that Redis does not answer."""
FRESH_S = 5.0
"""Figures are read again after so long; scrapers and consoles that come together share one reading."""
KEPT_S = 90.0
"""Figures of up to so long ago are given at once, while they are read again; a scraper that comes every 15 s gets those
of its last visit, and never waits for the event store."""


class FiguresReader:
    """Reads the figures of a process, at most once in ``FRESH_S`` however many ask; closing ends a reading."""

    def __init__(
        self, runner: Runner, queue: TaskQueue, turns: Turns | None = None, fan_out: FanOut | None = None
    ) -> None:
        self._runner, self._queue, self._turns, self._fan_out = runner, queue, turns, fan_out
        self._latest: Figures | None = None
        self._read_at = 0.0
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})

    async def read(self) -> Figures:
        """The latest figures that there are, at most ``KEPT_S`` old.

        Raises:
            LuminaError: they could not be read, and there are none.
            RedisError: the same.
        """
        age_s = time.monotonic() - self._read_at
        if self._latest is None or age_s > FRESH_S:
            if self._reading is None or self._reading.done():
                # In a context of its own, for it outlives the request that began it.
                self._reading = asyncio.create_task(self._refresh(), name="figures", context=contextvars.Context())
            if self._latest is None or age_s > KEPT_S:
                await asyncio.shield(self._reading)
        assert self._latest is not None, "a reading that ends well leaves figures"
        return self._latest

    async def _refresh(self) -> None:
        try:
            self._latest = await self._read()
        except (LuminaError, RedisError, OSError) as error:
            if self._latest is None or time.monotonic() - self._read_at > KEPT_S:
                raise  # somebody waits for it
            logger.warning("the figures of {:.0f} s ago are shown: {}", time.monotonic() - self._read_at, error)
            return
        self._read_at = time.monotonic()

    async def _read(self) -> Figures:
        context = self._runner.context
        budget = context.budget
        events, passages, embedded, left_usd = await asyncio.gather(
            read_figures(context.events) if context.events else _none(),
            context.vectors.count() if context.vectors else _none(),
            context.vectors.count(embedded=True) if context.vectors else _none(),
            self._budget_left(),
        )
        streams, dead, tasks, leases = await asyncio.gather(
            context.streams.backlog(), context.streams.dead_letters(), self._queue.counts(), self._queue.leases()
        )
        limits = self._runner.limits
        return Figures(
            events=events,
            streams=streams,
            dead_letters=dead,
            tasks=tasks,
            leases=leases,
            cache=context.embedder.counts,
            passages=passages,
            embedded=embedded,
            budget_usd=budget.limit_usd,
            budget_left_usd=left_usd,
            rate_limited=dict(limits.refused) if limits else {},
            followers={
                "events": self._fan_out.followers if self._fan_out else 0,
                "runs": self._turns.followers if self._turns else 0,
            },
            followers_dropped=self._fan_out.dropped if self._fan_out else 0,
        )

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


@router.get(
    "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}, "application/json": {}}}}
)
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
    built = build_info(request.app.version)
    families = [built, *http.registry.collect(), *metric_families(figures, runner.registry, KINDS)]
    return Response(encoder(_Collected(families)), media_type=content_type)


async def _readiness(runner: Runner) -> JSONResponse:
    try:
        async with asyncio.timeout(READY_S):
            await runner.context.redis.ping()
    except (RedisError, OSError, TimeoutError):
        return JSONResponse({"status": "degraded", "redis": "does not answer"}, status_code=503)
    return JSONResponse({"status": "ok"})


@router.get("/metrics/summary")
async def summary(
    _: Owner, request: Request, runner: OpenRunner, reader: Reader, http: Annotated[HttpMetrics, Depends(_http)]
) -> dict[str, Any]:
    """The same for people: conversations, tokens, vectors, what each agent did, how the graph grew."""
    figures = await reader.read()
    found = figures.events
    agents = {} if found is None else found.agents
    models = [] if found is None else [_model_summary(names, one) for names, one in most_used(found)]
    return {
        "version": request.app.version,
        "http": asdict(http.totals()),
        "conversations": found.conversations if found else None,
        "tokens": {
            "input": sum(agent.input_tokens for agent in agents.values()),
            "output": sum(agent.output_tokens for agent in agents.values()),
            "usd": round(sum(agent.usd for agent in agents.values()), 6),
        },
        "vectors": {"passages": figures.passages, "embedded": figures.embedded},
        "agents": {name: _agent_summary(figures, name) for name in runner.registry},
        "models": models,
        "graph": {
            "nodes": found.nodes if found else None,
            "edges": found.edges if found else None,
            "nodes_last_hour": found.nodes_last_hour if found else None,
        },
        "planner": {"decisions": found.decisions.counts[-1], "p95_s": found.decisions.quantile(0.95)}
        if found
        else None,
        "tasks": figures.tasks,
        "queue": _queue_summary(figures),
        "rate_limited": figures.rate_limited,
        "budget": {"run_usd": figures.budget_usd, "left_usd": round(figures.budget_left_usd, 6)},
        "streams": {
            name: {
                "length": one.length,
                "max_length": one.max_length,
                "dead_letters": figures.dead_letters.get(name, 0),
                "groups": {group: asdict(each) for group, each in one.groups.items()},
            }
            for name, one in figures.streams.items()
        },
        "followers": {**figures.followers, "dropped": figures.followers_dropped},
        "cache": asdict(figures.cache),
    }


def _queue_summary(figures: Figures) -> dict[str, Any]:
    return {
        "leases": figures.leases,
        "oldest_lease_age_s": figures.age_s("oldest_lease_s"),
        "oldest_queued_age_s": figures.age_s("oldest_queued_s"),
    }


def _model_summary(names: tuple[str, str], one: ModelFigures) -> dict[str, Any]:
    figures = {name: value for name, value in asdict(one).items() if name != "first_token"}
    return {
        "provider": names[0],
        "model": names[1],
        **figures,
        "first_token_p95_s": one.first_token.quantile(0.95),
        "tokens_per_s": round(one.output_tokens / one.seconds, 1) if one.seconds else None,
    }


def _agent_summary(figures: Figures, name: str) -> dict[str, Any]:
    one = figures.events.agents.get(name) if figures.events else None
    if one is None:
        return {"runs": 0, "failed": 0, "mean_s": None, "p95_s": None, "tokens": 0, "usd": 0.0}
    runs = one.seconds.counts[-1]
    return {
        "runs": one.ok + one.failed,
        "failed": one.failed,
        "mean_s": round(one.seconds.total_s / runs, 3) if runs else None,
        "p95_s": one.seconds.quantile(0.95),
        "tokens": one.input_tokens + one.output_tokens,
        "usd": round(one.usd, 6),
    }


class _Collected:
    """What has been collected, as the encoder wants it."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
