"""Plans over HTTP, and the planner's log as a stream that can be resumed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from graphs.runs import Runner
from memory.keys import PLANNER_STREAM
from memory.streams import Event
from server import create_app
from settings import load_settings

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]
ASK = {"message": "Who proved it?", "mode": "wiki_qa", "topics": ["Mandelbrot set"]}


class App:
    """The application, called as a server would call it: the httpx transport waits for the end of every response."""

    def __init__(self, app: FastAPI, state: dict[str, Any]) -> None:
        self._app, self.runner = app, state["runner"]
        self._state = state
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self._asgi), base_url="http://lumina", timeout=60)

    async def _asgi(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app({**scope, "state": dict(self._state)}, receive, send)

    async def follow(self, query: str, until: Callable[[str], bool], **headers: str) -> str:
        """What an event stream sends until there is enough, and then the client goes away."""
        body, enough = bytearray(), asyncio.Event()
        requests = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> dict[str, Any]:
            if requests:
                return requests.pop()
            await enough.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            body.extend(message.get("body", b""))
            if until(body.decode()):
                enough.set()

        spelled = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope: dict[str, Any] = {
            "type": "http",
            "method": "GET",
            "path": "/planner/logs",
            "raw_path": b"/planner/logs",
            "headers": spelled,
        }
        scope |= {"query_string": query.encode(), "asgi": {"version": "3.0", "spec_version": "2.3"}, "root_path": ""}
        async with asyncio.timeout(60):
            await self._asgi(
                {**scope, "scheme": "http", "server": ("lumina", 80), "http_version": "1.1"}, receive, send
            )
        return body.decode()


@pytest.fixture
def serve(lumina: Lumina, tmp_path: Path) -> Any:
    @asynccontextmanager
    async def open_app(keys: str | None = None) -> AsyncIterator[App]:
        app = create_app(
            load_settings(data_dir=tmp_path / "data", lumina_api_keys=keys), open_runner=lambda _: lumina()
        )
        async with app.router.lifespan_context(app) as state:
            served = App(app, dict(state or {}))
            async with served.client:
                yield served

    return open_app


Serve = Callable[..., AbstractAsyncContextManager[App]]


def events(text: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(id, type, data) of each event."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


def made(number: int, owner: str = "local", task_id: str = "t") -> Event:
    return Event("plan.step", {"owner": owner, "number": number}, agent="planner", task_id=task_id)


def count(number: int) -> Callable[[str], bool]:
    return lambda text: text.count("event: ") >= number


async def test_a_plan_has_steps_costs_alternatives_reasons_and_a_picture(serve: Serve) -> None:
    async with serve() as app:
        response = await app.client.post("/masterchat/plan", json=ASK)
        runs = await app.runner.context.streams.tail(PLANNER_STREAM)
    plan = response.json()
    assert response.status_code == 200
    assert plan["verdict"] == "run"
    assert plan["plan"][0]["way"] == "crawled.links[Mandelbrot set]"
    assert plan["plan"][0]["agent"] == "crawl"
    assert plan["cost"] == pytest.approx(sum(step["cost"] for step in plan["plan"]))
    assert any(candidate["others"] for candidate in plan["candidates"])
    assert "the least expected cost" in plan["why"]
    assert "now: agent crawl" in plan["explanation"]
    assert plan["mermaid"].startswith("flowchart")
    assert not runs, "nothing is run"


async def test_a_plan_of_a_plan_is_the_plan_of_what_is_meant(serve: Serve) -> None:
    async with serve() as app:
        for mode in ("plan", "auto"):
            body = {"message": "Crawl Mandelbrot set two hops deep.", "mode": mode}
            assert (await app.client.post("/masterchat/plan", json=body)).json()["intent"] == "crawl"


@pytest.mark.parametrize(
    ("mode", "kind"), [("wiki_qa", "ask"), ("crawl", "crawl"), ("summarise", "summarise"), ("index", "run")]
)
async def test_a_plan_is_executed_as_a_task_when_asked_for(serve: Serve, mode: str, kind: str) -> None:
    body = {**ASK, "mode": mode, "max_nodes": 2, "execute": True}
    async with serve() as app:
        key = {"Idempotency-Key": "once"}
        response = await app.client.post("/masterchat/plan", json=body, headers=key)
        again = await app.client.post("/masterchat/plan", json=body, headers=key)
        task, path = response.json()["task"], response.headers["location"]
        while (task := (await app.client.get(path)).json())["status"] in ("queued", "running", "retrying"):
            await asyncio.sleep(0.02)
    assert (response.status_code, again.status_code) == (202, 202)
    assert response.json()["plan"]
    assert again.json()["task"]["id"] == task["id"]
    assert (task["kind"], task["status"], task["error"]) == (kind, "complete", "")
    assert task["result"]["outcome"]["status"] == "done"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, "neither a message nor a topic"),
        ({"message": "x", "mode": "fly"}, 422, "there are: wiki_qa"),
        ({"message": "x", "colour": "red"}, 422, "colour"),
    ],
)
async def test_a_plan_that_cannot_be_made_says_why(serve: Serve, body: dict[str, Any], status: int, words: str) -> None:
    async with serve() as app:
        response = await app.client.post("/masterchat/plan", json={"mode": "wiki_qa", **body})
    assert response.status_code == status
    assert words in response.json()["detail"]


async def test_the_log_is_told_with_its_stream_ids_and_goes_on_where_it_was(serve: Serve) -> None:
    async with serve() as app:
        streams = app.runner.context.streams
        ids = await streams.publish([made(number) for number in range(4)])
        everything = events(await app.follow("", count(4)))
        assert [(id_, kind, data["data"]["number"]) for id_, kind, data in everything] == [
            (id_, "plan.step", number) for number, id_ in enumerate(ids)
        ]
        assert everything[0][2]["task_id"] == "t"
        by_query = events(await app.follow(f"after={ids[1]}", count(2)))
        by_header = events(await app.follow("after=0", count(1), last_event_id=ids[2]))
        following = asyncio.create_task(app.follow("after=$", count(1)))
        while not following.done():
            await streams.publish([made(9)])
            await asyncio.sleep(0.01)
    assert [id_ for id_, _, _ in by_query] == ids[2:]
    assert [id_ for id_, _, _ in by_header] == ids[3:]
    assert events(await following)[0][2]["data"]["number"] == 9


async def test_only_the_caller_s_events_are_told_and_one_task_s_when_asked(serve: Serve) -> None:
    async with serve(keys="ada:k1,bob:k2") as app:
        log = [made(0, "bob"), made(1, "ada"), made(2, "ada", "other"), made(3, "bob"), made(4, "ada")]
        await app.runner.context.streams.publish(log)
        ada = events(await app.follow("", count(3), x_api_key="k1"))
        task = events(await app.follow("task_id=t", count(2), x_api_key="k1"))
        nobody = await app.client.get("/planner/logs")
    assert [data["data"]["number"] for _, _, data in ada] == [1, 2, 4]
    assert [data["data"]["number"] for _, _, data in task] == [1, 4]
    assert nobody.status_code == 401


@pytest.mark.parametrize("given", ["x", "1-2-3", "-1", "1" * 30, "+", "1-", "²"])
async def test_what_is_no_stream_id_is_refused(serve: Serve, given: str) -> None:
    async with serve() as app:
        response = await app.client.get("/planner/logs", params={"after": given})
    assert response.status_code == 422
    assert "no stream id" in response.json()["detail"]
