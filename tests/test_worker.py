"""Workers in processes of their own, stopped and killed in the middle of a crawl."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from graphs.runs import Runner
from graphs.tasks import take_tasks
from memory.task_records import Task
from memory.tasks import TaskQueue
from settings import InvalidSettings, load_settings
from tests.logged_source import Logged, requests
from tools.wikipedia.opening import open_source
from worker import work

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]

LEASE_S = 4.0
CRAWL = {"topics": ["Mandelbrot set"], "hops": 3, "max_nodes": 64}

CHILD = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from tests.logged_source import Logged
from test_worker import LEASE_S
from graphs.tasks import take_tasks
from memory.tasks import TaskQueue
from services import open_runner
from settings import load_settings
from tools.wikipedia.opening import open_source
from worker import work

async def main():
    settings = load_settings(data_dir=Path({data!r}), wiki_source={sample!r})
    async with open_source({sample!r}, contact="tests") as source:
        slow = Logged(source, Path({log!r}), 0.7)
        opened = lambda settings: open_runner(settings, owns_files=False, source=slow)
        if {entry!r} == "work":
            await work(settings, kinds=["crawl"], concurrency=1, open_runner=opened)
        else:
            async with opened(settings) as runner:
                queue = TaskQueue(runner.context.redis, lease_s=LEASE_S)
                await take_tasks(runner, queue, ["crawl"], stop=asyncio.Event())

asyncio.run(main())
"""


async def start_child(entry: str, sample: Path, tmp_path: Path) -> Process:
    """A worker on the same data, whose crawl takes 0.7 s a request and is logged in ``first``."""
    script = CHILD.format(
        tests=str(Path(__file__).parent),
        sample=str(sample),
        data=str(tmp_path / "data"),
        log=str(tmp_path / "first"),
        entry=entry,
    )
    root = Path(__file__).parents[1]
    return await asyncio.create_subprocess_exec(sys.executable, "-c", script, cwd=root, stdout=PIPE)


async def in_the_middle(child: Process, log: Path) -> None:
    async with asyncio.timeout(60):
        while len(requests(log)) < 2:
            await asyncio.sleep(0.02)
            assert child.returncode is None, "the worker ended before it could be stopped"


async def finish(runner: Runner, task: Task) -> Task:
    """Let a worker in this process do what there is until the task has ended."""
    queue, stop = TaskQueue(runner.context.redis, lease_s=LEASE_S), asyncio.Event()
    taking = asyncio.create_task(take_tasks(runner, queue, ["crawl"], stop=stop))
    async with asyncio.timeout(60):
        while (await queue.get(task.id)).status in ("queued", "running", "retrying"):
            if taking.done():
                await taking  # it ends only with an error
            await asyncio.sleep(0.02)
    stop.set()
    await taking
    return await queue.get(task.id)


def check_resumed(task: Task, tmp_path: Path) -> None:
    assert task.status == "complete"
    assert len(set(task.result["report"]["crawls"][0]["titles"])) == 64
    before, after = requests(tmp_path / "first"), requests(tmp_path / "second")
    assert ["Mandelbrot set"] not in after, "it started over"
    again = {title for titles in before for title in titles} & {title for titles in after for title in titles}
    assert again <= set(before[-1]), "pages of a finished step were fetched twice"


@pytest.mark.slow
async def test_the_task_of_a_killed_worker_is_finished_by_another_from_its_checkpoint(
    lumina: Lumina, sample: Path, tmp_path: Path
) -> None:
    async with (
        open_source(str(sample), contact="tests") as source,
        lumina(source=Logged(source, tmp_path / "second")) as runner,
    ):
        task = await TaskQueue(runner.context.redis).submit("crawl", CRAWL, owner="local")
        child = await start_child("take_tasks", sample, tmp_path)
        await in_the_middle(child, tmp_path / "first")
        child.kill()
        await child.communicate()
        ended = await finish(runner, task)
    check_resumed(ended, tmp_path)
    assert ended.attempts == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_worker_that_is_told_to_stop_hands_its_task_back_at_once(
    lumina: Lumina, sample: Path, tmp_path: Path, number: signal.Signals
) -> None:
    async with (
        open_source(str(sample), contact="tests") as source,
        lumina(source=Logged(source, tmp_path / "second")) as runner,
    ):
        queue = TaskQueue(runner.context.redis)
        task = await queue.submit("crawl", CRAWL, owner="local")
        child = await start_child("work", sample, tmp_path)
        await in_the_middle(child, tmp_path / "first")
        child.send_signal(number)
        async with asyncio.timeout(60):
            out, _ = await child.communicate()
        handed_back = await queue.get(task.id)
        ended = await finish(runner, task)
    assert (child.returncode, handed_back.status, handed_back.attempts) == (0, "queued", 0)
    assert b"takes tasks of kind crawl" in out
    check_resumed(ended, tmp_path)


@pytest.mark.parametrize(("kind", "words"), [("dance", "accepted are crawl"), ("ask", "set QDRANT_URL")])
async def test_a_worker_that_cannot_do_what_it_is_asked_for_says_so(tmp_path: Path, kind: str, words: str) -> None:
    with pytest.raises(InvalidSettings, match=words):
        await work(load_settings(data_dir=tmp_path, qdrant_url=None), kinds=[kind], concurrency=1)


async def test_bad_payloads_and_dead_letters_are_told_of(lumina: Lumina) -> None:
    async with lumina() as runner:
        queue = TaskQueue(runner.context.redis)
        bad = [
            await queue.submit("crawl", payload, owner="ada")
            for payload in ({"hops": 9}, {"colour": "red"}, [1], {}, {"topics": ["A"], "owner": "bob"})
        ]
        stop = asyncio.Event()
        taking = asyncio.create_task(take_tasks(runner, queue, ["crawl", "report"], stop=stop))
        async with asyncio.timeout(60):
            while (await queue.counts())["dead"] < len(bad):
                await asyncio.sleep(0.02)
            report = await queue.submit("report", {}, owner="local")
            while (await queue.get(report.id)).status != "complete":
                await asyncio.sleep(0.02)
        stop.set()
        await taking
        ended = [await queue.get(task.id) for task in bad]
        assert (await queue.get(report.id)).result == {"dead": len(bad)}
        assert all(task.attempts == 1 for task in ended)
        assert "hops" in ended[0].error
        assert "colour; accepted: hops, max_nodes, message, topics" in ended[1].error
        assert "owner" in ended[4].error
        events = runner.context.events
        assert events is not None
        goal = next(goal for goal in runner.goals.standing if goal.id == "dead_letters_reported")
        async with asyncio.timeout(60):
            while (await events.query("SELECT count(*) FROM events WHERE type = 'error'")).rows != [[len(bad)]]:
                await asyncio.sleep(0.02)
        assert (await events.query("SELECT count(*) FROM tasks WHERE status = 'dead'")).rows == [[len(bad)]]
        assert (await events.query(goal.predicate)).rows == [[True]]
