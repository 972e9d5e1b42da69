"""Servers that speak OpenAI's protocol, and the dialects that they speak it in."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

if TYPE_CHECKING:
    import aiohttp

Dialect = Literal["openai", "mistral", "compatible"]
"""OpenAI's own servers; Mistral's, which refuse fields that they do not know; everybody else's."""
Feature = Literal["tools", "response_format", "images", "n"]
"""What not every model behind the protocol has."""

_OWN_FIELDS = frozenset({"topics", "hops", "max_nodes"})
"""Fields of Lumina's own models, which nobody else knows."""
_MISTRAL_FIELDS = frozenset(
    "model messages temperature top_p max_tokens stream stop random_seed response_format tools tool_choice "
    "presence_penalty frequency_penalty n parallel_tool_calls prediction".split()
)
"""What Mistral's chat completions take, from its API reference; it answers anything else with 422."""
_CONNECTIONS = 1_000


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where chat completions are asked for."""

    client: aiohttp.ClientSession
    url: str
    """The whole address of ``chat/completions``."""
    key: str | None
    dialect: Dialect
    silence_s: float
    """The longest that it may say nothing, before its answer and in the middle of it."""

    def headers(self) -> dict[str, str]:
        """What goes with a request. Not compressed, for the bytes are handed on as they come."""
        parts = urlsplit(self.url)
        named = parts.username or parts.password  # aiohttp sends them, in place of a key
        key = {"authorization": f"Bearer {self.key}"} if self.key and not named else {}
        return {"content-type": "application/json", "accept-encoding": "identity", **key}


async def open_client(url: str, timeout: httpx.Timeout, *, idle_s: float, trust_env: bool) -> aiohttp.ClientSession:
    """A client for one server; whoever opens it closes it.

    Args:
        url: Where the server is.
        timeout: To connect, and the longest silence; the latter is also how long a call waits for a connection.
        idle_s: How long an idle connection is kept, so that a burst of callers does not open its own again and again.
        trust_env: Whether the environment's proxies and certificates are used.
    """
    tls = await asyncio.to_thread(_load, trust_env)
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=idle_s, ssl=tls),
        timeout=aiohttp.ClientTimeout(connect=timeout.read, sock_connect=timeout.connect, sock_read=timeout.read),
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=_proxy_for(url) if trust_env else None,
    )


def _load(trust_env: bool) -> ssl.SSLContext:
    """What takes a tenth of a second: importing the library, and reading the certificates that httpx trusts."""
    import aiohttp  # noqa: F401  # it is imported here so that it is there

    return httpx.create_ssl_context(trust_env=trust_env)


def _proxy_for(url: str) -> str | None:
    """The environment's proxy for an address, found once; aiohttp would look for it at each request, in a thread."""
    parts, proxies = urlsplit(url), getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.hostname or ""):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def in_dialect(
    body: Mapping[str, Any], dialect: Dialect, *, model_id: str, temperature: float, max_tokens: int | None
) -> dict[str, Any]:
    """A request's body as a server wants it.

    Args:
        body: A chat completion request as OpenAI defines it.
        dialect: The server's.
        model_id: The model, as the server names it.
        temperature: Where the request has none; OpenAI's own models keep theirs, for some accept no other.
        max_tokens: Where the request has none; None leaves it to the server.
    """
    sent = {key: value for key, value in body.items() if key not in _OWN_FIELDS and value is not None}
    sent["model"] = model_id
    if not sent.get("store"):
        sent.pop("metadata", None)  # OpenAI takes it for stored completions only
    if sent.get("stream"):
        sent["stream_options"] = {**sent.get("stream_options", {}), "include_usage": True}
    else:
        sent.pop("stream_options", None)
    if dialect == "openai":
        if max_tokens is not None and "max_tokens" not in sent:
            sent.setdefault("max_completion_tokens", max_tokens)
        return sent
    sent.setdefault("temperature", temperature)
    limit = sent.pop("max_completion_tokens", None) or sent.get("max_tokens") or max_tokens
    if limit is not None:
        sent["max_tokens"] = limit
    sent["messages"] = [
        {**message, "role": "system"} if message.get("role") == "developer" else message for message in sent["messages"]
    ]
    if dialect == "mistral":
        if "seed" in sent:
            sent["random_seed"] = sent["seed"]
        if sent.get("tool_choice") == "required":
            sent["tool_choice"] = "any"
        sent = {key: value for key, value in sent.items() if key in _MISTRAL_FIELDS}
    return sent
