"""The places that answer a chat: Ollama, Mistral, whatever speaks OpenAI's protocol, and the embedded model."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import httpx
from langchain_core.language_models import BaseChatModel

from models.endpoints import Dialect, Endpoint
from models.provider import IDLE_S, Provider, ProviderDown, is_local

if TYPE_CHECKING:
    from models.chat import ChatConfig
    from models.embedded import Address, EmbeddedServer


class Ollama(Provider):
    """An Ollama server."""

    name = "ollama"
    remedy = "start Ollama or correct OLLAMA_URL and OLLAMA_MODEL"
    features = frozenset({"tools", "response_format", "images"})

    def __init__(self, config: ChatConfig) -> None:
        super().__init__(model_id=config.ollama_model, where=str(config.ollama_url).rstrip("/"))
        self._config = config

    def _build(self) -> BaseChatModel:
        import ollama
        from langchain_ollama import ChatOllama

        self.failures = (*self.failures, ollama.ResponseError, ollama.RequestError)
        model = ChatOllama(
            model=self.model_id,
            base_url=self.where,
            temperature=self._config.temperature,
            async_client_kwargs={
                "timeout": self._config.timeout,
                "limits": httpx.Limits(keepalive_expiry=IDLE_S),
                "trust_env": not is_local(self.where),
            },
        )
        # The library offers no way to close its connections, nor to pass in its client.
        self._exits.push_async_callback(model._async_client._client.aclose)
        return model

    async def prepare(self, arguments: dict[str, Any]) -> tuple[BaseChatModel, dict[str, Any]]:
        """Ollama's options are fields of the model, not arguments of a call."""
        model, _ = await super().prepare({})
        rest = {key: value for key, value in arguments.items() if key not in ("tool_choice", "strict")}
        fields = {"num_predict": rest.pop("max_tokens", None), "temperature": rest.pop("temperature", None)}
        return model.model_copy(update={key: value for key, value in fields.items() if value is not None}), rest

    async def endpoint(self) -> Endpoint:
        """Ollama's OpenAI-compatible side."""
        return await self._endpoint(f"{self.where}/v1", None, "compatible", self._config.timeout)

    async def check(self, http: httpx.AsyncClient) -> None:
        """Asks which models are there (``GET /api/tags``)."""
        response = (await http.get(f"{self.where}/api/tags")).raise_for_status()
        names = {str(model.get("name")) for model in response.json().get("models", [])}
        if self.model_id not in names and f"{self.model_id}:latest" not in names:
            raise ProviderDown(f"Ollama at {self.where} has no model {self.model_id}; run: ollama pull {self.model_id}")


class Mistral(Provider):
    """Mistral's API."""

    name = "mistral"
    remedy = "check MISTRAL_API_KEY and MISTRAL_MODEL"
    features = frozenset({"tools", "response_format", "images", "n"})

    def __init__(self, config: ChatConfig) -> None:
        super().__init__(model_id=config.mistral_model, where=config.mistral_base_url.rstrip("/"), paid=True)
        self._config = config

    def _build(self) -> BaseChatModel:
        from langchain_mistralai import ChatMistralAI

        client = httpx.AsyncClient(
            base_url=self.where,
            headers={"Accept": "application/json", **self._authorization()},
            timeout=self._config.timeout,
            limits=httpx.Limits(keepalive_expiry=IDLE_S),
        )
        self._exits.push_async_callback(client.aclose)
        return ChatMistralAI(
            model_name=self.model_id,
            api_key=self._config.mistral_api_key,
            base_url=self.where,
            temperature=self._config.temperature,
            max_retries=1,  # the next provider is the retry
            async_client=client,
        )

    async def endpoint(self) -> Endpoint:
        """Mistral's API is OpenAI's with other names here and there."""
        key = self._config.mistral_api_key
        secret = key.get_secret_value() if key else None
        return await self._endpoint(self.where, secret, "mistral", self._config.timeout)

    async def check(self, http: httpx.AsyncClient) -> None:
        """Asks for the list of models, which needs a valid key."""
        (await http.get(f"{self.where}/models", headers=self._authorization())).raise_for_status()

    def _authorization(self) -> dict[str, str]:
        key = self._config.mistral_api_key
        return {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}


