"""``GET /health``: every service by name, looked at for real."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from fastapi import APIRouter
from redis.exceptions import RedisError

from agents.context import Context
from errors import LuminaError
from graphs.runs import Runner
from graphs.scheduler import Scheduler
from memory.kafka import KafkaForwarder
from memory.redis_server import check_redis
from serving.auth import Caller
from serving.dependencies import OpenRunner, OptionalKafka, OptionalScheduler
from serving.limits import states

router = APIRouter(tags=["health"])

CHECK_TIMEOUT_S = 3.0
"""A service that takes longer to say that it is well counts as down."""


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
    checks = {
        "redis": check_redis(context.redis),
        "qdrant": _vectors(context),
        "duckdb": _events(context),
        "llm": _llm(context),
    }
    if scheduler:
        checks["scheduler"] = scheduler.check()
    if kafka:
        checks["kafka"] = kafka.check()
    found = dict(zip(checks, await asyncio.gather(*map(_look, checks.values())), strict=True))
    states = {name: state for name, (state, _) in found.items()}
    details = {name: detail for name, (_, detail) in found.items()}
    well = all(state == "ok" for state in states.values())
    return {
        **states,
        "status": "ok" if well else "degraded",
        "details": {**details, "source": context.source.name},
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
        return {"note": "not opened in this process"}
    result = await context.events.query("SELECT count(*) FROM events")
    return {"events": result.rows[0][0]}


async def _llm(context: Context) -> dict[str, Any]:
    return dict(await context.chat.check())
