"""The graph and the agents as Runnables that serve callers: typed input, the caller's owner, a thread per run.

They exist before any service is open. Who calls, and the open services, come with each call in the config.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from langchain_core.messages import AIMessage, AIMessageChunk, message_chunk_to_message
from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableConfig, RunnableLambda
from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator
from starlette.requests import HTTPConnection

from agents.spec import SET_BY_THE_RUN, AgentSpec, Registry, RunRequest
from errors import LuminaError
from graphs.goals import GoalFile
from graphs.intents import find_intent
from graphs.runs import InvalidRequest, RunExists, Runner, new_task_id
from memory.conversations import Message
from serving.limits import admit, admit_agent
from serving.masterchat import open_conversation
from serving.replies import reply_to
from serving.turns import run_turn

CALLER = "__caller"
"""Key of the ``Caller`` in ``configurable``. LangChain copies no key that begins so into what others see."""
THREAD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
"""What a thread id may be: it becomes part of Redis keys and of events."""
CONVERSATIONS = uuid.UUID("6f2b7c52-3a53-4a0e-9f0d-6c1e1d3f5a7b")
"""Namespace of the conversations whose id follows from something else (RFC 9562, version 5)."""


class RunFailed(LuminaError):
    """The run ended without what was asked for."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and the services of the application that was called."""

    runner: Runner
    owner: str = field(repr=False)
    connection: HTTPConnection = field(repr=False)
    """What is answered; its answer tells of the rate limits."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A Runnable under its name, and what can be known of an input before it runs."""

    name: str
    description: str
    runnable: Runnable[Any, Any]
    check: Callable[[Caller, Mapping[str, Any], str], Awaitable[None]]
    """(caller, input, thread id or "") → raises what the run would raise at once."""
    admit: Callable[[Caller, Mapping[str, Any], str], Awaitable[None]]
    """(caller, input, thread id or "") → takes the tokens of the rate limits; raises RateLimited."""
    chat: bool = False
    """Its input is a list of messages and its output a text."""


def _without_null(schema: dict[str, Any]) -> None:
    """Describe «T or null, null when left out» as «T, may be left out»: LangServe's form knows no null."""
    for described in schema.get("properties", {}).values():
        kinds = described.get("anyOf", [])
        some = [kind for kind in kinds if kind != {"type": "null"}]
        if len(some) == 1 and len(kinds) == 2 and described.get("default", ...) is None:
            del described["anyOf"], described["default"]
            described.update(some[0])


class _Given(BaseModel):
    """An input as a caller may give it. What the run sets is passed over, so that whole inputs can be sent back."""

    model_config = ConfigDict(json_schema_extra=_without_null)

    @model_validator(mode="before")
    @classmethod
    def _without_what_the_run_sets(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: item for key, item in value.items() if key not in SET_BY_THE_RUN}
        return value


def serve_all(registry: Registry, goals: GoalFile) -> list[Served]:
    """The whole graph, the graph as a chat, and every agent of the registry.

    Raises:
        InvalidRequest: an agent has the name of the graph.
    """
    if "masterchat" in set(registry):
        raise InvalidRequest("an agent is called «masterchat», which is the name of the whole graph; rename the agent")
    return [_masterchat(goals), _chat(goals), *map(_agent, registry.values())]


# --- the whole graph --------------------------------------------------------------------------------------------------


def _masterchat_input(goals: GoalFile) -> type[BaseModel]:
    """A ``RunRequest`` as people fill it in: the intents of this goal file to choose from, no owner."""
    intents: Any = Literal[("auto", *goals.intents)]
    asked = RunRequest.model_fields
    return create_model(
        "MasterchatInput",
        __base__=_Given,
        __doc__="What is asked of the whole graph: a message, a topic, or both.",
        message=(str, Field("", max_length=20_000, title="Message", description=asked["message"].description)),
        intent=(
            intents,
            Field("auto", title="Intent", description="What to do with it; auto finds it out from the message."),
        ),
        topics=(list[str], Field([], max_length=20, title="Topics", description=asked["topics"].description)),
        hops=(int, Field(1, ge=0, le=5, title="Hops", description=asked["hops"].description)),
        max_nodes=(int, Field(30, ge=1, le=5_000, title="Max nodes", description=asked["max_nodes"].description)),
        conversation_id=(
            str,
            Field("", title="Conversation id", description="Goes on with this conversation; empty: a new one."),
        ),
    )


