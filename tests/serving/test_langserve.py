"""LangServe's routes, through its own client over a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from fastapi import FastAPI
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langserve import RemoteRunnable

from agents.walk import CrawlInput
from graphs.runs import Runner
from server import create_app
from services import open_runner
from settings import load_settings
from tools.wikipedia.source import Fetched

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]
Connect = Callable[[FastAPI], AbstractAsyncContextManager[httpx.AsyncClient]]
Listen = Callable[[FastAPI], AbstractAsyncContextManager[str]]
Serve = Callable[..., AbstractAsyncContextManager[str]]

KITCHEN = Path(__file__).parents[2] / "docs/examples/kitchen/goal_lattice.yml"
QUESTION = "Who proved that the Mandelbrot set is connected?"
ASK = {"message": QUESTION, "intent": "wiki_qa", "topics": ["Mandelbrot set"], "max_nodes": 3}
HELLO = {"message": "Hello!", "intent": "chat"}
POSTS = ("invoke", "batch", "stream", "stream_log", "stream_events")


@pytest.fixture
def serve(lumina: Lumina, tmp_path: Path, listen: Listen) -> Serve:
    """The URL of a live server on embedded engines; ``keys`` sets LUMINA_API_KEYS."""

    @asynccontextmanager
    async def open_server(
        *, keys: str | None = None, goal_file: Path | None = None, **overrides: Any
    ) -> AsyncIterator[str]:
        given = {"goal_file": goal_file} if goal_file else {}
        settings = load_settings(data_dir=tmp_path / "data", lumina_api_keys=keys, redis_url=None, **given)
        opener = open_runner if goal_file else lambda _: lumina(**overrides)
        async with listen(create_app(settings, open_runner=opener)) as url:
            yield url

    return open_server


Remote = Callable[..., Any]


@pytest.fixture
async def remote() -> AsyncIterator[Remote]:
    """LangServe's client of a Runnable; closed here, for its own closing comes when the loop is gone."""
    made: list[Any] = []

    def connect(url: str, name: str = "masterchat", key: str | None = None) -> Any:
        made.append(RemoteRunnable(f"{url}/runnables/{name}", headers={"X-API-Key": key} if key else None))
        return made[-1]

    yield connect
    for one in made:
        await one.async_client.aclose()


async def test_the_remote_graph_is_a_model_that_cites(serve: Serve, remote: Remote) -> None:
    async with serve() as url:
        graph = remote(url)
        said = await graph.ainvoke(ASK)
        again = await asyncio.to_thread(graph.invoke, ASK)
        text = await (graph | StrOutputParser()).ainvoke(ASK)
    assert isinstance(said, AIMessage)
    assert "Douady" in said.content
    assert said.response_metadata["citations"][0]["revision"]
    assert said.response_metadata["outcome"]["status"] == "done"
    assert said.usage_metadata
    assert said.usage_metadata["total_tokens"] > 0
    assert again.content == text == said.content


async def test_it_streams_the_words_and_tells_its_steps(serve: Serve, remote: Remote) -> None:
    async with serve() as url:
        graph = remote(url)
        chunks = [chunk async for chunk in graph.astream(ASK)]
        in_a_thread = await asyncio.to_thread(lambda: list(graph.stream(ASK)))
        events = [event async for event in graph.astream_events(ASK, version="v2", include_types=["chain"])]
        patches = [patch async for patch in graph.astream_log(ASK)]
    assert len(chunks) > 5
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert "Douady" in whole.content
    assert whole.response_metadata["mode"] == "wiki_qa"
    assert "".join(chunk.content for chunk in in_a_thread) == whole.content
    names = {event["name"] for event in events}
    assert {"planner", "qa", "orchestrator"} <= names
    assert patches


async def test_a_batch_runs_every_input_on_a_thread_of_its_own(serve: Serve, remote: Remote) -> None:
    async with serve(answers=["Hi."]) as url:
        said = await remote(url).abatch([HELLO, ASK])
        in_a_thread = await asyncio.to_thread(remote(url).batch, [HELLO])
        async with httpx.AsyncClient(timeout=60) as client:
            refused = await client.post(
                f"{url}/runnables/masterchat/batch",
                json={"inputs": [HELLO, HELLO], "config": {"configurable": {"thread_id": "one"}}},
            )
    assert said[0].content == in_a_thread[0].content == "Hi."
    assert "Douady" in said[1].content
    assert said[0].response_metadata["task_id"] != said[1].response_metadata["task_id"]
    assert refused.status_code == 422
    assert "give each its own" in refused.json()["detail"]


