"""The chat model over real HTTP on loopback: fallback, streaming, usage, timeouts, budget."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import SecretStr
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from models.budget import Budget, BudgetExceeded
from models.chat import Chat, ChatConfig, InvalidModel, open_chat
from models.fallback import AnswerCutShort, NoModelAnswers
from models.metering import UNSCOPED
from models.prices import NANO_USD, Price, PriceTable

Body = dict[str, Any]
RUN: RunnableConfig = {"configurable": {"thread_id": "run-1"}}
PRICES = PriceTable({"pricey": Price(1000.0, 1000.0), "cheap": Price(1.0, 2.0)})


class Api:
    """An Ollama-like and OpenAI-like server on loopback, with faults."""

    def __init__(self) -> None:
        self.words = ["Red", " is", " a", " colour."]
        self.status = 200
        self.cut_after: int | None = None
        """Break the connection after so many words."""
        self.hold_after: int | None = None
        """Say nothing more after so many words."""
        self.usage: Body | None = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        self.bodies: list[Body] = []
        self.authorization: list[str | None] = []
        self.hung_up = asyncio.Event()
        self.url = ""

    async def openai(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        self.authorization.append(request.headers.get("authorization"))
        if self.status != 200:
            return JSONResponse({"error": {"message": "no luck today"}}, self.status)

        async def lines() -> AsyncIterator[str]:
            async for word in self.said():
                choice: Body = {"index": 0, "delta": {"role": "assistant", "content": word}}
                yield f"data: {json.dumps({'model': 'm', 'choices': [choice]})}\n\n"
            choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}
            yield f"data: {json.dumps({'model': 'm', 'choices': [choice], 'usage': self.usage})}\n\ndata: [DONE]\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def ollama(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        if self.status != 200:
            return JSONResponse({"error": "no luck today"}, self.status)

        async def lines() -> AsyncIterator[str]:
            async for word in self.said():
                yield (
                    json.dumps({"model": "m", "message": {"role": "assistant", "content": word}, "done": False}) + "\n"
                )
            counts = {"prompt_eval_count": 7, "eval_count": 5, "done_reason": "stop"}
            yield (
                json.dumps({"model": "m", "message": {"role": "assistant", "content": ""}, "done": True, **counts})
                + "\n"
            )

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def said(self) -> AsyncIterator[str]:
        try:
            for number, word in enumerate(self.words):
                if number == self.cut_after:
                    raise ConnectionAbortedError("the test cuts the answer here")
                if number == self.hold_after:
                    await asyncio.Event().wait()
                yield word
        except asyncio.CancelledError:
            self.hung_up.set()
            raise

    async def models(self, request: Request) -> Response:
        if self.status != 200:
            return JSONResponse({}, self.status)
        return JSONResponse({"data": [], "models": [{"name": "here:latest"}]})


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    fake = Api()
    routes = [
        Route("/v1/chat/completions", fake.openai, methods=["POST"]),
        Route("/api/chat", fake.ollama, methods=["POST"]),
        Route("/v1/models", fake.models),
        Route("/api/tags", fake.models),
    ]
    config = uvicorn.Config(Starlette(routes=routes), log_level="critical", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    fake.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with contextlib.closing(listener):
        serving = asyncio.create_task(server.serve([listener]))
        yield fake
        server.should_exit = server.force_exit = True
        await serving


@pytest.fixture
def nowhere() -> str:
    """A loopback address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def config(api: Api, tmp_path: Path) -> ChatConfig:
    """OpenAI's protocol, to the fake server."""
    return ChatConfig(
        provider="openai",
        openai_base_url=f"{api.url}/v1",
        openai_api_key=SecretStr("sk-secret"),
        openai_model="local-model",
        data_dir=tmp_path,
        read_timeout_s=5.0,
    )


