"""What ``lumina tasks`` asks and shows; the command itself is run in test_cli."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from redis.asyncio import Redis
from rich.console import Console

from commands.tasks import Desk, QueueDesk, TaskRefused, show_page, show_task
from graphs.application import load_application
from graphs.runs import InvalidRequest
from graphs.tasks import InvalidTask, KeyUsed
from memory.tasks import TaskNotRetryable, TaskQueue, UnknownTask
from settings import load_settings


@pytest.fixture
def queue(redis: Redis) -> TaskQueue:
    return TaskQueue(redis)


@pytest.fixture
def desk(queue: TaskQueue) -> Desk:
    return QueueDesk(queue, load_application(load_settings().goal_file)[1], "ada")


def shown(view: Callable[[Console, Mapping[str, Any]], None], found: dict[str, Any], width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    view(console, found)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def test_a_task_goes_through_the_desk_and_back(desk: Desk, queue: TaskQueue) -> None:
    task = await desk.submit(None, {"kind": "crawl", "topics": ["A [bold]topic"], "hops": 1, "max_nodes": 3})
    lease = await queue.claim("worker-1", ["crawl"])
    assert lease is not None
    await lease.fail("it is [red]broken", retry=False)
    page = await desk.tasks(status="dead", kind="crawl", cursor=None, limit=5)
    assert [one["id"] for one in page["tasks"]] == [task["id"]]
    listed = shown(show_page, page)
    assert task["id"] in listed
    assert "[bold]" in listed
    assert "it is [red]broken" in shown(show_task, await desk.get(task["id"]))
    assert (await desk.retry(task["id"]))["status"] == "queued"
    with pytest.raises(TaskNotRetryable, match="is queued"):
        await desk.retry(task["id"])
    assert (await desk.cancel(task["id"]))["status"] == "cancelled"


async def test_what_cannot_be_run_is_not_queued(desk: Desk, queue: TaskQueue) -> None:
    with pytest.raises(TaskRefused, match="kind: Input should be 'crawl'"):
        await desk.submit(None, {"kind": "dance"})
    with pytest.raises(InvalidRequest, match="neither a message nor a topic"):
        await desk.submit(None, {"kind": "ask"})
    with pytest.raises(InvalidTask, match="made for a `message`"):
        await desk.submit(None, {"kind": "plan", "topics": ["A"]})
    with pytest.raises(TaskRefused, match="accepted: queued"):
        await desk.tasks(status="lost", kind=None, cursor=None, limit=1)
    with pytest.raises(TaskRefused, match="--cursor x"):
        await desk.tasks(status=None, kind=None, cursor="x", limit=1)
    assert (await queue.list()).tasks == []


async def test_a_key_gives_the_same_task_and_no_other(desk: Desk) -> None:
    first = await desk.submit("k", {"kind": "crawl", "topics": ["A"]})
    assert (await desk.submit("k", {"kind": "crawl", "topics": ["A"]}))["id"] == first["id"]
    with pytest.raises(KeyUsed, match=first["id"]):
        await desk.submit("k", {"kind": "crawl", "topics": ["B"]})


async def test_tasks_of_others_are_not_there(desk: Desk, queue: TaskQueue) -> None:
    other = await queue.submit("crawl", {"topics": ["A"]}, owner="bob")
    for call in (desk.get, desk.cancel, desk.retry):
        with pytest.raises(UnknownTask):
            await call(other.id)
    page = await desk.tasks(status=None, kind=None, cursor=None, limit=5)
    assert "no tasks" in shown(show_page, page)
    assert (await queue.get(other.id)).status == "queued"


async def test_a_list_of_every_status_fits_a_terminal(desk: Desk) -> None:
    for number in range(3):
        await desk.submit(None, {"kind": "summarise", "topics": [f"A topic with a long name {number}"]})
    page = await desk.tasks(status=None, kind=None, cursor=None, limit=2)
    lines = shown(show_page, page).splitlines()
    assert all(task["id"] in "\n".join(lines) for task in page["tasks"])
    assert "summarise" in lines[1]
    assert f"--cursor {page['cursor']}" in lines[-1]
    assert max(map(len, lines)) <= 80