class _Speaking(RunnableLambda[Any, Any]):
    """Streams chunks of a message and returns the message; runs on the thread that it is given."""

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """What a caller may configure."""
        told = "The run's id. The same again goes on with an interrupted run; empty: a new one."
        return [ConfigurableFieldSpec("thread_id", annotation=str, name="Thread id", description=told, default="")]

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        """The whole message."""
        message = message_chunk_to_message(await super().ainvoke(input, config, **kwargs))
        assert isinstance(message, AIMessage)
        return message


def _masterchat(goals: GoalFile) -> Served:
    schema = _masterchat_input(goals)

    async def check(caller: Caller, given: Mapping[str, Any], thread: str) -> None:
        await _request(caller, schema(**given), thread or new_task_id())

    async def let_in(caller: Caller, given: Mapping[str, Any], thread: str) -> None:
        if thread and await caller.runner.has_begun(thread):
            return  # it has its tokens
        request = await _request(caller, schema(**given), thread or new_task_id())
        await admit(caller.connection, await _with_intent(caller, request))

    async def answer(given: Mapping[str, Any], config: RunnableConfig) -> AsyncIterator[AIMessageChunk]:
        caller, thread = _caller(config), _thread(config) or new_task_id()
        request = await _request(caller, schema(**given), thread)
        request = await _with_intent(caller, request)
        if request.message.strip():
            kept = request.conversation_id or str(uuid.uuid5(CONVERSATIONS, thread))
            await caller.runner.context.conversations.create(caller.owner, conversation_id=kept)
            request = request.model_copy(update={"conversation_id": kept})
        async for chunk in _spoken(caller.runner, request, thread):
            yield chunk

    return Served(
        name="masterchat",
        description="The whole graph: the planner chooses the agents.",
        runnable=_Speaking(answer, name="masterchat").with_types(input_type=schema, output_type=AIMessage),
        check=check,
        admit=let_in,
    )


async def _with_intent(caller: Caller, request: RunRequest) -> RunRequest:
    if request.intent != "auto":
        return request
    found = await find_intent(caller.runner.goals, caller.runner.context.embedder, request.message)
    return request.model_copy(update={"intent": found})


async def _request(caller: Caller, given: Any, thread: str) -> RunRequest:
    """What a caller asks for.

    Raises:
        InvalidRequest: nothing to work on, or a thread id that cannot be one.
        UnknownConversation: the caller has no such conversation.
        RunExists: the thread belongs to another request, or to another owner.
    """
    if not THREAD.fullmatch(thread):
        raise InvalidRequest(
            f"configurable.thread_id «{thread[:60]}» is none: up to 128 letters, digits, «_.:-» are accepted"
        )
    fields = {**given.model_dump(), "conversation_id": given.conversation_id or None}
    request = RunRequest(**fields, owner=caller.owner)
    runner = caller.runner
    any_intent = next(iter(runner.goals.intents))
    runner.validate(request if request.intent != "auto" else request.model_copy(update={"intent": any_intent}))
    if request.conversation_id:
        await open_conversation(runner, caller.owner, request.conversation_id)
    stored = await runner.graph.aget_state({"configurable": {"thread_id": thread}})
    if stored.values and stored.values["request"]["owner"] != caller.owner:
        raise RunExists(f"thread {thread} was started with another request; leave the id out, or use a new one")
    return request


async def _spoken(runner: Runner, request: RunRequest, thread: str) -> AsyncIterator[AIMessageChunk]:
    """A run as the chunks of one message: its words, then what it rests on.

    Raises:
        RunFailed: after the reason was said.
    """
    said = ""
    turn = run_turn(runner, request, thread) if request.conversation_id else runner.stream(request, thread)
    async with aclosing(turn) as events:
        async for event in events:
            if event.kind == "token":
                said += event.data["text"]
                yield AIMessageChunk(content=event.data["text"])
            elif event.kind == "done":
                response = reply_to(request, event.data)
                failed = response.outcome is not None and response.outcome["status"] == "failed"
                rest = response.answer if not said else response.answer.removeprefix(said)
                if rest or not said:
                    yield AIMessageChunk(content=rest)
                if failed and response.outcome:
                    raise RunFailed(response.outcome["reason"])
                usage = response.usage
                counts = {kind: int(usage.get(f"{kind}_tokens", 0)) for kind in ("input", "output")}
                yield AIMessageChunk(
                    content="",
                    response_metadata=response.model_dump(mode="json", exclude={"answer"}),
                    usage_metadata={
                        "input_tokens": counts["input"],
                        "output_tokens": counts["output"],
                        "total_tokens": sum(counts.values()),
                    },
                )


# --- the graph as a chat ----------------------------------------------------------------------------------------------


