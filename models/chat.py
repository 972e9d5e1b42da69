"""The chat model of a process: which providers are configured, opened together, closed together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableConfig
from pydantic import SecretStr

from errors import LuminaError
from models.budget import Budget
from models.completions import Completion, complete
from models.embedded import EmbeddedServer, NoEmbeddedModel
from models.endpoints import Feature
from models.fallback import FallbackChat
from models.prices import PriceTable
from models.provider import Given, Provider, closing_all, is_local
from models.providers import Embedded, Mistral, Ollama, OpenAICompatible

PROVIDERS = ("ollama", "mistral", "openai", "embedded")
"""In the order in which ``auto`` asks them."""


class InvalidModel(LuminaError):
    """The configuration of the chat model cannot work."""


@dataclass(frozen=True)
class ChatConfig:
    """Which chat models there are, and how they are called."""

    provider: str = "auto"
    """``auto``, or one of ``PROVIDERS``, which is then the only one asked."""
    ollama_url: str | None = None
    ollama_model: str = "llama3.2"
    mistral_api_key: SecretStr | None = None
    mistral_model: str = "mistral-small-latest"
    mistral_base_url: str = "https://api.mistral.ai/v1"
    openai_api_key: SecretStr | None = None
    openai_base_url: str | None = None
    """None for OpenAI itself; a server on this machine or in a private network costs nothing, unless the budget's
    prices were given one for its model."""
    openai_model: str = "gpt-4o-mini"
    temperature: float = 0.2
    max_output_tokens: int = 1024
    """For calls that do not set ``max_tokens``."""
    data_dir: Path = field(default_factory=lambda: Path("data"))
    """The embedded model's log goes there."""
    gguf_path: Path | None = None
    """Another model for the embedded llama.cpp."""
    embedded_threads: int | None = None
    """None takes what is free."""
    embedded_context_tokens: int = 4096
    connect_timeout_s: float = 3.0
    read_timeout_s: float = 60.0
    """Longest silence of a provider, before the first token and between two."""
    embedded_read_timeout_s: float = 300.0
    """The same for the embedded model: a small machine reads a long prompt for half a minute, and calls queue."""

    @property
    def timeout(self) -> httpx.Timeout:
        """The two timeouts as httpx takes them."""
        return httpx.Timeout(self.read_timeout_s, connect=self.connect_timeout_s)


@dataclass(frozen=True, slots=True)
class ProviderInfo:
    """One configured provider."""

    name: str
    model_id: str
    where: str
    paid: bool
    in_use: bool
    """Whether it answered last, or will be asked first when none has."""
    features: frozenset[Feature] = frozenset()
    """What it takes over OpenAI's protocol beside text."""

    @property
    def local(self) -> bool:
        """Whether it costs nothing."""
        return not self.paid


class Chat:
    """A chat model with its providers; made by ``open_chat``, or from any model by ``from_model``."""

    def __init__(self, model: FallbackChat, *, http: httpx.AsyncClient | None = None, temperature: float = 0.2) -> None:
        self.model = model
        """What agents use: LangChain's chat model, with fallback and budget inside."""
        self._http = http
        self._temperature = temperature

    @classmethod
    def from_model(cls, *models: BaseChatModel, budget: Budget | None = None) -> Chat:
        """A chat on models made elsewhere, for example scripted ones; the second is asked when the first is down."""
        return cls(FallbackChat(providers=[Given(model) for model in models], budget=budget))

    def providers(self) -> list[ProviderInfo]:
        """The configured providers, in the order in which they are asked."""
        in_use = self.model.in_use
        return [
            ProviderInfo(
                provider.name, provider.model_id, provider.where, provider.paid, provider is in_use, provider.features
            )
            for provider in self._all()
        ]

    async def check(self) -> dict[str, str]:
        """``ok``, or the reason why not, for each provider by name. Costs nothing and starts nothing."""
        if self._http is not None:
            return await self._check(self._http)
        async with _health_client(5.0) as http:
            return await self._check(http)

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """See ``FallbackChat.ainvoke``."""
        return await self.model.ainvoke(input, config, **kwargs)

    def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """See ``FallbackChat.astream``."""
        return self.model.astream(input, config, **kwargs)

    async def complete(self, body: Mapping[str, Any], *, scope: str, model_id: str | None = None) -> Completion:
        """Pass a chat completion request of OpenAI's protocol on; see ``models.completions.complete``.

        Args:
            body: The request; ``stream`` says how the answer comes.
            scope: The run that pays.
            model_id: Ask the provider of this model first.
        """
        first = next((provider for provider in self._all() if provider.model_id == model_id), None)
        return await complete(self.model, body, scope=scope, temperature=self._temperature, first=first)

    def _all(self) -> list[Provider]:
        return [*self.model.providers, *([self.model.spare] if self.model.spare else [])]

    async def _check(self, http: httpx.AsyncClient) -> dict[str, str]:
        async def one(provider: Provider) -> str:
            try:
                await provider.check(http)
            except provider.failures as error:
                return " ".join(str(error).split()) or type(error).__name__
            return "ok"

        providers = self._all()
        states = await asyncio.gather(*map(one, providers))
        return {provider.name: state for provider, state in zip(providers, states, strict=True)}