def _openai_model(
    *,
    url: str | None,
    key: str,
    model_id: str,
    config: ChatConfig,
    read_timeout_s: float,
    exits: contextlib.AsyncExitStack,
) -> BaseChatModel:
    """A model over OpenAI's protocol; its own servers take ``max_completion_tokens``, others ``max_tokens``."""
    import httpx2
    import openai
    from langchain_openai import ChatOpenAI
    from langchain_openai.chat_models.base import BaseChatOpenAI

    timeout = httpx2.Timeout(read_timeout_s, connect=config.connect_timeout_s)
    # Environment proxies are for hosts outside, never for this machine.
    client = openai.DefaultAsyncHttpxClient(
        timeout=timeout, limits=httpx2.Limits(keepalive_expiry=IDLE_S), trust_env=not (url and is_local(url))
    )
    exits.push_async_callback(client.aclose)
    return (BaseChatOpenAI if url else ChatOpenAI)(
        model=model_id,
        base_url=url,
        api_key=key,
        temperature=config.temperature,
        stream_usage=True,
        timeout=timeout,
        stream_chunk_timeout=read_timeout_s,
        max_retries=0,  # the next provider is the retry
        http_async_client=client,
    )


def _openai_failures() -> tuple[type[Exception], ...]:
    import httpx2
    import openai

    return (openai.OpenAIError, httpx2.HTTPError)


class OpenAICompatible(Provider):
    """OpenAI, or any server that speaks its chat completions protocol."""

    name = "openai"
    remedy = "check OPENAI_API_KEY and OPENAI_BASE_URL"
    features = frozenset({"tools", "response_format", "images", "n"})

    def __init__(self, config: ChatConfig, *, paid: bool) -> None:
        url = (config.openai_base_url or "https://api.openai.com/v1").rstrip("/")
        super().__init__(model_id=config.openai_model, where=url, paid=paid)
        self._config = config
        self._key = config.openai_api_key.get_secret_value() if config.openai_api_key else "none"

    def _build(self) -> BaseChatModel:
        self.failures = (*self.failures, *_openai_failures())
        return _openai_model(
            url=self.where if self._config.openai_base_url else None,
            key=self._key,
            model_id=self.model_id,
            config=self._config,
            read_timeout_s=self._config.read_timeout_s,
            exits=self._exits,
        )

    async def endpoint(self) -> Endpoint:
        """The server itself."""
        dialect: Dialect = "compatible" if self._config.openai_base_url else "openai"
        return await self._endpoint(self.where, self._key, dialect, self._config.timeout)

    async def check(self, http: httpx.AsyncClient) -> None:
        """Asks for the list of models, which needs a valid key."""
        response = await http.get(f"{self.where}/models", headers={"Authorization": f"Bearer {self._key}"})
        response.raise_for_status()


class Embedded(Provider):
    """llama.cpp in a child process of our own."""

    name = "embedded"
    remedy = "look into the embedded model's log, or set OLLAMA_URL"
    features = frozenset({"response_format"})

    def __init__(self, server: EmbeddedServer, config: ChatConfig) -> None:
        super().__init__(model_id=server.model_id, where="a child process")
        self.server = server
        self._config = config
        self._address: Address | None = None

    async def prepare(self, arguments: dict[str, Any]) -> tuple[BaseChatModel, dict[str, Any]]:
        """Starts the child, or starts it again; a new child has a new address and so a new model."""
        address = await self.server.address()
        async with self._lock:
            if self._model is None or address != self._address:
                self._address = address
                self._model = await asyncio.to_thread(self._build)
        return self._model, arguments

    def _build(self) -> BaseChatModel:
        address = self._address
        if address is None:
            raise AssertionError("prepare() sets the address first")
        self.failures = (*self.failures, *_openai_failures())
        return _openai_model(
            url=f"{address.url}/v1",
            key=address.key,
            model_id=self.model_id,
            config=self._config,
            read_timeout_s=self._config.embedded_read_timeout_s,
            exits=self._exits,
        )

    async def endpoint(self) -> Endpoint:
        """The child's own server, started when it does not run."""
        address = await self.server.address()
        timeout = httpx.Timeout(self._config.embedded_read_timeout_s, connect=self._config.connect_timeout_s)
        return await self._endpoint(f"{address.url}/v1", address.key, "compatible", timeout)

    async def check(self, http: httpx.AsyncClient) -> None:
        """Asks a running child; one that waits for its first call is well."""
        if self.server.pid is not None and self._address is not None:
            (await http.get(f"{self._address.url}/health")).raise_for_status()

    async def revive(self) -> bool:
        """A child that refuses connections is dying, even while the system still counts it as alive: start another."""
        await self.server.restart()
        return True

    async def close(self) -> None:
        """End the child and close the connections to it."""
        await self.server.stop()
        await super().close()
