"""The event mux: ``GET /events/stream`` and ``WS /ws`` tell the events of any streams as they come, and resume."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, WebSocket
from loguru import logger
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocketDisconnect

from errors import LuminaError
from memory.fan_out import FanOut
from memory.followed import (
    LOGS_STREAM,
    Filter,
    InvalidSubscription,
    parse_positions,
    parse_streams,
    parse_types,
    short_name,
)
from memory.follower import Follower
from memory.keys import GRAPH_STREAM, TASKS_STREAM
from memory.subscriptions import Dropped, Places, Subscription
from serving.auth import Owner
from serving.dependencies import OpenFanOut
from serving.frames import DROP_GRACE_S, FollowResponse, encode_frame, encode_sse, frame_of
from serving.problems import problem, status_of
from serving.websocket_entry import PROTOCOL, check_origin, owner_by_message, owner_of

router = APIRouter(tags=["events"])
alone = APIRouter(tags=["health"])
"""``GET /health`` of a process that is the mux and nothing else."""

DEFAULT_STREAMS = ",".join(map(short_name, (GRAPH_STREAM, TASKS_STREAM)))
MAX_TASK_ID_CHARS = 200
TOO_SLOW = 1013
"""Close code «try again later» (IANA, WebSocket Close Code Number Registry)."""

STREAMS = Query(description="graph_stream, tasks, planner_log, passages, logs; several separated by commas.")
TYPES = Query(description="Only these types, such as node.add,edge.add or task.*; none: all.")
AFTER = Query(description="Begin after this id, or these (graph_stream=17-0,tasks=16-3); 0: the beginning, $: now.")
ENRICH = Query(description="With the titles of an edge's ends, the worker, its host, and lag_ms.")


@router.get("/events/stream", responses={200: {"content": {"text/event-stream": {}}}}, response_class=StreamingResponse)
async def stream(
    request: Request,
    owner: Owner,
    fan_out: OpenFanOut,
    streams: Annotated[str, STREAMS] = DEFAULT_STREAMS,
    types: Annotated[str, TYPES] = "",
    task_id: Annotated[str | None, Query(max_length=MAX_TASK_ID_CHARS, description="Only this task's.")] = None,
    after: Annotated[str, AFTER] = "$",
    enrich: Annotated[bool, ENRICH] = False,
    last_event_id: Annotated[str | None, Header(description="Goes before `after`: sent by who reconnects.")] = None,
) -> Response:
    """The caller's events as SSE, as they come. Each has a place in every stream as its id, so that a client resumes.

    Besides events of the streams there are ``gap`` (something before ``first`` may be missing) and ``dropped`` (the
    client was too slow, or the server stops; connect again with the id to resume).
    """
    wanted = Filter(allowed_streams(streams, owner, request.state.api_keys), owner, parse_types(types), task_id)
    places = parse_positions(last_event_id or after, wanted.streams, _missing(after))
    return await respond(fan_out, Subscription(wanted, encode_sse, enrich), places)


async def respond(fan_out: FanOut, subscription: Subscription, places: Places, **options: Any) -> FollowResponse:
    """Follow as SSE; ``options`` go to ``FollowResponse``.

    Raises:
        HTTPException: 503, when Redis does not answer.
    """
    await reachable(fan_out)
    return FollowResponse(fan_out.follow(subscription, places), **options)


async def reachable(fan_out: FanOut) -> None:
    """Say at once that nothing can be told.

    Raises:
        HTTPException: 503, when Redis does not answer.
    """
    try:
        await fan_out.backlog.last_id(GRAPH_STREAM)
    except (RedisError, OSError) as error:
        raise HTTPException(503, "Redis does not answer now; connect again", {"Retry-After": "1"}) from error


def allowed_streams(text: str, owner: str, keys: Mapping[str, str]) -> tuple[str, ...]:
    """The streams of a request.

    Raises:
        InvalidSubscription: one does not exist.
        HTTPException: 403, for the log where several owners have keys: it tells of all of them.
    """
    streams = parse_streams(text)
    if LOGS_STREAM in streams and len({*keys.values(), owner}) > 1:
        raise HTTPException(403, "the log tells of every owner; it is open where all keys belong to one owner")
    return streams


def _missing(after: str) -> str:
    """Where a stream begins that a resuming client had not followed before."""
    return after if "=" not in after else "$"


@router.websocket("/ws")
async def connect(websocket: WebSocket) -> None:
    """The same as JSON frames: ``{"events": […], "position": "…"}``, ``live``, ``heartbeat``, ``gap``, ``dropped``.

    Takes the parameters of ``GET /events/stream``. The key comes in a header, as the subprotocol
    ``lumina.key.<base64url>`` beside ``lumina.v1``, or in a first message ``{"key": "…"}``; never in the address.
    """
    state = websocket.state
    keys: Mapping[str, str] = state.api_keys
    try:
        check_origin(websocket, state.cors_origins, keys=bool(keys))
        owner = owner_of(websocket, keys, state.default_owner)
        _subscription(websocket, owner or "", {})
        await reachable(state.fan_out)
    except HTTPException as error:
        await websocket.send_denial_response(problem(error.status_code, "refused", str(error.detail)))
        return
    except LuminaError as error:
        await websocket.send_denial_response(problem(status_of(error), type(error).__name__, str(error)))
        return
    await websocket.accept(PROTOCOL if PROTOCOL in websocket.scope.get("subprotocols", ()) else None)
    owner = owner or await owner_by_message(websocket, keys)
    if owner is None:
        return
    try:
        subscription, places = _subscription(websocket, owner, keys)
    except HTTPException as error:
        await websocket.close(1008, str(error.detail))
        return
    await _serve(websocket, state.fan_out, subscription, places)


def _subscription(websocket: WebSocket, owner: str, keys: Mapping[str, str]) -> tuple[Subscription, dict[str, str]]:
    given = websocket.query_params
    if unknown := set(given) - {"streams", "types", "task_id", "after", "enrich"}:
        name = min(unknown)[:60]
        raise InvalidSubscription(f"«{name}» is no parameter; accepted: streams, types, task_id, after, enrich")
    enrich = given.get("enrich", "0")
    if enrich not in ("0", "1", "true", "false"):
        raise InvalidSubscription(f"enrich «{enrich[:60]}» is neither 1 nor 0")
    task_id = given.get("task_id")
    if task_id is not None and len(task_id) > MAX_TASK_ID_CHARS:
        raise InvalidSubscription(f"task_id has {len(task_id)} characters; accepted: {MAX_TASK_ID_CHARS}")
    streams = allowed_streams(given.get("streams", DEFAULT_STREAMS), owner, keys)
    wanted = Filter(streams, owner, parse_types(given.get("types", "")), task_id)
    after = given.get("after", "$")
    places = parse_positions(after, streams, _missing(after))
    return Subscription(wanted, encode_frame, enrich in ("1", "true")), places


async def _serve(websocket: WebSocket, fan_out: FanOut, subscription: Subscription, places: Places) -> None:
    async with fan_out.follow(subscription, places) as follower:
        sending = asyncio.create_task(_send(websocket, follower))
        gone = asyncio.create_task(_listen(websocket))

        def dropped() -> None:
            asyncio.get_running_loop().call_later(DROP_GRACE_S, sending.cancel)

        follower.on_drop = dropped
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.wait({sending, gone})
        if not sending.cancelled():
            sending.result()
        elif gone.cancelled():
            logger.warning("a WebSocket client was dropped: it took nothing for {:g} s", DROP_GRACE_S)


async def _send(websocket: WebSocket, follower: Follower) -> None:
    with contextlib.suppress(WebSocketDisconnect, OSError):  # the client went while it was being told
        async with aclosing(aiter(follower)) as pieces:
            async for told in pieces:
                await websocket.send_text(frame_of(told))
                if isinstance(told, Dropped):
                    await websocket.close(TOO_SLOW, told.reason[:100])
                    return


async def _listen(websocket: WebSocket) -> None:
    """Until the client goes; what it says is not listened to."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


@alone.get("/health")
async def health(fan_out: OpenFanOut) -> dict[str, Any]:
    """``ok`` while the streams can be read, and which are told by default."""
    return await look_at(fan_out)


async def look_at(fan_out: FanOut) -> dict[str, Any]:
    """The body of the mux's own ``GET /health``."""
    try:
        await reachable(fan_out)
        well = fan_out.reading
    except HTTPException:
        well = False
    return {"status": "ok" if well else "degraded", "streams": DEFAULT_STREAMS.split(",")}
