"""One call of the chat model, with what it cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from agents.context import Context
from agents.spec import Usage
from memory.streams import Event
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
) -> Said:
    """Ask the chat model, and put what it used on the event stream.

    Raises:
        NoModelAnswers: no provider answers.
    """
    started = time.perf_counter()
    answer = await context.chat.ainvoke(list(messages), config, max_tokens=max_tokens)
    seconds = time.perf_counter() - started
    used, notes = answer.usage_metadata, answer.response_metadata
    usage = Usage(
        input_tokens=used["input_tokens"] if used else 0,
        output_tokens=used["output_tokens"] if used else 0,
        usd=float(notes.get("lumina_usd", 0.0)),
    )
    model = str(notes.get("lumina_model", ""))
    data = {
        **usage.model_dump(),
        "owner": owner,
        "provider": notes.get("lumina_provider", ""),
        "model": model,
        "seconds": round(seconds, 3),
        "ok": True,
    }
    task_id = str(config.get("configurable", {}).get("thread_id", ""))
    await context.streams.publish([Event("llm.usage", data, agent=agent, task_id=task_id)])
    whole = notes.get("finish_reason", "stop") != "length"
    return Said(str(answer.text).strip(), model, usage, whole)


def writer_in_use(context: Context) -> ProviderInfo:
    """The chat model that answers, or would be asked first."""
    providers = context.chat.providers()
    return next((provider for provider in providers if provider.in_use), providers[0])


def is_small(provider: ProviderInfo) -> bool:
    """Whether this is the tiny embedded model, which writes fluently and invents."""
    return provider.name == "embedded"
