from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from agents.spec import RunRequest
from graphs.runs import Runner
from masterchat import MasterChat, MasterChatError
from server import create_app
from settings import load_settings

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]
Connect = Callable[[FastAPI], AbstractAsyncContextManager[httpx.AsyncClient]]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

QUESTION = "Who proved that the Mandelbrot set is connected?"
ASK = {"message": QUESTION, "mode": "wiki_qa", "topics": ["Mandelbrot set"], "max_nodes": 5}
REQUEST = RunRequest(intent="wiki_qa", message=QUESTION, topics=["Mandelbrot set"])


@pytest.fixture
def serve(lumina: Lumina, tmp_path: Path, connect: Connect) -> Serve:
    """The application on embedded engines and a scripted model; ``keys`` sets LUMINA_API_KEYS."""

    @asynccontextmanager
    async def open_app(*, keys: str | None = None, **overrides: Any) -> AsyncIterator[httpx.AsyncClient]:
        settings = load_settings(data_dir=tmp_path / "data", lumina_api_keys=keys)
        app = create_app(settings, open_runner=lambda _: lumina(**overrides))
        async with connect(app) as client:
            yield client

    return open_app


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((fields["event"], json.loads(fields["data"])))
    return found


async def test_json_has_the_answer_its_citations_and_the_chain(serve: Serve) -> None:
    async with serve() as client:
        response = await client.post("/masterchat/chat", json=ASK)
    body = response.json()
    assert response.status_code == 200
    assert "Douady" in body["answer"]
    assert body["citations"][0]["revision"] in body["citations"][0]["url"]
    assert body["outcome"]["status"] == "done"
    assert "answered" in body["chain"][-1]


async def test_a_stream_tells_plan_agents_tokens_citations_usage_and_the_end(serve: Serve) -> None:
    async with serve() as client:
        response = await client.post("/masterchat/chat", json={**ASK, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    found = events(response.text)
    kinds = [kind for kind, _ in found]
    assert {"plan", "agent", "progress", "token", "citation", "usage", "done"} == set(kinds)
    assert kinds[-1] == "done"
    said = "".join(data["text"] for kind, data in found if kind == "token")
    done = dict(found)["done"]
    assert said == done["report"]["answer"]["answer"] == done["answer"]


async def test_a_streamed_conversation_goes_on_with_the_id_of_done(serve: Serve) -> None:
    body = {"message": "My name is Ada.", "mode": "chat", "stream": True}
    async with serve(answers=["Hi."]) as client:
        first = dict(events((await client.post("/masterchat/chat", json=body)).text))["done"]
        again = {**body, "conversation_id": first["conversation_id"]}
        second = dict(events((await client.post("/masterchat/chat", json=again)).text))["done"]
    assert first["conversation_id"] == second["conversation_id"]


async def test_the_accept_header_asks_for_a_stream_too(serve: Serve) -> None:
    async with serve() as client:
        response = await client.post("/masterchat/chat", json=ASK, headers={"Accept": "text/event-stream"})
    assert response.headers["content-type"].startswith("text/event-stream")


async def test_a_conversation_goes_on_and_earlier_messages_are_recalled(serve: Serve) -> None:
    async with serve(answers=["Nice to meet you, Ada.", "You are Ada."]) as client:
        first = (await client.post("/masterchat/chat", json={"message": "My name is Ada.", "mode": "chat"})).json()
        again = {"message": "What is my name?", "mode": "chat", "conversation_id": first["conversation_id"]}
        second = (await client.post("/masterchat/chat", json=again)).json()
    assert first["answer"] == "Nice to meet you, Ada."
    assert second["answer"] == "You are Ada."
    assert second["conversation_id"] == first["conversation_id"]


async def test_without_a_mode_the_intent_is_found(serve: Serve) -> None:
    async with serve() as client:
        body = (await client.post("/masterchat/chat", json={"message": "Hello!"})).json()
    assert body["mode"] == "chat"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, "message"),
        ({"message": ""}, 422, "message"),
        ({"message": "x", "mode": "fly"}, 422, "there are: wiki_qa"),
        ({"message": "x", "colour": "red"}, 422, "colour"),
        ({"message": "x", "hops": 9}, 422, "hops"),
        ({"message": "x", "mode": "chat", "conversation_id": "nobody's"}, 404, "no conversation"),
        ({"message": "x", "mode": "crawl", "topics": ["Mandelbort set"]}, 422, "Mandelbrot set"),
    ],
)
async def test_bad_input_is_a_problem_document_that_says_what_is_accepted(
    serve: Serve, body: dict[str, Any], status: int, words: str
) -> None:
    async with serve() as client:
        response = await client.post("/masterchat/chat", json=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert words in problem["detail"]


async def test_keys_are_needed_when_they_are_set_and_owners_do_not_see_each_other(serve: Serve) -> None:
    async with serve(keys="ada:k1,bob:k2", answers=["Hi."]) as client:
        nobody = await client.post("/masterchat/chat", json={"message": "Hi", "mode": "chat"})
        wrong = await client.post(
            "/masterchat/chat", json={"message": "Hi", "mode": "chat"}, headers={"X-API-Key": "no"}
        )
        ada = await client.post(
            "/masterchat/chat", json={"message": "Hi", "mode": "chat"}, headers={"Authorization": "Bearer k1"}
        )
        body = {"message": "Hi", "mode": "chat", "conversation_id": ada.json()["conversation_id"]}
        bob = await client.post("/masterchat/chat", json=body, headers={"X-API-Key": "k2"})
    assert (nobody.status_code, wrong.status_code, ada.status_code, bob.status_code) == (401, 401, 200, 404)
    assert nobody.headers["www-authenticate"] == "Bearer"


async def test_health_names_every_service(serve: Serve) -> None:
    async with serve() as client:
        body = (await client.get("/health")).json()
    assert body["status"] == "ok"
    assert {body[name] for name in ("redis", "qdrant", "duckdb", "llm", "scheduler")} == {"ok"}
    assert body["details"]["redis"]["kind"] == "valkey"
    assert body["details"]["source"] == "lumina-sample"


async def test_the_python_client_streams_an_answer(serve: Serve) -> None:
    async with serve() as http, MasterChat("http://lumina", transport=http._transport) as client:
        response = await client.chat(message=QUESTION, mode="wiki_qa", topics=["Mandelbrot set"], max_nodes=5)
        text = await response.text()
        assert "Douady" in text
        assert response.result["report"]["answer"]["answer"] == text
        assert (await client.health())["status"] == "ok"
        with pytest.raises(MasterChatError, match="there are: wiki_qa") as refused:
            await client.chat(message="x", mode="fly")
        assert refused.value.status == 422


async def test_a_client_that_goes_away_ends_its_run(lumina: Lumina) -> None:
    async with lumina() as runner:
        async with aclosing(runner.stream(REQUEST, "t")) as stream:
            async for event in stream:
                if event.kind == "progress":
                    break
        async with asyncio.timeout(60):
            while any("langgraph" in repr(task) and not task.done() for task in asyncio.all_tasks()):
                await asyncio.sleep(0.01)
        state = await runner.graph.aget_state({"configurable": {"thread_id": "t"}})
        assert not state.values.get("outcome"), "it ran to its end"
        resumed = [event async for event in runner.stream(None, "t")]
    assert resumed[-1].data["outcome"]["status"] == "done"
