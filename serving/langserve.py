"""``/runnables/…``: LangServe's routes for the graph and for every agent of the registry.

LangServe gets no new features any more; this file alone uses it. It brings the wire format of ``RemoteRunnable`` and
the playgrounds. The routes, what they document, their errors and who may call are Lumina's.
"""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

import orjson
from fastapi import APIRouter, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from langserve import APIHandler
from langserve.serialization import WellKnownLCSerializer
from loguru import logger
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import JSONResponse, Response, StreamingResponse

from agents.spec import Registry
from errors import LuminaError
from graphs.goals import GoalFile
from graphs.limits import RateLimited
from graphs.runs import InvalidRequest
from serving.auth import Owner
from serving.dependencies import OpenRunner
from serving.problems import STATUS, problem
from serving.runnables import CALLER, Caller, Served, serve_all

PREFIX = "/runnables"
MAX_BATCH = 16
"""Inputs of one batch: they all run at once."""
QUEUED = 16
"""Events that are made ahead of a slow client."""
END_S = 1.0
"""Seconds between two cancellations of a run that nobody listens to."""
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""LangServe's page carries its schemas in an inline script and compiles them; it loads nothing from elsewhere."""


def build_router(registry: Registry, goals: GoalFile) -> APIRouter:
    """The routes of an application. Its services are found at request time."""
    warnings.filterwarnings("ignore", message="astream_log is deprecated")  # the playground speaks nothing else
    router = APIRouter()
    for served in serve_all(registry, goals):
        _Routes(served).add_to(router)
    return router


class _Serializer(WellKnownLCSerializer):
    """Events of a graph carry objects that LangServe does not know; they become what they print as."""

    def dumps(self, obj: Any) -> bytes:
        return orjson.dumps(obj, default=_plain, option=orjson.OPT_NON_STR_KEYS)


def _plain(obj: Any) -> Any:
    return obj.model_dump(mode="json") if isinstance(obj, BaseModel) else str(obj)


class _Events(EventSourceResponse):
    """Server-sent events that end with the client or the server that they belong to."""

    media_type = "text/event-stream"

    @staticmethod
    async def listen_for_exit_signal() -> None:
        """Never: the package's own keeps one flag for all servers of a process, and uvicorn ends requests itself."""
        await asyncio.Event().wait()


