"""The events of one run, over as many connections as it takes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import httpx

from masterchat.connection import Connection
from masterchat.exceptions import RunFailed
from masterchat.records import Chunk, Citation, CitationChunk, DoneChunk, Recalled, RestartChunk, TokenChunk, Usage


class ChatStream:
    """The events of one run, as they come; made by ``MasterChat.chat``.

    Iterate over it, or let ``text`` read it to its end. When the connection breaks it goes on where it was, without gap
    and without repetition.
    """

    def __init__(
        self, connection: Connection, first: httpx.Response, path: str, body: Mapping[str, Any], key: str
    ) -> None:
        self._connection, self._first = connection, first
        self._path, self._body, self._key = path, body, key
        self._words: list[TokenChunk] = []
        self._chunks = self._read()
        self.task_id: str | None = None
        """The run's id, from its first event on."""
        self.last_event_id: str | None = None
        """Of the last event that came."""
        self.citations: list[Citation] = []
        """What the answer rests on, so far."""
        self.result: dict[str, Any] = {}
        """The data of ``done``, once the run has ended."""

    def __aiter__(self) -> AsyncGenerator[Chunk, None]:
        """The events that have not been read yet.

        Raises:
            RunFailed: the run ended with an error.
            Unreachable: the connection broke and could not be taken up again.
            Refused: it could not be taken up again, for the server refused.
        """
        return self._chunks

    @property
    def usage(self) -> Usage:
        """Tokens and dollars, once the run has ended."""
        return Usage.from_json(self.result.get("usage") or {})

    @property
    def recalled(self) -> list[Recalled]:
        """Earlier messages that the model was given, once the run has ended."""
        return [Recalled.from_json(one) for one in self.result.get("recalled") or []]

    @property
    def conversation_id(self) -> str | None:
        """The conversation to go on with, once the run has ended."""
        return self.result.get("conversation_id")

    async def text(self) -> str:
        """Read to the end and return the whole answer, what was read before included.

        Raises:
            RunFailed: the run ended with an error, or reached nothing.
            Unreachable: the connection broke and could not be taken up again.
            Refused: it could not be taken up again, for the server refused.
        """
        async for _ in self._chunks:
            pass
        outcome = self.result.get("outcome") or {}
        if outcome.get("status") == "failed":
            raise RunFailed(str(outcome.get("reason")), task_id=self.task_id)
        said = "".join(token.content for token in self._words)
        return said or str(self.result.get("answer") or "")

    async def cancel(self) -> None:
        """Stop the run for good, and the model behind it. One that is only left goes on for some seconds.

        Raises:
            Unreachable: no answer.
        """
        if self.task_id is not None:
            await self._connection.request("DELETE", f"/masterchat/chat/{self.task_id}")
        await self.aclose()

    async def aclose(self) -> None:
        """Leave the run. Unless it is in the background, the server stops it when nobody comes back."""
        await self._chunks.aclose()
        await self._first.aclose()

    async def _read(self) -> AsyncGenerator[Chunk, None]:
        async with aclosing(self._connection.follow(self._open)) as events:
            async for event in events:
                if event is None:
                    continue
                chunk = Chunk.of(event.type, event.data, event.id)
                if chunk.kind == "error":
                    detail = str(event.data.get("detail") or "the run failed")
                    raise RunFailed(detail, task_id=self.task_id, status=event.data.get("status"))
                self._take(chunk)
                yield chunk
                if isinstance(chunk, DoneChunk):
                    return

    async def _open(self, last_id: str | None) -> httpx.Response:
        if not self._first.is_closed:
            return self._first
        headers = {"Idempotency-Key": self._key}
        if last_id is not None:
            headers = {"Last-Event-ID": last_id}
        return await self._connection.open("POST", self._path, json=self._body, headers=headers)

    def _take(self, chunk: Chunk) -> None:
        if chunk.id:
            self.last_event_id = chunk.id
            self.task_id = chunk.id.rpartition(".")[0] or None
        if isinstance(chunk, TokenChunk):
            self._words.append(chunk)
        elif isinstance(chunk, CitationChunk):
            self.citations.append(chunk.citation)
        elif isinstance(chunk, RestartChunk):
            self._words = [token for token in self._words if token.agent != chunk.agent]
            self.citations = []
        elif isinstance(chunk, DoneChunk):
            self.result = chunk.data
