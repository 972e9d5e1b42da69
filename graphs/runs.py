"""Running the graph for somebody: start or resume, and a stream of what happens."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast

from langchain_core.runnables import RunnableConfig

from agents.context import Context
from agents.spec import Registry, RunRequest, RunView
from errors import LuminaError
from graphs.costs import costs_of_instances, read_costs
from graphs.goals import GoalFile
from graphs.limits import Admission, RateLimits, demand_of
from graphs.masterchat import Graph, check_facts, recursion_limit
from graphs.planner import Decision, Situation, decide
from graphs.state import RunInput


class InvalidRequest(LuminaError):
    """A request that no run can be made of."""


class RunExists(LuminaError):
    """A task id that stands for another request."""


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that whoever asked wants to see."""

    kind: str
    """``plan``, ``agent``, ``progress``, ``token``, ``citation`` or ``done``."""
    data: dict[str, Any] = field(default_factory=dict)


def new_task_id() -> str:
    """A task id that nobody has had."""
    return str(uuid.uuid4())


def check_request(goals: GoalFile, request: RunRequest) -> None:
    """Say what is wrong with a request for the runs of a goal file.

    Raises:
        InvalidRequest: unknown intent, or nothing to work on.
    """
    if request.intent not in goals.intents:
        known = ", ".join(goals.intents)
        raise InvalidRequest(f"intent «{request.intent}» is not in the goal file; there are: {known}")
    if not request.message.strip() and not request.topics:
        raise InvalidRequest("neither a message nor a topic was given; one of them is needed")
    if not all(topic.strip() for topic in request.topics):
        raise InvalidRequest("a topic is empty; each is the title of an article")


@dataclass(frozen=True)
class Runner:
    """The graph with everything that it runs on."""

    graph: Graph
    goals: GoalFile
    context: Context
    registry: Registry
    limits: RateLimits | None = None
    """None: nobody is limited."""

    def validate(self, request: RunRequest) -> None:
        """Say what is wrong with a request before anything starts.

        Raises:
            InvalidRequest: unknown intent, or nothing to work on.
        """
        check_request(self.goals, request)

    async def situation(self, request: RunRequest) -> Situation:
        """What the planner knows when a request comes, from the facts of this moment. Nothing is run.

        Raises:
            InvalidRequest: see ``validate``.
        """
        self.validate(request)
        run = RunView(task_id="", request=request)
        costs = await read_costs(self.context.redis, self.goals)
        return Situation(
            targets=tuple(self.goals.intents[request.intent].goals),
            topics=tuple(run.topics),
            holding=await check_facts(self.registry, self.goals, self.context, run),
            costs=costs_of_instances(self.goals, costs, run.topics),
        )

    async def plan(self, request: RunRequest) -> Decision:
        """What would be done for a request; see ``situation``."""
        return decide(self.goals, await self.situation(request))

    async def admit(self, request: RunRequest) -> Admission:
        """Take the tokens of the agents that the plan of a request uses, all or none.

        Raises:
            InvalidRequest: see ``validate``.
            RateLimited: a token is not there.
        """
        self.validate(request)
        if self.limits is None:
            return Admission({}, {})
        return await self.limits.admit(request.owner, demand_of(self.goals, await self.situation(request)))

    async def has_begun(self, task_id: str) -> bool:
        """Whether a run with this id has left a checkpoint to go on from."""
        return bool((await self.graph.aget_state({"configurable": {"thread_id": task_id}})).values)

    async def stream(
        self, request: RunRequest | None, task_id: str, *, paid: Mapping[str, int] | None = None
    ) -> AsyncGenerator[RunEvent, None]:
        """Run a task and tell what happens; a task that was interrupted goes on from its last checkpoint.

        Args:
            request: What is asked. None: go on with what the task was started with.
            task_id: The thread of the checkpoints. A finished task gives its ``done`` again.
            paid: What ``admit`` took for the run. Where its agents turn out to have more to do, their buckets are
                charged for it, so that what could not be foreseen delays the next request.

        Raises:
            InvalidRequest: see ``validate``; also when there is nothing to go on with.
            RunExists: the task id was used for another request.
        """
        config: RunnableConfig = {
            "configurable": {"thread_id": task_id},
            "recursion_limit": recursion_limit(self.goals),
        }
        before = await self.graph.aget_state(config)
        stored = before.values.get("request") if before.values else None
        if stored is None:
            if request is None:
                raise InvalidRequest(f"there is no task {task_id} to go on with")
            self.validate(request)
        elif request is not None and RunRequest(**stored) != request:
            raise RunExists(f"task {task_id} was started with another request; leave the id out, or use a new one")
        if stored is None or not before.values.get("outcome"):
            start: RunInput | None = None
            if stored is None and request is not None:
                start = {"request": request.model_dump()}
            if start is None:
                yield RunEvent("progress", {"agent": "planner", "text": f"going on with task {task_id}"})
            stream = self.graph.astream(start, config, context=self.context, stream_mode="custom", durability="sync")
            owner = request.owner if request is not None else str(stored and stored["owner"])
            worked: dict[str, set[str]] = {}
            async with aclosing(cast(AsyncGenerator[dict[str, Any], None], stream)) as chunks:
                async for chunk in chunks:
                    data = dict(chunk)
                    if paid is not None and data["kind"] == "agent" and data["state"] == "start":
                        await self._charge(owner, data["agent"], data["goal"], worked, paid)
                    yield RunEvent(data.pop("kind"), data)
        yield RunEvent("done", done(task_id, (await self.graph.aget_state(config)).values))

    async def _charge(
        self, owner: str, agent: str, goal: str, worked: dict[str, set[str]], paid: Mapping[str, int]
    ) -> None:
        """Charge for a goal that comes new to ``worked`` (agent → goals) and goes beyond what was paid."""
        goals = worked.setdefault(agent, set())
        if goal not in goals:
            goals.add(goal)
            if self.limits is not None and len(goals) > paid.get(agent, 0):
                await self.limits.charge(owner, agent)


def done(task_id: str, values: dict[str, Any]) -> dict[str, Any]:
    """What a finished run left behind, for people: outcome, report, chain, what was walked, usage."""
    results = values.get("results", {})
    reports = [result["report"] for result in results.values() if result.get("report")]
    return {
        "task_id": task_id,
        "outcome": values.get("outcome"),
        "report": reports[-1] if reports else {},
        "reply": next((results[goal] for goal in ("answered", "replied") if goal in results), None),
        "chain": values.get("chain", []),
        "walked": values.get("walked", []),
        "failures": values.get("failures", []),
        "usage": values.get("usage", {}),
    }
