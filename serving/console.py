"""The web console: ``ui/index.html`` at ``/``, its files under ``/ui``, and headers that let it load nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

UI = Path(__file__).resolve().parents[1] / "ui"

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""No other host, no inline script, no frame around it; a browser asks whether a file is still the same."""

FRESH = {**HEADERS, "Cache-Control": "no-store"}
"""For who changes the files: a browser keeps none of them."""


class _Files(StaticFiles):
    """Files with the console's headers."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(directory=UI)
        self._headers = headers

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(self._headers)
        return response


def install(app: FastAPI, headers: dict[str, str] = HEADERS) -> None:
    """Serve the console. The page itself needs no key: it asks for one when the routes that it uses do."""

    async def index() -> FileResponse:
        return FileResponse(UI / "index.html", headers=headers)

    app.add_api_route("/", index, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/ui", _Files(headers), name="ui")
