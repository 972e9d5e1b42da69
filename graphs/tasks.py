"""The kinds of tasks and the workers that run them: claim, run the graph, tell how far it is, end or hand back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from loguru import logger
from pydantic import BaseModel, ValidationError
from redis.exceptions import RedisError

from agents.spec import RunRequest
from errors import LuminaError
from graphs.explaining import describe_request
from graphs.limits import RateLimited
from graphs.pruning import PruneRequest, prune
from graphs.runs import InvalidRequest, RunExists, Runner
from memory.leases import Lease, LeaseLost, TaskCancelled, hold
from memory.streams import Event
from memory.task_records import Task
from memory.tasks import TaskQueue

CLAIM_BLOCK_MS = 1_000
"""How long one look at the queue waits."""
PROGRESS_EVERY_S = 0.3
"""Progress is written at most so often: a crawl of a ZIM tells of it hundreds of times a second."""
HAND_BACK_S = 1.5
"""How long a worker that stops may take to hand its task back; after that the lease runs out by itself."""
RETRY_AFTER_S = 1.0
"""Wait after Redis could not be reached."""
ANY = "*"
"""In place of an intent: whichever the payload names."""


Payload = TypeVar("Payload", bound=BaseModel)


class InvalidTask(LuminaError):
    """A task that no worker can run: an unknown kind, or a payload that makes no request."""


class KeyUsed(LuminaError):
    """An idempotency key that stands for another task."""


class RunFailed(LuminaError):
    """The run came to its end and reached nothing; ``transient`` says whether it may go better later."""

    def __init__(self, reason: str, *, transient: bool) -> None:
        self.transient = transient
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class TaskKind:
    """What a worker knows of a kind of tasks."""

    run: Callable[[Runner, Lease], Awaitable[dict[str, Any]]]
    """Runs the task to its result."""
    intent: str | None = None
    """The intent of the request that its payload makes; ``ANY``: the payload names it; None: it makes none."""
    payload: type[BaseModel] | None = None
    """What its payload has to be when it makes no request; with neither, only Lumina itself submits it."""
    retrieves: bool = False
    """Whether it needs the vectors."""


def request_of(kind: str, payload: Any, owner: str) -> RunRequest:
    """The request that a task of this kind stands for.

    Raises:
        InvalidTask: the kind is none that runs the graph, or the payload does not fit; the text names the field.
    """
    intent = KINDS[kind].intent if kind in KINDS else None
    if intent is None:
        accepted = ", ".join(name for name, known in KINDS.items() if known.intent)
        raise InvalidTask(f"task kind «{kind}» is not known; accepted: {accepted}")
    if not isinstance(payload, Mapping):
        raise InvalidTask(f"the payload of a {kind} task is {type(payload).__name__}; accepted: an object")
    fields = _FIELDS | {"intent"} if intent == ANY else _FIELDS
    if not fields.issuperset(payload):
        unknown = ", ".join(sorted(set(map(str, payload)) - fields))
        raise InvalidTask(f"the payload of a {kind} task has {unknown}; accepted: {', '.join(sorted(fields))}")
    own = {} if intent == ANY else {"intent": intent}
    try:
        return RunRequest(**{**payload, **own, "owner": owner})
    except ValidationError as error:
        raise _unfit(kind, error) from error


def task_of(request: RunRequest) -> tuple[str, dict[str, Any]]:
    """Kind and payload of the task that runs a request in the background; the inverse of ``request_of``."""
    payload = request.model_dump(include=set(_FIELDS))
    kind = next((name for name, one in KINDS.items() if one.run is _run_graph and one.intent == request.intent), None)
    return (kind, payload) if kind else ("run", {**payload, "intent": request.intent})


def check_payload(kind: str, payload: Any, owner: str) -> RunRequest | None:
    """Check what a task is to do; the request that it stands for, if it runs the graph.

    Raises:
        InvalidTask: nobody may submit this kind, or the payload does not fit; the text names the field.
    """
    model = KINDS[kind].payload if kind in KINDS else None
    if model is None:
        return request_of(kind, payload, owner)
    _payload(model, kind, payload)
    return None


def _payload(model: type[Payload], kind: str, payload: Any) -> Payload:
    try:
        return model.model_validate(payload)
    except ValidationError as error:
        raise _unfit(kind, error, f"; accepted: {', '.join(sorted(model.model_fields))}") from error


def _unfit(kind: str, error: ValidationError, accepted: str = "") -> InvalidTask:
    problems = [(".".join(map(str, one["loc"])) or "payload", one["msg"]) for one in error.errors()]
    found = "; ".join(f"{place}: {words.removeprefix('Value error, ')}" for place, words in problems)
    return InvalidTask(f"the payload of a {kind} task does not fit: {found}{accepted}")


async def _run_graph(runner: Runner, lease: Lease) -> dict[str, Any]:
    """Run the graph from the task's last checkpoint, or from the start."""
    task = lease.task
    request = request_of(task.kind, task.payload, task.owner)
    # What was begun has its tokens; should it be begun again after a failure, it needs new ones.
    paid = None if await runner.has_begun(task.id) else (await runner.admit(request)).paid
    outcome: dict[str, Any] = {}
    latest: dict[str, Any] | None = None
    told = 0.0
    async with contextlib.aclosing(runner.stream(request, task.id, paid=paid)) as events:
        async for event in events:
            if event.kind in ("progress", "agent"):
                latest = event.data
            elif event.kind == "done":
                outcome = event.data
            if latest is not None and time.monotonic() - told >= PROGRESS_EVERY_S:
                await lease.progress(latest)
                latest, told = None, time.monotonic()
    ended = outcome.get("outcome") or {}
    if ended.get("status") == "failed":
        # A later attempt has to start anew: with the checkpoint of the end it would only read the same failure again.
        await lease.renew()
        await runner.context.checkpoints.adelete_thread(task.id)
        transient = any(failure["transient"] for failure in outcome["failures"])
        raise RunFailed(str(ended["reason"]), transient=transient)
    return outcome


