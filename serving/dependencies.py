"""What the routers need of the process they run in, typed."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from graphs.runs import Runner
from graphs.scheduler import Scheduler
from memory.fan_out import FanOut
from memory.kafka import KafkaForwarder
from memory.tasks import TaskQueue
from serving.turns import Turns


async def _runner(request: Request) -> Runner:
    runner: Runner = request.state.runner
    return runner


OpenRunner = Annotated[Runner, Depends(_runner)]
"""The graph and its open services, out of the lifespan's state."""


async def _turns(request: Request) -> Turns:
    turns: Turns = request.state.turns
    return turns


OpenTurns = Annotated[Turns, Depends(_turns)]
"""The runs of conversations and their logs."""


async def _tasks(request: Request) -> TaskQueue:
    queue: TaskQueue = request.state.tasks
    return queue


async def _scheduler(request: Request) -> Scheduler | None:
    scheduler: Scheduler | None = request.state.scheduler
    return scheduler


Tasks = Annotated[TaskQueue, Depends(_tasks)]
"""The task queue."""
OptionalScheduler = Annotated[Scheduler | None, Depends(_scheduler)]
"""What looks at the standing goals; None in a process that does not."""


async def _fan_out(request: Request) -> FanOut:
    fan_out: FanOut = request.state.fan_out
    return fan_out


async def _kafka(request: Request) -> KafkaForwarder | None:
    kafka: KafkaForwarder | None = request.state.kafka
    return kafka


OptionalKafka = Annotated[KafkaForwarder | None, Depends(_kafka)]
"""What passes events on to Kafka; None where that is off."""
OpenFanOut = Annotated[FanOut, Depends(_fan_out)]
"""The events of the streams, told to many."""