@asynccontextmanager
async def open_chat(config: ChatConfig, *, budget: Budget | None = None) -> AsyncIterator[Chat]:
    """Open the chat model; nothing is imported, started or asked before the first call.

    ``auto`` asks Ollama, Mistral, an OpenAI-compatible server and the embedded model, as far as they are configured, in
    this order. Paid providers are put on ``budget``, whose run comes with the call: ``metadata.run_scope`` or
    ``configurable.thread_id`` of its RunnableConfig. When it is gone, the next local provider answers.

    Raises:
        InvalidModel: when the configuration names an unknown provider, lacks a key, or leaves nothing to ask.
    """
    chosen, spare = _choose(config, budget.prices if budget else PriceTable())
    everyone = [*chosen, *([spare] if spare else [])]
    async with closing_all(everyone), _health_client(config.connect_timeout_s) as http:
        model = FallbackChat(providers=chosen, spare=spare, budget=budget, max_output_tokens=config.max_output_tokens)
        model._loop = asyncio.get_running_loop()
        yield Chat(model, http=http, temperature=config.temperature)


def _health_client(connect_timeout_s: float) -> httpx.AsyncClient:
    # The environment's proxies are for hosts outside, never for this machine.
    direct = {"all://127.0.0.1": None, "all://localhost": None}
    return httpx.AsyncClient(timeout=httpx.Timeout(5.0, connect=connect_timeout_s), mounts=direct)


def _choose(config: ChatConfig, prices: PriceTable) -> tuple[list[Provider], Provider | None]:
    """The providers to ask, and the one to fall back to when a budget is gone."""
    if config.provider not in ("auto", *PROVIDERS):
        raise InvalidModel(f"LLM_PROVIDER is {config.provider!r}; accepted are auto, {', '.join(PROVIDERS)}")
    if not 0 <= config.temperature <= 2:
        raise InvalidModel(f"LLM_TEMP is {config.temperature:g}; accepted are numbers from 0 to 2")
    for variable, url in (("OLLAMA_URL", config.ollama_url), ("OPENAI_BASE_URL", config.openai_base_url)):
        if url is not None and not url.startswith(("http://", "https://")):
            raise InvalidModel(f"{variable} is {url!r}; it must begin with http:// or https://")
    if config.provider != "auto":
        provider = _open_one(config.provider, config, prices)
        if provider is None:
            raise InvalidModel(f"LLM_PROVIDER is {config.provider}, which needs {_NEEDS[config.provider]}")
        return [provider], _embedded_or_none(config) if provider.paid else None
    remote = [_open_one(name, config, prices) for name in PROVIDERS if name != "embedded"]
    configured = [provider for provider in remote if provider is not None]
    embedded = _embedded_or_none(config) if configured else _open_one("embedded", config, prices)
    return [*configured, *([embedded] if embedded else [])], None


_NEEDS = {
    "ollama": "OLLAMA_URL, for example http://127.0.0.1:11434",
    "mistral": "MISTRAL_API_KEY",
    "openai": "OPENAI_API_KEY, or OPENAI_BASE_URL for a server that wants no key",
}


def _open_one(name: str, config: ChatConfig, prices: PriceTable) -> Provider | None:
    """The provider of this name; None when it is not configured."""
    if name == "ollama":
        return Ollama(config) if config.ollama_url else None
    if name == "mistral":
        if not _is_set(config.mistral_api_key):
            return None
        if config.temperature > 1:
            raise InvalidModel(f"LLM_TEMP is {config.temperature:g}; Mistral accepts numbers from 0 to 1")
        return Mistral(config)
    if name == "openai":
        if not (_is_set(config.openai_api_key) or config.openai_base_url):
            return None
        free = config.openai_base_url is not None and is_local(config.openai_base_url)
        return OpenAICompatible(config, paid=not free or prices.names(config.openai_model))
    try:
        server = EmbeddedServer(
            config.data_dir,
            gguf_path=config.gguf_path,
            threads=config.embedded_threads,
            context_tokens=config.embedded_context_tokens,
        )
    except NoEmbeddedModel as error:
        raise InvalidModel(str(error)) from error
    return Embedded(server, config)


def _embedded_or_none(config: ChatConfig) -> Provider | None:
    try:
        return _open_one("embedded", config, PriceTable())
    except InvalidModel:
        return None


def _is_set(key: SecretStr | None) -> bool:
    return key is not None and bool(key.get_secret_value())
