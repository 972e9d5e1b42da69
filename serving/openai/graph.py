"""A run of the graph as a chat completion: tokens as content, progress and citations beside it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from loguru import logger
from pydantic_core import to_json
from starlette.requests import HTTPConnection

from agents.spec import RunRequest
from errors import LuminaError
from graphs.explaining import describe_request
from graphs.intents import find_intent
from graphs.runs import Runner, new_task_id
from serving.limits import admit
from serving.openai.catalogue import Model
from serving.openai.errors import NO_RETRY, OpenAIError, translate
from serving.openai.memory import Kept, keep_answer, keep_question, spoken
from serving.openai.wire import ChatRequest

MAX_MESSAGE = 20_000
"""Characters of a message to the graph, as everywhere in Lumina."""
Chunk = dict[str, Any]


async def open_turn(
    connection: HTTPConnection, runner: Runner, owner: str, model: Model, asked: ChatRequest
) -> GraphTurn:
    """Check a request and store what it says, before the first byte of an answer.

    Raises:
        OpenAIError: nothing that a run can be made of.
        RateLimited: a token is not there; nothing was stored.
    """
    history = spoken(asked.messages)
    if not history:
        raise OpenAIError(
            "Invalid value for 'messages': the graph answers a user, and no message of the role 'user' has text.",
            param="messages",
            code="invalid_value",
        )
    question = history[-1][1]
    if len(question) > MAX_MESSAGE:
        raise OpenAIError(
            f"Invalid value for 'messages': the last message has {len(question)} characters, and the graph takes "
            f"{MAX_MESSAGE}. The chat models behind it take more.",
            param="messages",
            code="string_above_max_length",
        )
    intent = model.intent or await find_intent(runner.goals, runner.context.embedder, question)
    run = RunRequest(
        intent=intent, message=question, topics=asked.topics, hops=asked.hops, max_nodes=asked.max_nodes, owner=owner
    )
    runner.validate(run)
    paid = await admit(connection, run)
    kept = await keep_question(runner.context, owner, history, asked.metadata or {}, connection.headers)
    run = run.model_copy(update={"conversation_id": kept.conversation_id})
    turn = GraphTurn(runner, model.id, asked, run, kept, paid)
    connection.state.task_id = turn.task_id  # for the log
    return turn


@dataclass
class GraphTurn:
    """One question to the graph and its answer."""

    runner: Runner
    model: str
    asked: ChatRequest
    run: RunRequest
    kept: Kept
    paid: Mapping[str, int]
    """Tokens of the rate limits that it took."""
    task_id: str = field(default_factory=new_task_id)

    def __post_init__(self) -> None:
        self._head: Chunk = {"id": f"chatcmpl-{uuid.UUID(self.task_id).hex}", "created": int(time.time())}
        self._text = ""
        self._usage: dict[str, int] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        self._annotations: list[Chunk] = []
        self._ending: Chunk = {}

    @property
    def conversation_id(self) -> str:
        """The conversation that it belongs to."""
        return self.kept.conversation_id

    async def answer(self) -> Chunk:
        """The whole answer as a ``chat.completion``.

        Raises:
            OpenAIError: the run failed.
        """
        async with aclosing(self._pieces()) as pieces:
            async for _ in pieces:
                pass
        message = {"role": "assistant", "content": self._text, "refusal": None, "annotations": self._annotations}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return {
            **self._head,
            "object": "chat.completion",
            "model": self.model,
            "choices": [choice],
            "usage": self._usage,
            "lumina": self._ending,
        }

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events of ``chat.completion.chunk``."""
        try:
            yield self._chunk({"role": "assistant", "content": ""})
            async with aclosing(self._pieces()) as pieces:
                async for delta, beside in pieces:
                    yield self._chunk(delta, lumina=beside)
            yield self._chunk({}, finish_reason="stop", lumina=self._ending)
            if self.asked.stream_options and self.asked.stream_options.include_usage:
                yield self._event({**self._chunk_head(), "choices": [], "usage": self._usage})
            yield b"data: [DONE]\n\n"
        except LuminaError as error:
            yield self._event(translate(error).body())
        except Exception as error:  # the response has begun: the client must hear of it, without a trace
            logger.opt(exception=error).error("a streamed run failed")
            text = "something went wrong here; the log has the details"
            yield self._event(OpenAIError(text, type_="server_error").body())

    async def _pieces(self) -> AsyncGenerator[tuple[Chunk, Chunk | None], None]:
        """Deltas of the message, each with what is to be seen beside it."""
        cut = StopCut(self.asked.stop or ())
        done: Chunk = {}
        if not self.runner.goals.intents[self.run.intent].goals:
            blocks = [await self._planned()]
        else:
            async with aclosing(self.runner.stream(self.run, self.task_id, paid=self.paid)) as events:
                async for event in events:
                    if event.kind == "token" and (text := cut.feed(event.data["text"])):
                        yield {"content": text}, None
                    elif event.kind == "done":
                        done = event.data
                    elif event.kind in ("progress", "agent", "plan"):
                        yield {}, {"kind": event.kind, **event.data}
            _raise_if_failed(done)
            blocks = _blocks(done)
        full = "\n\n".join(text for text, _ in blocks)
        # Agents that do not stream have said nothing yet.
        if full.startswith(cut.taken) and (text := cut.feed(full[len(cut.taken) :])):
            yield {"content": text}, None
        if text := cut.end():
            yield {"content": text}, None
        self._text = cut.given
        self._annotations = list(_annotations(blocks, len(self._text)))
        if self._annotations:
            yield {"annotations": self._annotations}, None
        self._note(done)
        await keep_answer(self.runner.context, self.run.owner, self.kept, self._text, self._metadata(done))

    async def _planned(self) -> tuple[str, list[Chunk]]:
        """The plan in words, for a message that asks for nothing else."""
        asked = self.run.model_dump(include={"intent", "message", "topics", "hops", "max_nodes"})
        return (await describe_request(self.runner, asked, self.run.owner))["explanation"].strip(), []

    def _note(self, done: Chunk) -> None:
        used = done.get("usage") or {}
        read, written = used.get("input_tokens", 0), used.get("output_tokens", 0)
        self._usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        self._ending = {
            "task_id": self.task_id,
            "conversation_id": self.conversation_id,
            "mode": self.run.intent,
            "abstained": bool((done.get("reply") or {}).get("abstained")),
            "notices": (done.get("outcome") or {}).get("notices", []),
        }

    def _metadata(self, done: Chunk) -> Chunk:
        citations = (done.get("reply") or {}).get("citations") or []
        return {"citations": citations, "tokens": done.get("usage") or {}, "task_id": self.task_id}

    def _chunk_head(self) -> Chunk:
        return {**self._head, "object": "chat.completion.chunk", "model": self.model}

    def _chunk(self, delta: Chunk, *, finish_reason: str | None = None, lumina: Chunk | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        beside = {"lumina": lumina} if lumina else {}
        return self._event({**self._chunk_head(), "choices": [choice], **beside})

    def _event(self, document: Chunk) -> bytes:
        return b"data: " + to_json(document) + b"\n\n"


class StopCut:
    """Passes text on until a stop sequence comes; what may be the beginning of one waits."""

    def __init__(self, stops: list[str] | tuple[()]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._longest = max(map(len, self._stops), default=1)
        self._found = False
        self.taken = ""
        """Everything that was fed."""
        self.given = ""
        """What came out of it."""

    def feed(self, text: str) -> str:
        """What may be shown now."""
        self.taken += text
        if self._found:
            return ""
        places = [place for stop in self._stops if (place := self.taken.find(stop)) >= 0]
        if places:
            self._found = True
            return self._give(min(places))
        return self._give(len(self.taken) - self._longest + 1)

    def end(self) -> str:
        """What waited for more, when no more comes."""
        return "" if self._found else self._give(len(self.taken))

    def _give(self, upto: int) -> str:
        shown = self.taken[len(self.given) : max(upto, len(self.given))]
        self.given += shown
        return shown


def _raise_if_failed(done: Chunk) -> None:
    outcome = done.get("outcome") or {}
    if outcome.get("status") == "failed":
        raise OpenAIError(f"The run failed: {outcome['reason']}", code="run_failed", headers=NO_RETRY)


def _blocks(done: Chunk) -> list[tuple[str, list[Chunk]]]:
    """The texts that a run leaves for its reader, each with its citations."""
    report, reply = done.get("report") or {}, done.get("reply")
    if reply:
        return [(reply["answer"], reply.get("citations") or [])]
    summaries = [(one["text"], one.get("citations") or []) for one in report.get("summaries", ())]
    if summaries:
        return summaries
    crawls = [f"Read {len(one['titles'])} pages around «{one['title']}»." for one in report.get("crawls", ())]
    if crawls:
        return [("\n".join(crawls), [])]
    outcome = done.get("outcome") or {}
    if any(value for key, value in report.items() if key != "topics"):  # another application's
        return [(json.dumps(report, ensure_ascii=False, indent=1), [])]
    about = f" for {', '.join(report['topics'])}" if report.get("topics") else ""
    return [
        (outcome.get("reason") or f"Nothing was left to do{about}: {outcome.get('detail', 'all of it holds')}.", [])
    ]


def _annotations(blocks: list[tuple[str, list[Chunk]]], length: int) -> Iterator[Chunk]:
    """OpenAI's ``url_citation`` for every ``[1]`` of the text, with the place of that mark."""
    before = 0
    for text, citations in blocks:
        for citation in citations:
            mark = f"[{citation['number']}]"
            start = text.find(mark)
            while start >= 0:
                end = before + start + len(mark)
                if end <= length:
                    place = {"start_index": before + start, "end_index": end}
                    cited = {"url": citation["url"], "title": citation["title"], **place}
                    yield {"type": "url_citation", "url_citation": cited}
                start = text.find(mark, start + 1)
        before += len(text) + 2
