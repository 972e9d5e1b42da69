"""Tasks over HTTP, run by the worker inside the application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from graphs.runs import Runner
from masterchat import MasterChat, MasterChatError
from server import create_app
from settings import load_settings
from tools.wikipedia.source import Fetched, SourceUnavailable

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]
Connect = Callable[[FastAPI], AbstractAsyncContextManager[httpx.AsyncClient]]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

CRAWL = {"crawl": ["Mandelbrot set"], "hops": 1, "max_nodes": 5}


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


async def until(client: httpx.AsyncClient, location: str, *wanted: str, **given: Any) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            task: dict[str, Any] = (await client.get(location, **given)).json()
            if task["status"] in wanted:
                return task
            await asyncio.sleep(0.02)


async def dead_again(client: httpx.AsyncClient, before: dict[str, Any]) -> dict[str, Any]:
    """A dead task when it has been tried once more, however quick the worker is."""
    async with asyncio.timeout(30):
        while True:
            task = await until(client, f"/tasks/{before['id']}", "dead")
            if task["finished"] != before["finished"]:
                return task
            await asyncio.sleep(0.02)


class Stuck:
    """An encyclopaedia that answers nobody, and says when it was asked."""

    name = "stuck"

    def __init__(self) -> None:
        self.asked, self.left = asyncio.Event(), asyncio.Event()

    async def fetch(self, titles: Any) -> Fetched:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()
        raise AssertionError

    async def revisions(self, titles: Any) -> dict[str, str]:
        return {}

    async def suggest(self, text: str, limit: int = 5) -> list[str]:
        return []

    async def search(self, text: str, limit: int = 10) -> list[str]:
        return []

    async def aclose(self) -> None:
        pass


class Shaky(Stuck):
    async def fetch(self, titles: Any) -> Fetched:
        raise SourceUnavailable("the line is bad")


async def test_a_crawl_is_accepted_and_runs_to_its_end(serve: Serve) -> None:
    async with serve() as client:
        response = await client.post("/tasks", json=CRAWL)
        task = await until(client, response.headers["location"], "complete")
    assert response.status_code == 202
    assert response.json()["id"] == task["id"]
    assert response.headers["location"] == f"/tasks/{task['id']}"
    assert (task["kind"], task["attempts"], task["error"]) == ("crawl", 1, "")
    assert task["payload"] == {"message": "", "topics": ["Mandelbrot set"], "hops": 1, "max_nodes": 5}
    assert len(task["result"]["report"]["crawls"][0]["titles"]) == 5
    assert task["progress"]["agent"]
    assert task["created"] <= task["started"] <= task["finished"]


async def test_a_question_is_answered_in_the_background(serve: Serve) -> None:
    ask = {"kind": "ask", "message": "Who proved that the Mandelbrot set is connected?", "topics": ["Mandelbrot set"]}
    async with serve() as client:
        response = await client.post("/tasks", json={**ask, "max_nodes": 5})
        task = await until(client, response.headers["location"], "complete")
    assert "Douady" in task["result"]["report"]["answer"]["answer"]


async def test_a_task_that_runs_is_cancelled_and_its_run_stops(serve: Serve) -> None:
    source = Stuck()
    async with serve(source=source) as client:
        location = (await client.post("/tasks", json=CRAWL)).headers["location"]
        await source.asked.wait()
        response = await client.delete(location)
        async with asyncio.timeout(60):
            await source.left.wait()
        again = await client.delete(location)
    assert response.status_code == again.status_code == 200
    assert response.json()["status"] == again.json()["status"] == "cancelled"


async def test_a_task_whose_server_stops_is_handed_back_and_done_by_the_next_one(serve: Serve) -> None:
    source = Stuck()
    async with serve(source=source) as client:
        location = (await client.post("/tasks", json=CRAWL)).headers["location"]
        await source.asked.wait()
    async with serve() as client:
        task = await until(client, location, "complete")
    assert task["attempts"] == 1


async def test_a_plan_is_made_in_the_background_and_not_run(serve: Serve) -> None:
    asked = {
        "kind": "plan",
        "message": "Who proved that the Mandelbrot set is connected?",
        "topics": ["Mandelbrot set"],
    }
    async with serve(source=Stuck()) as client:
        response = await client.post("/tasks", json=asked)
        task = await until(client, response.headers["location"], "complete", "dead", "retrying")
    assert (task["kind"], task["status"]) == ("plan", "complete")
    assert task["result"]["topics"] == ["Mandelbrot set"]
    assert "is expected to cost" in task["result"]["explanation"]


async def test_only_what_ended_without_a_result_is_sent_back(serve: Serve) -> None:
    async with serve() as client:
        dead = (await client.post("/tasks", json={"crawl": ["Mandelbort set"]})).headers["location"]
        done = (await client.post("/tasks", json=CRAWL)).headers["location"]
        ended = await until(client, dead, "dead")
        await until(client, done, "complete")
        again = await client.post(f"{dead}/retry")
        task = await dead_again(client, ended)
        refused = await client.post(f"{done}/retry")
        missing = await client.post("/tasks/nobody/retry")
        crawls = (await client.get("/tasks", params={"kind": "crawl", "status": "dead"})).json()["tasks"]
        asks = (await client.get("/tasks", params={"kind": "ask"})).json()["tasks"]
        unknown = await client.get("/tasks", params={"kind": "dance"})
    assert again.status_code == 202
    assert again.json()["id"] == task["id"]
    assert again.headers["location"] == dead
    assert task["attempts"] == 1
    assert refused.status_code == 409
    assert "is complete; accepted for another try" in refused.json()["detail"]
    assert missing.status_code == 404
    assert ([one["id"] for one in crawls], asks) == ([task["id"]], [])
    assert unknown.status_code == 422
    assert "accepted: crawl" in unknown.json()["detail"]


async def test_a_run_has_any_intent_of_the_goal_file(serve: Serve) -> None:
    run = {"kind": "run", "intent": "index", "topics": ["Mandelbrot set"], "max_nodes": 2}
    async with serve() as client:
        task = await until(client, (await client.post("/tasks", json=run)).headers["location"], "complete")
        without = await client.post("/tasks", json={"kind": "run", "message": "x"})
        beside = await client.post("/tasks", json={"kind": "ask", "message": "x", "intent": "index"})
        unknown = await client.post("/tasks", json={**run, "intent": "dance"})
    assert task["payload"]["intent"] == "index"
    assert "embedded[Mandelbrot set]" in task["result"]["chain"][-1]
    assert [one.status_code for one in (without, beside, unknown)] == [422, 422, 422]
    assert "needs one" in without.json()["detail"]
    assert "there are: wiki_qa" in unknown.json()["detail"]


async def test_the_client_submits_lists_and_sends_back(serve: Serve) -> None:
    async with serve() as http:
        tasks = MasterChat("http://lumina", transport=http._transport).tasks
        task = await tasks.submit(crawl=["Mandelbort set"], idempotency_key="k")
        assert (await tasks.submit(crawl=["Mandelbort set"], idempotency_key="k")).id == task.id
        ended = await until(http, f"/tasks/{task.id}", "dead")
        assert [one.id for one in (await tasks.list(status="dead", kind="crawl")).tasks] == [task.id]
        assert (await tasks.list(kind="ask")).tasks == []
        assert (await tasks.retry(task.id)).id == task.id
        assert (await dead_again(http, ended))["attempts"] == 1
        assert (await tasks.cancel(task.id)).status == "dead"
        with pytest.raises(MasterChatError, match="no task nobody") as caught:
            await tasks.get("nobody")
    assert caught.value.status == 404


async def test_the_same_key_gives_the_same_task(serve: Serve) -> None:
    async with serve() as client:
        headers = {"Idempotency-Key": "k"}
        first = await client.post("/tasks", json=CRAWL, headers=headers)
        same = await client.post("/tasks", json=CRAWL, headers=headers)
        other = await client.post("/tasks", json={**CRAWL, "hops": 2}, headers=headers)
        listed = (await client.get("/tasks")).json()["tasks"]
    assert first.json()["id"] == same.json()["id"] == listed[0]["id"]
    assert same.status_code == 202
    assert other.status_code == 422
    assert first.json()["id"] in other.json()["detail"]
    assert len(listed) == 1


async def test_tasks_are_listed_newest_first_by_the_page(serve: Serve) -> None:
    async with serve(source=Stuck()) as client:
        ids = [(await client.post("/tasks", json=CRAWL)).json()["id"] for _ in range(3)]
        first = (await client.get("/tasks", params={"limit": 2})).json()
        second = (await client.get("/tasks", params={"limit": 2, "cursor": first["cursor"]})).json()
        wrong = await client.get("/tasks", params={"cursor": "x"})
        dead = (await client.get("/tasks", params={"status": "dead"})).json()
    assert [task["id"] for task in first["tasks"] + second["tasks"]] == ids[::-1]
    assert second["cursor"] is None
    assert wrong.status_code == 422
    assert dead == {"tasks": [], "cursor": None}


async def test_owners_do_not_see_each_others_tasks(serve: Serve) -> None:
    ada, bob = {"X-API-Key": "k1"}, {"X-API-Key": "k2"}
    async with serve(keys="ada:k1,bob:k2", source=Stuck()) as client:
        location = (await client.post("/tasks", json=CRAWL, headers=ada)).headers["location"]
        assert (await client.get(location, headers=bob)).status_code == 404
        assert (await client.delete(location, headers=bob)).status_code == 404
        assert (await client.get("/tasks", headers=bob)).json()["tasks"] == []
        assert (await client.get(location)).status_code == 401
        assert (await client.get(location, headers=ada)).json()["status"] in ("queued", "running")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "neither a kind nor a crawl"),
        ({"kind": "dance"}, "crawl"),
        ({"kind": "report"}, "kind"),
        ({"kind": "plan", "topics": ["A"]}, "made for a `message`"),
        ({"kind": "ask"}, "neither a message nor a topic"),
        ({"crawl": ["A"], "kind": "ask"}, "give one of them"),
        ({"crawl": ["A"], "hops": 9}, "hops"),
        ({"crawl": ["A", " "]}, "a topic is empty"),
        ({"crawl": ["A"], "owner": "bob"}, "owner"),
    ],
)
async def test_what_cannot_be_run_is_refused_at_once(serve: Serve, body: dict[str, Any], words: str) -> None:
    async with serve() as client:
        response = await client.post("/tasks", json=body)
    assert response.status_code == 422
    assert words in response.json()["detail"]


async def test_an_unknown_topic_fails_for_good(serve: Serve) -> None:
    async with serve() as client:
        response = await client.post("/tasks", json={"crawl": ["Mandelbort set"]})
        task = await until(client, response.headers["location"], "dead", "retrying")
    assert (task["status"], task["attempts"]) == ("dead", 1)
    assert "no article «Mandelbort set»" in task["error"]


async def test_what_may_go_better_later_is_tried_again_from_the_start(serve: Serve) -> None:
    async with serve(source=Shaky()) as client:
        response = await client.post("/tasks", json=CRAWL)
        task = await until(client, response.headers["location"], "dead", "retrying")
    assert task["status"] == "retrying"
    assert "the line is bad" in task["error"]
    async with serve() as client:
        task = await until(client, response.headers["location"], "dead", "complete")
    assert (task["status"], task["attempts"], task["error"]) == ("complete", 2, "")


async def test_a_prune_is_a_task(serve: Serve) -> None:
    async with serve() as client:
        crawled = await client.post("/tasks", json=CRAWL)
        await until(client, crawled.headers["location"], "complete")
        body = {"kind": "prune", "max_passages": 1, "dry_run": True}
        response = await client.post("/tasks", json=body)
        task = await until(client, response.headers["location"], "complete")
    assert (response.status_code, task["kind"]) == (202, "prune")
    assert task["payload"] == {"superseded": True, "max_passages": 1, "dry_run": True}
    assert task["result"]["reasons"]["max_passages"]["pages"] >= 1


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "prune", "max_passages": 0},
        {"kind": "prune", "older_than": "yesterday"},
        {"kind": "prune", "topics": ["Fractal"]},
        {"kind": "prune", "owner": "bob"},
        {"kind": "report"},
        {"kind": ["prune"]},
        [],
        "prune",
    ],
)
async def test_a_prune_that_is_not_accepted_is_refused(serve: Serve, body: Any) -> None:
    async with serve() as client:
        response = await client.post("/tasks", json=body)
        assert response.status_code == 422
        assert (await client.get("/tasks")).json()["tasks"] == []