async def collect(stream: AsyncIterator[AIMessageChunk]) -> tuple[list[str], AIMessageChunk]:
    """The pieces of text, and the whole."""
    chunks = [chunk async for chunk in stream]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return [chunk.text for chunk in chunks if chunk.text], whole


@pytest.mark.parametrize("provider", ["openai", "ollama", "mistral"])
async def test_each_provider_streams_and_reports_its_own_usage(api: Api, config: ChatConfig, provider: str) -> None:
    config = replace(
        config,
        provider=provider,
        ollama_url=api.url,
        mistral_api_key=SecretStr("m-secret"),
        mistral_base_url=f"{api.url}/v1",
    )
    async with open_chat(config) as chat:
        pieces, whole = await collect(chat.astream("Name a colour."))
        assert pieces == api.words
        assert whole.usage_metadata is not None
        assert (whole.usage_metadata["input_tokens"], whole.usage_metadata["output_tokens"]) == (7, 5)
        assert whole.response_metadata["lumina_provider"] == provider
        assert whole.response_metadata["lumina_first_token_s"] > 0
        answer = await chat.ainvoke("Name a colour.", max_tokens=9)
        assert answer.text == "Red is a colour."
        assert answer.usage_metadata == whole.usage_metadata
    sent = api.bodies[-1]
    assert sent["stream"] is True
    assert (sent["options"]["num_predict"] if provider == "ollama" else sent["max_tokens"]) == 9
    if provider != "ollama":
        assert api.authorization[-1] == ("Bearer sk-secret" if provider == "openai" else "Bearer m-secret")


async def test_ollama_is_unwell_without_the_model_and_well_with_it(api: Api, config: ChatConfig) -> None:
    for model, expected in (("here", "ok"), ("absent", "ollama pull absent")):
        async with open_chat(replace(config, provider="ollama", ollama_url=api.url, ollama_model=model)) as chat:
            assert expected in (await chat.check())["ollama"]


async def test_a_provider_that_is_down_is_replaced_and_then_left_alone(
    api: Api, config: ChatConfig, nowhere: str
) -> None:
    config = replace(config, provider="auto", ollama_url=nowhere)
    async with open_chat(config) as chat:
        assert [info.name for info in chat.providers()][:2] == ["ollama", "openai"]
        assert [info.name for info in chat.providers() if info.in_use] == ["ollama"]
        pieces, whole = await collect(chat.astream("Name a colour."))
        assert pieces == api.words
        (reason,) = whole.response_metadata["lumina_fallbacks"]
        assert reason.startswith("ollama: ")
        assert [info.name for info in chat.providers() if info.in_use] == ["openai"]
        again = await chat.ainvoke("Name a colour.")
        assert "lumina_fallbacks" not in again.response_metadata
        states = await chat.check()
        assert states["openai"] == "ok"
        assert states["ollama"] != "ok"


@pytest.mark.parametrize("fault", ["silent", "500", "cut before the first token"])
async def test_every_way_of_failing_before_the_first_token_leads_to_the_next(
    api: Api, config: ChatConfig, fault: str
) -> None:
    api.hold_after = 0 if fault == "silent" else None
    api.cut_after = 0 if fault.startswith("cut") else None
    api.status = 500 if fault == "500" else 200
    second = Chat.from_model(FakeListChatModel(responses=["from the second"]))
    async with open_chat(replace(config, read_timeout_s=0.2)) as chat:
        chat.model.providers.extend(second.model.providers)
        pieces, whole = await collect(chat.astream("Name a colour."))
        assert "".join(pieces) == "from the second"
        assert whole.response_metadata["lumina_fallbacks"][0].startswith("openai: ")


