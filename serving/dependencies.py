"""What the routers need of the process they run in, typed."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from graphs.runs import Runner


async def _runner(request: Request) -> Runner:
    runner: Runner = request.state.runner
    return runner


OpenRunner = Annotated[Runner, Depends(_runner)]
"""The graph and its open services, out of the lifespan's state."""