async def _plan(runner: Runner, lease: Lease) -> dict[str, Any]:
    """The explained plan of what the payload asks for; nothing of it is run."""
    request = request_of(lease.task.kind, lease.task.payload, lease.task.owner)
    return await describe_request(runner, request.model_dump(exclude={"owner"}), request.owner)


async def _report_dead(runner: Runner, lease: Lease) -> dict[str, Any]:
    """Tell of every dead task, in the log and as an ``error`` event of its owner."""
    queue, cursor, dead = TaskQueue(runner.context.redis), None, list[Task]()
    while True:
        page = await queue.list(status="dead", cursor=cursor)
        dead += page.tasks
        cursor = page.cursor
        if cursor is None:
            break
    for task in dead:
        logger.warning("dead letter: {} task {} after {} attempts: {}", task.kind, task.id, task.attempts, task.error)
    await runner.context.streams.publish([_dead_letter(task) for task in dead])
    return {"dead": len(dead)}


async def _prune(runner: Runner, lease: Lease) -> dict[str, Any]:
    """Prune the owner's own passages."""
    task, told = lease.task, 0.0

    async def progress(data: dict[str, Any]) -> None:
        nonlocal told
        if time.monotonic() - told >= PROGRESS_EVERY_S:
            await lease.progress(data)
            told = time.monotonic()

    request = _payload(PruneRequest, task.kind, task.payload)
    return await prune(runner.context, request, owner=task.owner, task_id=task.id, progress=progress)


def _dead_letter(task: Task) -> Event:
    """``finished_ms`` tells this death of the task from another one after a retry."""
    data = {"owner": task.owner, "kind": "dead_letter", "error": task.error, "finished_ms": task.finished_ms}
    return Event("error", {**data, "task_kind": task.kind, "attempts": task.attempts}, task_id=task.id)


KINDS: dict[str, TaskKind] = {
    "crawl": TaskKind(_run_graph, intent="crawl"),
    "ask": TaskKind(_run_graph, intent="wiki_qa", retrieves=True),
    "summarise": TaskKind(_run_graph, intent="summarise", retrieves=True),
    "run": TaskKind(_run_graph, intent=ANY, retrieves=True),
    "plan": TaskKind(_plan, intent="plan"),
    "report": TaskKind(_report_dead),
    "prune": TaskKind(_prune, payload=PruneRequest, retrieves=True),
}
"""Every kind of tasks that there is."""

_FIELDS = frozenset(RunRequest.model_fields) - {"intent", "owner", "conversation_id"}


