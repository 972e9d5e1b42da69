"""How the routes under ``/v1`` stand in the OpenAPI document, and how their JSON is written."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json
from starlette.responses import Response

from serving.openai.wire import ChatRequest, EmbeddingsRequest


class ErrorBody(BaseModel):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorDocument(BaseModel):
    """What every refusal under ``/v1`` looks like."""

    error: ErrorBody


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorDocument, "description": "Something in the request is not accepted."},
    401: {"model": ErrorDocument, "description": "No API key, or an unknown one."},
    404: {"model": ErrorDocument, "description": "No such model."},
    413: {"model": ErrorDocument, "description": "Too long."},
    422: {"description": "Not used: OpenAI's API says 400."},
    429: {"model": ErrorDocument, "description": "Too many requests, or the budget is used up."},
    500: {"model": ErrorDocument, "description": "Something went wrong here."},
    503: {"model": ErrorDocument, "description": "No chat model answers."},
}


def json_reply(document: Any, headers: dict[str, str] | None = None) -> Response:
    """A JSON response."""
    return Response(to_json(document), media_type="application/json", headers=headers)


def _body(kind: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    schema = kind.model_json_schema()
    parts = schema.pop("$defs", {})

    def inline(value: Any) -> Any:
        """References point into the schema itself, which has no address of its own in the OpenAPI document."""
        if isinstance(value, list):
            return [inline(one) for one in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return inline(parts[value["$ref"].rpartition("/")[2]])
        return {key: inline(one) for key, one in value.items()}

    content = {"application/json": {"schema": inline(schema), "example": example}}
    return {"requestBody": {"required": True, "content": content}}


CHAT = _body(
    ChatRequest,
    {
        "model": "lumina",
        "messages": [{"role": "user", "content": "Who proved that the Mandelbrot set is connected?"}],
        "stream": True,
    },
)
EMBEDDINGS = _body(EmbeddingsRequest, {"model": "all-MiniLM-L6-v2", "input": ["The Mandelbrot set is connected."]})