async def test_an_answer_that_breaks_off_is_an_error_in_a_stream_and_replaced_in_a_whole(
    api: Api, config: ChatConfig
) -> None:
    api.cut_after = 2
    second = Chat.from_model(FakeListChatModel(responses=["from the second"]))
    async with open_chat(config) as chat:
        chat.model.providers.extend(second.model.providers)
        stream = chat.astream("Name a colour.")
        assert [(await anext(stream)).text, (await anext(stream)).text] == ["Red", " is"]
        with pytest.raises(AnswerCutShort, match=r"openai \(local-model at http://127"):
            await anext(stream)
        chat.model.providers[0].resting_until_s = 0
        assert (await chat.ainvoke("Name a colour.")).text == "from the second"


async def test_when_nobody_answers_one_line_says_what_was_tried_and_what_to_do(
    api: Api, config: ChatConfig, nowhere: str
) -> None:
    api.status = 401
    async with open_chat(replace(config, provider="auto", ollama_url=nowhere)) as chat:
        chat.model.providers = chat.model.providers[:2]  # without the embedded one
        with pytest.raises(NoModelAnswers) as caught:
            await chat.ainvoke("Name a colour.")
    text = str(caught.value)
    assert "\n" not in text
    assert set(caught.value.tried) == {"ollama", "openai"}
    for part in (nowhere, "OLLAMA_URL", "OPENAI_API_KEY", "401", "no luck today"):
        assert part in text
    assert "sk-secret" not in text


async def test_leaving_a_stream_closes_the_connection(api: Api, config: ChatConfig) -> None:
    api.hold_after = 1
    async with open_chat(config) as chat:
        reading = asyncio.create_task(chat.ainvoke("Name a colour."))
        async with asyncio.timeout(60):
            while not api.bodies:
                await asyncio.sleep(0.005)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await api.hung_up.wait()


async def test_a_kept_connection_that_the_server_closed_is_tried_again(config: ChatConfig) -> None:
    """As llama.cpp does after five idle seconds, at the worst moment: when the next request is on its way."""
    connections: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        with contextlib.suppress(asyncio.IncompleteReadError), contextlib.closing(writer):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))
                connections[-1] += 1
                if connections[-1] == 2 and len(connections) == 1:
                    return
                body = 'data: {"choices": [{"index": 0, "delta": {"content": "yes"}}]}\n\ndata: [DONE]\n\n'
                top = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write((top + body).encode())

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server, open_chat(replace(config, openai_base_url=url)) as chat:
        for _ in range(2):
            assert (await chat.ainvoke("Sure?")).text == "yes"
    assert connections == [2, 1]


async def test_callbacks_hear_each_token_and_the_usage_once(api: Api, config: ChatConfig) -> None:
    usage = UsageMetadataCallbackHandler()
    async with open_chat(config) as chat:
        events = [event async for event in chat.model.astream_events("Hi", {"callbacks": [usage]}, version="v2")]
    assert [e["event"] for e in events].count("on_chat_model_start") == 1
    streamed = [e["data"]["chunk"].text for e in events if e["event"] == "on_chat_model_stream"]
    assert "".join(streamed) == "Red is a colour."
    assert usage.usage_metadata["m"]["output_tokens"] == 5


async def test_tools_reach_the_provider_in_its_format(api: Api, config: ChatConfig) -> None:
    @tool
    def look_up(title: str) -> str:
        """Look up an article."""
        return title

    for provider in ("openai", "ollama"):
        async with open_chat(replace(config, provider=provider, ollama_url=api.url)) as chat:
            await chat.model.bind_tools([look_up], tool_choice="any").ainvoke("Look up fractals.")
        assert api.bodies[-1]["tools"][0]["function"]["name"] == "look_up"


async def test_other_threads_may_use_the_blocking_form_but_the_loop_may_not(config: ChatConfig) -> None:
    async with open_chat(config) as chat:
        assert (await asyncio.to_thread(chat.model.invoke, "Hi")).text == "Red is a colour."
        with pytest.raises(RuntimeError, match="use ainvoke"):
            chat.model.invoke("Hi")