async def take_tasks(
    runner: Runner,
    queue: TaskQueue,
    kinds: Sequence[str],
    *,
    concurrency: int = 1,
    stop: asyncio.Event,
    registry: Mapping[str, TaskKind] = KINDS,
) -> None:
    """Claim and run tasks until ``stop`` is set; what runs then is handed back, for another to go on with at once.

    Args:
        runner: The graph on open services.
        queue: Where the tasks are.
        kinds: What is taken; see ``KINDS``.
        concurrency: Tasks at a time.
        stop: Ends it, within about ``HAND_BACK_S``.
        registry: What the kinds are.
    """
    root = f"worker-{socket.gethostname()}-{os.getpid()}"
    names = [f"{root}-{number}" for number in range(1, concurrency + 1)]
    takers = [asyncio.create_task(_take(runner, queue, name, kinds, stop, registry), name=name) for name in names]
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({stopped, *takers}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        pending = set(takers)
        while pending:  # again, should something under a run have swallowed it
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=HAND_BACK_S + 0.5)
        ended = await asyncio.gather(*takers, return_exceptions=True)
        for name in names:
            with contextlib.suppress(RedisError, OSError):
                await queue.leave(name)
    for error in ended:
        if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
            raise error


async def _take(
    runner: Runner,
    queue: TaskQueue,
    worker: str,
    kinds: Sequence[str],
    stop: asyncio.Event,
    registry: Mapping[str, TaskKind],
) -> None:
    following: Lease | None = None
    while following is not None or not stop.is_set():  # with one in hand, a cancellation stops it
        try:
            lease, following = following or await queue.claim(worker, kinds, block_ms=CLAIM_BLOCK_MS), None
            if lease is not None:
                following = await run_task(runner, lease, registry, kinds)
        except (RedisError, OSError) as error:
            # A task that was running is taken up again, from its checkpoint, when its lease has run out.
            logger.warning("{}: Redis does not answer ({}); trying again", worker, error)
            await asyncio.sleep(RETRY_AFTER_S)


async def run_task(
    runner: Runner, lease: Lease, registry: Mapping[str, TaskKind] = KINDS, then: Collection[str] = ()
) -> Lease | None:
    """Run one claimed task to its end, and say in the queue how it ended.

    Returns:
        The next task of the kinds ``then``, if one was taken in the same step as the end was told. A run that is
        cancelled hands back what it holds.

    Raises:
        RedisError: the queue could not be told; the lease runs out by itself.
    """
    with logger.contextualize(task_id=lease.task.id, owner=lease.task.owner):
        return await _run_task(runner, lease, registry, then)


async def _run_task(
    runner: Runner, lease: Lease, registry: Mapping[str, TaskKind], then: Collection[str]
) -> Lease | None:
    task, began = lease.task, time.monotonic()
    logger.debug("{} task begins, attempt {}", task.kind, task.attempts)
    following: Lease | None = None
    fail: Callable[[], Awaitable[None]]
    try:
        async with hold(lease):
            following = await lease.complete_and_claim(await registry[task.kind].run(runner, lease), then)
        logger.info("{} task complete after {:.1f} s", task.kind, time.monotonic() - began)
        return following
    except asyncio.CancelledError:
        await _hand_back(following or lease)
        raise
    except (LeaseLost, TaskCancelled) as error:
        logger.info("{}", error)
        return following
    except RateLimited as error:
        logger.info("{} task waits {:.1f} s for the limit of {}", task.kind, error.retry_after_s, error.agent)
        fail = partial(lease.postpone, error.retry_after_s, str(error))
    except (RedisError, OSError):
        raise
    except (InvalidTask, InvalidRequest, RunExists) as error:
        fail = _failing(lease, error, retry=False)
    except RunFailed as error:
        fail = _failing(lease, error, retry=error.transient)
    except LuminaError as error:
        fail = _failing(lease, error)
    except Exception as error:  # the outermost frame of a task: one that breaks must not end its worker
        logger.opt(exception=error).error("{} task {} broke", task.kind, task.id)
        fail = partial(lease.fail, f"{type(error).__name__}: {error}")
    with contextlib.suppress(LeaseLost, TaskCancelled):
        await fail()
    return None


def _failing(lease: Lease, error: LuminaError, *, retry: bool = True) -> Callable[[], Awaitable[None]]:
    """How a failed attempt is told to the queue. The log names the error only: its words may be the asker's."""
    logger.warning("{} task failed at attempt {}: {}", lease.task.kind, lease.task.attempts, type(error).__name__)
    return partial(lease.fail, str(error), retry=retry)


async def _hand_back(lease: Lease) -> None:
    try:
        async with asyncio.timeout(HAND_BACK_S):
            await lease.release()
    except (LeaseLost, TaskCancelled, RedisError, OSError) as error:  # TimeoutError is an OSError
        logger.info("task {} was not handed back: {}", lease.task.id, error)
