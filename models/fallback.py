"""A chat model that asks one provider after another until one answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, nullcontext
from typing import Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import agenerate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, PrivateAttr

from errors import LuminaError
from models.budget import Budget, BudgetExceeded
from models.failures import REQUEST_FAULTS, REST_S, reason_of, status_of, was_dropped, was_refused
from models.metering import UNSCOPED, metered
from models.provider import Provider


class NoModelAnswers(LuminaError):
    """Every provider was tried and none answered."""

    def __init__(self, tried: Sequence[tuple[Provider, str]]) -> None:
        self.tried = {provider.name: reason for provider, reason in tried}
        reasons = "; ".join(f"{provider}: {reason}" for provider, reason in tried)
        remedies = "; ".join(dict.fromkeys(provider.remedy for provider, _ in tried))
        super().__init__(f"no chat model answers. Tried {reasons}. Way out: {remedies}")


class AnswerCutShort(LuminaError):
    """A provider failed in the middle of an answer, part of which was already handed on."""


def run_scope(config: RunnableConfig) -> str | None:
    """The run that pays for a call: ``metadata.run_scope``, else ``configurable.thread_id``."""
    scope = (config.get("metadata") or {}).get("run_scope") or (config.get("configurable") or {}).get("thread_id")
    return None if scope is None else str(scope)


class FallbackChat(BaseChatModel):
    """Asks the first provider that is not resting; when it is down before its first token, the next.

    The first piece of an answer carries in ``response_metadata``: ``lumina_provider`` and ``lumina_model``;
    ``lumina_fallbacks``, the providers that failed before, with their reasons; ``lumina_budget: "exhausted"`` when a
    paid one was refused. The first piece with words carries ``lumina_first_token_s``, seconds since that
    provider was asked; the last piece of a paid answer ``lumina_usd``. Token counts are the provider's own
    ``usage_metadata``.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    providers: list[Provider] = Field(exclude=True)
    """In the order in which they are asked."""
    spare: Provider | None = Field(default=None, exclude=True)
    """A local provider that is asked only when the budget refused the others."""
    budget: Budget | None = Field(default=None, exclude=True)
    """Pays for paid providers; None pays for anything."""
    max_output_tokens: int = 1024
    """Where a call does not set ``max_tokens``."""
    _in_use: Provider | None = PrivateAttr(None)
    _loop: asyncio.AbstractEventLoop | None = PrivateAttr(None)

    @property
    def _llm_type(self) -> str:
        return "lumina"

    @property
    def in_use(self) -> Provider:
        """The provider that answered last; before that, the one that will be asked first."""
        return self._in_use or self.in_turn()[0]

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """The whole answer; a provider that fails midway is replaced, too."""
        kwargs.setdefault("run_scope", run_scope(ensure_config(config)))
        return await super().ainvoke(input, config, **kwargs)

    async def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """The answer in pieces.

        Raises:
            NoModelAnswers: when no provider does.
            BudgetExceeded: when nothing but the budget stands in the way.
            AnswerCutShort: when a provider fails after its first token.
        """
        kwargs.setdefault("run_scope", run_scope(ensure_config(config)))
        async with aclosing(super().astream(input, config, **kwargs)) as chunks:  # type: ignore[type-var]  # a generator
            async for chunk in chunks:
                yield chunk

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools, in OpenAI's format, which every provider takes."""
        if tool_choice is not None:
            kwargs["tool_choice"] = "required" if tool_choice == "any" else tool_choice
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, *_: Any, **kwargs: Any
    ) -> ChatResult:
        """For callers in other threads; the event loop that opened the model does the work."""
        if self._loop is None or self._loop.is_closed():
            raise RuntimeError("this chat model works on an event loop: use ainvoke or astream")
        if self._loop is _running_loop():
            raise RuntimeError("invoke and stream would block the event loop: use ainvoke or astream")
        return asyncio.run_coroutine_threadsafe(self._agenerate(messages, stop, **kwargs), self._loop).result()

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, *_: Any, **kwargs: Any
    ) -> ChatResult:
        # Streamed inside, so that the read timeout means silence and leaving closes the connection at once.
        return await agenerate_from_stream(self._answer(messages, stop, kwargs, whole=True))

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, *_: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        async with aclosing(self._answer(messages, stop, kwargs, whole=False)) as chunks:
            async for chunk in chunks:
                yield chunk

    def in_turn(self, first: Provider | None = None) -> list[Provider]:
        """The providers in the order in which they are asked; those that rest go last.

        Args:
            first: Goes before the others, unless it rests.
        """
        now = time.monotonic()
        others = [provider for provider in self.providers if provider is not first]
        everyone = others if first is None else [first, *others]
        return sorted(everyone, key=lambda provider: provider.resting_until_s > now)

    def answered(self, provider: Provider) -> None:
        """Note that a provider answers."""
        provider.resting_until_s, self._in_use = 0.0, provider

    async def _answer(
        self, messages: list[BaseMessage], stop: list[str] | None, arguments: dict[str, Any], *, whole: bool
    ) -> AsyncGenerator[ChatGenerationChunk]:
        arguments.pop("run_manager", None)
        scope = arguments.pop("run_scope", None) or run_scope(ensure_config()) or UNSCOPED
        if "max_completion_tokens" not in arguments:
            arguments.setdefault("max_tokens", self.max_output_tokens)
        tried: list[tuple[Provider, str]] = []
        refusal: BudgetExceeded | None = None
        queue = self.in_turn()
        while queue:
            provider = queue.pop(0)
            begun = False
            for last_attempt in (False, False, True):  # a kept connection may be dropped, and then the child be gone
                try:
                    call = self._ask(provider, scope, messages, stop, dict(arguments), whole=whole)
                    async with aclosing(call) as chunks:
                        async for chunk in chunks:
                            if not begun:
                                _note(chunk.message, provider, tried, refusal)
                            begun = True
                            yield chunk
                    self.answered(provider)
                    return
                except BudgetExceeded as error:
                    refusal = error
                    if self.spare is not None and self.spare not in queue:
                        queue.append(self.spare)
                    break
                except provider.failures as error:
                    if begun:
                        raise AnswerCutShort(
                            f"{provider} failed in the middle of its answer: {reason_of(error)}"
                        ) from error
                    again = was_dropped(error) or (was_refused(error) and await provider.revive())
                    if last_attempt or not again:
                        tried.append((provider, reason_of(error)))
                        if status_of(error) not in REQUEST_FAULTS:
                            provider.resting_until_s = time.monotonic() + REST_S
                        break
        if refusal is not None and not tried:
            raise refusal
        raise NoModelAnswers(tried)

    async def _ask(
        self,
        provider: Provider,
        scope: str,
        messages: list[BaseMessage],
        stop: list[str] | None,
        arguments: dict[str, Any],
        *,
        whole: bool,
    ) -> AsyncGenerator[ChatGenerationChunk]:
        """One provider's answer; nothing comes out before its first token, or before its end when wanted whole."""
        held_back: list[ChatGenerationChunk] | None = []
        asked, spoke = time.perf_counter(), False
        meter = (
            metered(self.budget, scope, provider.model_id, messages, arguments)
            if provider.paid and self.budget is not None
            else nullcontext()
        )
        async with meter as bill:
            model, own_arguments = await provider.prepare(arguments)
            async with aclosing(_stream(model, messages, stop, own_arguments)) as chunks:
                async for chunk in chunks:
                    if bill is not None and isinstance(chunk.message, AIMessage):
                        bill.add(chunk.message)
                    if not spoke and _says_something(chunk.message):
                        spoke = True
                        _add_notes(chunk.message, lumina_first_token_s=round(time.perf_counter() - asked, 4))
                    if held_back is None:
                        yield chunk
                        continue
                    held_back.append(chunk)
                    if not whole and _says_something(chunk.message):
                        for early in held_back:
                            yield early
                        held_back = None
            if held_back == []:
                raise ConnectionError("it sent nothing")
            for late in held_back or ():
                yield late
            if bill is not None:
                yield ChatGenerationChunk(
                    message=AIMessageChunk(content="", response_metadata={"lumina_usd": bill.due_usd})
                )


