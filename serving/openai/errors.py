"""Errors as OpenAI's clients read them: ``{"error": {message, type, param, code}}``, with OpenAI's codes."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from errors import LuminaError
from graphs.limits import RateLimited
from graphs.runs import InvalidRequest
from memory.conversations import InvalidTurn, UnknownConversation
from models.budget import BudgetExceeded
from models.completions import RequestRefused
from models.embedding_engine import EmbeddingFailed
from models.fallback import NoModelAnswers
from serving.limits import refusal_headers
from serving.problems import Problem, status_of

PREFIX = "/v1"
NO_RETRY = {"x-should-retry": "false"}
"""Heeded by the official clients, which else repeat a 429 or a 500 twice."""
ROUTES = "POST /v1/chat/completions, GET /v1/models, GET /v1/models/{model}, POST /v1/embeddings"


class OpenAIError(LuminaError):
    """A request that is refused, in OpenAI's words."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type_: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.type, self.param, self.code = type_, param, code

    def body(self) -> dict[str, Any]:
        """The error document."""
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The same with its status."""
        return JSONResponse(self.body(), self.status, self.headers)


def unsupported(param: str, model: str, *, instead: str = "") -> OpenAIError:
    """A parameter that a model does not have."""
    text = f"Unsupported parameter: '{param}' is not supported with the model '{model}'."
    return OpenAIError(f"{text} {instead}".strip(), param=param, code="unsupported_parameter")


def unknown_model(model: str) -> OpenAIError:
    """A model that is not there."""
    text = f"The model '{model[:200]}' does not exist or you do not have access to it. GET /v1/models lists them."
    return OpenAIError(text, status=404, param="model", code="model_not_found")


def translate(error: LuminaError) -> OpenAIError:
    """The nearest thing that OpenAI's API would say."""
    text = str(error)
    match error:
        case OpenAIError():
            return error
        case RequestRefused():
            given = error.error
            return OpenAIError(
                str(given.get("message") or text),
                type_=str(given.get("type") or "invalid_request_error"),
                param=given.get("param") if isinstance(given.get("param"), str) else None,
                code=str(given["code"]) if given.get("code") is not None else None,
                status=413 if error.status == 413 else 400,
            )
        case BudgetExceeded():
            return OpenAIError(
                text, status=429, type_="insufficient_quota", code="insufficient_quota", headers=NO_RETRY
            )
        case RateLimited():
            headers = refusal_headers(error)
            return OpenAIError(text, status=429, type_="requests", code="rate_limit_exceeded", headers=headers)
        case NoModelAnswers():
            return OpenAIError(text, status=503, type_="server_error", code="no_model_answers")
        case EmbeddingFailed():
            return OpenAIError(text, param="input", code="invalid_value")
        case UnknownConversation():
            return OpenAIError(text, param="metadata.conversation_id", code="invalid_value")
        case InvalidRequest() | InvalidTurn():
            return OpenAIError(text, param="messages", code="invalid_value")
    status = status_of(error)
    if status < 500:
        return OpenAIError(text, status=400 if status == 422 else status)
    return OpenAIError(text, status=status, type_="server_error", code=_snake(type(error).__name__))


