"""What a place that answers a chat is: it builds its LangChain model on first use, and says whether it is up."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import httpx
from langchain_core.language_models import BaseChatModel

from errors import LuminaError
from models.endpoints import Dialect, Endpoint, Feature, open_client

if TYPE_CHECKING:
    import aiohttp

IDLE_S = 4.0
"""Idle connections are closed after this: llama.cpp closes its end after five seconds."""


class ProviderDown(LuminaError):
    """A health check found a provider that does not answer, or not as it should."""


class Provider(ABC):
    """One place that answers; ``paid`` ones are put on the budget.

    Args:
        model_id: the model, as the provider names it.
        where: its address, for messages.
        paid: whether a call costs money.
    """

    name: ClassVar[str]
    remedy: ClassVar[str]
    """What a user can do when it does not answer."""
    features: ClassVar[frozenset[Feature]] = frozenset()
    """What it takes over OpenAI's protocol beside text."""

    def __init__(self, *, model_id: str, where: str, paid: bool = False) -> None:
        self.model_id = model_id
        self.where = where
        self.paid = paid
        self.resting_until_s = 0.0
        """On the monotonic clock: after a failure, others are asked first until then."""
        self.failures: tuple[type[Exception], ...] = (OSError, ImportError, ValueError, LuminaError, httpx.HTTPError)
        """What being down looks like; the provider's own errors are added when its library is loaded."""
        self._lock = asyncio.Lock()
        self._exits = contextlib.AsyncExitStack()
        self._model: BaseChatModel | None = None
        self._client: aiohttp.ClientSession | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.model_id} at {self.where})"

    async def prepare(self, arguments: dict[str, Any]) -> tuple[BaseChatModel, dict[str, Any]]:
        """The model, built once, and the call's arguments in its own terms."""
        async with self._lock:
            if self._model is None:
                # The vendor's library takes a second to import.
                self._model = await asyncio.to_thread(self._build)
        return self._model, arguments

    @abstractmethod
    def _build(self) -> BaseChatModel:
        """Import the library and make the model; runs in a thread."""

    async def endpoint(self) -> Endpoint | None:
        """Where it speaks OpenAI's protocol itself; None where it does not."""
        return None

    async def _endpoint(self, url: str, key: str | None, dialect: Dialect, timeout: httpx.Timeout) -> Endpoint:
        """An endpoint on one client, which is closed with the provider."""
        if self._client is None:
            async with self._lock:
                if self._client is None:
                    self._client = await self._open_client(url, timeout)
        assert timeout.read, "no provider may be silent for ever"
        return Endpoint(self._client, f"{url}/chat/completions", key, dialect, timeout.read)

    async def _open_client(self, url: str, timeout: httpx.Timeout) -> aiohttp.ClientSession:
        client = await open_client(url, timeout, idle_s=IDLE_S, trust_env=not is_local(url))
        self._exits.push_async_callback(client.close)
        from aiohttp import ClientError

        self.failures = (*self.failures, ClientError)
        return client

    @abstractmethod
    async def check(self, http: httpx.AsyncClient) -> None:
        """Raise one of ``failures`` when it cannot answer now; costs nothing."""

    async def revive(self) -> bool:
        """Whether a provider that refuses connections was brought back, so that asking again makes sense."""
        return False

    async def close(self) -> None:
        """Close its connections."""
        await self._exits.aclose()


class Given(Provider):
    """A model that somebody else made, for example a scripted one in a test."""

    name = "given"
    remedy = "look at the model that was passed in"

    def __init__(self, model: BaseChatModel, *, name: str | None = None, paid: bool = False) -> None:
        super().__init__(model_id=name or model.get_name(), where="this process", paid=paid)
        self._model = model

    def _build(self) -> BaseChatModel:
        raise AssertionError("a given model is never built")

    async def check(self, http: httpx.AsyncClient) -> None:
        """Nothing to check."""


def is_local(url: str) -> bool:
    """Whether a URL points to this machine or into a private network, where models cost nothing."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or "." not in host or host.endswith((".localhost", ".local", ".internal"))
    return address.is_private or address.is_loopback


@contextlib.asynccontextmanager
async def closing_all(providers: list[Provider]) -> AsyncIterator[None]:
    """Close every provider at the end, even when one of them fails to."""
    async with contextlib.AsyncExitStack() as stack:
        for provider in providers:
            stack.push_async_callback(provider.close)
        yield
