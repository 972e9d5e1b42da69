"""Ending the work for a client that went away, at once and not at the next byte."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

Result = TypeVar("Result")


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What the work returns; it is cancelled when the client closes the connection. The body must have been read.

    Raises:
        ClientDisconnect: the client is gone.
    """
    return await _race(work, request.receive)


class WatchedStream(StreamingResponse):
    """A stream whose source is cancelled when the client goes away, also while it has nothing to say.

    Args:
        after: Called when the stream has ended, whichever way, after its last byte was sent.
    """

    def __init__(self, *args: Any, after: Callable[[], None] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, as an ASGI application."""
        try:
            await _race(self.stream_response(send), receive)
        except ClientDisconnect:
            pass
        finally:
            close = getattr(self.body_iterator, "aclose", None)
            if close:
                await close()
            if self._after:
                self._after()


async def _race(work: Coroutine[Any, Any, Result], receive: Receive) -> Result:
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        for task in (working, watching):
            if not task.done():
                task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
