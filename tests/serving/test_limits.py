"""Rate limits as a client meets them."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from graphs.limits import RateLimited
from graphs.runs import Runner
from memory.buckets import Bucket
from server import create_app
from serving import limits
from settings import load_settings

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]
Connect = Callable[[FastAPI], AbstractAsyncContextManager[httpx.AsyncClient]]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

CHAT = {"message": "Hello", "mode": "chat"}
POLICY = r'"[a-z]+";q=\d+;w=60'
STATE = r'"[a-z]+";r=\d+;t=\d+'


@pytest.fixture
def opened() -> list[Runner]:
    """What the application runs on."""
    return []


@pytest.fixture
def serve(
    lumina: Lumina, tmp_path: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch, opened: list[Runner]
) -> Serve:
    """The application with these rate limits (``qa=2``)."""

    @asynccontextmanager
    async def open_app(keys: str | None = None, **per_minute: int) -> AsyncIterator[httpx.AsyncClient]:
        monkeypatch.setenv("RATE_LIMITS", ",".join(f"{name}={limit}" for name, limit in per_minute.items()))
        settings = load_settings(data_dir=tmp_path / "data", lumina_api_keys=keys)

        @asynccontextmanager
        async def open_one(_: Any) -> AsyncIterator[Runner]:
            async with lumina() as runner:
                opened.append(runner)
                yield runner

        app = create_app(settings, open_runner=open_one)
        async with connect(app) as client:
            yield client

    return open_app


def read(header: str) -> dict[str, dict[str, int]]:
    """The items of a RateLimit or RateLimit-Policy field."""
    found = {}
    for item in header.split(", "):
        name, *parameters = item.split(";")
        found[name.strip('"')] = {key: int(value) for key, value in (one.split("=") for one in parameters)}
    return found


async def test_answers_of_a_limited_route_say_how_it_stands(serve: Serve) -> None:
    async with serve(qa=3) as client:
        for remaining in (2, 1):
            response = await client.post("/masterchat/chat", json=CHAT)
            assert response.status_code == 200
            assert re.fullmatch(POLICY, response.headers["ratelimit-policy"])
            assert re.fullmatch(STATE, response.headers["ratelimit"])
            assert read(response.headers["ratelimit-policy"]) == {"qa": {"q": 3, "w": 60}}
            assert read(response.headers["ratelimit"])["qa"]["r"] == remaining
        streamed = await client.post("/masterchat/chat", json={**CHAT, "stream": True})
        assert read(streamed.headers["ratelimit"])["qa"]["r"] == 0
        assert "ratelimit" not in (await client.get("/tasks")).headers


async def test_a_request_without_a_token_is_refused_and_told_when_to_come_back(serve: Serve) -> None:
    async with serve(qa=1, crawl=9) as client:
        assert (await client.post("/masterchat/chat", json=CHAT)).status_code == 200
        for stream in (False, True):
            refused = await client.post("/masterchat/chat", json={**CHAT, "stream": stream})
            body = refused.json()
            assert refused.status_code == 429
            assert refused.headers["content-type"] == "application/problem+json"
            assert (body["status"], body["agent"]) == (429, "qa")
            assert "qa run 1 times a minute" in body["detail"]
            assert 0 < body["retry_after_s"] <= 60
            assert int(refused.headers["retry-after"]) == math.ceil(body["retry_after_s"])
            assert read(refused.headers["ratelimit"])["qa"]["r"] == 0
            assert read(refused.headers["ratelimit-policy"])["qa"]["q"] == 1
        assert (await client.post("/masterchat/plan", json={"message": "Who?", "mode": "wiki_qa"})).status_code == 200
        assert (await client.get("/tasks")).status_code == 200


async def test_a_refused_request_leaves_nothing_behind(serve: Serve, opened: list[Runner]) -> None:
    async with serve(qa=1) as client:
        first = (await client.post("/masterchat/chat", json=CHAT)).json()
        conversations, id_ = opened[0].context.conversations, first["conversation_id"]
        turns = await conversations.turns("local", id_)
        for said in ({**CHAT, "conversation_id": id_}, CHAT):
            assert (await client.post("/masterchat/chat", json=said)).status_code == 429
        assert [one.id for one in (await conversations.page("local")).conversations] == [id_]
        assert await conversations.turns("local", id_) == turns


async def test_a_request_that_cannot_be_run_takes_no_token(serve: Serve) -> None:
    async with serve(qa=2) as client:
        for change, status in (({"mode": "nonsense"}, 422), ({"message": " "}, 422), ({"conversation_id": "x"}, 404)):
            assert (await client.post("/masterchat/chat", json={**CHAT, **change})).status_code == status
        assert (await client.get("/health")).json()["rate_limits"]["qa"]["remaining"] == 2


async def test_a_task_is_taken_in_where_a_request_is_refused(serve: Serve) -> None:
    crawl = {"message": "Crawl it.", "mode": "crawl", "topics": ["Fractal"], "max_nodes": 1}
    async with serve(crawl=1) as client:
        assert (await client.post("/masterchat/chat", json=crawl)).status_code == 200
        again = {**crawl, "topics": ["Mandelbrot set"]}
        assert (await client.post("/masterchat/chat", json=again)).status_code == 429
        queued = await client.post("/tasks", json={"crawl": ["Mandelbrot set"], "max_nodes": 1})
        assert queued.status_code == 202
        assert (await client.delete(queued.headers["location"])).json()["status"] == "cancelled"


async def test_health_tells_the_caller_s_own_limits(serve: Serve) -> None:
    async with serve("ada:k1,bob:k2", qa=5) as client:
        await client.post("/masterchat/chat", json=CHAT, headers={"X-API-Key": "k1"})
        own = (await client.get("/health", headers={"X-API-Key": "k1"})).json()["rate_limits"]
        other = (await client.get("/health", headers={"X-API-Key": "k2"})).json()["rate_limits"]
        nobody = (await client.get("/health")).json()
    assert (own["qa"]["limit"], own["qa"]["remaining"], own["crawl"]["limit"]) == (5, 4, 5)
    assert other["qa"]["remaining"] == 5
    assert (nobody["rate_limits"], nobody["redis"]) == ({}, "ok")


def test_names_and_numbers_are_written_as_structured_fields() -> None:
    buckets: Mapping[str, Bucket] = {"qa": Bucket(20, 0, 2_000_001, 59_000_001), 'a"\\ü\n': Bucket(5, 5, 0, 0)}
    headers = limits.limit_headers(buckets)
    assert headers["RateLimit-Policy"] == '"qa";q=20;w=60, "a\\"\\\\";q=5;w=60'
    assert headers["RateLimit"] == '"qa";r=0;t=60, "a\\"\\\\";r=5;t=0'
    refused = limits.refusal_headers(RateLimited("ada", buckets))
    assert refused["Retry-After"] == "3"
    assert limits.limit_headers({}) == {}
