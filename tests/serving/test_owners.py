"""Two owners never see each other's conversations, tasks, memory, graph or events: every route is tried.

A route that is added later is in ``TABLE`` or these tests fail. Give it a row: how somebody else would call it with
Ada's ids, what comes then, and whether it needs a key.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from agents.spec import discover
from graphs.runs import Runner
from memory.tasks import TaskQueue
from server import create_app
from settings import load_settings

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]

MARK = "xyzzyadaxyzzy"
"""A word that only Ada uses; nothing that Bob gets may have it in it."""
ADA, BOB = {"X-API-Key": "k-ada"}, {"X-API-Key": "k-bob"}
FIRST_PART_S = 2.0
"""How long a stream that never ends is listened to."""


@dataclass(frozen=True)
class Row:
    """How Bob calls a route. ``{task}``, ``{conversation}`` and the like in path and values become Ada's ids."""

    path: str
    status: int
    """What he gets."""
    params: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    open: bool = False
    """Whether it answers without a key."""
    endless: bool = False
    elsewhere: bool = False
    """A WebSocket: ``test_mux`` tries it with and without keys."""


TABLE: dict[str, Row] = {
    "GET /": Row("/", 200, open=True),
    "GET /docs": Row("/docs", 200, open=True),
    "GET /openapi.json": Row("/openapi.json", 200, open=True),
    "MOUNT /docs/files": Row("/docs/files/favicon-32x32.png", 200, open=True),
    "MOUNT /ui": Row("/ui/index.html", 200, open=True),
    "GET /health": Row("/health", 200, open=True),
    "GET /masterchat/health": Row("/masterchat/health", 200, open=True),
    "GET /metrics": Row("/metrics", 200),
    "GET /metrics/summary": Row("/metrics/summary", 200),
    "POST /masterchat/chat": Row(
        "/masterchat/chat",
        404,
        json={"message": "What was said before?", "mode": "chat", "conversation_id": "{conversation}"},
    ),
    "POST /masterchat/plan": Row(
        "/masterchat/plan", 200, json={"message": "Who?", "mode": "wiki_qa", "topics": ["Mandelbrot set"]}
    ),
    "GET /planner/logs": Row("/planner/logs", 200, params={"after": "0", "task_id": "{run}"}, endless=True),
    "GET /planner/lattice": Row("/planner/lattice", 200, params={"intent": "wiki_qa", "topics": "Mandelbrot set"}),
    "POST /events/query": Row("/events/query", 200, json={"sql": "SELECT * FROM events"}),
    "POST /tasks": Row(
        "/tasks", 202, json={"crawl": ["Fractal"], "max_nodes": 1}, headers={"Idempotency-Key": "{idempotency}"}
    ),
    "GET /tasks": Row("/tasks", 200),
    "GET /tasks/{task_id}": Row("/tasks/{task}", 404),
    "DELETE /tasks/{task_id}": Row("/tasks/{task}", 404),
    "POST /tasks/{task_id}/retry": Row("/tasks/{task}/retry", 404),
    "GET /tasks/{task_id}/events": Row("/tasks/{task}/events", 404),
    "GET /events/stream": Row("/events/stream", 200, params={"after": "0", "task_id": "{run}"}, endless=True),
    "WS /ws": Row("/ws", 403, elsewhere=True),
    "GET /events/days": Row("/events/days", 200),
    "GET /events/days/{day}": Row("/events/days/1999-01-01", 404),
    "POST /nodes": Row("/nodes", 201, json={"title": "Mandelbrot set"}),
    "POST /edges": Row("/edges", 201, json={"source": "Mandelbrot_set", "target": "Julia_set"}),
    "GET /nodes/{id:path}": Row("/nodes/{node}", 404),
    "GET /nodes/{id:path}/neighbours": Row("/nodes/{node}/neighbours", 404),
    "GET /graph": Row("/graph", 200),
    "GET /passages/{passage_id}": Row("/passages/{passage}", 404),
    "GET /summaries": Row("/summaries", 200, params={"topic": "Mandelbrot set"}),
    "POST /graph/rebuild": Row("/graph/rebuild", 200),
    "POST /chat": Row("/chat", 404, json={"message": "What was said before?", "conversation_id": "{conversation}"}),
    "GET /masterchat/chat/{task_id}/events": Row("/masterchat/chat/{run}/events", 404),
    "DELETE /masterchat/chat/{task_id}": Row("/masterchat/chat/{run}", 404),
    "GET /conversations": Row("/conversations", 200),
    "GET /conversations/{conversation_id}": Row("/conversations/{conversation}", 404),
    "DELETE /conversations/{conversation_id}": Row("/conversations/{conversation}", 404),
    "GET /v1/models": Row("/v1/models", 200),
    "GET /v1/models/{model:path}": Row("/v1/models/lumina", 200),
    "POST /v1/chat/completions": Row(
        "/v1/chat/completions",
        400,
        json={
            "model": "lumina",
            "messages": [{"role": "user", "content": "What was said before?"}],
            "metadata": {"conversation_id": "{conversation}"},
        },
    ),
    "POST /v1/embeddings": Row("/v1/embeddings", 200, json={"model": "words", "input": ["one"]}),
}


