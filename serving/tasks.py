"""``/tasks``: work that is queued now and done by a worker, here or elsewhere."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, HTTPException, Query, Response
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from graphs.pruning import PruneRequest
from graphs.tasks import InvalidTask, check_payload
from memory.task_records import Status, Task, UnknownTask
from serving.auth import Owner
from serving.dependencies import OpenRunner, Tasks

router = APIRouter(prefix="/tasks", tags=["tasks"])


class TaskRequest(BaseModel):
    """What is to be done: ``{"crawl": […]}``, or a ``kind`` with its fields."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["crawl", "ask", "summarise", "prune"] | None = Field(
        None, description="Left out where `crawl` says it."
    )
    crawl: list[str] = Field(default_factory=list, max_length=20, examples=[["Mandelbrot set"]])
    message: str = Field("", max_length=20_000, description="The question; for a crawl, what will be asked.")
    topics: list[str] = Field(default_factory=list, max_length=20, description="Articles to start from.")
    hops: int = Field(1, ge=0, le=5)
    max_nodes: int = Field(30, ge=1, le=5_000)

    def chosen_kind(self) -> str:
        """The kind of the task.

        Raises:
            InvalidTask: none was given, or two.
        """
        if self.crawl and (self.kind not in (None, "crawl") or self.topics):
            raise InvalidTask("`crawl` was given beside another kind or `topics`; give one of them")
        if not self.crawl and self.kind is None:
            raise InvalidTask('neither a kind nor a crawl was given; accepted: {"crawl": […]} or {"kind": "ask", …}')
        return self.kind or "crawl"

    def payload(self) -> dict[str, Any]:
        """The payload of the task."""
        return {
            "message": self.message,
            "topics": self.crawl or self.topics,
            "hops": self.hops,
            "max_nodes": self.max_nodes,
        }


class PruneTask(PruneRequest):
    """What is to be forgotten: ``{"kind": "prune", …}``."""

    kind: Literal["prune"]

    def chosen_kind(self) -> str:
        """The kind of the task."""
        return self.kind

    def payload(self) -> dict[str, Any]:
        """The payload of the task."""
        return self.model_dump(exclude={"kind"}, exclude_none=True)


def _tag(body: Any) -> str:
    return "prune" if isinstance(body, dict) and body.get("kind") == "prune" else "run"


AnyTask = Annotated[Annotated[TaskRequest, Tag("run")] | Annotated[PruneTask, Tag("prune")], Discriminator(_tag)]
"""The body's ``kind`` says which."""


class TaskView(BaseModel):
    """A task. Times are null until they have come."""

    id: str
    kind: str
    status: Status
    payload: dict[str, Any]
    attempts: int
    error: str
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    created: datetime
    updated: datetime
    started: datetime | None
    finished: datetime | None

    @classmethod
    def of(cls, task: Task) -> TaskView:
        """What its owner sees of a task."""
        fields = asdict(task)
        times = {
            name: datetime.fromtimestamp(fields[f"{name}_ms"] / 1000, UTC) if fields[f"{name}_ms"] else None
            for name in ("created", "updated", "started", "finished")
        }
        return cls(**{name: fields[name] for name in cls.model_fields if name in fields}, **times)


class TaskList(BaseModel):
    """One page of tasks, newest first."""

    tasks: list[TaskView]
    cursor: str | None = Field(description="Give it back for the next page; null on the last one.")


@router.post("", status_code=202)
async def submit(
    body: AnyTask,
    response: Response,
    owner: Owner,
    runner: OpenRunner,
    queue: Tasks,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> TaskView:
    """Queue a task. With the same ``Idempotency-Key`` the same task comes back, for 24 hours."""
    kind, payload = body.chosen_kind(), body.payload()
    if request := check_payload(kind, payload, owner):
        runner.validate(request)
    task = await queue.submit(kind, payload, owner=owner, idempotency_key=idempotency_key)
    if (task.kind, task.payload) != (kind, payload):
        raise HTTPException(422, f"the Idempotency-Key was used for another task, {task.id}; use a new one")
    response.headers["Location"] = f"{router.prefix}/{task.id}"
    return TaskView.of(task)


@router.get("")
async def list_tasks(
    owner: Owner,
    queue: Tasks,
    status: Status | None = None,
    cursor: Annotated[str | None, Query(pattern=r"^\d{1,18}$")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> TaskList:
    """The owner's tasks, newest first."""
    page = await queue.list(owner, status, cursor, limit)
    return TaskList(tasks=[TaskView.of(task) for task in page.tasks], cursor=page.cursor)


@router.get("/{task_id}")
async def get_task(task_id: str, owner: Owner, queue: Tasks) -> TaskView:
    """One task, with its progress and, at the end, its result or error."""
    return TaskView.of(await _own(queue, task_id, owner))


@router.delete("/{task_id}")
async def cancel(task_id: str, owner: Owner, queue: Tasks) -> TaskView:
    """Cancel a task; one that runs stops within two seconds, and one that has ended stays as it is."""
    await _own(queue, task_id, owner)
    return TaskView.of(await queue.cancel(task_id))


async def _own(queue: Tasks, task_id: str, owner: str) -> Task:
    task = await queue.get(task_id)
    if task.owner != owner:
        raise UnknownTask(f"no task {task_id}; GET /tasks lists yours")
    return task
