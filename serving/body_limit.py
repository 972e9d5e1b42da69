"""A route that reads no more of a body than it would take."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Message

MAX_BODY_BYTES = 8_000_000
"""A thousand nodes with eight kilobytes each."""


class LimitedRoute(APIRoute):
    """Answers 413 to a longer body, as soon as that is known."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with a request that stops at the limit."""
        handle = super().get_route_handler()

        async def limited(request: Request) -> Response:
            _check(int(length) if (length := request.headers.get("content-length", "0")).isdecimal() else 0)
            read = 0

            async def receive() -> Message:
                nonlocal read
                message = await request.receive()
                read += len(message.get("body", b""))
                _check(read)
                return message

            return await handle(Request(request.scope, receive))

        return limited


def _check(size: int) -> None:
    if size > MAX_BODY_BYTES:
        raise HTTPException(413, f"the body is longer than {MAX_BODY_BYTES} bytes; send it in several requests")