async def test_the_same_thread_gives_its_answer_again_and_is_nobody_elses(serve: Serve, remote: Remote) -> None:
    async with serve(keys="ada:k1,bob:k2", answers=["Hi.", "Something else."]) as url:
        config = {"configurable": {"thread_id": "greeting-1"}}
        first = await remote(url, key="k1").ainvoke(HELLO, config)
        again = await remote(url, key="k1").ainvoke(HELLO, config)
        with pytest.raises(httpx.HTTPStatusError, match="started with another request") as other:
            await remote(url, key="k2").ainvoke(HELLO, config)
        with pytest.raises(httpx.HTTPStatusError, match="thread_id"):
            await remote(url, key="k1").ainvoke(HELLO, {"configurable": {"thread_id": "a b/../c"}})
        with pytest.raises(httpx.HTTPStatusError, match="409"):
            _ = [chunk async for chunk in remote(url, key="k2").astream(HELLO, config)]
    assert first.content == again.content == "Hi."
    assert first.response_metadata["task_id"] == "greeting-1"
    assert other.value.response.status_code == 409


async def test_what_is_written_belongs_to_the_key_whatever_the_body_says(serve: Serve, remote: Remote) -> None:
    crawl = CrawlInput(topic="Julia set", max_nodes=2, owner="bob", carry={"frontier": "x"}).model_dump()
    summary = {"topic": "Julia set", "method": "extract", "owner": "ada"}
    async with serve(keys="ada:k1,bob:k2") as url:
        read = await remote(url, "crawl", "k1").ainvoke(crawl)
        mine = await remote(url, "summarise", "k1").ainvoke(summary)
        with pytest.raises(httpx.HTTPStatusError, match="crawl it first") as hers:
            await remote(url, "summarise", "k2").ainvoke(summary)
        with pytest.raises(httpx.HTTPStatusError, match="a key is needed"):
            await remote(url, "crawl").ainvoke(crawl)
        forged = {"configurable": {"__caller": {"owner": "ada"}}}
        with pytest.raises(httpx.HTTPStatusError, match="crawl it first"):
            await remote(url, "summarise", "k2").ainvoke(summary, forged)
        async with httpx.AsyncClient(timeout=60) as client:
            anonymous = await client.get(f"{url}/runnables/crawl/playground/")
    assert len(read["titles"]) == 2
    assert "Julia" in mine["text"]
    assert hers.value.response.status_code == 422
    assert anonymous.status_code == 401


async def test_a_conversation_goes_on_by_its_id_or_by_resending_it(serve: Serve, remote: Remote) -> None:
    async with serve(answers=["Nice to meet you.", "Ada."]) as url:
        first = await remote(url).ainvoke({"message": "My name is Ada.", "intent": "chat"})
        on = first.response_metadata["conversation_id"]
        second = await remote(url).ainvoke({"message": "Who am I?", "intent": "chat", "conversation_id": on})
        unknown = {"message": "Who am I?", "conversation_id": "9d1f3f6e-0c2b-4d6e-9a55-000000000000"}
        with pytest.raises(httpx.HTTPStatusError, match="404"):
            await remote(url).ainvoke(unknown)
        chat = remote(url, "masterchat/chat")
        hello = HumanMessage("Hello!")
        said = await chat.ainvoke({"messages": [hello]})
        more = {"messages": [hello, AIMessage(said), HumanMessage("Hello again!")]}
        streamed = "".join([piece async for piece in chat.astream(more)])
    assert second.response_metadata["conversation_id"] == on
    assert isinstance(said, str)
    assert streamed == "Ada."


async def test_a_resent_history_is_kept_once(connect: Connect, lumina: Lumina) -> None:
    async with lumina(answers=["Hi."]) as runner:

        @asynccontextmanager
        async def opened(_: Any) -> AsyncIterator[Runner]:
            yield runner

        app = create_app(load_settings(redis_url=None), open_runner=opened)
        async with connect(app) as client:
            told: list[dict[str, str]] = []
            for message in ("Hello!", "Hello again!", "And again hello!"):
                told.append({"type": "human", "content": message})
                body = {"input": {"messages": told}}
                answer = (await client.post("/runnables/masterchat/chat/invoke", json=body)).json()
                told.append({"type": "ai", "content": answer["output"]})
        page = await runner.context.conversations.page("local")
        turns = await runner.context.conversations.turns("local", page.conversations[0].id)
    assert len(page.conversations) == 1
    assert [turn.content for turn in turns] == [one["content"] for one in told]