class _Routes:
    """The routes of one Runnable."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._ending: set[asyncio.Task[None]] = set()
        self._handler = APIHandler(
            served.runnable,
            path=f"{PREFIX}/{served.name}",
            playground_type="chat" if served.chat else "default",
            serializer=_Serializer(),
        )

    def add_to(self, router: APIRouter) -> None:
        """Add them, each also below ``/c/{config_hash}``, where the playground's links and settings point."""
        handler, name = self._handler, self._served.name
        posts: list[tuple[str, Any, Any, Any]] = [
            ("invoke", handler.invoke, handler.InvokeRequest, handler.InvokeResponse),
            ("batch", handler.batch, handler.BatchRequest, handler.BatchResponse),
            ("stream", handler.stream, handler.StreamRequest, None),
            ("stream_log", handler.stream_log, handler.StreamLogRequest, None),
            ("stream_events", handler.astream_events, handler.StreamEventsRequest, None),
        ]
        gets: list[tuple[str, Any]] = [
            ("input_schema", handler.input_schema),
            ("output_schema", handler.output_schema),
            ("config_schema", handler.config_schema),
        ]
        for below in ("", "/c/{config_hash}"):
            path, tags, shown = f"{PREFIX}/{name}{below}", [f"{PREFIX[1:]}/{name}"], not below
            for verb, act, body, answer in posts:
                router.add_api_route(
                    f"{path}/{verb}",
                    self._post(act, body),
                    methods=["POST"],
                    tags=list(tags),
                    name=f"{name} {verb}",
                    description=f"{self._served.description} {DESCRIPTIONS[verb]}",
                    response_model=answer,
                    response_class=JSONResponse if answer else StreamingResponse,
                    responses={} if answer else {200: {"content": {_Events.media_type: {}}}},
                    include_in_schema=shown,
                )
            for verb, act in gets:
                router.add_api_route(
                    f"{path}/{verb}",
                    _get(act),
                    tags=list(tags),
                    name=f"{name} {verb}",
                    description=f"JSON Schema of the {verb.removesuffix('_schema')}.",
                    include_in_schema=shown,
                )
            router.add_api_route(f"{path}/playground/{{file_path:path}}", self._playground(), include_in_schema=False)

    def _post(self, act: Any, body_type: Any) -> Callable[..., Awaitable[Response]]:
        async def endpoint(request: Request, owner: Owner, runner: OpenRunner, body: BaseModel) -> Response:
            caller = Caller(runner, owner, request)
            try:
                await self._check(caller, body)
                config = {"configurable": {CALLER: caller}}
                hash_ = request.path_params.get("config_hash", "")
                answer: Response = await _while_there(request, act(request, config_hash=hash_, server_config=config))
            except RateLimited:
                raise  # with its headers
            except LuminaError as error:
                return problem(_status(error), type(error).__name__, str(error))
            except ValidationError as error:
                raise RequestValidationError(error.errors()) from error
            if isinstance(answer, EventSourceResponse):
                assert isinstance(answer.body_iterator, AsyncGenerator)
                return _Events(
                    self._told(answer.body_iterator),
                    headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
                    ping_message_factory=lambda: ServerSentEvent(comment="keep-alive"),
                )
            return answer

        endpoint.__annotations__["body"] = body_type
        return endpoint

    async def _check(self, caller: Caller, body: Any) -> None:
        """Refuse what cannot run, or may not now, before a stream begins, where an error would be hard to see."""
        whole = hasattr(body, "inputs")
        inputs = list(body.inputs) if whole else [body.input]
        if len(inputs) > MAX_BATCH:
            raise InvalidRequest(f"a batch of {len(inputs)} inputs; at most {MAX_BATCH} are accepted at a time")
        configs = body.config if isinstance(body.config, list) else [body.config] * len(inputs)
        if len(configs) != len(inputs):
            raise InvalidRequest(f"{len(configs)} configs for {len(inputs)} inputs; give one for all, or one for each")
        threads = [_thread_of(config) for config in configs]
        named = [thread for thread in threads if thread]
        if len(set(named)) < len(named):
            raise InvalidRequest("two inputs of a batch have the same configurable.thread_id; give each its own")
        asked = list(zip(map(_as_mapping, inputs), threads, strict=True))
        for given, thread in asked:
            await self._served.check(caller, given, thread)
        for given, thread in asked:
            await self._served.admit(caller, given, thread)

    async def _told(self, events: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
        """LangServe's events, made in a task of their own that ends when nobody listens any more.

        The scope in which a response runs cancels at every await, and the graph would not come to cancelling its nodes.
        """
        told: asyncio.Queue[Any] = asyncio.Queue(QUEUED)
        task = asyncio.create_task(_tell(events, told))
        try:
            while (event := await told.get()) is not None:
                yield event
        finally:
            ending = asyncio.create_task(_end(task))
            self._ending.add(ending)  # the loop keeps weak references only
            ending.add_done_callback(self._ending.discard)

    def _playground(self) -> Callable[..., Awaitable[Response]]:
        async def page(file_path: str, request: Request, owner: Owner) -> Response:
            hash_ = request.path_params.get("config_hash", "")
            try:
                answer: Response = await self._handler.playground(file_path, request, config_hash=hash_)
            except (OSError, ValueError) as error:  # a folder, or a name that no file can have
                raise HTTPException(404, "the playground has no such file") from error
            answer.headers.update(PAGE_HEADERS)
            if answer.status_code == 200 and file_path.startswith("assets/"):
                answer.headers["Cache-Control"] = "max-age=86400"
            return answer

        return page


DESCRIPTIONS = {
    "invoke": "Runs once; the answer comes whole.",
    "batch": f"Runs up to {MAX_BATCH} inputs at once.",
    "stream": "Streams the output as server-sent events: `metadata`, `data`, and `end` or `error`.",
    "stream_log": "Streams every step as JSON Patch operations in server-sent events.",
    "stream_events": "Streams every event of the run, as LangChain's `astream_events` gives them.",
}


def _get(act: Any) -> Callable[..., Awaitable[dict[str, Any]]]:
    async def endpoint(request: Request, owner: Owner) -> dict[str, Any]:
        schema: dict[str, Any] = await act(request, config_hash=request.path_params.get("config_hash", ""))
        return schema

    return endpoint


def _thread_of(config: Any) -> str:
    """The thread id of a config that was validated, or of none."""
    given = config.model_dump() if isinstance(config, BaseModel) else dict(config or {})
    return str((given.get("configurable") or {}).get("thread_id") or "")


def _as_mapping(given: BaseModel) -> Mapping[str, Any]:
    try:
        return given.model_dump(mode="json")
    except PydanticSerializationError as error:  # half of a surrogate pair, in a field that takes anything
        raise InvalidRequest("the input has text that is none in UTF-8") from error


def _status(error: LuminaError) -> int:
    """An error that an agent can explain is about what it was given, unless it may pass."""
    known = next((status for kind, status in STATUS.items() if isinstance(error, kind)), None)
    return known or (503 if error.transient else 422)


async def _while_there(request: Request, work: Awaitable[Any]) -> Any:
    """The result of the work, which is cancelled when the client goes away."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HTTPException(499, "the client went away")  # nobody reads it
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel until it ends: ``astream_log`` waits for its run when it is cancelled once."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=END_S)


async def _tell(events: AsyncGenerator[Any, None], told: asyncio.Queue[Any]) -> None:
    """Put the events, and None at their end; instead of LangServe's «Internal Server Error», what went wrong.

    LangServe sends an error first and raises it afterwards.
    """
    try:
        async with aclosing(events):
            async for event in events:
                if event.get("event") != "error":
                    await told.put(event)
    except LuminaError as error:
        await told.put(_error(_status(error), str(error)))
    except Exception as error:  # the response has begun: the client must hear of it, without a trace
        logger.opt(exception=error).error("a streamed run failed")
        await told.put(_error(500, "something went wrong here; the log has the details"))
    await told.put(None)


def _error(status: int, message: str) -> dict[str, str]:
    return {"event": "error", "data": json.dumps({"status_code": status, "message": message}, ensure_ascii=False)}