def _runnable_rows(name: str) -> dict[str, Row]:
    """LangServe's routes of one Runnable. Bob asks for Ada's thread where there are threads, else for nothing."""
    mine = {"input": {"message": "Go on."}, "config": {"configurable": {"thread_id": "{run}"}}}
    asked = (409, mine) if name == "masterchat" else (422, {})
    rows = {}
    for below, filled in (("", ""), ("/c/{config_hash}", "/c/N4XyA")):
        path, called = f"/runnables/{name}{below}", f"/runnables/{name}{filled}"
        for verb in ("invoke", "stream", "stream_log", "stream_events"):
            rows[f"POST {path}/{verb}"] = Row(f"{called}/{verb}", asked[0], json=asked[1])
        rows[f"POST {path}/batch"] = Row(f"{called}/batch", 422, json={})
        for kind in ("input_schema", "output_schema", "config_schema"):
            rows[f"GET {path}/{kind}"] = Row(f"{called}/{kind}", 200)
        rows[f"GET {path}/playground/{{file_path:path}}"] = Row(f"{called}/playground/", 200)
    return rows


for _name in ("masterchat", "masterchat/chat", *discover()):
    TABLE |= _runnable_rows(_name)

CALLED = {name: row for name, row in TABLE.items() if not row.elsewhere}


def routes_of(app: FastAPI) -> set[str]:
    """Every route, as ``METHOD /path``."""
    found = set()
    for route in iter_route_contexts(app.routes):
        kind = type(route.original_route).__name__
        if "WebSocket" in kind:
            found.add(f"WS {route.path}")
        elif not route.methods:
            found.add(f"MOUNT {route.path}")
        else:
            found |= {f"{method} {route.path}" for method in route.methods - {"HEAD", "OPTIONS"}}
    return found


def test_every_route_is_in_the_table() -> None:
    assert routes_of(create_app(load_settings(lumina_api_keys="ada:k-ada,bob:k-bob"))) == set(TABLE)


@dataclass(frozen=True)
class House:
    """A server with something of Ada's in every drawer."""

    client: httpx.AsyncClient
    asgi: Any
    runner: Runner
    ids: dict[str, str]

    def fill(self, value: Any) -> Any:
        """A value of the table with Ada's ids."""
        if isinstance(value, str):
            for name, id_ in self.ids.items():
                value = value.replace(f"{{{name}}}", id_)
            return value
        if isinstance(value, Mapping):
            return {name: self.fill(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self.fill(one) for one in value]
        return value

    async def call(self, name: str, headers: Mapping[str, str]) -> tuple[int, str]:
        """Status and text; of a stream that never ends, what comes at first."""
        row, method = TABLE[name], name.split(" ")[0]
        sent: dict[str, Any] = {"headers": {**headers, **self.fill(row.headers)}, "params": self.fill(row.params)}
        if row.json is not None:
            sent["json"] = self.fill(row.json)
        request = self.client.build_request("GET" if method == "MOUNT" else method, self.fill(row.path), **sent)
        if row.endless:
            return await self._listen(request)
        response = await self.client.send(request)
        return response.status_code, response.text

    async def _listen(self, request: httpx.Request) -> tuple[int, str]:
        """Without httpx, whose transport waits for the end of an answer."""
        messages: list[Any] = []
        begun = asyncio.Event()

        async def receive() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            messages.append(message)
            if message["type"] == "http.response.body":
                begun.set()

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": request.method,
            "scheme": "http", "path": request.url.path, "raw_path": request.url.raw_path,
            "query_string": request.url.query, "root_path": "", "server": ("lumina", 80), "client": ("127.0.0.1", 1),
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
        }  # fmt: skip
        listening = asyncio.create_task(self.asgi(scope, receive, send))
        async with asyncio.timeout(30):
            await begun.wait()
        await asyncio.wait({listening}, timeout=FIRST_PART_S)
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
        return messages[0]["status"], b"".join(one.get("body", b"") for one in messages[1:]).decode()


