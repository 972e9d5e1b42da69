"""Learned costs: the planner follows what the ways really cost, there and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from agents.spec import RunRequest
from graphs.costs import HALF_LIFE_S, PRIOR_RUNS, costs_of_instances, expected_cost, learned_costs, read_costs
from graphs.goals import Cost, load_goals
from graphs.planner import Situation, decide, replay
from graphs.runs import Runner
from memory.event_history import effective_runs
from memory.events import WayHistory
from memory.keys import PLANNER_STREAM
from memory.streams import Event, now_ms

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]

GOALS = load_goals(Path(__file__).parents[2] / "goal_lattice.yml")
NOW = 1_800_000_000.0
PHRASED, QUOTED = "answered.phrased", "answered.quoted"
REQUEST = RunRequest(intent="wiki_qa", message="Where was Gaston Julia born?", topics=["Gaston Julia"], max_nodes=3)


def past(way: str, *, ok: int = 0, seconds: float = 0, failed: int = 0, usd: float = 0, age_s: float = 0) -> WayHistory:
    return WayHistory(
        way=way,
        runs=ok + failed,
        seconds=seconds,
        ok_seconds=seconds if ok else None,
        failure_rate=failed / (ok + failed),
        usd=usd,
        failed_seconds=seconds if failed else None,
        last_s=NOW - age_s,
    )


def answers_by(*history: WayHistory) -> str:
    """The way that the planner takes to the answer."""
    topics = ("Gaston Julia",)
    learned = learned_costs(GOALS, {one.way: one for one in history}, now_s=NOW)
    costs = costs_of_instances(GOALS, learned, topics)
    decision = decide(
        GOALS, Situation(targets=("answer_reported",), topics=topics, holding=frozenset({"topics_found"}), costs=costs)
    )
    assert decision.plan is not None
    return next(step.way for step in decision.plan.steps if step.goal == "answered")


def test_a_way_that_gets_slow_is_replaced_and_comes_back_when_it_is_quick_again() -> None:
    assert answers_by() == PHRASED
    assert answers_by(past(PHRASED, ok=10, seconds=60)) == QUOTED
    assert answers_by(past(PHRASED, ok=10, seconds=4)) == PHRASED


def test_a_way_that_starts_failing_is_replaced_and_comes_back_when_it_succeeds() -> None:
    assert answers_by(past(PHRASED, failed=20, seconds=3)) == QUOTED
    assert answers_by(past(PHRASED, ok=30, failed=20, seconds=3)) == PHRASED


def test_a_way_that_was_given_up_is_tried_again_after_some_time() -> None:
    assert answers_by(past(PHRASED, failed=20, seconds=3, age_s=HALF_LIFE_S / 8)) == QUOTED
    assert answers_by(past(PHRASED, failed=20, seconds=3, age_s=3 * HALF_LIFE_S)) == PHRASED


def test_dollars_count_at_the_rate_of_the_goal_file() -> None:
    assert answers_by(past(PHRASED, ok=50, seconds=2, usd=0.02)) == QUOTED
    assert answers_by(past(PHRASED, ok=50, seconds=2, usd=0.0002)) == PHRASED


def test_the_prior_fades_as_runs_come_in_and_the_readers_loss_never_does() -> None:
    def cost(runs: int) -> float:
        way = past("w", ok=runs, seconds=1)
        return expected_cost(Cost(seconds=11, loss_s=30), way, seconds_per_usd=3600, now_s=NOW)

    n = effective_runs(5)
    assert cost(5) == pytest.approx(30 + (PRIOR_RUNS * 11 + n * 1) / (PRIOR_RUNS + n))
    assert cost(200) == pytest.approx(32.2, abs=0.1)
    assert cost(1) > cost(5) > cost(50) > 31


def test_failures_cost_their_tries_and_each_try_its_dollars() -> None:
    way = past("w", ok=95, failed=50, seconds=4, usd=0.01)
    cost = expected_cost(Cost(seconds=4, usd=0.01), way, seconds_per_usd=1000, now_s=NOW)
    n, m = (effective_runs(145) * share / 145 for share in (95, 50))
    tries = m / (PRIOR_RUNS + n)  # failures a success, the prior counting as successes
    assert cost == pytest.approx(4 + tries * (4 + 1) + (1 + tries) * 0.01 * 1000)


def test_every_topic_has_the_costs_of_its_way_and_unknown_ways_none() -> None:
    learned = learned_costs(GOALS, {name: past(name, ok=1) for name in ("crawled.links", "gone.way")}, now_s=NOW)
    assert set(costs_of_instances(GOALS, learned, ["A", "B"])) == {"crawled.links[A]", "crawled.links[B]"}


async def until(condition: Any, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_events_change_the_plan_of_every_process_and_change_it_back(lumina: Lumina) -> None:
    async def tell(runner: Runner, data: dict[str, Any]) -> None:
        step = {"goal": "answered", "way": PHRASED, "agent": "qa", "topic": None, "usd": 0.0, **data}
        events = [Event("plan.step", step, "qa", "t", now_ms())] * 45
        await runner.context.streams.publish([*events, Event("plan.done", {"status": "done"}, "planner", "t")])

    async def way(runner: Runner) -> str:
        plan = (await runner.plan(REQUEST)).plan
        return next(step.way for step in plan.steps if step.goal == "answered") if plan else ""

    async with lumina() as owner, lumina(owns_files=False) as worker:
        assert worker.context.events is None
        assert await way(owner) == await way(worker) == PHRASED
        for told, expected in (
            ({"ok": True, "seconds": 90.0}, QUOTED),
            ({"ok": True, "seconds": 1.0}, PHRASED),
            ({"ok": False, "seconds": 9.0}, QUOTED),
        ):
            await tell(owner, told)

            async def follows(expected: str = expected) -> bool:
                return await way(worker) == expected

            await until(follows)
            assert await way(owner) == expected


async def test_a_run_plans_on_the_costs_that_it_began_with_and_its_log_replays(lumina: Lumina) -> None:
    async with lumina() as runner:
        async for _ in runner.stream(REQUEST, "first"):
            pass

        async def learned() -> bool:
            return "crawled.links" in await read_costs(runner.context.redis, runner.goals)

        await until(learned)
        request = REQUEST.model_copy(update={"topics": ["Koch snowflake"]})
        async for _ in runner.stream(request, "second"):
            pass
        log = [entry.event for entry in await runner.context.streams.tail(PLANNER_STREAM)]
    steps = {task: [one.data for one in log if one.task_id == task] for task in ("first", "second")}
    costs = {
        task: [one["situation"]["costs"] for one in entries if "situation" in one] for task, entries in steps.items()
    }
    assert costs["first"][0] == {}
    assert 0 < costs["second"][0]["crawled.links[Koch snowflake]"] < 5
    assert all(one == costs["second"][0] for one in costs["second"])
    assert len(replay(runner.goals, [one for entries in steps.values() for one in entries])) == len(
        [*costs["first"], *costs["second"]]
    )
