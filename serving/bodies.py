"""How large a request may be, and how long it may take to arrive."""

from __future__ import annotations

import asyncio
import time

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.problems import problem

ARRIVAL_S = 30.0
"""How long a whole body may take: a megabyte over a slow line (0.3 Mbit/s)."""
MAX_HEADER_BYTES = 16_384
"""Names and values of all headers together; what other servers take in by default is 8 to 32 KiB."""


class RequestLimits:
    """Answers 431 to large headers, 413 to a large body (also one without Content-Length), 408 to a slow one."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, arrival_s: float = ARRIVAL_S) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._arrival_s = arrival_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        size = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        if size > MAX_HEADER_BYTES:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1009})
                return
            detail = f"the headers have {size} bytes; accepted: up to {MAX_HEADER_BYTES}"
            await problem(431, "Headers too large", detail)(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared[:20]) > self._max_body_bytes:
            await problem(413, "Body too large", self._too_large())(scope, receive, send)
            return
        limited = self._limited(receive) if scope["type"] == "http" else receive
        await self._app(scope, limited, send)

    def _limited(self, receive: Receive) -> Receive:
        arrived, complete = 0, False
        deadline = time.monotonic() + self._arrival_s

        async def receive_limited() -> Message:
            nonlocal arrived, complete
            if complete:  # what comes now is that the client has gone, whenever that is
                return await receive()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                detail = f"the body did not arrive within {self._arrival_s:g} s; send it again"
                raise HTTPException(408, detail, headers={"Connection": "close"}) from None
            if message["type"] == "http.request":
                arrived += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if arrived > self._max_body_bytes:
                    raise HTTPException(413, self._too_large(), headers={"Connection": "close"})
            return message

        return receive_limited

    def _too_large(self) -> str:
        return f"the body is too large; accepted: up to {self._max_body_bytes} bytes (MAX_BODY_BYTES)"
