"""Tasks of kind prune: run by a worker, told on the streams, submitted by the standing goal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from agents.spec import discover
from graphs.goals import load_goals
from graphs.runs import Runner
from graphs.scheduler import LOCK_NAME, Scheduler
from graphs.standing import StandingGoals
from graphs.tasks import KINDS, InvalidTask, check_payload, run_task
from memory import keys
from memory.graph import Node
from memory.locks import Lock
from memory.passages import Passage
from memory.streams import Event
from memory.tasks import TaskQueue

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]
ROOT = Path(__file__).parents[2]


async def read(runner: Runner, revision: str, owner: str = "ada") -> None:
    """What a crawl does with a page of two passages, until both can be found."""
    context = runner.context
    found = [
        Passage(owner, "wiki", "Tern", f"http://w/{revision}", revision, (), f"Terns fly, part {n}.", 0, 9, n)
        for n in range(2)
    ]
    await context.library.expect(found)
    await context.streams.publish([Event("passages.add", {"owner": owner, "passages": [p.to_dict() for p in found]})])
    await context.graph.add([Node("Tern", "Tern", "", revision, "wiki", {})], [], owner=owner)
    await until(lambda: _indexed(runner, owner))


async def _indexed(runner: Runner, owner: str) -> bool:
    return (await runner.context.library.progress(owner, "wiki", ["Tern"])).indexed == 2


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.02)


async def work(runner: Runner, queue: TaskQueue) -> None:
    lease = await queue.claim("tests", ["prune"])
    assert lease is not None
    await run_task(runner, lease)


async def told(runner: Runner, type_: str) -> list[dict[str, Any]]:
    entries = await runner.context.streams.tail(keys.GRAPH_STREAM)
    return [dict(entry.event.data) for entry in entries if entry.event.type == type_]


async def test_a_task_prunes_its_owners_passages_and_tells_what_went(lumina: Lumina) -> None:
    async with lumina() as runner:
        for owner in ("ada", "bob"):
            await read(runner, "1", owner)
            await read(runner, "2", owner)
        queue = TaskQueue(runner.context.redis)
        dry = await queue.submit("prune", {"dry_run": True}, owner="ada")
        await work(runner, queue)
        assert await told(runner, "prune.done") == []
        task = await queue.submit("prune", {}, owner="ada")
        await work(runner, queue)
        would, did = (await queue.get(dry.id)).result, (await queue.get(task.id)).result
        assert runner.context.vectors is not None
        assert await runner.context.vectors.count({"owner": "ada"}) == 2
        assert await runner.context.vectors.count({"owner": "bob"}) == 4
        assert (would["dry_run"], did["dry_run"]) == (True, False)
        assert {k: v for k, v in would.items() if k not in ("dry_run", "seconds")} == {
            k: v for k, v in did.items() if k not in ("dry_run", "seconds")
        }
        page = {"source": "wiki", "title": "Tern", "revision": "1", "reason": "superseded", "passages": 2, "cited": 0}
        assert did["listed"] == [page]
        assert did["reasons"] == {"superseded": {"passages": 2, "pages": 1}}
        assert await told(runner, "page.prune") == [{"owner": "ada", **page}]
        [done] = await told(runner, "prune.done")
        assert (done["owner"], done["passages"], done["superseded"], done["unsettled"]) == ("ada", 2, True, 1)


async def test_the_standing_goal_submits_a_prune_and_holds_when_it_was_done(lumina: Lumina) -> None:
    goals = load_goals(ROOT / "goal_lattice.yml", agents=discover().achievable()).standing
    goal = next(goal for goal in goals if goal.id == "stale_vectors_pruned")
    now = [time.time()]
    async with lumina() as runner:
        events, queue = runner.context.events, TaskQueue(runner.context.redis)
        assert events is not None
        standing = StandingGoals([goal], events, queue, runner.context.streams)
        scheduler = Scheduler(standing, Lock(runner.context.redis, LOCK_NAME), "* * * * *", clock=lambda: now[0])

        async def tick() -> list[str]:
            now[0] += goal.cooldown_s + 60
            kept = await scheduler.look()
            assert kept is not None
            assert not kept.problems
            return [task.owner for tasks in kept.submitted.values() for task in tasks]

        async def stored(type_: str, count: int) -> None:
            async def there() -> bool:
                rows = (await events.query(f"SELECT count(*) FROM events WHERE type = '{type_}'")).rows
                return bool(rows[0][0] == count)

            await until(there)

        await scheduler.look()
        await read(runner, "1")
        await stored("node.add", 1)
        assert await tick() == []
        await read(runner, "2")
        await stored("node.add", 2)
        assert await tick() == ["ada"]
        await work(runner, queue)
        await stored("prune.done", 1)
        assert runner.context.vectors is not None
        assert await runner.context.vectors.count({"owner": "ada"}) == 2
        assert await tick() == []


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"older_than": "30"}, "older_than"),
        ({"older_than": "0d"}, "older_than"),
        ({"older_than": 30}, "older_than"),
        ({"older_than": "30d\n"}, "older_than"),
        ({"max_passages": 0}, "max_passages"),
        ({"max_passages": True}, "max_passages"),
        ({"max_passages": "5"}, "max_passages"),
        ({"dry_run": 1}, "dry_run"),
        ({"owner": "bob"}, "owner"),
        ([], "payload"),
        (None, "payload"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused_by_field(payload: Any, words: str) -> None:
    with pytest.raises(InvalidTask, match=words):
        check_payload("prune", payload, "ada")


def test_a_prune_needs_the_vectors_and_nobody_else_may_submit_a_report() -> None:
    assert KINDS["prune"].retrieves
    with pytest.raises(InvalidTask, match="report"):
        check_payload("report", {}, "ada")
