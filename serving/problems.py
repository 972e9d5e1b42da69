"""Errors over HTTP: RFC 9457 problem details on Lumina's own routes."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from loguru import logger
from redis.exceptions import ConnectionError, TimeoutError
from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agents.walk import UnknownTopic
from errors import LuminaError
from graphs.limits import RateLimited
from graphs.runs import InvalidRequest, RunExists
from graphs.tasks import InvalidTask, KeyUsed
from memory.conversations import InvalidTurn, UnknownConversation
from memory.event_queries import InvalidQuery
from memory.followed import InvalidSubscription
from memory.graph import InvalidEdge, InvalidNeighbourhood, InvalidNode, UnknownNode
from memory.run_log import EventsGone, UnknownRun
from memory.task_records import TaskNotRetryable, UnknownTask
from models.fallback import NoModelAnswers
from serving.headers import request_id_of
from serving.limits import refusal_headers, refusal_members
from tools.wikipedia.source import SourceUnavailable

STATUS: dict[type[LuminaError], int] = {
    InvalidRequest: 422,
    InvalidTask: 422,
    RateLimited: 429,
    RunExists: 409,
    InvalidQuery: 422,
    InvalidNode: 422,
    InvalidEdge: 422,
    InvalidNeighbourhood: 422,
    UnknownNode: 404,
    InvalidSubscription: 422,
    UnknownTopic: 404,
    UnknownConversation: 404,
    UnknownTask: 404,
    UnknownRun: 404,
    EventsGone: 410,
    InvalidTurn: 422,
    TaskNotRetryable: 409,
    KeyUsed: 422,
    SourceUnavailable: 503,
    NoModelAnswers: 503,
}
"""HTTP status by error; everything else that Lumina can explain is a 500 without a trace."""

_SHOWN_CHARACTERS = 2_000
_SHOWN_ERRORS = 20
"""How much of a wrong request its answer repeats."""


INTERNAL = "something went wrong here; the log has the details under the request id"

WITHOUT_REDIS = "everything is kept in Redis, and it does not answer now; GET /health says why, try again later"


class Problem(JSONResponse):
    """A response of type ``application/problem+json``."""

    media_type = "application/problem+json"

    def render(self, content: Any) -> bytes:
        """ASCII, for a client's own words may stand in it, and these need not be valid Unicode."""
        return json.dumps(content, separators=(",", ":"), default=str).encode()


def problem(status: int, title: str, detail: str, **extra: Any) -> Problem:
    """Problem details: ``type``, ``title``, ``status``, ``detail``, and whatever else helps."""
    return Problem({"type": "about:blank", "title": title, "status": status, "detail": detail, **extra}, status)


def status_of(error: LuminaError) -> int:
    """The HTTP status that an error stands for."""
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


def _shown(value: Any) -> Any:
    """What was given, as it is when it is short and JSON, else the beginning of its text."""
    try:
        short = len(json.dumps(value, allow_nan=False)) <= _SHOWN_CHARACTERS
    except (TypeError, ValueError):
        short = False
    except RecursionError:
        return "(nested too deeply to be shown)"
    return value if short else f"{value!r:.200}…"


def install(app: FastAPI) -> None:
    """Make every error of the application a problem document."""

    async def explained(request: Request, error: Exception) -> Response:
        assert isinstance(error, LuminaError)
        if isinstance(error, RateLimited):
            answer = problem(429, "Too many requests", str(error), **refusal_members(error))
            answer.headers.update(refusal_headers(error))
            return answer
        status = status_of(error)
        if status == 500:
            logger.error("{} {} failed: {}", request.method, request.url.path, error)
        return problem(status, type(error).__name__, str(error), **_traced(request.scope, status))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status = error.status_code
        title, headers = _phrase(status), dict(error.headers or {})
        if status == 405:
            headers["Allow"] = _allowed(request)
        detail = _explained(request, headers.get("Allow")) if error.detail == title else str(error.detail)
        answer = problem(status, title, detail, **_traced(request.scope, status))
        answer.headers.update(headers)
        return answer

    async def without_redis(request: Request, error: Exception) -> Response:
        logger.error("{} {} failed: {}", request.method, request.url.path, error)
        answer = problem(503, "Redis does not answer", WITHOUT_REDIS, **_traced(request.scope, 503))
        answer.headers["Retry-After"] = "5"
        return answer

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        found = error.errors()
        if found and found[0]["type"] == "json_invalid":
            where = f"{found[0]['ctx']['error']} at character {found[0]['loc'][1]}"
            return problem(400, "Invalid JSON", f"the body is no valid JSON: {where}")
        if any(e["loc"] == ("body",) for e in found) and (sent := await request.body()):
            given = request.headers.get("content-type", "none")[:100]
            if not _is_json(given):
                detail = f"{len(sent)} bytes came with the Content-Type {given}; send JSON as application/json"
                return problem(415, "Unsupported media type", detail)
        errors = [{"at": list(e["loc"]), "message": e["msg"], "given": _short(e.get("input"))} for e in found]
        detail = "; ".join(f"{'.'.join(map(str, e['at'][1:])) or e['at'][0]}: {e['message']}" for e in errors)
        return problem(422, "Invalid request", detail[:_SHOWN_CHARACTERS], errors=errors[:_SHOWN_ERRORS])

    app.add_exception_handler(LuminaError, explained)
    app.add_exception_handler(HTTPException, http)
    for unreachable in (ConnectionError, TimeoutError):
        app.add_exception_handler(unreachable, without_redis)
    app.add_exception_handler(RequestValidationError, invalid)


class Faults:
    """Answers 500 when something breaks that nobody foresaw: to the client the request's id, to the log the trace."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watch(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception as error:  # the outermost frame of a request
            id_ = request_id_of(scope)
            logger.opt(exception=error).error("{} {} failed, request {}", scope["method"], scope["path"], id_)
            if begun:  # the connection must break off, or the client would take what it has for the whole
                raise
            answer = problem(500, "Internal error", INTERNAL, **_traced(scope, 500))
            await answer(scope, receive, send)


def _traced(scope: Scope, status: int) -> dict[str, str]:
    """What leads from an answer to the log."""
    return {"request_id": request_id_of(scope)} if status >= 500 else {}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "HTTP error"


def _allowed(request: Request) -> str:
    """The methods of every route with this path; the framework tells those of the first only."""
    methods: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        pattern: re.Pattern[str] | None = getattr(route, "path_regex", None)
        if pattern and pattern.match(get_route_path(request.scope)):
            methods |= route.methods or set()
    return ", ".join(sorted(methods))


def _explained(request: Request, allowed: str | None) -> str:
    """What to do about an error of the framework's, which only has its status as a text."""
    path = request.url.path[:200]
    if allowed:
        return f"{request.method} is not possible on {path}; accepted: {allowed}"
    return f"there is nothing at {path}; GET /docs lists the routes"


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _short(value: Any) -> Any:
    """What was given, where that is a simple value that JSON has; else its beginning in words."""
    if value is None or isinstance(value, bool | int):
        return value
    try:
        text = value if isinstance(value, str) else repr(value)
    except RecursionError:
        return "(nested too deeply to be shown)"
    return text if len(text) <= 200 else f"{text[:200]}…"
