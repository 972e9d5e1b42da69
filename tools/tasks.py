"""The task queue as LangChain tools: ``submit_crawl`` and ``look_at_task``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field

from memory.task_records import UnknownTask
from memory.tasks import TaskQueue

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool


class CrawlArguments(BaseModel):
    """What ``submit_crawl`` is called with."""

    topics: Annotated[list[str], Field(min_length=1, max_length=20, description="Titles to start from.")]
    hops: Annotated[int, Field(ge=0, le=5, description="How many links away from a topic.")] = 1
    max_nodes: Annotated[int, Field(ge=1, le=5_000, description="How many pages at most, per topic.")] = 30


class TaskArguments(BaseModel):
    """What ``look_at_task`` is called with."""

    task_id: Annotated[str, Field(min_length=1, description="The id that submitting gave.")]


def build_task_tools(queue: TaskQueue, owner: str) -> list[BaseTool]:
    """The two tools on one owner's tasks."""
    from langchain_core.tools import StructuredTool  # a fifth of a second of imports

    async def submit(topics: list[str], hops: int = 1, max_nodes: int = 30) -> str:
        payload = {"topics": topics, "hops": hops, "max_nodes": max_nodes}
        task = await queue.submit("crawl", payload, owner=owner)
        return f"task {task.id} is {task.status}"

    async def look(task_id: str) -> str:
        try:
            task = await queue.get(task_id)
        except UnknownTask as error:
            return str(error)
        if task.owner != owner:
            return f"no task {task_id}; GET /tasks lists yours"
        progress = f": {json.dumps(task.progress, ensure_ascii=False)}" if task.progress else ""
        return f"task {task.id} is {task.status}{progress}"

    return [
        StructuredTool.from_function(
            coroutine=submit,
            name="submit_crawl",
            description="Have articles and what they link to read in the background; returns the task's id.",
            args_schema=CrawlArguments,
        ),
        StructuredTool.from_function(
            coroutine=look,
            name="look_at_task",
            description="How far a task is.",
            args_schema=TaskArguments,
        ),
    ]
