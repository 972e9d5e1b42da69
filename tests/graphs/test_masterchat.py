"""The state machine with agents of its own: what the planner sends, and what it makes of what comes back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel
from redis.asyncio import Redis

from agents.context import Context
from agents.orchestrator import SPEC as ORCHESTRATOR
from agents.spec import AgentOutput, AgentSpec, Check, Registry, RunRequest
from errors import LuminaError
from graphs.goals import load_goals
from graphs.masterchat import build_masterchat
from graphs.planner import replay
from graphs.runs import InvalidRequest, RunExists, Runner
from memory.checkpoints import RedisSaver
from memory.keys import PLANNER_STREAM
from memory.streams import Streams

GOALS = """
version: 1
goals:
  - {id: left, title: l, why: w, value: 1, ways: [{id: go, agent: maker, requires: [], cost: {seconds: 1}}]}
  - {id: right, title: r, why: w, value: 1, ways: [{id: go, agent: maker, requires: [], cost: {seconds: 1}}]}
  - id: both
    title: b
    why: w
    value: 5
    ways:
      - {id: cheap, agent: maker, requires: [left, right], cost: {seconds: 1}, params: {how: cheap}}
      - {id: dear, agent: maker, requires: [left], cost: {seconds: 9}, params: {how: dear}}
intents:
  make: {goals: [both], examples: [make it]}
