"""The client: one method for each thing that a server does."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self

import httpx

from masterchat.chat import ChatStream
from masterchat.connection import Connection
from masterchat.exceptions import Unreachable
from masterchat.records import LogEvent
from masterchat.resources import Conversations, Tasks, planner_logs

BASE_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 300.0
CONNECT_TIMEOUT_S = 5.0
MAX_RETRIES = 4
MAX_WAIT_S = 60.0


class MasterChat:
    """A connection to a Lumina server; use it as an async context manager, in one event loop."""

    tasks: Tasks
    """The task queue."""
    conversations: Conversations
    """What was said."""

    def __init__(
        self,
        base_url: str = BASE_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        max_retries: int = MAX_RETRIES,
        max_wait_s: float = MAX_WAIT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            base_url: Where the server is.
            api_key: One of its ``LUMINA_API_KEYS``, where it has some.
            timeout_s: Longest wait for an answer. For a connection it is 5 s, and a stream in which nothing came for
                45 s is taken up again.
            max_retries: Tries after the first one: when no connection comes about, and for what may be sent twice also
                when the connection breaks, or the server is busy (429, 503).
            max_wait_s: A server that asks for a longer wait (``Retry-After``) is not waited for.
            transport: Instead of the network.

        Raises:
            Unreachable: ``base_url`` is no address.
        """
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        if not base_url.startswith(("http://", "https://")):
            raise Unreachable(f"base_url is {base_url!r}; it must begin with http:// or https://")
        try:
            http = httpx.AsyncClient(base_url=base_url, headers=headers, timeout=timeout, transport=transport)
        except httpx.InvalidURL as error:
            raise Unreachable(f"base_url is {base_url!r}: {error}") from error
        self._connection = Connection(http, max_retries=max_retries, max_wait_s=max_wait_s)
        self.tasks = Tasks(self._connection)
        self.conversations = Conversations(self._connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._connection.aclose()

    async def chat(
        self,
        message: str,
        *,
        mode: str = "auto",
        conversation_id: str | None = None,
        topics: Sequence[str] = (),
        hops: int = 1,
        max_nodes: int = 30,
        background: bool = False,
        idempotency_key: str | None = None,
    ) -> ChatStream:
        """Send a message and return the stream of what happens.

        Args:
            message: The question or instruction.
            mode: ``auto``, ``chat``, ``wiki_qa``, ``crawl``, ``summarise``, or another intent of the server.
            conversation_id: Go on with this conversation; a new one when left out.
            topics: Articles to start from.
            hops: How many links away from a topic a crawl goes.
            max_nodes: How many pages a crawl reads at most.
            background: Let the run go on when nobody reads the stream.
            idempotency_key: The same key gives the same run; without one, this call alone is protected.

        Raises:
            Unreachable: no answer.
            Refused: the server does not take the message.
        """
        body = {
            "message": message,
            "mode": mode,
            "conversation_id": conversation_id,
            "topics": list(topics),
            "hops": hops,
            "max_nodes": max_nodes,
            "background": background,
            "stream": True,
        }
        path, key = "/masterchat/chat", idempotency_key or str(uuid.uuid4())
        response = await self._connection.open("POST", path, json=body, headers={"Idempotency-Key": key})
        return ChatStream(self._connection, response, path, body, key)

    async def plan(
        self, message: str, *, mode: str = "auto", topics: Sequence[str] = (), hops: int = 1, max_nodes: int = 30
    ) -> dict[str, Any]:
        """What would be done for a message: steps, costs, alternatives, why, and a Mermaid picture. Nothing is run.

        Raises:
            Unreachable: no answer.
            Refused: the server does not take the message.
        """
        body = {"message": message, "mode": mode, "topics": list(topics), "hops": hops, "max_nodes": max_nodes}
        answer: dict[str, Any] = await self._connection.request("POST", "/masterchat/plan", json=body)
        return answer

    def planner_logs(self, *, task_id: str | None = None, after: str | None = None) -> AsyncGenerator[LogEvent, None]:
        """Every choice of the planner, as it is made, without end; a broken connection is taken up again.

        Args:
            task_id: Only those of this run or task.
            after: ``id`` of the event after which to begin; None: all that is kept, ``$``: only what is new.
        """
        return planner_logs(self._connection, task_id=task_id, after=after)

    async def query(self, sql: str, *, max_rows: int = 1_000) -> dict[str, Any]:
        """Rows of the event store: ``columns``, ``types``, ``rows``, ``truncated``.

        Raises:
            Unreachable: no answer.
            Refused: the server does not take the query.
        """
        body = {"sql": sql, "max_rows": max_rows}
        answer: dict[str, Any] = await self._connection.request("POST", "/events/query", json=body)
        return answer

    def open(self, method: str, path: str, **params: Any) -> AbstractAsyncContextManager[httpx.Response]:
        """The response of any other route while the block runs, to be read piece by piece.

        Raises:
            Unreachable: no answer, or it broke off.
            Refused: an error instead.
        """
        return self._connection.stream(method, path, params)

    async def health(self) -> dict[str, Any]:
        """What ``GET /health`` says: ``status``, and each service by name.

        Raises:
            Unreachable: no answer.
            Refused: an error instead.
        """
        answer: dict[str, Any] = await self._connection.request("GET", "/health")
        return answer
