"""Chat completions over OpenAI's protocol, handed on as the bytes that the provider sends.

LangChain's models take an answer apart and put it together again, piece by piece; a gateway need not. What is kept of
``models.fallback``: the order of the providers, the next one when one fails before its first byte, the budget, and the
provider's own usage.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from langchain_core.messages.ai import UsageMetadata
from pydantic_core import from_json, to_json

from errors import LuminaError
from models.budget import BudgetExceeded
from models.endpoints import Feature, in_dialect
from models.failures import REQUEST_FAULTS, REST_S, reason_of, was_dropped, was_refused
from models.fallback import FallbackChat, NoModelAnswers
from models.metering import Bill, charged
from models.provider import Provider, ProviderDown
from models.usage import UsageFilter

if TYPE_CHECKING:
    import aiohttp

_TOKENS_AROUND_MESSAGE = 16
_MAX_REASON_CHARS = 2_000


class RequestRefused(LuminaError):
    """The provider says that the request is at fault; asking another one would not help."""

    def __init__(self, provider: Provider, status: int, error: Mapping[str, Any]) -> None:
        self.status = status
        self.error = error
        """OpenAI's error object, as far as the provider gave one."""
        super().__init__(f"{provider}: {error.get('message')}")


class Completion:
    """An answer under way. Read ``body`` to its end, or close it."""

    def __init__(
        self,
        provider: Provider,
        response: aiohttp.ClientResponse,
        exits: AsyncExitStack,
        *,
        first: bytes,
        rest: AsyncIterator[bytes] | None,
        usage: UsageFilter,
        bill: Bill | None,
    ) -> None:
        self.provider = provider
        self.media_type = response.headers.get("content-type", "application/json")
        self.tried: dict[str, str] = {}
        """Providers that were asked before and failed, with the reasons."""
        self.budget_exhausted = False
        """Whether the budget refused a paid provider before."""
        self.whole = rest is None
        """Whether the answer came to its end."""
        self._first, self._rest, self._usage = first, rest, usage
        self._bill, self._exits = bill, exits
        self._closed = False

    @property
    def usage(self) -> dict[str, Any] | None:
        """The provider's own counts, when it sent them."""
        return self._usage.usage

    @property
    def usd(self) -> float:
        """What it cost so far."""
        return self._bill.due_usd if self._bill else 0.0

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The answer's bytes. An answer that is cut ends with an error in OpenAI's form."""
        try:
            if self._rest is None:
                yield self._first
                return
            if passed := self._pass_on(self._first):
                yield passed
            async for data in self._rest:
                if passed := self._pass_on(data):
                    yield passed
            if left := self._usage.end():
                yield left
            self.whole = True
        except self.provider.failures as error:
            text = f"{self.provider} failed in the middle of its answer: {reason_of(error)}"
            failure = {"message": text, "type": "server_error", "param": None, "code": "answer_cut_short"}
            yield b"data: " + to_json({"error": failure}) + b"\n\n"
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Hang up on the provider and settle the bill."""
        if self._closed:
            return
        self._closed = True
        if self._bill and self.usage:
            self._bill.count(_counts(self.usage))
        await self._exits.aclose()

    def _pass_on(self, data: bytes) -> bytes:
        if self._bill:
            self._bill.received(len(data))
        return self._usage.feed(data)


async def complete(
    chat: FallbackChat, body: Mapping[str, Any], *, scope: str, temperature: float, first: Provider | None = None
) -> Completion:
    """Ask one provider after another until one answers with its first byte, or wholly when nothing is streamed.

    Args:
        chat: The providers and the budget.
        body: A chat completion request as OpenAI defines it; its ``model`` is replaced by the provider's own.
        scope: The run that pays.
        temperature: Where the request has none.
        first: The provider to ask first; those that lack what the request needs are not asked at all.

    Raises:
        RequestRefused: a provider blames the request.
        BudgetExceeded: nothing but the budget stands in the way.
        NoModelAnswers: no provider answers.
    """
    needed = features_of(body)
    queue = [one for one in chat.in_turn(first) if needed <= one.features]
    tried: list[tuple[Provider, str]] = []
    refusal: BudgetExceeded | None = None
    while queue:
        provider = queue.pop(0)
        for last_attempt in (False, False, True):  # a kept connection may be dropped, and then the child be gone
            try:
                completion = await _ask(chat, provider, body, scope, temperature)
            except RequestRefused:
                raise
            except BudgetExceeded as error:
                refusal = error
                if chat.spare is not None and chat.spare not in queue and needed <= chat.spare.features:
                    queue.append(chat.spare)
                break
            except provider.failures as error:
                again = was_dropped(error) or (was_refused(error) and await provider.revive())
                if last_attempt or not again:
                    tried.append((provider, reason_of(error)))
                    provider.resting_until_s = time.monotonic() + REST_S
                    break
            else:
                chat.answered(provider)
                completion.tried = {failed.name: reason for failed, reason in tried}
                completion.budget_exhausted = refusal is not None
                return completion
    if refusal is not None and not tried:
        raise refusal
    raise NoModelAnswers(tried)