REFUSED: list[tuple[str, Any, int, str]] = [
    ("masterchat/invoke", {"input": {"message": "x", "intent": "fly"}}, 422, "'auto', 'wiki_qa'"),
    ("masterchat/invoke", {"input": {"message": " "}}, 422, "neither a message nor a topic"),
    ("masterchat/invoke", {"input": {"message": "x", "hops": 9}}, 422, "hops"),
    ("masterchat/invoke", {"input": {"message": "x"}, "config": None}, 422, "config"),
    ("masterchat/invoke", {"input": None}, 422, "input"),
    ("masterchat/invoke", [], 422, "dictionary"),
    ("masterchat/batch", {"inputs": 5}, 422, "inputs"),
    ("masterchat/batch", {"inputs": [HELLO] * 17}, 422, "at most 16"),
    ("masterchat/batch", {"inputs": [HELLO], "config": [{}, {}]}, 422, "2 configs for 1 inputs"),
    ("masterchat/stream", {"input": {"message": "x", "conversation_id": "no"}}, 404, "no conversation"),
    ("masterchat/invoke", {"input": {"topics": ["Nothing like it"], "intent": "crawl"}}, 422, "Nothing like it"),
    ("masterchat/chat/invoke", {"input": {"messages": []}}, 422, "messages"),
    ("masterchat/chat/stream", {"input": {"messages": [{"type": "ai", "content": "x"}]}}, 422, "type human"),
    ("crawl/invoke", {"input": {}}, 422, "topic"),
    ("crawl/invoke", {"input": {"topic": "Mandelbort set"}}, 404, "Mandelbrot set"),
    ("crawl/batch", {"inputs": [{"topic": "Mandelbort set"}]}, 404, "Mandelbrot set"),
    ("crawl/invoke", {"input": {"topic": "\ud800"}}, 422, "unicode"),
    ("crawl/invoke", {"input": {"topic": "x", "hops": float("nan")}}, 422, "hops"),
    ("orchestrator/invoke", {"input": {"action": "decide", "failures": [{}]}}, 422, "attempts"),
    ("orchestrator/invoke", {"input": {"action": "await_index", "topic": "X"}}, 422, "has not been crawled"),
    ("crawl/c/nonsense/invoke", {"input": {"topic": "x"}}, 400, "config hash"),
    ("masterchat/feedback", {"run_id": "x"}, 404, "there is nothing at"),
    ("masterchat/token_feedback", {}, 404, "there is nothing at"),
]


async def test_a_wrong_input_is_a_problem_document_that_says_what_is_accepted(serve: Serve) -> None:
    async with serve() as url, httpx.AsyncClient(base_url=f"{url}/runnables", timeout=60) as client:
        for path, body, status, words in REFUSED:
            response = await client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
            case = f"{path} {str(body)[:80]}: {response.text}"
            assert response.status_code == status, case
            assert response.headers["content-type"] == "application/problem+json", case
            assert words in response.json()["detail"], case
        for content in (b"{", b"\xff", b""):
            response = await client.post("crawl/invoke", content=content, headers={"Content-Type": "application/json"})
            assert response.status_code in (400, 422), (content[:9], response.text)
        other = await client.post("crawl/invoke", content=b'{"input": {"topic": "x"}}')  # what any page may send
        assert other.status_code == 415
        for missing in ("nothing.js", "assets", "%00", "..%2f..%2fplayground.py"):
            assert (await client.get(f"crawl/playground/{missing}")).status_code == 404


async def test_what_fails_in_a_stream_is_said_in_it_without_a_trace(serve: Serve, remote: Remote) -> None:
    failing = {"message": "", "intent": "crawl", "topics": ["Mandelbort set"]}
    async with serve() as url:
        said: list[str] = []

        async def listen() -> None:
            async for chunk in remote(url).astream(failing):
                said.append(chunk.content)  # noqa: PERF401  # what comes before the error counts

        with pytest.raises(httpx.HTTPStatusError, match="Mandelbrot set") as run:
            await listen()
        with pytest.raises(httpx.HTTPStatusError, match="Mandelbrot set") as agent:
            _ = [chunk async for chunk in remote(url, "crawl").astream({"topic": "Mandelbort set"})]
        events = remote(url, "crawl").astream_events({"topic": "Mandelbort set"}, version="v2")
        with pytest.raises(httpx.HTTPStatusError, match="nearest titles"):
            _ = [event async for event in events]
    assert "Mandelbrot set" in "".join(said)
    assert run.value.response.status_code == 422
    assert agent.value.response.status_code == 404