@pytest.fixture
async def house(lumina: Lumina, tmp_path: Path) -> AsyncIterator[House]:
    settings = load_settings(data_dir=tmp_path / "data", lumina_api_keys="ada:k-ada,bob:k-bob")
    opened: list[Runner] = []

    @contextlib.asynccontextmanager
    async def open_one(_: Any) -> AsyncIterator[Runner]:
        async with lumina(answers=[f"Hello {MARK}."]) as runner:
            opened.append(runner)
            yield runner

    app = create_app(settings, open_runner=open_one)
    async with app.router.lifespan_context(app) as state:

        async def asgi(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        transport = httpx.ASGITransport(asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://lumina", timeout=60) as client:
            ask = {"message": f"Who proved that the Mandelbrot set is connected? {MARK}", "mode": "wiki_qa"}
            ask |= {"topics": ["Mandelbrot set"], "max_nodes": 3}  # type: ignore[dict-item]  # JSON has more than texts
            asked = await client.post("/masterchat/chat", headers=ADA, json=ask)
            assert asked.status_code == 200, asked.text
            said = {"message": f"Remember {MARK}.", "mode": "chat"}
            chatted = await client.post("/masterchat/chat", headers=ADA, json=said)
            assert MARK in chatted.text
            # A kind that no worker takes, so that the task is there as it was, however long the test lasts.
            task = await TaskQueue(opened[0].context.redis).submit(
                "waits", {"message": MARK}, owner="ada", idempotency_key=MARK
            )
            noted = await client.post("/nodes", headers=ADA, json={"title": "Adas page", "data": {"note": MARK}})
            ids = {
                "conversation": asked.json()["conversation_id"],
                "run": asked.json()["task_id"],
                "task": task.id,
                "node": noted.json()["ids"][0],
            }
            ids["passage"] = asked.json()["citations"][0]["passage_id"]
            yield House(client, asgi, opened[0], {**ids, "idempotency": MARK})


async def test_nobody_gets_anything_of_somebody_else_s_by_any_route(house: House) -> None:
    client = house.client
    assert MARK in (await client.get("/tasks", headers=ADA)).text
    assert house.ids["run"] in (await house.call("GET /planner/logs", ADA))[1]
    task_before = (await client.get(house.fill("/tasks/{task}"), headers=ADA)).json()
    talk = house.runner.context.conversations
    turns_before = await talk.turns("ada", house.ids["conversation"])
    for name, row in CALLED.items():
        status, text = await house.call(name, BOB)
        assert status == row.status, f"{name}: {text}"
        assert MARK not in text, name
        given = str(house.fill(row.path)) + str(house.fill(row.json)) + str(house.fill(row.params))
        unasked = [id_ for id_ in house.ids.values() if id_ in text and id_ not in given]
        assert not unasked, f"{name} tells {unasked}"
    assert (await client.get(house.fill("/tasks/{task}"), headers=ADA)).json() == task_before
    assert await talk.turns("ada", house.ids["conversation"]) == turns_before


async def test_nobody_spends_somebody_else_s_tokens(house: House) -> None:
    before = (await house.client.get("/health", headers=ADA)).json()["rate_limits"]
    assert before["qa"]["remaining"] < before["qa"]["limit"]
    other = (await house.client.get("/health", headers=BOB)).json()["rate_limits"]
    assert all(bucket["remaining"] == bucket["limit"] for bucket in other.values())
    assert (await house.client.get("/health")).json()["rate_limits"] == {}


async def test_what_is_not_open_needs_a_key(house: House) -> None:
    for name, row in CALLED.items():
        for headers in (
            {},
            {"X-API-Key": "k-eve"},
            {"Authorization": "Bearer k-eve"},
            {"Authorization": "Basic k-ada"},
        ):
            status, text = await house.call(name, headers)
            assert status == (row.status if row.open else 401), f"{name} with {headers}: {text}"
            assert MARK not in text, name
