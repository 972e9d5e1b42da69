"""What ``langgraph.json`` names, opened as LangGraph's server does it."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.pregel import Pregel

from graphs.masterchat import build_masterchat
from graphs.runs import Runner
from graphs.state import RunInput
from studio import SharedRunner

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]

ROOT = Path(__file__).parents[1]
CRAWL: RunInput = {"request": {"intent": "crawl", "message": "", "topics": ["Koch snowflake"], "max_nodes": 2}}


def named(entry: str) -> Any:
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.fixture
def environment(tmp_path: Path, sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WIKI_SOURCE", str(sample))
    monkeypatch.setenv("LLM_PROVIDER", "embedded")
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("QDRANT_URL", raising=False)


@pytest.mark.slow
@pytest.mark.usefixtures("environment")
async def test_the_graph_that_the_configuration_names_runs_a_request() -> None:
    configuration = json.loads((ROOT / "langgraph.json").read_text())
    factory, app = named(configuration["graphs"]["masterchat"]), named(configuration["http"]["app"])
    async with app.router.lifespan_context(app), factory({"configurable": {}}) as graph:
        assert isinstance(graph, Pregel)
        own = graph.copy(update={"checkpointer": InMemorySaver(), "store": None})  # as the server puts in its own
        assert own.get_context_jsonschema() is None
        assert {"request"} == set(own.get_input_jsonschema()["properties"])
        result = await own.ainvoke(CRAWL, {"configurable": {"thread_id": "t"}}, context={})
    assert result["outcome"]["status"] == "done"
    assert result["results"]["crawl_reported"]["report"]["crawls"][0]["titles"][0] == "Koch snowflake"


async def test_a_graph_with_its_services_bound_needs_no_context(lumina: Lumina) -> None:
    async with lumina() as runner:
        graph = build_masterchat(runner.registry, runner.goals, context=runner.context)
        kinds = [
            chunk["kind"]
            async for chunk in graph.astream(CRAWL, {"configurable": {"thread_id": "t"}}, stream_mode="custom")
        ]
    assert {"plan", "agent", "progress"} == set(kinds)


async def test_services_are_opened_once_however_many_use_them_and_closed_after_the_last(lumina: Lumina) -> None:
    told: list[str] = []

    @asynccontextmanager
    async def open_() -> AsyncIterator[Runner]:
        told.append("open")
        async with lumina() as runner:
            yield runner
        told.append("closed")

    shared, both = SharedRunner(open_), asyncio.Barrier(2)

    async def use() -> Runner:
        async with shared.use() as runner:
            await both.wait()
            assert told[-1] == "open"
            return runner

    async with asyncio.TaskGroup() as tasks:
        one, other = tasks.create_task(use()), tasks.create_task(use())
    assert one.result() is other.result()
    assert told == ["open", "closed"]
    async with shared.use():
        assert told == ["open", "closed", "open"]
