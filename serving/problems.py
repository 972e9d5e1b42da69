"""Errors over HTTP: RFC 9457 problem details on Lumina's own routes."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from loguru import logger
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from agents.crawl import UnknownTopic
from errors import LuminaError
from graphs.runs import InvalidRequest, RunExists
from graphs.tasks import InvalidTask
from memory.conversations import UnknownConversation
from memory.event_queries import InvalidQuery
from memory.task_records import UnknownTask
from models.fallback import NoModelAnswers
from tools.wikipedia.source import SourceUnavailable

STATUS: dict[type[LuminaError], int] = {
    InvalidRequest: 422,
    InvalidTask: 422,
    RunExists: 409,
    InvalidQuery: 422,
    UnknownTopic: 404,
    UnknownConversation: 404,
    UnknownTask: 404,
    SourceUnavailable: 503,
    NoModelAnswers: 503,
}
"""HTTP status by error; everything else that Lumina can explain is a 500 without a trace."""


class Problem(JSONResponse):
    """A response of type ``application/problem+json``."""

    media_type = "application/problem+json"


def problem(status: int, title: str, detail: str, **extra: Any) -> Problem:
    """Problem details: ``type``, ``title``, ``status``, ``detail``, and whatever else helps."""
    return Problem({"type": "about:blank", "title": title, "status": status, "detail": detail, **extra}, status)


def status_of(error: LuminaError) -> int:
    """The HTTP status that an error stands for."""
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


def _shown(given: Any) -> Any:
    """What was given, or how Python writes it where JSON cannot: NaN, and half of a surrogate pair."""
    try:
        json.dumps(given, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        return ascii(given)[:200]
    return given


def install(app: FastAPI) -> None:
    """Make every error of the application a problem document."""

    async def explained(request: Request, error: Exception) -> Response:
        assert isinstance(error, LuminaError)
        return problem(status_of(error), type(error).__name__, str(error))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        answer = problem(error.status_code, "HTTP error", str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = [{"at": list(e["loc"]), "message": e["msg"], "given": _shown(e.get("input"))} for e in error.errors()]
        detail = "; ".join(f"{'.'.join(map(str, e['at'][1:]))}: {e['message']}" for e in errors)
        return problem(422, "Invalid request", detail, errors=errors)

    async def unexpected(request: Request, error: Exception) -> Response:
        logger.opt(exception=error).error("{} {} failed", request.method, request.url.path)
        return problem(500, "Internal error", "something went wrong here; the log has the details")

    app.add_exception_handler(LuminaError, explained)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unexpected)