def features_of(body: Mapping[str, Any]) -> set[Feature]:
    """What a request needs beside text."""
    needed: set[Feature] = set()
    if body.get("tools"):
        needed.add("tools")
    if (body.get("response_format") or {}).get("type", "text") != "text":
        needed.add("response_format")
    if (body.get("n") or 1) > 1:
        needed.add("n")
    contents = [message.get("content") for message in body["messages"]]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    if any(part.get("type") != "text" for part in parts):
        needed.add("images")
    return needed


async def _ask(
    chat: FallbackChat, provider: Provider, body: Mapping[str, Any], scope: str, temperature: float
) -> Completion:
    endpoint = await provider.endpoint()
    if endpoint is None:
        raise ProviderDown(f"{provider} does not speak OpenAI's protocol")
    budget = chat.budget if provider.paid else None
    sent = in_dialect(
        body,
        endpoint.dialect,
        model_id=provider.model_id,
        temperature=temperature,
        max_tokens=chat.max_output_tokens if budget else None,
    )
    content = to_json(sent)
    streamed = bool(body.get("stream"))
    async with AsyncExitStack() as stack:
        bill = None
        if budget:
            bound = len(content) + _TOKENS_AROUND_MESSAGE * len(sent["messages"])
            limit = int(sent.get("max_completion_tokens") or sent["max_tokens"]) * int(sent.get("n") or 1)
            bill = await stack.enter_async_context(charged(budget, scope, provider.model_id, bound, limit))
        response = await endpoint.client.post(
            endpoint.url, data=io.BytesIO(content), headers=endpoint.headers(), allow_redirects=False
        )
        stack.callback(response.release)
        if response.status != 200:
            await _raise_for(provider, response, endpoint.silence_s)
        usage = UsageFilter(shown=bool((body.get("stream_options") or {}).get("include_usage")))
        pieces = _pieces(response, endpoint.silence_s)
        first = await anext(pieces, b"") if streamed else b"".join([piece async for piece in pieces])
        if not first or not (streamed or first.lstrip().startswith(b"{")):
            raise ProviderDown(f"{provider} sent nothing that is a chat completion")
        if not streamed:
            usage.usage = from_json(first).get("usage")
            if bill:
                bill.received(len(first))
        rest = pieces if streamed else None
        completion = Completion(provider, response, stack.pop_all(), first=first, rest=rest, usage=usage, bill=bill)
    if not streamed:
        await completion.aclose()
    return completion


async def _pieces(response: aiohttp.ClientResponse, silence_s: float) -> AsyncGenerator[bytes, None]:
    """What has come, as often as something comes.

    aiohttp (3.14) has a limit of its own, but forgets it where a server mangles a chunk in the middle of a stream.

    Raises:
        TimeoutError: nothing came for so long.
    """
    while True:
        async with asyncio.timeout(silence_s):
            data = await response.content.readany()
        if not data:
            return
        yield data


async def _raise_for(provider: Provider, response: aiohttp.ClientResponse, silence_s: float) -> None:
    """What an answer other than 200 means.

    Raises:
        RequestRefused: the request is at fault.
        ProviderDown: the provider is.
    """
    body = b"".join([piece async for piece in _pieces(response, silence_s)])
    text = body.decode(errors="replace")[:_MAX_REASON_CHARS]
    try:
        given = from_json(text)
    except ValueError:
        given = {}
    given = given if isinstance(given, dict) else {}
    error = given.get("error", given.get("message", given.get("detail")))
    error = error if isinstance(error, dict) else {"message": str(error or text or "no reason given")}
    if response.status in REQUEST_FAULTS:
        raise RequestRefused(provider, response.status, error)
    raise ProviderDown(f"it answered {response.status}: {error.get('message')}")


def _counts(usage: Mapping[str, Any]) -> UsageMetadata:
    read, written = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
