"""One call of the chat model, with what it cost."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import RunnableConfig

from agents.context import Context
from agents.spec import Usage
from memory.streams import Event
from models.budget import BudgetExceeded
from models.chat import ProviderInfo


@dataclass(frozen=True, slots=True)
class Said:
    """What the model answered."""

    text: str
    model: str
    """Name of the model that answered, which a fallback may have changed."""
    usage: Usage
    whole: bool
    """False when the token limit cut it off."""


async def ask(
    context: Context,
    messages: Sequence[BaseMessage],
    config: RunnableConfig,
    *,
    max_tokens: int,
    agent: str,
    owner: str,
    heard: Callable[[str], None] | None = None,
) -> Said:
    """Ask the chat model, and put what it used on the event stream.

    When the run's budget refused a paid model and another one answered, the usage says so.

    Args:
        context: The open services.
        messages: What the model is told.
        config: Of the run that asks.
        max_tokens: Longest answer.
        agent: Who asks.
        owner: For whom.
        heard: Gets the pieces of the answer as they come; together they are its text.

    Raises:
        NoModelAnswers: no provider answers.
        BudgetExceeded: nothing but the budget stands in the way.
        AnswerCutShort: the provider failed when pieces had been heard.
    """
    started = time.perf_counter()
    if heard is None:
        answer = await context.chat.ainvoke(list(messages), config, max_tokens=max_tokens)
    else:
        answer = await _listen(context, messages, config, max_tokens, heard)
    seconds = time.perf_counter() - started
    used, notes = answer.usage_metadata, answer.response_metadata
    usage = Usage(
        input_tokens=used["input_tokens"] if used else 0,
        output_tokens=used["output_tokens"] if used else 0,
        usd=float(notes.get("lumina_usd", 0.0)),
        refused=int(notes.get("lumina_budget") == "exhausted"),
        stand_in=_stand_in(context, notes),
    )
    model = str(notes.get("lumina_model", ""))
    data = {
        **usage.model_dump(),
        "owner": owner,
        "provider": notes.get("lumina_provider", ""),
        "model": model,
        "seconds": round(seconds, 3),
        "first_token_s": notes.get("lumina_first_token_s"),
        "fallbacks": len(notes.get("lumina_fallbacks", ())),
        "ok": True,
    }
    task_id = str(config.get("configurable", {}).get("thread_id", ""))
    await context.streams.publish([Event("llm.usage", data, agent=agent, task_id=task_id)])
    whole = notes.get("finish_reason", "stop") != "length"
    return Said(str(answer.text).strip(), model, usage, whole)


async def _listen(
    context: Context,
    messages: Sequence[BaseMessage],
    config: RunnableConfig,
    max_tokens: int,
    heard: Callable[[str], None],
) -> AIMessage:
    """The whole answer, every piece of which was handed on; without the white space around it."""
    whole, blank, begun = AIMessageChunk(content=""), "", False
    stream = cast(AsyncGenerator[AIMessageChunk], context.chat.astream(list(messages), config, max_tokens=max_tokens))
    async with aclosing(stream) as chunks:
        async for chunk in chunks:
            whole += chunk
            text = blank + chunk.text if begun else chunk.text.lstrip()
            said = text.rstrip()
            if said:
                heard(said)
                begun = True
            blank = text[len(said) :]
    return whole


async def ask_if_affordable(
    context: Context,
    messages: Sequence[BaseMessage],
    config: RunnableConfig,
    *,
    max_tokens: int,
    agent: str,
    owner: str,
) -> Said:
    """Like ``ask``, for those who can do without: no words when the budget covers no model that is there.

    Raises:
        NoModelAnswers: no provider answers.
    """
    try:
        return await ask(context, messages, config, max_tokens=max_tokens, agent=agent, owner=owner)
    except BudgetExceeded:
        return Said("", "", Usage(refused=1), whole=False)


def _stand_in(context: Context, notes: Mapping[str, Any]) -> str:
    """Which model answered in place of a paid one that was refused."""
    if notes.get("lumina_budget") != "exhausted":
        return ""
    model, name = str(notes.get("lumina_model", "")), notes.get("lumina_provider")
    paid = any(one.paid for one in context.chat.providers() if (one.name, one.model_id) == (name, model))
    return f"the cheaper model {model}" if paid else f"the local model {model}"


def writer_in_use(context: Context) -> ProviderInfo:
    """The chat model that answers, or would be asked first."""
    providers = context.chat.providers()
    return next((provider for provider in providers if provider.in_use), providers[0])


def is_small(provider: ProviderInfo) -> bool:
    """Whether this is the tiny embedded model, which writes fluently and invents."""
    return provider.name == "embedded"
