"""``GET /health`` of each role: every service by name, looked at for real.

Whoever holds the event store writes every few seconds how it is, so that the roles beside it can say so too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable
from typing import Any

from fastapi import APIRouter
from redis.exceptions import RedisError

from agents.context import Context
from errors import LuminaError
from graphs.runs import Runner
from graphs.scheduler import Scheduler
from memory import keys
from memory.kafka import KafkaForwarder
from memory.redis_server import check_redis
from serving.auth import Caller
from serving.dependencies import OpenRunner, OptionalKafka, OptionalScheduler
from serving.limits import states

router = APIRouter(tags=["health"])
"""``GET /health`` of the hub, and of everything in one process."""
masterchat = APIRouter(tags=["health"])
"""``GET /masterchat/health``."""
masterchat_alone = APIRouter(tags=["health"])
"""``GET /health`` of the process that holds the event store and does not chat."""
alone = APIRouter(tags=["health"])
"""``GET /health`` of a process that needs Redis only."""
indexer = APIRouter(tags=["health"])
"""``GET /health`` of a process that indexes and nothing else."""

CHECK_TIMEOUT_S = 3.0
"""A service that takes longer to say that it is well counts as down."""
REPORT_EVERY_S = 2.0
REPORT_TTL_S = 15
"""After so long a report of the event store's holder is no longer believed."""


class Silent(LuminaError):
    """Who should report does not."""


class Down(LuminaError):
    """A service of which another process says so."""


@router.get("/health")
async def health(
    runner: OpenRunner, scheduler: OptionalScheduler, kafka: OptionalKafka, owner: Caller
) -> dict[str, Any]:
    """``ok`` for each service, or why not; ``status`` is ``degraded`` when one is down.

    ``rate_limits`` says for each limited agent how many runs the caller has left.
    """
    looked = look_at(runner.context, scheduler, kafka)
    body, (_, limits) = await asyncio.gather(looked, _look(_limits(runner, owner)))
    return {**body, "rate_limits": limits}


async def look_at(
    context: Context, scheduler: Scheduler | None = None, kafka: KafkaForwarder | None = None
) -> dict[str, Any]:
    """The body of ``GET /health``."""
    found = await _look_at_each(
        {
            "redis": check_redis(context.redis),
            "qdrant": _vectors(context),
            "ollama": _chat_model(context),
            **({"scheduler": scheduler.check()} if scheduler else {}),
            **({} if context.events else {"scheduler": _reported(context, "scheduler")}),
            "duckdb": _events(context),
            "llm": _llm(context),
            **({"kafka": kafka.check()} if kafka else {}),
        }
    )
    return _body(found, source=context.source.name)


@masterchat_alone.get("/health")
@masterchat.get("/masterchat/health")
async def masterchat_health(runner: OpenRunner, scheduler: OptionalScheduler) -> dict[str, Any]:
    """Whether the standing goals are looked at, Redis and the event store; more only when something is wrong."""
    return await look_at_store(runner.context, scheduler)


async def look_at_store(context: Context, scheduler: Scheduler | None) -> dict[str, Any]:
    """The body of ``GET /masterchat/health``: looked at here, or as the holder of the event store last said."""
    planner = scheduler.check() if scheduler else _reported(context, "scheduler")
    found = await _look_at_each({"redis": check_redis(context.redis), "duckdb": _events(context), "scheduler": planner})
    states = {name: state for name, (state, _) in found.items()}
    why = states.pop("scheduler")
    body: dict[str, Any] = {"planner_alive": why == "ok", **states}
    return body if _well(found) else {**body, "scheduler": why, "status": "degraded"}


@alone.get("/health")
async def health_alone(runner: OpenRunner) -> dict[str, Any]:
    """Redis, which is all that this process needs."""
    return _body(await _look_at_each({"redis": check_redis(runner.context.redis)}))


@indexer.get("/health")
async def indexer_health(runner: OpenRunner) -> dict[str, Any]:
    """Redis, and where the passages go."""
    context = runner.context
    return _body(await _look_at_each({"redis": check_redis(context.redis), "qdrant": _vectors(context)}))


async def report(context: Context, scheduler: Scheduler | None, stop: asyncio.Event) -> None:
    """Write how the event store is, until ``stop`` is set."""
    key = keys.MASTERCHAT_HEALTH
    while not stop.is_set():
        states = {"duckdb": (await _look(_events(context)))[0]}
        if scheduler:
            states["scheduler"] = (await _look(scheduler.check()))[0]
        with contextlib.suppress(RedisError, OSError):  # the roles beside this one see that, too
            await context.redis.set(key, json.dumps(states), ex=REPORT_TTL_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), REPORT_EVERY_S)
    with contextlib.suppress(RedisError, OSError):
        await context.redis.delete(key)


Found = dict[str, tuple[str, dict[str, Any]]]
"""Name of a service → its state (``ok``, or why not) and details."""


async def _look_at_each(checks: dict[str, Awaitable[dict[str, Any]]]) -> Found:
    return dict(zip(checks, await asyncio.gather(*map(_look, checks.values())), strict=True))


def _well(found: Found) -> bool:
    return all(state == "ok" for state, _ in found.values())


def _body(found: Found, **details: Any) -> dict[str, Any]:
    return {
        **{name: state for name, (state, _) in found.items()},
        "status": "ok" if _well(found) else "degraded",
        "details": {**{name: detail for name, (_, detail) in found.items()}, **details},
    }


async def _look(check: Awaitable[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return "ok", await check
    except TimeoutError:
        return f"no answer within {CHECK_TIMEOUT_S:g} s", {}
    except (LuminaError, RedisError, OSError) as error:
        return str(error), {}


async def _limits(runner: Runner, owner: str | None) -> dict[str, Any]:
    return states(await runner.limits.look(owner)) if runner.limits and owner is not None else {}


async def _vectors(context: Context) -> dict[str, Any]:
    if context.vectors is None:
        return {"note": "not opened in this process"}
    return {
        "passages": await context.vectors.count(),
        "embedded": await context.vectors.count(embedded=True),
        "model": context.embedder.model_name,
    }


async def _events(context: Context) -> dict[str, Any]:
    if context.events is None:
        return await _reported(context, "duckdb")
    result = await context.events.query("SELECT count(*) FROM events")
    return {"events": result.rows[0][0]}


async def _reported(context: Context, name: str) -> dict[str, Any]:
    """What the process that holds the event store says."""
    written = await context.redis.get(keys.MASTERCHAT_HEALTH)
    if written is None:
        raise Silent(
            f"no process that holds the event store has reported for {REPORT_TTL_S} s; "
            "`lumina serve --role masterchat` does"
        )
    state = json.loads(written).get(name, "not looked at")
    if state != "ok":
        raise Down(state)
    return {"note": "as the process says that holds the event store"}


async def _llm(context: Context) -> dict[str, Any]:
    return dict(await context.chat.check())


async def _chat_model(context: Context) -> dict[str, Any]:
    """Ollama where it is configured, else the model that stands in its place."""
    states = await context.chat.check()
    if "ollama" in states:
        first = "ollama"
    else:
        first = next((provider.name for provider in context.chat.providers() if provider.in_use), next(iter(states)))
    if states[first] != "ok":
        raise Down(states[first])
    model = next(one.model_id for one in context.chat.providers() if one.name == first)
    return {"provider": first, "model": model}
