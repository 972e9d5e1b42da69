"""The Python client of a Lumina server. It needs httpx and nothing else of the application.

Example:
    async with MasterChat("http://127.0.0.1:8000") as client:
        response = await client.chat(message="Who proved that the Mandelbrot set is connected?", mode="wiki_qa")
        async for chunk in response:
            print(chunk.content, end="")
        print(response.result["citations"])
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx


class MasterChatError(Exception):
    """The server refused, failed, or did not answer; the text says which and why."""

    def __init__(self, message: str, status: int | None = None) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One event of a run."""

    kind: str
    """``plan``, ``agent``, ``progress``, ``token``, ``citation``, ``usage``, ``done`` or ``error``."""
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """The piece of the answer that this event carries; empty for everything but ``token``."""
        return str(self.data.get("text", "")) if self.kind == "token" else ""


class ChatStream:
    """The events of one run, as they come. ``result`` is the data of ``done`` once the stream has ended."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.result: dict[str, Any] = {}

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        try:
            async for kind, data in _sse(self._response):
                if kind == "error":
                    raise MasterChatError(data["detail"], data.get("status"))
                if kind == "done":
                    self.result = data
                yield Chunk(kind, data)
        except httpx.HTTPError as error:
            raise MasterChatError(f"the connection broke: {error}") from error
        finally:
            await self._response.aclose()

    async def text(self) -> str:
        """Read to the end and return the whole answer."""
        return "".join([chunk.content async for chunk in self])


class MasterChat:
    """A connection to a Lumina server; use it as an async context manager."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout_s: float = 300.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx.Timeout(timeout_s, connect=5.0)
        self._http = httpx.AsyncClient(base_url=base_url, headers=headers, timeout=timeout, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def chat(
        self,
        message: str,
        *,
        mode: str = "auto",
        conversation_id: str | None = None,
        topics: Sequence[str] = (),
        hops: int = 1,
        max_nodes: int = 30,
    ) -> ChatStream:
        """Send a message and return the stream of what happens.

        Raises:
            MasterChatError: the server cannot be reached or refuses the message.
        """
        body = {
            "message": message,
            "mode": mode,
            "conversation_id": conversation_id,
            "topics": list(topics),
            "hops": hops,
            "max_nodes": max_nodes,
            "stream": True,
        }
        request = self._http.build_request("POST", "/masterchat/chat", json=body)
        try:
            response = await self._http.send(request, stream=True)
        except httpx.HTTPError as error:
            raise MasterChatError(f"no answer from {self._http.base_url}: {error}") from error
        if response.status_code != 200:
            await response.aread()
            raise _refused(response)
        return ChatStream(response)

    async def plan(
        self, message: str, *, mode: str = "auto", topics: Sequence[str] = (), hops: int = 1, max_nodes: int = 30
    ) -> dict[str, Any]:
        """What would be done for a message: steps, costs, alternatives, why, and a Mermaid picture. Nothing is run.

        Raises:
            MasterChatError: the server cannot be reached or refuses the message.
        """
        body = {"message": message, "mode": mode, "topics": list(topics), "hops": hops, "max_nodes": max_nodes}
        try:
            response = await self._http.post("/masterchat/plan", json=body)
        except httpx.HTTPError as error:
            raise MasterChatError(f"no answer from {self._http.base_url}: {error}") from error
        if response.status_code != 200:
            raise _refused(response)
        answer: dict[str, Any] = response.json()
        return answer

    async def query(self, sql: str) -> dict[str, Any]:
        """Rows of the event store: ``columns``, ``types``, ``rows``, ``truncated``.

        Raises:
            MasterChatError: the server cannot be reached, or refuses the query.
        """
        try:
            response = await self._http.post("/events/query", json={"sql": sql})
        except httpx.HTTPError as error:
            raise MasterChatError(f"no answer from {self._http.base_url}: {error}") from error
        if response.status_code != 200:
            raise _refused(response)
        answer: dict[str, Any] = response.json()
        return answer

    async def submit(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Queue a task, for example ``{"crawl": ["Mandelbrot set"]}``; its ``id`` is for ``task``.

        Raises:
            MasterChatError: the server cannot be reached or refuses the task.
        """
        return await self._json("POST", "/tasks", json=dict(body))

    async def task(self, task_id: str) -> dict[str, Any]:
        """How far a task is: ``status``, ``progress`` and, at the end, ``result`` or ``error``.

        Raises:
            MasterChatError: the server cannot be reached or knows no such task.
        """
        return await self._json("GET", f"/tasks/{task_id}")

    async def _json(self, method: str, path: str, **sent: Any) -> dict[str, Any]:
        try:
            response = await self._http.request(method, path, **sent)
        except httpx.HTTPError as error:
            raise MasterChatError(f"no answer from {self._http.base_url}: {error}") from error
        if not response.is_success:
            raise _refused(response)
        answer: dict[str, Any] = response.json()
        return answer

    async def health(self) -> dict[str, Any]:
        """What ``GET /health`` says.

        Raises:
            MasterChatError: the server cannot be reached.
        """
        try:
            response = await self._http.get("/health")
        except httpx.HTTPError as error:
            raise MasterChatError(f"no answer from {self._http.base_url}: {error}") from error
        answer: dict[str, Any] = response.json()
        return answer


def _refused(response: httpx.Response) -> MasterChatError:
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text[:200]
    return MasterChatError(str(detail), response.status_code)


async def _sse(response: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Server-sent events (WHATWG HTML, section 9.2.6) whose data is a JSON object."""
    kind, data = "message", ""
    async for line in response.aiter_lines():
        if not line:
            if data:
                yield kind, json.loads(data)
            kind, data = "message", ""
        elif line.startswith("event:"):
            kind = line[6:].strip()
        elif line.startswith("data:"):
            data += line[5:].removeprefix(" ")
