"""``POST /masterchat/plan``: what would be done and why. ``GET /planner/logs``: every choice, as it is made."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from agents.spec import RunRequest
from graphs.explaining import describe_request
from graphs.runs import InvalidRequest
from graphs.tasks import task_of
from memory.followed import Filter, parse_positions
from memory.keys import PLANNER_STREAM
from memory.subscriptions import Subscription
from serving.auth import Owner
from serving.dependencies import OpenFanOut, OpenRunner, Tasks
from serving.frames import encode_sse
from serving.mux import respond
from serving.tasks import TaskView, queue_checked

router = APIRouter(tags=["planner"])


class PlanRequest(BaseModel):
    """A message and how it is to be taken."""

    model_config = ConfigDict(extra="forbid")

    message: str = Field("", max_length=20_000, examples=["Who proved that the Mandelbrot set is connected?"])
    mode: str = Field("auto", description="auto, or an intent of the goal file: wiki_qa, crawl, summarise, chat.")
    topics: list[str] = Field(default_factory=list, max_length=20, description="Articles to start from.")
    hops: int = Field(1, ge=0, le=5)
    max_nodes: int = Field(30, ge=1, le=5_000)
    execute: bool = Field(False, description="Queue it as a task too; the answer is then 202 and has a `task`.")


@router.post(
    "/masterchat/plan",
    tags=["masterchat"],
    responses={202: {"description": "The plan, and the `task` that was queued.", "model": dict[str, Any]}},
)
async def plan(
    body: PlanRequest,
    request: Request,
    response: Response,
    owner: Owner,
    runner: OpenRunner,
    queue: Tasks,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> dict[str, Any]:
    """The plan for a message from the facts of this moment, with costs, alternatives, reasons and a Mermaid picture.

    Nothing is run, unless ``execute`` says so: then a worker runs it, by the facts of its own moment.
    """
    asked = {**body.model_dump(exclude={"mode", "execute"}), "intent": body.mode}
    found = await describe_request(runner, asked, owner)
    if body.execute:
        if found["verdict"] == "stuck":
            raise InvalidRequest(f"there is no plan that could be run: {found['why']}")
        kind, payload = task_of(RunRequest(**{**asked, "intent": found["intent"], "owner": owner}))
        task = await queue_checked(queue, runner.goals, kind, payload, owner, idempotency_key)
        request.state.task_id = task.id  # for the log
        found["task"] = TaskView.of(task).model_dump(mode="json")
        response.status_code, response.headers["Location"] = 202, f"/tasks/{task.id}"
    return found


@router.get("/planner/logs", responses={200: {"content": {"text/event-stream": {}}}}, response_class=StreamingResponse)
async def logs(
    owner: Owner,
    fan_out: OpenFanOut,
    after: Annotated[str, Query(description="Begin after this id; 0: the beginning, $: only what is new.")] = "0",
    task_id: Annotated[str | None, Query(description="Only events of this task.")] = None,
    last_event_id: Annotated[str | None, Header(description="Goes before `after`: sent by who reconnects.")] = None,
) -> Response:
    """The caller's planning events as SSE: ``plan.start``, ``plan.step``, ``plan.done``.

    The id of each is its id in the stream, so that a client that reconnects goes on where it was. What the stream no
    longer holds comes from the event store.
    """
    wanted = Filter((PLANNER_STREAM,), owner, task_id=task_id)
    places = parse_positions(last_event_id or after, wanted.streams)
    return await respond(fan_out, Subscription(wanted, encode_sse), places, greeting="planner log")