standing: []
limits: {max_attempts: 3, max_retractions: 2, max_rounds: 30, seconds_per_usd: 3600}
"""


class Work(BaseModel):
    goal: str
    how: str = ""
    carry: dict[str, Any] | None = None


class Made(AgentOutput):
    made: bool = True


class Passing(LuminaError):
    transient = True


Action = Callable[[Work], Awaitable[Made]]


def maker(action: Action) -> AgentSpec[Work, Made]:
    def holds(goal: str) -> Check:
        async def check(context: Context, run: Any, topic: str | None) -> bool:
            return bool(run.results.get(goal, {}).get("made"))

        return check

    return AgentSpec(
        name="maker",
        description="Makes things.",
        input_type=Work,
        output_type=Made,
        build=lambda context: RunnableLambda(action).with_types(input_type=Work, output_type=Made),
        request=lambda a, run: Work(goal=a.goal, how=a.params.get("how", ""), carry=cast(Any, a.carry)),
        achieves={goal: holds(goal) for goal in ("left", "right", "both")},
    )


@pytest.fixture
def start(redis: Redis, tmp_path: Path) -> Callable[[Action], Runner]:
    (tmp_path / "goals.yml").write_text(GOALS)

    def build(action: Action) -> Runner:
        unused = cast(Any, None)
        supervisor = cast(Any, ORCHESTRATOR)
        registry = Registry([maker(action), supervisor])
        goals = load_goals(tmp_path / "goals.yml", agents=registry.achievable())
        saver = RedisSaver(redis)
        context = Context(
            redis=redis,
            streams=Streams(redis),
            checkpoints=saver,
            library=unused,
            graph=unused,
            conversations=unused,
            source=unused,
            chat=unused,
            embedder=unused,
            budget=unused,
            vectors=None,
            recall=None,
            events=None,
        )
        return Runner(build_masterchat(registry, goals, checkpoints=saver), goals, context, registry)

    return build


REQUEST = RunRequest(intent="make", message="make it")


async def run(runner: Runner, task_id: str = "t", request: RunRequest | None = REQUEST) -> dict[str, Any]:
    return {event.kind: event.data async for event in runner.stream(request, task_id)}["done"]


async def test_what_does_not_depend_on_each_other_runs_at_the_same_time(start: Callable[[Action], Runner]) -> None:
    met = asyncio.Barrier(2)

    async def action(work: Work) -> Made:
        if work.goal != "both":
            async with asyncio.timeout(60):
                await met.wait()
        return Made()

    outcome = await run(start(action))
    assert outcome["outcome"]["status"] == "done"
    assert outcome["chain"] == [[], ["left", "right"], ["both", "left", "right"]]


async def test_a_way_that_fails_for_good_is_replaced_by_another(start: Callable[[Action], Runner]) -> None:
    async def action(work: Work) -> Made:
        if work.how == "cheap":
            raise LuminaError("the cheap way is closed")
        return Made()

    outcome = await run(start(action))
    assert outcome["outcome"] == {**outcome["outcome"], "status": "partial", "reason": "the cheap way is closed"}
    assert [step["way"] for step in outcome["walked"] if step["ok"]][-1] == "both.dear"


async def test_a_failure_that_may_pass_is_retried(start: Callable[[Action], Runner]) -> None:
    tries: Counter[str] = Counter()

    async def action(work: Work) -> Made:
        tries[work.goal] += 1
        if work.goal == "left" and tries["left"] == 1:
            raise Passing("not now")
        return Made()

    outcome = await run(start(action))
    assert outcome["outcome"]["status"] == "done"
    assert tries == {"left": 2, "right": 1, "both": 1}


async def test_a_goal_that_no_way_reaches_ends_the_run_with_the_root_cause(start: Callable[[Action], Runner]) -> None:
    async def action(work: Work) -> Made:
        if work.goal == "left":
            raise LuminaError("left is broken")
        return Made()

    outcome = await run(start(action))
    assert outcome["outcome"]["status"] == "failed"
    assert outcome["outcome"]["reason"] == "left is broken"


async def test_an_agents_claim_is_not_believed(start: Callable[[Action], Runner]) -> None:
    calls: Counter[str] = Counter()

    async def action(work: Work) -> Made:
        calls[work.how or work.goal] += 1
        return Made(made=work.how != "cheap")

    outcome = await run(start(action))
    assert calls["cheap"] == 3
    assert calls["dear"] == 1
    assert "by the facts its goal does not hold" in outcome["outcome"]["reason"]


async def test_an_agent_with_more_to_do_gets_back_what_it_carried(start: Callable[[Action], Runner]) -> None:
    seen = []

    async def action(work: Work) -> Made:
        if work.goal != "left":
            return Made()
        count = (work.carry or {}).get("count", 0)
        seen.append(count)
        return Made(carry={"count": count + 1} if count < 3 else None)

    outcome = await run(start(action))
    assert seen == [0, 1, 2, 3]
    assert outcome["outcome"]["status"] == "done"


async def test_a_run_that_broke_goes_on_from_its_last_checkpoint(start: Callable[[Action], Runner]) -> None:
    calls: Counter[str] = Counter()

    async def action(work: Work) -> Made:
        calls[work.goal] += 1
        if work.goal == "both" and calls["both"] == 1:
            raise RuntimeError("the process died here")
        return Made()

    runner = start(action)
    with pytest.raises(RuntimeError):
        await run(runner)
    outcome = await run(runner, request=None)
    assert outcome["outcome"]["status"] == "done"
    assert calls == {"left": 1, "right": 1, "both": 2}


async def test_a_finished_task_gives_its_outcome_again_without_running(start: Callable[[Action], Runner]) -> None:
    calls: Counter[str] = Counter()

    async def action(work: Work) -> Made:
        calls[work.goal] += 1
        return Made()

    runner = start(action)
    assert await run(runner) == await run(runner)
    assert calls == {"left": 1, "right": 1, "both": 1}


async def test_a_task_id_stands_for_one_request(start: Callable[[Action], Runner]) -> None:
    async def action(work: Work) -> Made:
        return Made()

    runner = start(action)
    await run(runner)
    with pytest.raises(RunExists):
        await run(runner, request=REQUEST.model_copy(update={"message": "something else"}))


async def test_a_request_without_sense_is_refused_before_anything_starts(start: Callable[[Action], Runner]) -> None:
    async def action(work: Work) -> Made:
        raise AssertionError("nothing may run")

    runner = start(action)
    with pytest.raises(InvalidRequest, match="there are: make"):
        await run(runner, request=REQUEST.model_copy(update={"intent": "fly"}))
    with pytest.raises(InvalidRequest, match="neither a message nor a topic"):
        await run(runner, request=RunRequest(intent="make", message=" "))


async def test_the_log_replays_to_the_same_choices(start: Callable[[Action], Runner], redis: Redis) -> None:
    async def action(work: Work) -> Made:
        if work.how == "cheap":
            raise LuminaError("closed")
        return Made()

    runner = start(action)
    await run(runner)
    log = [entry.event for entry in await Streams(redis).tail(PLANNER_STREAM)]
    assert next(event.type for event in log) == "plan.start"
    assert log[-1].type == "plan.done"
    steps = [event.data for event in log if event.type == "plan.step"]
    decisions = replay(runner.goals, steps)
    assert [decision.verdict for decision in decisions] == ["run", "run", "run", "done"]
