"""``/openapi.json`` and ``/docs``: every route with its errors, on a page that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from errors import LuminaError


class DocsMissing(LuminaError):
    """The package that carries Swagger UI is not installed."""


PROBLEM = {
    "title": "Problem",
    "description": "What went wrong and what is accepted (RFC 9457). A kind of error may have members of its own.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "request_id": {"type": "string", "description": "In a 5xx: under this the log has the details."},
        "errors": {"type": "array", "items": {"type": "object"}, "description": "In a 422: each field."},
        "agent": {"type": "string", "description": "In a 429: the agent that has to be waited for."},
        "retry_after_s": {"type": "number", "description": "In a 429: how long, exactly."},
    },
}

_RETRY_AFTER = {"description": "Whole seconds, rounded up.", "schema": {"type": "integer", "minimum": 0}}
_LIMIT_HEADERS = {
    name: {"description": "draft-ietf-httpapi-ratelimit-headers-10", "schema": {"type": "string"}}
    for name in ("RateLimit", "RateLimit-Policy")
}

ERRORS: dict[str, dict[str, Any]] = {
    "401": {"description": "No key, or an unknown one."},
    "422": {"description": "A field does not fit."},
    "429": {"description": "A rate limit.", "headers": {"Retry-After": _RETRY_AFTER, **_LIMIT_HEADERS}},
    "4XX": {"description": "The request cannot be served as it is."},
    "5XX": {"description": "Something broke here, or a service that is needed is down."},
}
"""What every route may answer, beside what it documents itself."""

POLICY = (
    "default-src 'none'; script-src 'self' {script}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI sets styles in its elements and has pictures in its style sheet; its inline script goes by its hash."""


def install(app: FastAPI, *, with_keys: bool) -> None:
    """Describe the application's errors, and serve Swagger UI from the package that carries its files.

    Args:
        app: The application.
        with_keys: Whether keys are set; where they are not, no route is described as needing one.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
            app.openapi_schema = _with_errors(schema if with_keys else _without_keys(schema))
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend its schema

    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "").rstrip("/")
        page = get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title="Lumina: the routes",
            swagger_js_url=f"{root}/docs/files/swagger-ui-bundle.js",
            swagger_css_url=f"{root}/docs/files/swagger-ui.css",
            swagger_favicon_url=f"{root}/docs/files/favicon-32x32.png",
        )
        page.headers["Content-Security-Policy"] = POLICY.format(script=_hashes(bytes(page.body).decode()))
        return page

    app.add_api_route("/docs", docs, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/docs/files", StaticFiles(directory=_swagger_files()), name="docs")


def _with_errors(schema: dict[str, Any]) -> dict[str, Any]:
    schemas = schema.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = PROBLEM
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for operations in schema.get("paths", {}).values():
        for operation in operations.values():
            responses = operation["responses"]
            content = responses.get("429", {}).get("content", problem)  # a route may have a form of its own for errors
            if responses.get("422", {}).get("description") == "Validation Error":  # FastAPI's own, which is not sent
                del responses["422"]
            for status, response in ERRORS.items():
                if status != "401" or "security" in operation:
                    responses.setdefault(status, {**response, "content": content})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return schema


def _without_keys(schema: dict[str, Any]) -> dict[str, Any]:
    schema.get("components", {}).pop("securitySchemes", None)
    for operations in schema.get("paths", {}).values():
        for operation in operations.values():
            operation.pop("security", None)
    return schema


def _hashes(page: str) -> str:
    """The inline scripts of a page as sources of a Content-Security-Policy."""
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def _swagger_files() -> Path:
    """Where the package ``fastapi-swagger`` has Swagger UI; none of its code is run."""
    spec = find_spec("fastapi_swagger")
    if spec is None or spec.origin is None:
        raise DocsMissing("fastapi-swagger is not installed, and /docs needs its files; install as the README says")
    return Path(spec.origin).parent / "resources"
