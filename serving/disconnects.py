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
    """Only the watch has a task of its own: the work begins at once, and its answer waits for no other turn."""
    try:
        async with asyncio.timeout(None) as limit:
            watching = asyncio.create_task(_expire_when_gone(limit, receive))
            try:
                return await work
            finally:
                watching.cancel()
    except TimeoutError:
        if limit.expired():
            raise ClientDisconnect from None
        raise


async def _expire_when_gone(limit: asyncio.Timeout, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    limit.reschedule(asyncio.get_running_loop().time())
