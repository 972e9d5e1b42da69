"""The state machine: one planner node, one node per agent, and no edge that the planner has not chosen."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, Send
from loguru import logger

from agents.context import Context
from agents.progress import report
from agents.spec import AgentOutput, AgentSpec, Assignment, Registry, RunRequest, RunView, Usage
from errors import LuminaError
from graphs.costs import costs_of_instances, read_costs
from graphs.goals import GoalFile, parse_instance
from graphs.notices import notices
from graphs.planner import Decision, Situation, decide
from graphs.state import RunInput, RunOutput, RunState, view
from memory.streams import Event

Graph = CompiledStateGraph[RunState, Context, RunInput, RunOutput]

PLANNER = "planner"


def build_masterchat(
    registry: Registry, goals: GoalFile, *, checkpoints: Any = None, context: Context | None = None
) -> Graph:
    """The compiled graph of these agents and goals.

    It runs with a ``Context`` and with ``configurable.thread_id`` = task id.

    Args:
        registry: The agents; each is a node.
        goals: What they are for.
        checkpoints: Keeps the state after every superstep.
        context: Bound to the graph, for those who run it and cannot pass one; what they pass is then ignored.
    """
    schema = None if context else Context
    builder = StateGraph(RunState, context_schema=schema, input_schema=RunInput, output_schema=RunOutput)
    builder.add_node(PLANNER, _Planner(registry, goals, context).step, destinations=(*registry, END))
    builder.add_edge(START, PLANNER)
    for name, spec in registry.items():
        builder.add_node(name, _agent_node(spec, context))
        builder.add_edge(name, PLANNER)
    return builder.compile(checkpointer=checkpoints, name="masterchat")


def recursion_limit(goals: GoalFile) -> int:
    """Supersteps that a run can take at most: a planner step and an agent step per round, and the two ends."""
    return 2 * goals.limits.max_rounds + 4


class _Planner:
    """The planner node: checks the facts, decides, says why, sends."""

    def __init__(self, registry: Registry, goals: GoalFile, bound: Context | None) -> None:
        self._registry, self._goals, self._bound = registry, goals, bound
        self._supervisor = next((spec.name for spec in registry.values() if spec.on_failure), None)

    async def step(self, state: RunState, runtime: Runtime[Context]) -> Command[Any]:
        context = self._bound or runtime.context
        began = time.perf_counter()
        run = view(state, get_config()["configurable"]["thread_id"])
        holding = await check_facts(self._registry, self._goals, context, run)
        update = _walk(state, holding)
        costs = state.get("costs")
        if costs is None:
            costs = update["costs"] = await read_costs(context.redis, self._goals)
        silent = _silent_failures(state, holding)
        if (run.failures or silent) and self._supervisor:
            every = [*run.failures, *silent]
            work = {"decide": state.get("decided", 0) + len(every), "run": _pack(run, failures=every)}
            return Command(update={**update, "failures": silent, "assigned": {}}, goto=[Send(self._supervisor, work)])
        situation = Situation(
            targets=tuple(self._goals.intents[run.request.intent].goals),
            topics=tuple(run.topics),
            holding=holding,
            ruled_out=frozenset(state.get("ruled_out", {})),
            costs=costs_of_instances(self._goals, costs, run.topics),
            links={title: link["why"] for title, link in run.links.items()},
        )
        decision = decide(self._goals, situation)
        entry = {"round": update["rounds"], "situation": situation.to_json(), "decision": decision.to_json()}
        report("plan", **entry)
        entry["seconds"] = round(time.perf_counter() - began, 4)
        first = {"request": run.request.model_dump()} if update["rounds"] == 1 else {}
        events = [("plan.start", first)] if first else []
        stopped = self._stopped(update)
        if decision.verdict == "run" and not stopped:
            await _publish(context, run, PLANNER, [*events, ("plan.step", entry)])
            assigned, sends = self._sends(run, state, decision)
            return Command(update={**update, "assigned": assigned}, goto=sends)
        usage = Usage(**state.get("usage", {}))
        outcome = _outcome(decision, stopped, state)
        outcome["notices"] = await notices(context, run.task_id, usage)
        await _publish(context, run, PLANNER, [*events, ("plan.step", entry), ("plan.done", outcome)])
        return Command(update={**update, "assigned": {}, "outcome": outcome}, goto=END)

    def _sends(self, run: RunView, state: RunState, decision: Decision) -> tuple[dict[str, str], list[Send]]:
        lattice = self._goals.ground(run.topics)
        failed = Counter(failure["way"] for failure in state.get("failures", []))
        sends, assigned = [], {}
        for step in decision.steps:
            way = lattice.way(step.way)
            base, topic = parse_instance(step.goal)
            assigned[step.goal] = step.way
            before = sum(one["seconds"] for one in state.get("walked", []) if one["ok"] and one["way"] == step.way)
            assignment = Assignment(
                goal=step.goal,
                base_goal=base,
                topic=topic,
                way=step.way,
                params=dict(way.params),
                carry=state.get("carry", {}).get(step.goal),
                attempt=failed[step.way] + 1,
            )
            sends.append(Send(way.agent, {"assignment": asdict(assignment), "run": _pack(run), "before": before}))
        return assigned, sends

    def _stopped(self, update: Mapping[str, Any]) -> str | None:
        limits = self._goals.limits
        if update["rounds"] > limits.max_rounds:
            return f"stopped after {limits.max_rounds} rounds (limits.max_rounds of the goal file)"
        if update.get("retractions", 0) > limits.max_retractions:
            return f"stopped: goals that held were lost {limits.max_retractions} times (limits.max_retractions)"
        return None


async def check_facts(registry: Registry, goals: GoalFile, context: Context, run: RunView) -> frozenset[str]:
    """The goal instances that hold, every check at once."""
    instances = sorted(goals.ground(run.topics).goals)
    checks: list[Awaitable[bool]] = []
    for instance in instances:
        base, topic = parse_instance(instance)
        check = next(spec.achieves[base] for spec in registry.values() if base in spec.achieves)
        checks.append(check(context, run, topic))
    holds = await asyncio.gather(*checks)
    return frozenset(instance for instance, held in zip(instances, holds, strict=True) if held)


def _walk(state: RunState, holding: frozenset[str]) -> dict[str, Any]:
    """The counters and the chain after this look at the facts."""
    before = state.get("holding")
    update: dict[str, Any] = {"holding": sorted(holding), "rounds": state.get("rounds", 0) + 1}
    if before is None or set(before) != holding:
        update["chain"] = [sorted(holding)]
    if before is not None and not set(before) <= holding:
        update["retractions"] = state.get("retractions", 0) + 1
    return update


def _silent_failures(state: RunState, holding: frozenset[str]) -> list[dict[str, Any]]:
    """Ways whose agent ended well, has nothing left to do, and whose goal still does not hold."""
    loud = {failure["way"] for failure in state.get("failures", [])[state.get("decided", 0) :]}
    attempts = Counter(failure["way"] for failure in state.get("failures", []))
    return [
        {
            "goal": goal,
            "way": way,
            "error": "the agent ended, and by the facts its goal does not hold",
            "transient": True,
            "attempts": attempts[way] + 1,
        }
        for goal, way in state.get("assigned", {}).items()
        if goal not in holding and goal not in state.get("carry", {}) and way not in loud
    ]


def _outcome(decision: Decision, stopped: str | None, state: RunState) -> dict[str, Any]:
    """How the run ended: ``done``, ``partial`` when some way was lost on the way, ``failed`` with the root cause."""
    causes = list(dict.fromkeys(state.get("ruled_out", {}).values()))
    if decision.verdict == "done":
        return {"status": "partial" if causes else "done", "reason": "; ".join(causes), "detail": decision.why}
    return {"status": "failed", "reason": stopped or "; ".join(causes) or decision.why, "detail": decision.why}


def _agent_node(spec: AgentSpec[Any, Any], bound: Context | None) -> Callable[..., Awaitable[dict[str, Any]]]:
    """A node that runs one agent on what the planner sent."""

    async def node(work: dict[str, Any], config: RunnableConfig, runtime: Runtime[Context]) -> dict[str, Any]:
        run = _unpack(work["run"])
        with logger.contextualize(task_id=run.task_id, agent=spec.name, owner=run.request.owner):
            return await walk(work, run, config, bound or runtime.context)

    async def walk(work: dict[str, Any], run: RunView, config: RunnableConfig, context: Context) -> dict[str, Any]:
        agent = spec.build(context)
        if "decide" in work and spec.on_failure:
            output = await agent.ainvoke(spec.on_failure(run), config)
            report("agent", agent=spec.name, state="done", text=spec.explain(output), goal="", topic=None)
            ruled_out = {d.way: d.reason for d in output.decisions if d.action == "rule_out"}
            return {"decided": work["decide"], "ruled_out": ruled_out}
        assignment = Assignment(**work["assignment"])
        told = {"agent": spec.name, "goal": assignment.goal, "way": assignment.way, "topic": assignment.topic}
        report("agent", state="start", **told)
        started = time.perf_counter()
        try:
            output = await agent.ainvoke(spec.request(assignment, run), config)
        except LuminaError as error:
            seconds = time.perf_counter() - started
            report("agent", state="failed", text=str(error), seconds=seconds, **told)
            # Neither its words nor the topic: they may be the asker's, and stand in the event, which is the owner's.
            logger.info(
                "{} failed after {:.2f} s: {}", parse_instance(assignment.way)[0], seconds, type(error).__name__
            )
            kind = {"transient": error.transient, "exhausted": error.exhausted}
            failure = {**told, "error": str(error), **kind, "attempts": assignment.attempt}
            walked = {**told, "seconds": round(seconds, 3), "ok": False}
            events: list[tuple[str, dict[str, Any]]] = [
                ("plan.step", {**walked, "usd": 0.0, "error": str(error)}),
                ("error", {"kind": type(error).__name__, "error": str(error), "way": assignment.way}),
            ]
            await _publish(context, run, spec.name, events)
            return {"failures": [failure], "walked": [walked]}
        seconds = time.perf_counter() - started
        text = spec.explain(output) if output.carry is None else _more(output.carry)
        report("agent", state="done" if output.carry is None else "step", text=text, seconds=seconds, **told)
        walked = {**told, "seconds": round(seconds, 3), "ok": True}
        logger.debug("{} took {:.2f} s", parse_instance(assignment.way)[0], seconds)
        if output.carry is None:
            whole = seconds + (work["before"] if assignment.carry else 0.0)  # a crawl may go in several steps
            ended = {**walked, "seconds": round(whole, 3), "usd": output.usage.usd}
            await _publish(context, run, spec.name, [("plan.step", ended)])
        return _update(assignment, output, walked)

    node.__name__ = spec.name
    return node


def _more(carry: Mapping[str, Any]) -> str:
    return "; ".join(link["why"] for link in carry.get("links", {}).values()) or "more to do"


def _update(assignment: Assignment, output: AgentOutput, walked: dict[str, Any]) -> dict[str, Any]:
    update: dict[str, Any] = {
        "carry": {assignment.goal: output.carry},
        "usage": output.usage.model_dump(),
        "walked": [walked],
    }
    if output.carry is None:
        update["results"] = {assignment.goal: output.model_dump(mode="json", exclude={"carry", "usage"})}
    return update


def _pack(run: RunView, **changes: Any) -> dict[str, Any]:
    """A view of the run as plain JSON, for a ``Send``."""
    return {
        "task_id": run.task_id,
        "request": run.request.model_dump(),
        "results": dict(run.results),
        "failures": list(run.failures),
        "links": dict(run.links),
        **changes,
    }


def _unpack(packed: Mapping[str, Any]) -> RunView:
    return RunView(
        task_id=packed["task_id"],
        request=RunRequest(**packed["request"]),
        results=packed["results"],
        failures=tuple(packed["failures"]),
        links=packed.get("links", {}),
    )


async def _publish(context: Context, run: RunView, agent: str, entries: list[tuple[str, dict[str, Any]]]) -> None:
    owner = run.request.owner
    await context.streams.publish(
        [Event(type_, {"owner": owner, **data}, agent=agent, task_id=run.task_id) for type_, data in entries]
    )