async def test_a_given_model_streams_and_falls_back_like_any_other() -> None:
    class Down(FakeListChatModel):
        async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            raise ConnectionError("unplugged")
            yield

    chat = Chat.from_model(Down(responses=[]), FakeListChatModel(responses=["ab", "ab"]))
    assert [info.local for info in chat.providers()] == [True, True]
    pieces, whole = await collect(chat.astream("Hi"))
    assert pieces == ["a", "b"]
    assert "unplugged" in whole.response_metadata["lumina_fallbacks"][0]
    assert isinstance(await chat.ainvoke("Hi"), AIMessage)


class TestBudget:
    """The fake server is on loopback but its model has a price: it is metered."""

    @pytest.fixture
    def paid(self, config: ChatConfig) -> ChatConfig:
        return replace(config, openai_model="cheap", max_output_tokens=50)

    async def test_what_the_provider_counted_is_charged_to_the_run(
        self, api: Api, paid: ChatConfig, redis: Redis
    ) -> None:
        budget = Budget(redis, limit_usd=1, prices=PRICES)
        async with open_chat(paid, budget=budget) as chat:
            assert not chat.providers()[0].local
            _, whole = await collect(chat.astream("Hi", RUN))
            await chat.ainvoke("Hi", {"metadata": {"run_scope": "run-1"}, "configurable": {"thread_id": "other"}})

            async def node(state: MessagesState) -> MessagesState:
                return {"messages": [await chat.model.ainvoke(state["messages"])]}

            graph = StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile()
            start: MessagesState = {"messages": [HumanMessage("Hi")]}
            streamed = [piece async for piece, _ in graph.astream(start, RUN, stream_mode="messages")]
            assert "".join(piece.text for piece in streamed if isinstance(piece, AIMessageChunk)) == "Red is a colour."
            await chat.ainvoke("Hi")
        one_call = (7 * 1 + 5 * 2) / 1_000_000
        assert whole.response_metadata["lumina_usd"] == pytest.approx(one_call)
        assert await budget.spent("run-1") == pytest.approx(3 * one_call)
        assert await budget.spent(UNSCOPED) == pytest.approx(one_call)
        assert await redis.hget("lumina:{budget:run-1}", "held") == b"0"

    async def test_a_call_that_fails_before_its_first_token_costs_nothing(
        self, api: Api, paid: ChatConfig, redis: Redis
    ) -> None:
        budget = Budget(redis, limit_usd=1, prices=PRICES)
        api.status = 500
        async with open_chat(paid, budget=budget) as chat:
            with pytest.raises(NoModelAnswers):
                await chat.ainvoke("Hi", RUN)
        assert await budget.spent("run-1") == 0
        assert await redis.hget("lumina:{budget:run-1}", "held") == b"0"

    async def test_a_cancelled_call_is_charged_for_what_was_sent_and_received(
        self, api: Api, paid: ChatConfig, redis: Redis
    ) -> None:
        budget = Budget(redis, limit_usd=1, prices=PRICES)
        api.hold_after = 2
        async with open_chat(paid, budget=budget) as chat:
            stream = chat.astream("Hi", RUN)
            assert [(await anext(stream)).text, (await anext(stream)).text] == ["Red", " is"]
            stuck = asyncio.ensure_future(anext(stream))
            await asyncio.wait({stuck}, timeout=0.01)
            stuck.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stuck
        spent = await budget.spent("run-1")
        assert 0 < spent < 50 * 2 / 1_000_000 + 200 / 1_000_000
        assert await redis.hget("lumina:{budget:run-1}", "held") == b"0"

    async def test_when_the_budget_is_gone_the_local_model_answers_and_says_so(
        self, api: Api, paid: ChatConfig, redis: Redis
    ) -> None:
        budget = Budget(redis, limit_usd=0.000_001, prices=PRICES)
        local = Chat.from_model(FakeListChatModel(responses=["from here"]))
        async with open_chat(paid, budget=budget) as chat:
            chat.model.spare = local.model.providers[0]
            answer = await chat.ainvoke("Hi", RUN)
            assert answer.text == "from here"
            assert answer.response_metadata["lumina_budget"] == "exhausted"
            assert api.bodies == []
            chat.model.spare = None
            with pytest.raises(BudgetExceeded, match="run-1"):
                await chat.ainvoke("Hi", RUN)

    async def test_concurrent_calls_never_pass_the_limit(self, api: Api, paid: ChatConfig, redis: Redis) -> None:
        budget = Budget(redis, limit_usd=0.0005, prices=PRICES)
        async with open_chat(paid, budget=budget) as chat:
            chat.model.spare = None
            outcomes = await asyncio.gather(*(chat.ainvoke("Hi", RUN) for _ in range(20)), return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, BudgetExceeded)]
        assert 0 < len(refused) < 20
        assert len(api.bodies) == 20 - len(refused)
        assert await budget.spent("run-1") == pytest.approx(len(api.bodies) * 17 / 1_000_000)

    async def test_without_its_store_nothing_paid_is_called(self, api: Api, paid: ChatConfig, tmp_path: Path) -> None:
        gone: Redis = Redis.from_url(f"unix://{tmp_path}/absent")
        async with open_chat(paid, budget=Budget(gone, limit_usd=1, prices=PRICES)) as chat:
            with pytest.raises(NoModelAnswers, match=r"budget of run run-1 cannot be read"):
                await chat.ainvoke("Hi", RUN)
        assert api.bodies == []
        await gone.aclose()

    async def test_the_reservation_covers_text_without_usage(self, api: Api, paid: ChatConfig, redis: Redis) -> None:
        budget = Budget(redis, limit_usd=1, prices=PRICES)
        api.usage = None
        async with open_chat(paid, budget=budget) as chat:
            await chat.ainvoke("Hi", RUN)
        spent = await budget.spent("run-1") * NANO_USD
        assert spent > len("Red is a colour.") * 2_000  # a token is at least a byte: charged as if each byte were one


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"provider": "gpt"}, "LLM_PROVIDER is 'gpt'; accepted are auto, ollama, mistral, openai, embedded"),
        ({"provider": "mistral"}, "MISTRAL_API_KEY"),
        ({"provider": "mistral", "mistral_api_key": SecretStr("")}, "MISTRAL_API_KEY"),
        ({"provider": "openai"}, "OPENAI_API_KEY"),
        ({"provider": "ollama"}, "OLLAMA_URL"),
        ({"provider": "ollama", "ollama_url": "localhost:11434"}, "must begin with http"),
        ({"temperature": 3.0}, "LLM_TEMP is 3; accepted are numbers from 0 to 2"),
        ({"provider": "mistral", "mistral_api_key": SecretStr("k"), "temperature": 1.5}, "from 0 to 1"),
        ({"provider": "embedded", "gguf_path": Path("/absent.gguf")}, "no GGUF file at /absent.gguf"),
    ],
)
async def test_a_configuration_that_cannot_work_is_refused_at_once(changes: Body, expected: str) -> None:
    with pytest.raises(InvalidModel) as caught:
        async with open_chat(ChatConfig(**changes)):
            raise AssertionError("it opened")
    assert expected in str(caught.value)


async def test_auto_takes_what_is_configured_in_order_and_ends_with_the_embedded_one(tmp_path: Path) -> None:
    everything = ChatConfig(
        data_dir=tmp_path,
        ollama_url="http://127.0.0.1:1",
        mistral_api_key=SecretStr("k"),
        openai_api_key=SecretStr("k"),
    )
    async with open_chat(everything) as chat:
        assert [(info.name, info.paid) for info in chat.providers()] == [
            ("ollama", False),
            ("mistral", True),
            ("openai", True),
            ("embedded", False),
        ]
    async with open_chat(ChatConfig(data_dir=tmp_path)) as chat:
        assert [info.name for info in chat.providers()] == ["embedded"]
    assert "SecretStr('**********')" in repr(everything)
