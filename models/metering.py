"""Puts a paid call on its run's budget: a bound is reserved before, the provider's own usage is charged after."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from loguru import logger
from redis.exceptions import RedisError

from errors import LuminaError
from models.budget import Budget
from models.prices import NANO_USD, Price

_TOKENS_AROUND_MESSAGE = 16
"""Role and separators of a message; chat templates in use need 3 to 8."""
UNSCOPED = "unscoped"
"""The account of calls that name no run; all of them share it."""


class BudgetUnknown(LuminaError):
    """The run's account cannot be reached, so no paid call is made."""


class Bill:
    """What one call costs, as far as is known."""

    def __init__(self, price: Price, input_bound: int, output_bound: int) -> None:
        self._price = price
        self._input_bound = input_bound
        self._output_bound = output_bound
        self._received_bytes = 0
        self._usage: UsageMetadata | None = None

    def add(self, message: AIMessage) -> None:
        """Take note of a piece of the answer, and of the usage that may come with it."""
        calls = json.dumps(getattr(message, "tool_call_chunks", None) or message.tool_calls, default=str)
        self.received(len(message.text.encode("utf-8", "replace")) + (len(calls) if calls != "[]" else 0))
        if message.usage_metadata:
            self.count(message.usage_metadata)

    def received(self, n_bytes: int) -> None:
        """Take note of bytes of the answer: a bound on its tokens, for when no usage comes."""
        self._received_bytes += n_bytes

    def count(self, usage: UsageMetadata) -> None:
        """Take note of a provider's own count."""
        self._usage = add_usage(self._usage, usage)

    @property
    def reserve_nano_usd(self) -> int:
        """What the call costs at most."""
        return self._price.cost_nano_usd(input_tokens=self._input_bound, output_tokens=self._output_bound)

    @property
    def due_nano_usd(self) -> int:
        """What is charged now: the provider's usage; without one, nothing before the first token, and a bound after."""
        if self._usage is not None:
            return self._price.cost_nano_usd(
                input_tokens=self._usage["input_tokens"], output_tokens=self._usage["output_tokens"]
            )
        if not self._received_bytes:
            return 0
        received = min(self._received_bytes, self._output_bound)
        return self._price.cost_nano_usd(input_tokens=self._input_bound, output_tokens=received)

    @property
    def due_usd(self) -> float:
        """The same in US dollars."""
        return self.due_nano_usd / NANO_USD


def input_bound(messages: Sequence[BaseMessage], arguments: Mapping[str, Any]) -> int:
    """Tokens that messages and tools cannot exceed: a tokenizer makes no more tokens than there are bytes."""
    parts: list[object] = [message.model_dump(include={"content", "tool_calls"}) for message in messages]
    parts += [arguments.get("tools"), arguments.get("response_format")]
    texts = [json.dumps(part, default=str, ensure_ascii=False) for part in parts]
    return sum(len(text.encode("utf-8", "replace")) + _TOKENS_AROUND_MESSAGE for text in texts)


@asynccontextmanager
async def metered(
    budget: Budget, run_id: str, model_id: str, messages: Sequence[BaseMessage], arguments: Mapping[str, Any]
) -> AsyncIterator[Bill]:
    """Put a call with LangChain's messages on a run's budget; see ``charged``."""
    output_bound = int(arguments.get("max_completion_tokens") or arguments["max_tokens"])
    async with charged(budget, run_id, model_id, input_bound(messages, arguments), output_bound) as bill:
        yield bill


@asynccontextmanager
async def charged(
    budget: Budget, run_id: str, model_id: str, input_tokens: int, output_tokens: int
) -> AsyncIterator[Bill]:
    """Reserve before, settle after, also when the call fails or is cancelled; the tokens are upper bounds.

    A call that ends before its first token costs nothing. One that is broken off later without the provider's usage is
    charged a bound on what was sent and received, for the provider charges it too.

    Raises:
        BudgetExceeded: when the budget does not cover the call.
        BudgetUnknown: when the account cannot be reached.
    """
    bill = Bill(budget.prices[model_id], input_tokens, output_tokens)
    try:
        held = await budget.reserve(run_id, bill.reserve_nano_usd)
    except (RedisError, OSError) as error:
        raise BudgetUnknown(f"the budget of run {run_id} cannot be read ({error!r}); check REDIS_URL") from error
    try:
        yield bill
    finally:
        try:
            # A cancelled call must still be paid.
            await asyncio.shield(budget.settle(held, bill.due_nano_usd))
        except (RedisError, OSError) as error:
            logger.error("run {}: ${:.6f} could not be charged ({!r})", run_id, bill.due_usd, error)