class ChatTurn(BaseModel):
    """One message, in the words of LangChain."""

    type: Literal["human", "ai"] = "human"
    content: str = Field(max_length=20_000)


class ChatInput(BaseModel):
    """A conversation so far; its last message is answered."""

    messages: list[ChatTurn] = Field(min_length=1, max_length=200)


def _chat(goals: GoalFile) -> Served:
    async def check(caller: Caller, given: Mapping[str, Any], thread: str) -> None:
        last = ChatInput(**given).messages[-1]
        if last.type != "human" or not last.content.strip():
            raise InvalidRequest("the last message has to be of type human, and to say something")

    async def let_in(caller: Caller, given: Mapping[str, Any], thread: str) -> None:
        asked = RunRequest(intent="auto", message=ChatInput(**given).messages[-1].content, owner=caller.owner)
        await admit(caller.connection, await _with_intent(caller, asked))

    async def answer(given: Mapping[str, Any], config: RunnableConfig) -> AsyncIterator[str]:
        caller = _caller(config)
        await check(caller, given, "")
        *history, last = ChatInput(**given).messages
        runner = caller.runner
        intent = await find_intent(runner.goals, runner.context.embedder, last.content)
        conversation_id = await _conversation(caller, history[:2]) if len(history) > 1 else None
        request = RunRequest(intent=intent, message=last.content, owner=caller.owner, conversation_id=conversation_id)
        said = ""
        async for chunk in _spoken(runner, request, new_task_id()):
            said += str(chunk.content)
            yield str(chunk.content)
        if not history:
            await _conversation(caller, [last, ChatTurn(type="ai", content=said[:20_000])])

    runnable: Runnable[Any, Any] = RunnableLambda(answer, name="chat")
    return Served(
        name="masterchat/chat",
        description="The whole graph as a chat: messages in, a text out.",
        runnable=runnable.with_types(input_type=ChatInput, output_type=str),
        check=check,
        admit=let_in,
        chat=True,
    )


async def _conversation(caller: Caller, first: Sequence[ChatTurn]) -> str:
    """The conversation that began with these two messages: whoever resends a history goes on where it ended."""
    told = json.dumps([[turn.type, turn.content] for turn in first])
    conversations, id_ = caller.runner.context.conversations, str(uuid.uuid5(CONVERSATIONS, told))
    await conversations.create(caller.owner, conversation_id=id_)
    roles: dict[str, Literal["user", "assistant"]] = {"human": "user", "ai": "assistant"}
    messages = [Message(roles[turn.type], turn.content) for turn in first if turn.content.strip()]
    await conversations.append(caller.owner, id_, messages, idempotency_key="first")
    return id_


# --- the agents -------------------------------------------------------------------------------------------------------


def _agent(spec: AgentSpec[Any, Any]) -> Served:
    schema = _agent_input(spec)

    def whole(caller: Caller, given: Mapping[str, Any]) -> BaseModel:
        owner = {"owner": caller.owner} if "owner" in spec.input_type.model_fields else {}
        request: BaseModel = spec.input_type(**{**given, **owner})
        return request

    async def check(caller: Caller, given: Mapping[str, Any], thread: str) -> None:
        whole(caller, given)

    async def let_in(caller: Caller, given: Mapping[str, Any], thread: str) -> None:
        await admit_agent(caller.connection, caller.owner, spec.name)

    async def run(given: Mapping[str, Any], config: RunnableConfig) -> Any:
        caller = _caller(config)
        own: RunnableConfig = {**config, "configurable": {"thread_id": new_task_id()}}
        return await spec.build(caller.runner.context).ainvoke(whole(caller, given), own)

    runnable = RunnableLambda(run, name=spec.name).with_types(input_type=schema, output_type=spec.output_type)
    return Served(name=spec.name, description=spec.description, runnable=runnable, check=check, admit=let_in)


def _agent_input(spec: AgentSpec[Any, Any]) -> type[BaseModel]:
    """The agent's input type without what only a run sets."""
    fields: dict[str, Any] = {
        name: (info.annotation, info)
        for name, info in spec.input_type.model_fields.items()
        if name not in SET_BY_THE_RUN
    }
    return create_model(f"{spec.input_type.__name__}Given", __base__=_Given, __doc__=spec.input_type.__doc__, **fields)


def _caller(config: RunnableConfig) -> Caller:
    caller = config["configurable"][CALLER]
    assert isinstance(caller, Caller)
    return caller


def _thread(config: RunnableConfig) -> str:
    return str(config["configurable"].get("thread_id") or "")