async def _stream(
    model: BaseChatModel, messages: list[BaseMessage], stop: list[str] | None, arguments: dict[str, Any]
) -> AsyncGenerator[ChatGenerationChunk]:
    """What the model's own stream gives, without a run of its own: callbacks hear of the outer model only."""
    kind = type(model)
    if kind._stream is BaseChatModel._stream and kind._astream is BaseChatModel._astream:
        for generation in (await model._agenerate(messages, stop=stop, **arguments)).generations:
            message = generation.message
            if isinstance(message, AIMessage):
                yield ChatGenerationChunk(message=AIMessageChunk(**message.model_dump(exclude={"type"})))
        return
    stream = model._astream(messages, stop=stop, **arguments)
    try:
        async for chunk in stream:
            yield chunk
    finally:
        if hasattr(stream, "aclose"):
            await stream.aclose()


def _says_something(message: BaseMessage) -> bool:
    return bool(message.content or message.additional_kwargs or getattr(message, "tool_call_chunks", None))


def _note(
    message: BaseMessage, provider: Provider, tried: list[tuple[Provider, str]], refusal: BudgetExceeded | None
) -> None:
    notes: dict[str, Any] = {"lumina_provider": provider.name, "lumina_model": provider.model_id}
    if tried:
        notes["lumina_fallbacks"] = [f"{failed.name}: {reason}" for failed, reason in tried]
    if refusal is not None:
        notes["lumina_budget"] = "exhausted"
    _add_notes(message, **notes)


def _add_notes(message: BaseMessage, **notes: Any) -> None:
    message.response_metadata = {**message.response_metadata, **notes}


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
