"""Which tokens a request takes, and how a background task waits for its own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.spec import RunRequest, discover
from graphs.application import load_application
from graphs.limits import InvalidLimit, RateLimited, RateLimits, limits_of
from graphs.runs import Runner, new_task_id
from graphs.tasks import take_tasks
from memory.buckets import TokenBuckets
from memory.tasks import TaskQueue
from services import open_runner
from settings import InvalidSettings, load_settings

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]

ROOT = Path(__file__).parents[2]
QUESTION = "Who proved that the Mandelbrot set is connected?"
ASK = RunRequest(intent="wiki_qa", message=QUESTION, topics=["Mandelbrot set"], max_nodes=3)


def limited(runner: Runner, **per_minute: int) -> Runner:
    """The same runner with other limits."""
    return replace(runner, limits=RateLimits(TokenBuckets(runner.context.redis), per_minute))


async def left(runner: Runner, owner: str = "local") -> dict[str, int]:
    assert runner.limits
    return {name: bucket.remaining for name, bucket in (await runner.limits.look(owner)).items()}


async def run(runner: Runner, request: RunRequest) -> dict[str, Any]:
    paid = (await runner.admit(request)).paid
    async for event in runner.stream(request, new_task_id(), paid=paid):
        if event.kind == "done":
            return event.data
    raise AssertionError


def test_the_agents_of_lumina_have_the_limits_of_their_specs() -> None:
    assert limits_of(discover(), {}) == {"crawl": 5, "summarise": 10, "qa": 20}
    assert limits_of(discover(), {"qa": 7, "orchestrator": 9})["qa"] == 7
    assert limits_of(discover(), {"orchestrator": 9})["orchestrator"] == 9
    with pytest.raises(InvalidLimit, match="«qa» has a limit of 0"):
        limits_of(discover(), {"qa": 0})


def test_agents_of_another_application_are_limited_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAWL_RATE_LIMIT", "3")  # this application has no such agent, and that is no error
    monkeypatch.setenv("RATE_LIMITS", "cook=4, waiter=30/minute")
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    registry, _ = load_application(ROOT / "docs/examples/kitchen/goal_lattice.yml")
    settings = load_settings()
    assert limits_of(registry, settings.rate_limit_overrides(registry)) == {"cook": 4, "waiter": 30}
    with pytest.raises(InvalidSettings, match="RATE_LIMITS=coook"):
        load_settings(rate_limits="coook=1").rate_limit_overrides(registry)


async def test_a_wrong_name_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="no such agent; there are: crawl"):
        async with open_runner(load_settings(data_dir=tmp_path, rate_limits="crawler=1")):
            raise AssertionError


async def test_a_question_takes_what_its_plan_uses_and_from_memory_no_crawl(lumina: Lumina) -> None:
    async with lumina() as opened:
        runner = limited(opened, crawl=60, summarise=60, qa=60)
        first = (await runner.admit(ASK)).paid
        assert first["crawl"] == first["qa"] == 1
        async for _ in runner.stream(ASK, new_task_id(), paid=first):
            pass
        again = (await runner.admit(ASK)).paid
        assert (again.get("crawl", 0), again["qa"]) == (0, 1)


async def test_every_topic_of_a_crawl_takes_a_token_up_to_a_full_bucket(lumina: Lumina) -> None:
    async with lumina() as opened:
        runner = limited(opened, crawl=3)
        three = RunRequest(intent="crawl", topics=["Fractal", "Julia set", "Cantor set"])
        assert (await runner.admit(three.model_copy(update={"topics": three.topics[:2]}))).paid == {"crawl": 2}
        with pytest.raises(RateLimited) as refused:
            await runner.admit(three)
        assert refused.value.agent == "crawl"
        assert 0 < refused.value.retry_after_s <= 40
        assert (await left(runner))["crawl"] == 1
        more = three.model_copy(update={"owner": "other", "topics": [f"Topic {n}" for n in range(20)]})
        assert (await runner.admit(more)).paid == {"crawl": 3}


async def test_a_request_that_lacks_one_token_takes_none(lumina: Lumina) -> None:
    async with lumina() as opened:
        runner = limited(opened, crawl=1, qa=20)
        await runner.admit(RunRequest(intent="crawl", topics=["Fractal"]))
        with pytest.raises(RateLimited, match="crawl run 1 times a minute"):
            await runner.admit(ASK)
        assert (await left(runner))["qa"] == 20
        chat = RunRequest(intent="chat", message="Hello")
        assert (await runner.admit(chat)).paid == {"qa": 1}


async def test_a_crawl_that_nobody_foresaw_is_charged_when_it_comes(lumina: Lumina) -> None:
    """The topic of a question in words is found by the run itself, after the tokens were taken."""
    async with lumina() as opened:
        runner = limited(opened, crawl=2, qa=20)
        question = RunRequest(intent="wiki_qa", message=QUESTION, max_nodes=3)
        assert (await runner.admit(question)).paid == {"qa": 1}
        assert (await left(runner))["crawl"] == 2
        assert (await run(runner, question))["outcome"]["status"] == "done"
        assert (await left(runner))["crawl"] == 1
        await runner.admit(RunRequest(intent="crawl", topics=["Fractal"]))
        with pytest.raises(RateLimited, match="crawl"):
            await runner.admit(question)


async def test_a_run_takes_each_token_once_whatever_its_agents_repeat(lumina: Lumina) -> None:
    async with lumina() as opened:
        runner = limited(opened, crawl=9, qa=9, summarise=9)
        before = await left(runner)
        paid = (await runner.admit(ASK)).paid
        async for _ in runner.stream(ASK, new_task_id(), paid=paid):
            pass
        after = await left(runner)
    assert {name: before[name] - after[name] for name in before} == {"crawl": 1, "qa": 1, "summarise": 1}


async def test_a_task_waits_for_its_token_and_others_do_not_wait_for_it(lumina: Lumina) -> None:
    async with lumina() as opened:
        runner = limited(opened, crawl=30)  # a token every two seconds
        assert runner.limits
        queue = TaskQueue(runner.context.redis)
        for _ in range(30):
            await runner.admit(RunRequest(intent="crawl", topics=["Fractal"], owner="ada"))
        payload = {"topics": ["Mandelbrot set"], "max_nodes": 2}
        waits = [await queue.submit("crawl", payload, owner="ada") for _ in range(2)]
        free = await queue.submit("crawl", payload, owner="bob")
        stop = asyncio.Event()
        working = asyncio.create_task(take_tasks(runner, queue, ["crawl"], stop=stop))
        try:
            ended: list[str] = []
            async with asyncio.timeout(60):
                while len(ended) < 3:
                    for task in (*waits, free):
                        if task.id not in ended and (await queue.get(task.id)).status == "complete":
                            ended.append(task.id)
                    await asyncio.sleep(0.02)
        finally:
            stop.set()
            await working
        assert ended == [free.id, waits[0].id, waits[1].id]
        assert {(await queue.get(task.id)).attempts for task in (*waits, free)} == {1}
