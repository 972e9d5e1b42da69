"""Turns of conversations: each is a run whose events go into its log, and whoever asked follows the log.

Nothing reaches a client that is not in the log first, so a connection that breaks can be taken up again anywhere. The
run goes on for a grace period in which nobody follows, then it is stopped; who comes back later continues it from its
last checkpoint, as after the death of the process. Why: docs/decisions/resume.md.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Literal

from loguru import logger
from redis.exceptions import RedisError

from agents.spec import RunRequest
from errors import LuminaError
from graphs.runs import RunEvent, Runner
from memory.conversations import Message
from memory.run_log import TERMINAL, EventsGone, Hold, HolderLost, LoggedEvent, RunHead, RunLogs
from serving.event_log import EventLog
from serving.problems import status_of
from serving.replies import goals_of, kept_of, reply_to
from serving.spoken import Spoken

LOOK_S = 1.0
"""A holder and each follower look at the run's standing so often, or five times in the grace period."""
POLL_S = 0.05
"""How often a follower reads the log of a run that another process holds."""
STOP_S = 2.0
"""A run that was stopped and has not ended is stopped again: something under it may have swallowed the first time."""

Reason = Literal["abandoned", "cancelled", "lost"]


class Turns:
    """The runs that this process holds, and the logs of all."""

    def __init__(self, runner: Runner, logs: RunLogs) -> None:
        self._runner, self._logs = runner, logs
        self._look_s = min(LOOK_S, logs.grace_s / 5)
        self._held: dict[str, EventLog] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.followers = 0
        """How many follow a run through this process now."""

    async def start(
        self,
        request: RunRequest,
        task_id: str,
        *,
        fingerprint: str,
        background: bool,
        paid: Mapping[str, int] | None = None,
    ) -> RunHead:
        """Begin a run, unless this id has begun already; the head of the one or the other.

        Args:
            request: What is asked; ``conversation_id`` names a conversation of the owner.
            task_id: The run's id.
            fingerprint: Of what the client sent.
            background: Go on when nobody follows.
            paid: Tokens of the rate limits that were taken for it; see ``Runner.stream``.
        """
        head = RunHead(task_id, request.owner, request.model_dump(), fingerprint, background)
        head, hold = await self._logs.begin(head)
        if hold is not None:
            self._spawn(head, hold, paid)
        return head

    async def head(self, task_id: str, owner: str) -> RunHead:
        """The head of an owner's run.

        Raises:
            UnknownRun: there is none, or its events are no longer kept.
        """
        return await self._logs.head(task_id, owner)

    async def cancel(self, task_id: str, owner: str) -> None:
        """End a run for good, wherever it runs; one that has ended stays as it is.

        Raises:
            UnknownRun: there is none, or its events are no longer kept.
        """
        head = await self._logs.head(task_id, owner)
        await self._logs.cancel(task_id)
        await self._take_over(head)  # nobody may hold it, and then somebody must say that it has ended

    async def check(self, head: RunHead, after: int) -> None:
        """Say now whether a run can be followed from here.

        Raises:
            EventsGone: it has not so many events, or those that follow are no longer kept.
        """
        if after > head.position:
            raise EventsGone(f"run {head.task_id} has {head.position} events, and you have seen event {after} of it")
        await self._logs.read(head.task_id, after, 1)

    async def follow(
        self, head: RunHead, after: int = 0, *, gaps: bool = False
    ) -> AsyncGenerator[LoggedEvent | None, None]:
        """The events of a run after a position, to its end; None now and then, when nothing has come.

        A run that nobody holds is taken over. Without the run's end it ends when this process does.

        Args:
            head: The run.
            after: Position of the last event known.
            gaps: Pass over events that are no longer kept.

        Raises:
            EventsGone: they are no longer kept.
            UnknownRun: the log is gone.
        """
        self.followers += 1
        try:
            async with aclosing(self._follow(head, after, gaps)) as events:
                async for event in events:
                    yield event
        finally:
            self.followers -= 1

    async def _follow(self, head: RunHead, after: int, gaps: bool) -> AsyncGenerator[LoggedEvent | None, None]:
        position, looked = after, 0.0
        while not self._closed:
            if time.monotonic() - looked >= self._look_s:
                looked = time.monotonic()
                if not await self._logs.is_held(head.task_id) and not await self._take_over(head):
                    head = await self._logs.head(head.task_id, head.owner)
            log = self._held.get(head.task_id)
            news = log.news if log else None
            events = await self._logs.read(head.task_id, position, gaps=gaps)
            for event in events:
                position = event.position
                yield event
                if event.kind in TERMINAL:
                    return
            if events:
                continue
            if head.ended:
                return
            yield None
            if news is None:
                await asyncio.sleep(POLL_S)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_s):
                    await news.wait()

    async def _take_over(self, head: RunHead) -> bool:
        hold = None if self._closed else await self._logs.take_over(head.task_id)
        if hold is None:
            return False
        self._spawn(await self._logs.head(head.task_id, head.owner), hold)
        return True

    def _spawn(self, head: RunHead, hold: Hold, paid: Mapping[str, int] | None = None) -> None:
        log = self._held[head.task_id] = EventLog(self._logs, hold, head.position)
        with logger.contextualize(task_id=head.task_id, owner=head.owner):  # the task keeps a copy
            task = asyncio.create_task(self._hold(head, hold, log, paid), name=f"run {head.task_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hold(self, head: RunHead, hold: Hold, log: EventLog, paid: Mapping[str, int] | None) -> None:
        """Run, write and keep the hold, until one of them ends; the outermost frame of a run."""
        run = asyncio.create_task(self._run(head, log, paid), name="run")
        write = asyncio.create_task(log.write(), name="log")
        keep = asyncio.create_task(self._keep(head, hold), name="hold")
        try:
            await asyncio.wait({run, write, keep}, return_when=asyncio.FIRST_COMPLETED)
            reason = keep.result() if keep.done() else None
            if not run.done():
                logger.info("run {} is stopped: {}", head.task_id, reason or "its log is held elsewhere")
                await _stop(run)
            if reason == "cancelled":
                log.put(RunEvent("error", {"title": "Cancelled", "detail": "the run was cancelled", "status": 409}))
            if reason is None and run.done():
                await asyncio.wait({write, keep}, return_when=asyncio.FIRST_COMPLETED)
            elif reason != "lost":
                log.close()
                await asyncio.wait({write}, timeout=STOP_S)
        finally:
            await _stop(run, write, keep)
            if self._held.get(head.task_id) is log:
                del self._held[head.task_id]
            log.news.set()
            with suppress(RedisError, OSError):
                await self._logs.release(hold)

    async def _keep(self, head: RunHead, hold: Hold) -> Reason:
        """Renew the hold until the run has to stop, and say why."""
        renewed = time.monotonic()
        while True:
            try:
                standing = await self._logs.renew(hold)
                renewed = time.monotonic()
            except (RedisError, OSError) as error:
                logger.warning("run {}: its hold was not renewed: {}", head.task_id, error)
                if time.monotonic() - renewed >= self._logs.lease_s:
                    return "lost"
            else:
                if not standing.held:
                    return "lost"
                if standing.cancelled:
                    return "cancelled"
                if not standing.followed and not head.background:
                    return "abandoned"
            await asyncio.sleep(self._look_s)

    async def _run(self, head: RunHead, log: EventLog, paid: Mapping[str, int] | None) -> None:
        """Put every event of the run into the log, an error at the end where one ended it."""
        spoken = Spoken()
        try:
            if head.position:
                await self._recollect(head.task_id, spoken)
                spoken.interrupted = True
            async with aclosing(run_turn(self._runner, RunRequest(**head.request), head.task_id, paid=paid)) as events:
                async for event in events:
                    for said in spoken.admit(event):
                        log.put(said)
                    await log.room()
        except LuminaError as error:
            data = {"title": type(error).__name__, "detail": str(error), "status": status_of(error)}
            log.put(RunEvent("error", data))
        except Exception as error:  # the outermost frame of the run: the client must hear of it, without a trace
            logger.opt(exception=error).error("run {} failed", head.task_id)
            detail = "something went wrong here; the log has the details"
            log.put(RunEvent("error", {"title": "Internal error", "detail": detail, "status": 500}))
        log.close()

    async def _recollect(self, task_id: str, spoken: Spoken) -> None:
        """Learn from the log what was said before the run was interrupted."""
        position = 0
        while events := await self._logs.read(task_id, position, gaps=True):
            position = events[-1].position
            for event in events:
                spoken.admit(RunEvent(event.kind, json.loads(event.data)))

    async def close(self) -> None:
        """Stop every run; another process, or this one when it is up again, goes on with them."""
        self._closed = True
        await _stop(*self._tasks)


@asynccontextmanager
async def open_turns(runner: Runner, logs: RunLogs | None = None) -> AsyncIterator[Turns]:
    """Turns on these services; runs that have not ended are stopped at the end.

    Args:
        runner: Runs them.
        logs: Instead of logs with the usual times.
    """
    turns = Turns(runner, logs or RunLogs(runner.context.redis))
    try:
        yield turns
    finally:
        await turns.close()


async def _stop(*tasks: asyncio.Task[Any]) -> None:
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=STOP_S)
    for task in tasks:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, HolderLost):
            logger.opt(exception=error).error("a run's {} broke", task.get_name())


async def run_turn(
    runner: Runner, request: RunRequest, task_id: str, *, paid: Mapping[str, int] | None = None
) -> AsyncGenerator[RunEvent, None]:
    """A run, with both sides of it kept in the conversation."""
    conversations, id_ = runner.context.conversations, request.conversation_id or ""
    asked = Message("user", request.message, {"task_id": task_id})  # who opens the conversation can follow the run
    await conversations.append(request.owner, id_, [asked], idempotency_key=f"{task_id}:user")
    async with aclosing(runner.stream(request, task_id, paid=paid)) as events:
        async for event in events:
            if event.kind == "done":
                said = reply_to(request, event.data)
                yield RunEvent("usage", said.usage)
                metadata = {"citations": said.citations, "tokens": said.usage, "task_id": task_id}
                metadata["run"] = kept_of(event.data)
                answered = Message("assistant", said.answer, metadata)
                await conversations.append(request.owner, id_, [answered], idempotency_key=f"{task_id}:assistant")
                known = said.model_dump(include={"conversation_id", "mode", "answer", "recalled"})
                event = RunEvent("done", {**event.data, **known, **goals_of(event.data)})
            yield event
