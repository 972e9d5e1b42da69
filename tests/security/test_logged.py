"""What a server writes into its log at the most talkative level, while people chat and tasks run."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from loguru import logger

from logs import open_logs

Live = Callable[..., AbstractAsyncContextManager[str]]
KEY = "hush-4711-key"
QUESTION = "Zanzibarquux asks: who proved that the Mandelbrot set is connected?"
REMARK = "My cat is called Xylophonia"
ANSWER = "Pumpernickelish words of a model"
ROUTES_OF_TASKS = ("/chat", "/masterchat/chat", "/tasks", "/tasks/{task_id}/events")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that is logged, as JSON lines."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    out = io.StringIO()
    open_logs(level="DEBUG", format="json", secrets=[KEY], stream=out)
    yield out
    logger.remove()
    logger.add(sys.stderr)
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


async def run_everything(url: str) -> str:
    """A chat, a question, a task that succeeds, one that fails and requests that are refused; the question's answer."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        (await client.post("/chat", json={"message": REMARK})).raise_for_status()
        asked: dict[str, Any] = {"message": QUESTION, "mode": "wiki_qa", "topics": ["Mandelbrot set"], "max_nodes": 3}
        answer = (await client.post("/masterchat/chat", json=asked)).json()["answer"]
        for message, topic in ((QUESTION, "Julia set"), (REMARK, "Xylophonia the cat")):
            task = {"kind": "ask", "message": message, "topics": [topic], "max_nodes": 2}
            submitted = await client.post("/tasks", json=task)
            stream = await client.get(submitted.headers["location"] + "/events")  # ends with the task
            assert "event: task." in stream.text
        await client.post("/masterchat/chat", json={**asked, "mode": REMARK})
        await client.post("/tasks", json={"kind": REMARK})
        await client.get("/health", headers={"Authorization": "Bearer wrong-" + KEY})
        await client.get(f"/tasks/{REMARK}")
    return str(answer)


async def test_neither_keys_nor_what_was_said_is_logged(live: Live, log: io.StringIO) -> None:
    async with live(keys=f"ada:{KEY}", answers=[ANSWER]) as url:
        answer = await run_everything(url)
    told = log.getvalue()
    assert "POST /masterchat/chat 200" in told, "the requests themselves are logged"
    for hidden in (KEY, "Zanzibarquux", "Xylophonia", "Pumpernickelish", answer):
        assert hidden not in told


async def test_lines_of_a_run_say_whose_it_is_and_which_agent_works(live: Live, log: io.StringIO) -> None:
    async with live(keys=f"ada:{KEY}") as url:
        await run_everything(url)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    of_agents = [line for line in lines if line.get("agent")]
    assert {line["agent"] for line in of_agents} >= {"crawl", "qa"}
    assert all(line["task_id"] and line["owner"] == "ada" for line in of_agents)
    done = {line["task_id"] for line in lines if line["message"].startswith("ask task complete")}
    assert done
    assert done <= {line["task_id"] for line in of_agents}
    requests = [line for line in lines if line.get("route")]
    assert all(line["request_id"] for line in requests)
    of_tasks = [line for line in requests if line.get("task_id")]
    assert {line["owner"] for line in of_tasks} == {"ada"}
    named = {route: {line["task_id"] for line in of_tasks if line["route"] == route} for route in ROUTES_OF_TASKS}
    assert all(named.values()), named
    assert named["/tasks"] == named["/tasks/{task_id}/events"] >= done


@pytest.mark.parametrize("library", ["openai._base_client", "sse_starlette.sse", "hpack.hpack", "httpcore.http11"])
def test_libraries_do_not_tell_of_bodies_and_headers(log: io.StringIO, library: str) -> None:
    theirs = logging.getLogger(library)
    theirs.setLevel(logging.DEBUG)  # as OPENAI_LOG=debug does
    theirs.debug("Request options: %s", {"messages": [{"content": REMARK}]})
    theirs.setLevel(logging.NOTSET)
    assert "Xylophonia" not in log.getvalue()
