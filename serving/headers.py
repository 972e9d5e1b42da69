"""What every answer carries: its request id, the headers that keep browsers careful, and what its route adds."""

from __future__ import annotations

import re
import uuid

from loguru import logger
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID = "X-Request-Id"
ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
"""Request ids of clients that are taken over; any other gets a new one, for it will stand in logs and headers."""

CAREFUL = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}

EXPOSED = ("Location", "RateLimit", "RateLimit-Policy", "Retry-After", REQUEST_ID)
"""Headers of answers that a page of another origin may read, where CORS lets it read the answer."""


class AnswerHeaders:
    """Names each request and sends its headers.

    The id is in the state of the request (``request_id``) and bound into the log. A route adds headers of its own, also
    to an error that it raises, by ``add``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if ACCEPTED_ID.fullmatch(given) else uuid.uuid4().hex
        added: dict[str, str] = {}
        scope.setdefault("state", {}).update(request_id=request_id, answer_headers=added)

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                message.setdefault("headers", [])
                headers = MutableHeaders(scope=message)
                for name, value in CAREFUL.items():
                    headers.setdefault(name, value)
                headers[REQUEST_ID] = request_id
                headers.update(added)
            await send(message)

        with logger.contextualize(request_id=request_id):
            await self._app(scope, receive, send_with_headers)


def add(scope: Scope, headers: dict[str, str]) -> None:
    """Send these with the answer to a request, whatever it will be."""
    scope.setdefault("state", {}).setdefault("answer_headers", {}).update(headers)


def request_id_of(scope: Scope) -> str:
    """The id of a request; empty where nobody has named it."""
    return str(scope.get("state", {}).get("request_id", ""))
