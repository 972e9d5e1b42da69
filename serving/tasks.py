"""``/tasks``: work that is queued now and done by a worker, here or elsewhere."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag
from starlette.responses import StreamingResponse

from graphs.goals import GoalFile
from graphs.pruning import PruneRequest
from graphs.runs import check_request
from graphs.tasks import KINDS, InvalidTask, KeyUsed, check_payload
from memory import keys
from memory.followed import Filter, parse_positions
from memory.subscriptions import CaughtUp, Subscription, Told
from memory.task_records import Status, Task, UnknownTask
from memory.tasks import TaskQueue
from serving.auth import Owner
from serving.dependencies import OpenFanOut, OpenRunner, Tasks
from serving.frames import encode_sse
from serving.mux import respond

router = APIRouter(prefix="/tasks", tags=["tasks"])

TASK_STREAMS = (keys.GRAPH_STREAM, keys.TASKS_STREAM, keys.PLANNER_STREAM)
"""Streams that carry events of a task."""
TERMINAL = frozenset({"task.complete", "task.dead", "task.cancel"})
"""After these nothing comes, unless the task is retried."""
LIFECYCLE = TERMINAL | {"task.submit", "task.start", "task.retry", "task.fail"}


class TaskRequest(BaseModel):
    """What is to be done: ``{"crawl": […]}``, or a ``kind`` with its fields."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["crawl", "ask", "summarise", "run", "plan"] | None = Field(
        None,
        description="Left out where `crawl` says it. `run` has any `intent` of the goal file. The result of `plan` is "
        "the explained plan; nothing is run.",
    )
    intent: str | None = Field(None, max_length=100, description="Of a `run`, and of nothing else.")
    crawl: list[str] = Field(default_factory=list, max_length=20, examples=[["Mandelbrot set"]])
    message: str = Field("", max_length=20_000, description="The question; for a crawl, what will be asked.")
    topics: list[str] = Field(default_factory=list, max_length=20, description="Articles to start from.")
    hops: int = Field(1, ge=0, le=5)
    max_nodes: int = Field(30, ge=1, le=5_000)

    def chosen_kind(self) -> str:
        """The kind of the task.

        Raises:
            InvalidTask: none was given, or two, or a plan for nothing.
        """
        if self.crawl and (self.kind not in (None, "crawl") or self.topics):
            raise InvalidTask("`crawl` was given beside another kind or `topics`; give one of them")
        if not self.crawl and self.kind is None:
            raise InvalidTask('neither a kind nor a crawl was given; accepted: {"crawl": […]} or {"kind": "ask", …}')
        if (self.kind == "run") != (self.intent is not None):
            raise InvalidTask("an `intent` belongs to kind `run`, which needs one; the other kinds have their own")
        if self.kind == "plan" and not self.message.strip():
            raise InvalidTask("a plan is made for a `message`, and none was given")
        return self.kind or "crawl"

    def payload(self) -> dict[str, Any]:
        """The payload of the task."""
        return {
            "message": self.message,
            "topics": self.crawl or self.topics,
            "hops": self.hops,
            "max_nodes": self.max_nodes,
            **({"intent": self.intent} if self.intent is not None else {}),
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


async def submit_checked(
    queue: TaskQueue, goals: GoalFile, body: TaskRequest | PruneTask, owner: str, idempotency_key: str | None = None
) -> Task:
    """Queue a task that can be run, or return the one that was submitted before with this key.

    Raises:
        InvalidTask: no worker could run it.
        InvalidRequest: there is nothing to work on.
        KeyUsed: the key stands for another task.
    """
    return await queue_checked(queue, goals, body.chosen_kind(), body.payload(), owner, idempotency_key)


async def queue_checked(
    queue: TaskQueue, goals: GoalFile, kind: str, payload: dict[str, Any], owner: str, idempotency_key: str | None
) -> Task:
    """See ``submit_checked``."""
    if request := check_payload(kind, payload, owner):
        check_request(goals, request)
    task = await queue.submit(kind, payload, owner=owner, idempotency_key=idempotency_key)
    if (task.kind, task.payload) != (kind, payload):
        raise KeyUsed(f"the Idempotency-Key was used for another task, {task.id}; use a new one")
    return task


@router.post("", status_code=202)
async def submit(
    body: AnyTask,
    request: Request,
    response: Response,
    owner: Owner,
    runner: OpenRunner,
    queue: Tasks,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> TaskView:
    """Queue a task. With the same ``Idempotency-Key`` the same task comes back, for 24 hours."""
    task = await submit_checked(queue, runner.goals, body, owner, idempotency_key)
    request.state.task_id = task.id  # for the log
    response.headers["Location"] = f"{router.prefix}/{task.id}"
    return TaskView.of(task)


@router.get("")
async def list_tasks(
    owner: Owner,
    queue: Tasks,
    status: Status | None = None,
    kind: Annotated[str | None, Query(json_schema_extra={"enum": [*KINDS]})] = None,
    cursor: Annotated[str | None, Query(pattern=r"^\d{1,18}$")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> TaskList:
    """The owner's tasks, newest first, of any status and kind or of one."""
    if kind is not None and kind not in KINDS:
        raise InvalidTask(f"kind «{kind}» is not known; accepted: {', '.join(KINDS)}")
    page = await queue.list(owner, status, cursor, limit, kind=kind)
    return TaskList(tasks=[TaskView.of(task) for task in page.tasks], cursor=page.cursor)


async def own_task(queue: TaskQueue, task_id: str, owner: str) -> Task:
    """A task of this owner.

    Raises:
        UnknownTask: there is none, or it is another's.
    """
    task = await queue.get(task_id)
    if task.owner != owner:
        raise UnknownTask(f"no task {task_id}; `lumina tasks list` or GET /tasks lists yours")
    return task


async def _named(task_id: str, owner: Owner, queue: Tasks, request: Request) -> Task:
    task = await own_task(queue, task_id, owner)
    request.state.task_id = task.id  # for the log
    return task


OwnTask = Annotated[Task, Depends(_named)]
"""The task that the path names, when it is the caller's."""


@router.get("/{task_id}")
async def get_task(task: OwnTask) -> TaskView:
    """One task, with its progress and, at the end, its result or error."""
    return TaskView.of(task)


@router.get(
    "/{task_id}/events",
    responses={200: {"content": {"text/event-stream": {}}}},
    response_class=StreamingResponse,
)
async def follow_task(
    task: OwnTask,
    owner: Owner,
    fan_out: OpenFanOut,
    last_event_id: Annotated[
        str | None, Header(description="Sent by who reconnects: what came before is left out.")
    ] = None,
) -> Response:
    """Everything that happens to a task as SSE, over all streams, from its beginning on; ends when the task has."""
    wanted = Filter(TASK_STREAMS, owner, task_id=task.id)
    places = parse_positions(last_event_id or "0", TASK_STREAMS, "0")
    ends = _Ending(ended=task.finished_ms > 0)
    return await respond(fan_out, Subscription(wanted, encode_sse), places, greeting=f"task {task.kind}", ends=ends)


class _Ending:
    """Says when a task's events have all been told; one that was retried goes on after its first end."""

    def __init__(self, *, ended: bool) -> None:
        """``ended``: whether the task had, before anything was told."""
        self._ended, self._live = ended, False

    def __call__(self, told: object) -> bool:
        match told:
            case Told():
                for entry in told.entries:
                    if entry.event.type in LIFECYCLE:
                        self._ended = entry.event.type in TERMINAL
            case CaughtUp():
                self._live = True
        return self._live and self._ended


@router.delete("/{task_id}")
async def cancel(task: OwnTask, queue: Tasks) -> TaskView:
    """Cancel a task; one that runs stops within two seconds, and one that has ended stays as it is."""
    return TaskView.of(await queue.cancel(task.id))


@router.post("/{task_id}/retry", status_code=202)
async def retry(task: OwnTask, response: Response, queue: Tasks) -> TaskView:
    """Queue a dead or cancelled task again, with all its attempts; 409 for any other."""
    response.headers["Location"] = f"{router.prefix}/{task.id}"
    return TaskView.of(await queue.retry(task.id))