def invalid(errors: Sequence[Mapping[str, Any]]) -> OpenAIError:
    """What Pydantic found, as OpenAI says it: the first problem, with its parameter and its code."""
    first = errors[0]
    param = _path(first["loc"]) or None
    kind, context = str(first["type"]), first.get("ctx") or {}
    if kind in ("json_invalid", "model_attributes_type", "model_type", "dict_type") and param is None:
        return bad_json()
    if kind == "missing":
        return OpenAIError(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    return OpenAIError(
        f"Invalid value for '{param}': {_reason(kind, str(first['msg']), context)}",
        param=param,
        code=_code(kind, first),
    )


def bad_json() -> OpenAIError:
    """A body that is no JSON object."""
    return OpenAIError(
        "We could not parse the JSON body of your request: a JSON object in UTF-8 is expected, as "
        "«Content-Type: application/json»."
    )


def _path(place: Sequence[int | str]) -> str:
    """``("messages", 0, "role")`` → ``messages[0].role``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def _reason(kind: str, message: str, context: Mapping[str, Any]) -> str:
    if kind == "literal_error":
        return f"supported values are {context['expected']}."
    return f"{message[0].lower()}{message[1:]}." if message else "it is not accepted."


def _code(kind: str, error: Mapping[str, Any]) -> str:
    given = error.get("input")
    number = "integer" if isinstance(given, int) else "decimal"
    if kind in ("greater_than", "greater_than_equal"):
        return f"{number}_below_min_value"
    if kind in ("less_than", "less_than_equal"):
        return f"{number}_above_max_value"
    codes = {
        "too_long": "array_above_max_length",
        "too_short": "empty_array",
        "string_too_long": "string_above_max_length",
        "string_too_short": "empty_string",
    }
    if kind in codes:
        return codes[kind]
    return "invalid_type" if kind.endswith(("_type", "_parsing", "_from_float")) else "invalid_value"


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


Handler = Callable[[Request, Exception], Awaitable[Response]]


def install(app: FastAPI) -> None:
    """Answer errors below ``/v1`` in OpenAI's form; elsewhere the handlers that are there already go on to."""

    async def lumina(request: Request, error: Exception) -> Response:
        assert isinstance(error, LuminaError)
        return translate(error).response()

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _http(request, error).response()

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return invalid([{**one, "loc": one["loc"][1:]} for one in error.errors()]).response()

    own: list[tuple[type[Exception], Handler]] = [
        (LuminaError, lumina),
        (HTTPException, http),
        (RequestValidationError, refused),
    ]
    for kind, handler in own:
        app.add_exception_handler(kind, _below_v1(handler, app.exception_handlers[kind]))


def _below_v1(own: Handler, others: Any) -> Handler:
    async def handle(request: Request, error: Exception) -> Response:
        response: Response = await (own if is_below(request.url.path) else others)(request, error)
        return response

    return handle


def is_below(path: str) -> bool:
    """Whether a path is one of OpenAI's."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


class OpenAIErrors:
    """Puts the errors of what lies around the routes (limits of a body, guards, faults) into OpenAI's form."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or not is_below(scope["path"]):
            await self._app(scope, receive, send)
            return
        held: Message | None = None
        body = bytearray()

        async def translated(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "") == Problem.media_type:
                    held = message
                    return
            if held is None:
                await send(message)
                return
            body.extend(message.get("body", b""))
            if not message.get("more_body", False):
                await _from_problem(held, json.loads(body))(scope, receive, send)

        await self._app(scope, receive, translated)


def _from_problem(start: Message, document: dict[str, Any]) -> JSONResponse:
    status, kept = start["status"], MutableHeaders(scope=start)
    del kept["content-length"], kept["content-type"]
    type_ = "server_error" if status >= 500 else "invalid_request_error"
    headers = {**kept, **(NO_RETRY if status >= 500 else {})}
    return OpenAIError(document["detail"], status=status, type_=type_, headers=headers).response()


def _http(request: Request, error: HTTPException) -> OpenAIError:
    method, path = request.method, request.url.path
    headers = dict(error.headers or {})
    match error.status_code:
        case 401:
            given = request.headers.get("authorization") or request.headers.get("x-api-key")
            text = "Incorrect API key provided." if given else "You didn't provide an API key."
            text += " Send one of LUMINA_API_KEYS as «Authorization: Bearer …»."
            return OpenAIError(text, status=401, code="invalid_api_key", headers=headers)
        case 404:
            text = f"Unknown request URL: {method} {path}. There are: {ROUTES}."
            return OpenAIError(text, status=404, code="unknown_url")
        case 405:
            text = f"Not allowed to {method} on {path}. There are: {ROUTES}."
            return OpenAIError(text, status=405, code="method_not_supported", headers=headers)
        case 429:
            return OpenAIError(
                str(error.detail), status=429, type_="requests", code="rate_limit_exceeded", headers=headers
            )
    return OpenAIError(
        str(error.detail), status=400 if error.status_code == 422 else error.status_code, headers=headers
    )