class Silent:
    """An encyclopaedia that never answers, and tells when it was asked and when nobody waits any more."""

    name = "silent"

    def __init__(self) -> None:
        self.asked, self.left = asyncio.Event(), asyncio.Event()

    async def fetch(self, titles: list[str]) -> Fetched:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()
        raise AssertionError

    async def suggest(self, title: str) -> list[str]:
        return []


@pytest.mark.parametrize("name", ["masterchat", "crawl"])
async def test_a_client_that_goes_away_ends_its_run(serve: Serve, name: str) -> None:
    source = Silent()
    input_ = {"topics": ["X"], "intent": "crawl"} if name == "masterchat" else {"topic": "X"}
    async with serve(source=source) as url:
        for verb in POSTS:
            source.asked.clear()
            source.left.clear()
            body = {"inputs": [input_]} if verb == "batch" else {"input": input_}
            async with httpx.AsyncClient(timeout=60) as client:
                call = asyncio.create_task(client.post(f"{url}/runnables/{name}/{verb}", json=body, timeout=60))
                await asyncio.wait_for(source.asked.wait(), 30)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
            await asyncio.wait_for(source.left.wait(), 30)


async def test_another_application_has_its_own_routes_and_both_live_in_one_process(
    serve: Serve, remote: Remote, lumina: Lumina, tmp_path: Path
) -> None:
    async with serve(goal_file=KITCHEN) as url, httpx.AsyncClient(base_url=f"{url}/runnables", timeout=60) as client:
        shipped = create_app(load_settings(data_dir=tmp_path / "other", redis_url=None))
        bought = await remote(url, "pantry").ainvoke({"dish": "pancakes", "shop": True})
        with pytest.raises(httpx.HTTPStatusError, match="no milk and no flour") as missing:
            await remote(url, "pantry").ainvoke({"dish": "pancakes"})
        dinner = await remote(url).ainvoke({"topics": ["omelette"], "intent": "dinner"})
        intents = (await client.get("masterchat/input_schema")).json()["properties"]["intent"]["enum"]
        assert (await client.get("crawl/input_schema")).status_code == 404
        figures = (await client.get(f"{url}/metrics")).text
        models = [one["id"] for one in (await client.get(f"{url}/v1/models")).json()["data"]]
    assert all(f'lumina_agent_runs_total{{agent="{name}",outcome="ok"}}' in figures for name in ("cook", "pantry"))
    assert 'agent="crawl"' not in figures
    assert {"lumina", "lumina-cook"} <= set(models)
    assert bought["bought"] == ["milk", "flour"]
    assert missing.value.response.status_code == 422
    assert dinner.response_metadata["outcome"]["status"] == "done"
    assert intents == ["auto", "dinner"]
    described = shipped.openapi()
    assert "/runnables/crawl/invoke" in described["paths"]
    schemas = described["components"]["schemas"]
    [asked] = [schema for name, schema in schemas.items() if name.endswith("MasterchatInput")]
    assert "wiki_qa" in asked["properties"]["intent"]["enum"]


async def test_forms_ask_for_no_owner_and_know_no_null(serve: Serve) -> None:
    async with serve() as url, httpx.AsyncClient(base_url=f"{url}/runnables", timeout=60) as client:
        for name in ("masterchat", "crawl", "summarise", "qa", "orchestrator"):
            schema = (await client.get(f"{name}/input_schema")).json()
            assert not {"owner", "carry"} & set(schema["properties"])
            assert '"null"' not in json.dumps(schema["properties"])
            assert (await client.get(f"{name}/output_schema")).json()["properties"]
        config = (await client.get("masterchat/config_schema")).json()
        assert set(config["$defs"]["Configurable"]["properties"]) == {"thread_id"}
        page = await client.get("masterchat/playground/")
        assert "connect-src 'self'" in page.headers["content-security-policy"]


def test_the_description_of_the_routes_is_valid(tmp_path: Path) -> None:
    described = create_app(load_settings(data_dir=tmp_path, redis_url=None)).openapi()
    schemathesis.openapi.from_dict(described).validate()
    runnables = {path: routes for path, routes in described["paths"].items() if path.startswith("/runnables/")}
    assert len(runnables) == 6 * 8
    assert not [path for path in runnables if "config_hash" in path or "feedback" in path]
    stream = runnables["/runnables/qa/stream"]["post"]["responses"]["200"]["content"]
    assert set(stream) == {"text/event-stream"}
    ids = [route["operationId"] for routes in described["paths"].values() for route in routes.values()]
    assert len(ids) == len(set(ids))
