"""The tools that a model or a user of LangChain can hold."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from langchain_core.tools import BaseTool
from redis.asyncio import Redis

from agents.spec import RunRequest
from graphs.runs import Runner
from memory.tasks import TaskQueue
from tools.knowledge import build_knowledge_tool
from tools.reading import build_reading_tools
from tools.recall import build_recall_tool
from tools.tasks import build_task_tools
from tools.wikipedia.opening import open_source

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]


def by_name(tools: list[BaseTool]) -> dict[str, BaseTool]:
    return {tool.name: tool for tool in tools}


async def test_an_article_is_found_and_read_with_its_revision(sample: Path) -> None:
    async with open_source(str(sample), contact="tests") as source:
        tools = by_name(build_reading_tools(source))
        assert "Julia set" in await tools["search_wikipedia"].ainvoke({"text": "Julia set"})
        text = await tools["read_article"].ainvoke({"title": "M-set"})
        assert text.startswith("Mandelbrot set (revision 1001, zim://")
        missing = await tools["read_article"].ainvoke({"title": "Mandelbort set"})
        assert "no such article" in missing
        assert "Mandelbrot set" in missing


async def test_memory_and_graph_are_looked_up_after_a_crawl(lumina: Lumina) -> None:
    request = RunRequest(intent="crawl", topics=["Julia set"], max_nodes=5)
    async with lumina() as runner:
        assert [event async for event in runner.stream(request, "t")][-1].data["outcome"]["status"] == "done"
        assert runner.context.recall is not None
        graph = build_knowledge_tool(runner.context.graph, "local")
        assert "Julia set —links_to→" in await graph.ainvoke({"title": "Julia set"})
        assert "Nowhere" in await graph.ainvoke({"title": "Nowhere"})
        recall = build_recall_tool(runner.context.recall, "local")
        assert "Julia set" in await recall.ainvoke({"question": "Who described the Julia set?"})
        others = build_recall_tool(runner.context.recall, "somebody else")
        assert "Nothing in memory" in await others.ainvoke({"question": "Who described the Julia set?"})


async def test_a_crawl_is_submitted_and_only_its_owner_sees_it(redis: Redis) -> None:
    queue = TaskQueue(redis)
    await queue.setup()
    mine, others = (by_name(build_task_tools(queue, owner)) for owner in ("ada", "bob"))
    said = await mine["submit_crawl"].ainvoke({"topics": ["Julia set"]})
    task_id = said.split()[1]
    assert "queued" in await mine["look_at_task"].ainvoke({"task_id": task_id})
    assert (await queue.get(task_id)).payload == {"topics": ["Julia set"], "hops": 1, "max_nodes": 30}
    assert "no task" in await others["look_at_task"].ainvoke({"task_id": task_id})
