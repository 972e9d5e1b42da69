"""One MediaWiki ``api.php`` over HTTP, asked with the manners that its operators expect.

The manners are those of https://www.mediawiki.org/wiki/API:Etiquette and
https://www.mediawiki.org/wiki/Manual:Maxlag_parameter: few requests at a time, a User-Agent with a contact, gzip,
``maxlag``, and whoever is asked to wait waits.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx

from tools.wikipedia.source import SourceError, SourceUnavailable

T = TypeVar("T")
MAXLAG_S = 5
"""Seconds of replication lag from which a wiki should refuse to answer; the value that its manual recommends."""
BUSY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses after which the same request may succeed later."""
BUSY_CODES = frozenset({"maxlag", "ratelimited", "readonly", "internal_api_error_DBQueryError", "toomanyrequests"})
"""MediaWiki error codes after which the same request may succeed later."""
MAX_REDIRECTS = 3
LONGEST_GET_BYTES = 4000
"""Longer queries are sent in the body: many servers refuse request lines of more than 8 KB."""


class RefusedByWiki(SourceError):
    """The wiki answered with an error of its own that no repetition will mend."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


class _Busy(Exception):
    """One attempt failed in a way that may pass."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class Api:
    """Sends queries to one ``api.php``, a bounded number at a time, and repeats what failed for a passing reason.

    Args:
        url: Address of ``api.php``.
        contact: How the operator of this Lumina can be reached (``https://…; mail address``); part of the User-Agent.
        client: A client to use instead of an own one; it is not closed.
        concurrency: How many requests may be under way at once.
        timeout_s: Limit for connecting and for each pause while reading.
        max_attempts: How often one request is tried before ``SourceUnavailable``.
        max_wait_s: The longest single wait that is accepted from a ``Retry-After``.
        max_response_bytes: Larger answers, after decompression, are refused.
        sleep: Waits some seconds (``asyncio.sleep``).
        now: Seconds since the epoch (``time.time``).
        jitter: A number from 0 to 1, uniformly (``random.random``).
    """

    def __init__(
        self,
        url: str,
        *,
        contact: str,
        client: httpx.AsyncClient | None = None,
        concurrency: int = 2,
        timeout_s: float = 30.0,
        max_attempts: int = 5,
        max_wait_s: float = 120.0,
        max_response_bytes: int = 64 * 2**20,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.url = url
        self.host = urlsplit(url).netloc
        self.requests_sent = 0
        self._own_client = client is None
        self._client = client or open_client(concurrency, timeout_s)
        self._headers = {"User-Agent": user_agent(contact), "Accept-Encoding": "gzip"}
        self._timeout = httpx.Timeout(timeout_s)
        self._slots = asyncio.Semaphore(concurrency)
        self._max_attempts = max_attempts
        self._max_wait_s = max_wait_s
        self._max_response_bytes = max_response_bytes
        self._sleep, self._now, self._jitter = sleep, now, jitter
        self._closed_until = 0.0

    async def aclose(self) -> None:
        """Close the connections, unless the client was passed in."""
        if self._own_client:
            await self._client.aclose()

    async def ask(self, **params: str | int | bool) -> dict[str, Any]:
        """The wiki's answer to one query, in format version 2.

        Args:
            params: Parameters of ``api.php``; ``True`` sets a flag, ``False`` leaves it out.

        Raises:
            SourceUnavailable: when every attempt failed, or the wiki asks for a longer wait than accepted.
            RefusedByWiki: when the wiki answers with an error that will not pass.
        """
        query = {name: "1" if value is True else str(value) for name, value in params.items() if value is not False}
        query |= {"format": "json", "formatversion": "2", "maxlag": str(MAXLAG_S)}
        why = ""
        for attempt in range(1, self._max_attempts + 1):
            try:
                async with self._slots:
                    await self._wait_until_open()
                    return await self._attempt(query)
            except _Busy as busy:
                why = str(busy)
                await self._back_off(attempt, busy)
        raise SourceUnavailable(f"{self.host}: {why}; tried {_times(self._max_attempts)}, giving up. Try again later.")

    async def pages_of(self, **params: str | int | bool) -> AsyncIterator[dict[str, Any]]:
        """Every ``query`` object of a query that is continued until it is complete.

        Protocol: https://www.mediawiki.org/wiki/API:Continue.
        """
        more: Mapping[str, str | int | bool] = {}
        while True:
            answer = await self.ask(**{**params, **more})
            query = answer.get("query")
            yield query if isinstance(query, dict) else {}
            if not isinstance(answer.get("continue"), dict) or answer["continue"] == more:
                return
            more = answer["continue"]

    async def _wait_until_open(self) -> None:
        while (wait_s := self._closed_until - self._now()) > 0:
            await self._sleep(wait_s)

    async def _back_off(self, attempt: int, busy: _Busy) -> None:
        """Note how long nobody may ask, or sleep for this request alone.

        A wait that the wiki asked for holds for every request; without one, it is exponential with full jitter
        (Brooker, «Exponential Backoff And Jitter», 2015), half a second at first, at most 30 s.
        """
        if attempt == self._max_attempts:
            return
        if busy.wait_s is None:
            await self._sleep(min(30.0, 0.5 * 2 ** (attempt - 1)) * (0.5 + self._jitter() / 2))
            return
        if busy.wait_s > self._max_wait_s:
            raise SourceUnavailable(
                f"{self.host}: {busy}; it asks to wait {busy.wait_s:.0f} s, more than the {self._max_wait_s:.0f} s "
                f"that are accepted; tried {_times(attempt)}. Try again later."
            )
        # A little more than asked for, so that waiting clients do not all come back in the same instant.
        wait_s = max(busy.wait_s, 0.1) + self._jitter() * 0.5
        self._closed_until = max(self._closed_until, self._now() + wait_s)

    async def _attempt(self, query: dict[str, str]) -> dict[str, Any]:
        try:
            status, headers, body = await self._send(query)
        except httpx.TransportError as error:
            raise _Busy(f"{_one_line(error) or type(error).__name__}") from error
        wait_s = retry_after_s(headers.get("retry-after"), self._now())
        if status in BUSY_STATUS:
            raise _Busy(f"HTTP {status}", wait_s)
        if status != 200:
            raise RefusedByWiki(f"{self.host} answered HTTP {status}: {_excerpt(body)}", str(status))
        try:
            answer = json.loads(body)
        except ValueError as error:
            raise RefusedByWiki(
                f"{self.url} did not answer with JSON; WIKI_SOURCE must be the address of api.php", "not-json"
            ) from error
        if not isinstance(answer, dict | list):
            raise RefusedByWiki(f"{self.url} answered with JSON that is no object", "not-json")
        if isinstance(answer, list):  # action=opensearch
            return {"list": answer}
        if isinstance(error_object := answer.get("error"), dict):
            code, info = str(error_object.get("code", "")), _excerpt(str(error_object.get("info", "")).encode())
            if code in BUSY_CODES or code.startswith("internal_api_error"):
                raise _Busy(f"{code}: {info}", wait_s)
            raise RefusedByWiki(f"{self.host} refused the query: {code}: {info}", code)
        return answer

    async def _send(self, query: dict[str, str]) -> tuple[int, httpx.Headers, bytes]:
        """One HTTP exchange; redirects are followed on the same host and port only."""
        for _ in range(MAX_REDIRECTS + 1):
            address = httpx.URL(self.url)
            by_get = len(str(address.copy_merge_params(query))) <= LONGEST_GET_BYTES
            request = self._client.build_request(
                "GET" if by_get else "POST",
                address.copy_merge_params(query) if by_get else address,
                data=None if by_get else query,
                headers=self._headers,
                timeout=self._timeout,
            )
            self.requests_sent += 1
            response = await self._client.send(request, stream=True, follow_redirects=False)
            try:
                if not response.is_redirect:
                    return response.status_code, response.headers, await self._read(response)
                self.url = self._same_host(response)
            finally:
                await response.aclose()
        raise RefusedByWiki(f"{self.host} redirects more than {MAX_REDIRECTS} times", "redirects")

    async def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > self._max_response_bytes:
                raise RefusedByWiki(
                    f"{self.host} answered with more than {self._max_response_bytes} bytes", "too-large"
                )
        return bytes(body)

    def _same_host(self, response: httpx.Response) -> str:
        """Where a redirect leads, without its query.

        Only to the same host, never back from https to http, and to no other port than https has by itself: what else
        listens on that host is none of the wiki's business.
        """
        target = urljoin(self.url, response.headers["location"])
        here, there = urlsplit(self.url), urlsplit(target)
        try:
            upgraded = (here.scheme, there.scheme) == ("http", "https") and there.port in (None, 443)
            allowed = there.hostname == here.hostname and (
                upgraded or (there.scheme == here.scheme and there.port == here.port)
            )
        except ValueError:  # a port that is none
            allowed = False
        if not allowed:
            raise RefusedByWiki(
                f"{self.url} redirects to {there.scheme}://{there.netloc}, which is not followed; "
                "set WIKI_SOURCE to the address it redirects to if you trust it",
                "redirected",
            )
        return there._replace(query="", fragment="").geturl()


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Results in order; when one fails, the others are cancelled and its error is raised as it is."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def open_client(concurrency: int, timeout_s: float) -> httpx.AsyncClient:
    """A client with one pool of as many connections as requests may be under way, HTTP/2 where the server offers it."""
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency, keepalive_expiry=30.0)
    return httpx.AsyncClient(http2=True, limits=limits, timeout=timeout_s, follow_redirects=False)


def user_agent(contact: str) -> str:
    """A User-Agent after https://foundation.wikimedia.org/wiki/Policy:User-Agent_policy."""
    printable = "".join(char for char in contact if char.isprintable() and char.isascii()).strip()
    return f"Lumina/0.1 ({printable or 'no contact given'}) httpx/{httpx.__version__}"


def retry_after_s(value: str | None, now: float) -> float | None:
    """Seconds to wait by a ``Retry-After`` header (RFC 9110, section 10.2.3), in seconds or as a date."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError):
        return None


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _excerpt(body: bytes) -> str:
    return " ".join(body[:300].decode("utf-8", "replace").split())[:200]
