"""Requests that are tried again where that is safe, and server-sent events."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from masterchat.exceptions import Refused, Unreachable, retry_after_s

BACKOFF_S = (0.25, 8.0)
"""First and longest wait before another try, where the server names none; each is twice the one before."""
SILENCE_S = 45.0
"""A stream in which nothing came for so long is broken: the server sends a comment every 15 s."""
BUSY = (429, 503)
"""Refusals that pass."""
GATEWAY = (502, 504)
"""Answers of a proxy that did not reach the server."""
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""Failures after which the server cannot have seen the request."""
EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True)
class SentEvent:
    """One server-sent event."""

    type: str
    data: dict[str, Any]
    id: str | None
    """Of this event, or of the last one that had one."""


class Connection:
    """An httpx client that knows when to try again."""

    def __init__(self, http: httpx.AsyncClient, *, max_retries: int, max_wait_s: float) -> None:
        self._http = http
        self._max_retries, self._max_wait_s = max_retries, max_wait_s

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        safe: bool = True,
    ) -> Any:
        """The JSON of the answer; None where there is none.

        Args:
            method: HTTP method.
            path: From the base URL on.
            json: Body.
            params: Query; those that are None are left out.
            headers: More of them.
            safe: Whether sending it twice does what sending it once does.

        Raises:
            Unreachable: no answer, after every try.
            Refused: an error that does not pass, or not soon enough.
        """
        query = {name: value for name, value in (params or {}).items() if value is not None}
        response = await self._retried(
            lambda: self._http.request(method, path, json=json, params=query, headers=headers), safe=safe
        )
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise Unreachable(f"{response.url} did not answer in JSON; is it a Lumina server?") from error

    async def open(
        self, method: str, path: str, *, json: Any = None, headers: Mapping[str, str], safe: bool = True
    ) -> httpx.Response:
        """The response to a request for server-sent events, of which only the head has been read.

        Raises:
            Unreachable: no answer, after every try.
            Refused: an error that does not pass, or not soon enough.
        """
        usual = self._http.timeout
        timeout = httpx.Timeout(SILENCE_S, connect=usual.connect, write=usual.write, pool=usual.pool)

        async def send() -> httpx.Response:
            asked = self._http.build_request(
                method, path, json=json, headers={"Accept": EVENT_STREAM, **headers}, timeout=timeout
            )
            return await self._http.send(asked, stream=True)

        response = await self._retried(send, safe=safe)
        if response.status_code != 204 and not response.headers.get("content-type", "").startswith(EVENT_STREAM):
            await response.aclose()
            raise Unreachable(f"{response.url} did not answer with events; is it a Lumina server?")
        return response

    @asynccontextmanager
    async def stream(self, method: str, path: str, params: Mapping[str, Any]) -> AsyncIterator[httpx.Response]:
        """The response of any route while the block runs, of which only the head has been read.

        Raises:
            Unreachable: no answer, after every try, or it broke off.
            Refused: an error that does not pass, or not soon enough.
        """
        given = {name: str(value) for name, value in params.items() if value is not None}

        async def send() -> httpx.Response:
            return await self._http.send(self._http.build_request(method, path, params=given), stream=True)

        response = await self._retried(send, safe=True)
        try:
            yield response
        except httpx.HTTPError as error:
            raise Unreachable(f"no whole answer from {response.url}: {_said(error)}") from error
        finally:
            await response.aclose()

    async def follow(
        self, open_again: Callable[[str | None], Awaitable[httpx.Response]], last_id: str | None = None
    ) -> AsyncGenerator[SentEvent | None, None]:
        """Events to the end, over as many connections as it takes; None where one has ended or broken.

        The one who reads stops when the last event has come, or when a None says what he wants to hear. A server that
        answers 204 has nothing more.

        Args:
            open_again: Connects, after the event with this id.
            last_id: Of the event after which to begin.

        Raises:
            Unreachable: the connection broke again and again, and nothing came in between.
            Refused: the server does not let it go on.
        """
        failures = 0
        while True:
            response = await open_again(last_id)
            if response.status_code == 204:
                await response.aclose()
                return
            broken: httpx.HTTPError | None = None
            try:
                async with aclosing(sent_events(response, last_id)) as events:
                    async for event in events:
                        failures, last_id = 0, event.id
                        yield event
            except httpx.HTTPError as error:
                broken = error
            finally:
                await response.aclose()
            failures += 1
            if failures > self._max_retries:
                raise Unreachable(f"the connection to {self._http.base_url} broke: {_said(broken)}") from broken
            yield None
            await asyncio.sleep(_pause_s(failures - 1))

    async def _retried(self, send: Callable[[], Awaitable[httpx.Response]], *, safe: bool) -> httpx.Response:
        for tried in range(self._max_retries + 1):
            last = tried == self._max_retries
            try:
                response = await send()
            except httpx.HTTPError as error:
                if last or not (safe or isinstance(error, NEVER_SENT)):
                    raise Unreachable(f"no answer from {self._http.base_url}: {_said(error)}") from error
                await asyncio.sleep(_pause_s(tried))
                continue
            except (httpx.InvalidURL, httpx.CookieConflict) as error:
                raise Unreachable(f"{self._http.base_url} cannot be asked: {error}") from error
            if response.is_success:
                return response
            asked_s = retry_after_s(response)
            wait_s = _pause_s(tried) if asked_s is None else asked_s
            passes = response.status_code in (*BUSY, *GATEWAY) and safe
            if last or not passes or wait_s > self._max_wait_s:
                await _read(response)
                raise Refused.of(response)
            await response.aclose()
            await asyncio.sleep(wait_s)
        raise AssertionError("the last try returns or raises")


async def sent_events(response: httpx.Response, last_id: str | None = None) -> AsyncGenerator[SentEvent, None]:
    """The events of a response (WHATWG HTML, 9.2.6) whose data is a JSON object; the unfinished last one is dropped."""
    kind = ""
    data: list[str] = []
    async for line in _lines(response.aiter_text()):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield SentEvent(kind or "message", _object("\n".join(data), response), last_id)
            kind, data = "", []
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            last_id = value


def _object(text: str, response: httpx.Response) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise Unreachable(f"{response.url} sent an event that is no JSON: {text[:80]!r}") from error
    return data if isinstance(data, dict) else {"value": data}


async def _lines(texts: AsyncIterator[str]) -> AsyncGenerator[str, None]:
    """Whole lines, ended by LF, CR or CRLF and by nothing else: JSON may hold U+2028, which ``splitlines`` cuts at."""
    rest = ""
    async for text in texts:
        rest += text
        held = rest.endswith("\r")  # its LF may be in the next piece
        *lines, rest = rest.removesuffix("\r").replace("\r\n", "\n").replace("\r", "\n").split("\n")
        rest += "\r" if held else ""
        for line in lines:
            yield line


async def _read(response: httpx.Response) -> None:
    try:
        await response.aread()
    except httpx.HTTPError as error:
        raise Unreachable(f"{response.url} answered {response.status_code} and broke off: {_said(error)}") from error
    finally:
        await response.aclose()


def _pause_s(tried: int) -> float:
    """Full jitter (Brooker, "Exponential Backoff And Jitter"), so that clients do not come back all at once."""
    first, longest = BACKOFF_S
    pause = min(longest, first * 2**tried)
    return random.uniform(pause / 2, pause)


def _said(error: Exception | None) -> str:
    return "it ended too early" if error is None else str(error) or type(error).__name__
