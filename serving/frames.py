"""What followers are sent: server-sent events (WHATWG HTML, 9.2) and the JSON frames of the WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import asdict
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from memory.backlog import Gap
from memory.followed import Followed, format_positions, short_name
from memory.follower import Follower
from memory.subscriptions import CaughtUp, Dropped, Notice, Places, Silence, Told

DROP_GRACE_S = 30.0
"""How long a client that was dropped may take to receive what is on its way and the reason."""
SSE_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_PLAIN = re.compile(r"[\w.:-]{1,100}")


def encode_sse(entries: Sequence[Followed], before: Places, after: Places, enriched: bool) -> str:
    """Each event as one of ``event``, ``data`` and ``id``; the id is a place in every stream, so that each resumes."""
    places = dict(before)
    blocks = []
    for entry in entries:
        places[entry.stream] = entry.id
        kind = entry.event.type if _PLAIN.fullmatch(entry.event.type) else "message"
        blocks.append(f"event: {kind}\ndata: {entry.text(enriched=enriched)}\nid: {format_positions(places)}\n\n")
    return "".join(blocks)


def encode_frame(entries: Sequence[Followed], before: Places, after: Places, enriched: bool) -> str:
    """One frame with all of the events, and the place after them in every stream."""
    texts = ",".join([entry.text(enriched=enriched) for entry in entries])
    return f'{{"events":[{texts}],"position":"{format_positions(after)}"}}'


def sse_of(told: Notice) -> str:
    """What a follower is told as SSE; a silence is a comment with the place that was reached."""
    match told:
        case Told():
            return told.payload
        case Gap():
            return f"event: gap\ndata: {json.dumps(_gap(told), ensure_ascii=False)}\n\n"
        case Silence():
            return f": keep-alive\nid: {format_positions(told.places)}\n\n"
        case CaughtUp():
            return f": live\nid: {format_positions(told.places)}\n\n"
        case Dropped():
            place = format_positions(told.places)
            data = json.dumps({"reason": told.reason, "resume": place}, ensure_ascii=False)
            return f"event: dropped\ndata: {data}\nid: {place}\n\n"


def frame_of(told: Notice) -> str:
    """The same as a JSON frame."""
    match told:
        case Told():
            return told.payload
        case Gap():
            return _frame(gap=_gap(told))
        case Silence():
            return _frame(heartbeat=True, position=format_positions(told.places))
        case CaughtUp():
            return _frame(live=True, position=format_positions(told.places))
        case Dropped():
            return _frame(dropped={"reason": told.reason, "resume": format_positions(told.places)})


def _gap(gap: Gap) -> dict[str, Any]:
    return {**asdict(gap), "stream": short_name(gap.stream)}


def _frame(**fields: Any) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


class FollowResponse(StreamingResponse):
    """An event stream that ends when the client goes, when it is dropped, or when it has what it came for."""

    media_type = "text/event-stream"

    def __init__(
        self,
        following: AbstractAsyncContextManager[Follower],
        *,
        greeting: str = "events",
        ends: Callable[[Notice], bool] = lambda told: False,
        grace_s: float = DROP_GRACE_S,
    ) -> None:
        """Take who follows.

        Args:
            following: Opened when the response begins.
            greeting: The comment at the beginning.
            ends: Looks at what was sent; the stream ends after what it says yes to.
            grace_s: How long one who was dropped may take to receive what is on its way.
        """
        self._following, self._greeting, self._ends, self._grace_s = following, greeting, ends, grace_s
        self._streaming: asyncio.Task[None] | None = None
        super().__init__((), headers=SSE_HEADERS)

    async def _body(self) -> AsyncGenerator[str, None]:
        yield f": {self._greeting}\nretry: 1000\n\n"
        async with self._following as follower, aclosing(aiter(follower)) as pieces:
            follower.on_drop = self._dropped
            async for told in pieces:
                yield sse_of(told)
                if isinstance(told, Dropped) or self._ends(told):
                    return

    def _dropped(self) -> None:
        """One that is stuck in sending is waited for a little, so that one that is only slow learns the reason."""
        if self._streaming:
            asyncio.get_running_loop().call_later(self._grace_s, self._streaming.cancel)

    async def _stream(self, send: Send) -> None:
        async with aclosing(self._body()) as body:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for text in body:
                await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end, or until the client goes."""
        self._streaming = streaming = asyncio.create_task(self._stream(send))
        gone = asyncio.create_task(self.listen_for_disconnect(receive))
        try:
            await asyncio.wait({streaming, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (streaming, gone):
                task.cancel()
            await asyncio.wait({streaming, gone})
        with contextlib.suppress(asyncio.CancelledError, OSError):  # the client went, or was too slow
            streaming.result()
