"""The Python client against the live application."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from masterchat import (
    CitationChunk,
    DoneChunk,
    MasterChat,
    MasterChatSync,
    PlanChunk,
    Refused,
    RunFailed,
    TokenChunk,
    Unreachable,
)

Live = Callable[..., AbstractAsyncContextManager[str]]

ROOT = Path(__file__).parents[2]
QUESTION = "Who proved that the Mandelbrot set is connected?"


@asynccontextmanager
async def cut_off(url: str, after_bytes: int) -> AsyncIterator[tuple[str, list[int]]]:
    """A proxy that drops each connection after so many bytes of the answer, the next after twice as many; its URL."""
    host, port = url.removeprefix("http://").split(":")
    connections: list[int] = []

    open_now: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int) -> None:
        upstream, to_server = await asyncio.open_connection(host, int(port))

        async def send() -> None:
            while data := await reader.read(65536):
                to_server.write(data)

        sending = asyncio.create_task(send())
        try:
            while left > 0 and (data := await upstream.read(min(left, 4096))):
                writer.write(data)
                left -= len(data)
            await writer.drain()
        finally:
            sending.cancel()
            to_server.close()
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = after_bytes * 2 ** len(connections)
        connections.append(left)
        open_now.add(asyncio.create_task(pass_on(reader, writer, left)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", connections
        for task in open_now:
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)


async def test_the_example_of_the_readme_works(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    async with live() as base_url, MasterChat(base_url) as client:
        response = await client.chat(message=QUESTION, mode="wiki_qa")
        async for chunk in response:
            print(chunk.content, end="")
    said = capsys.readouterr().out
    assert "Douady" in said
    assert said == response.result["answer"] == await response.text()
    assert response.citations[0].revision in response.citations[0].url
    assert response.usage.input_tokens > 0
    assert response.task_id == response.result["task_id"]


async def test_events_have_types(live: Live) -> None:
    async with live() as url, MasterChat(url) as client:
        response = await client.chat(QUESTION, mode="wiki_qa", topics=["Mandelbrot set"], max_nodes=5)
        chunks = [chunk async for chunk in response]
    plans = [chunk for chunk in chunks if isinstance(chunk, PlanChunk)]
    assert {step["goal"] for step in plans[0].steps} >= {"answered"}
    assert [chunk.citation for chunk in chunks if isinstance(chunk, CitationChunk)] == response.citations
    assert isinstance(chunks[-1], DoneChunk)
    assert "".join(chunk.content for chunk in chunks if isinstance(chunk, TokenChunk)) == chunks[-1].answer


async def test_a_broken_stream_goes_on_without_gap_or_repetition(live: Live) -> None:
    async with live() as url, MasterChat(url) as direct:
        await (await direct.chat(QUESTION, mode="wiki_qa", topics=["Mandelbrot set"], max_nodes=5)).text()
        async with cut_off(url, 1_000) as (broken, connections), MasterChat(broken, max_retries=20) as client:
            response = await client.chat(QUESTION, mode="wiki_qa", topics=["Mandelbrot set"], max_nodes=5)
            chunks = [chunk async for chunk in response]
        page = await direct.conversations.list()
    assert len(connections) > 2, "nothing was cut off"
    assert [int(str(chunk.id).rpartition(".")[2]) for chunk in chunks] == list(range(1, len(chunks) + 1))
    assert "".join(chunk.content for chunk in chunks) == response.result["answer"]
    assert [conversation.turns for conversation in page.conversations] == [2, 2], "the message was stored twice"


async def test_a_conversation_goes_on_is_listed_read_and_deleted(live: Live) -> None:
    async with live(answers=["Hello, Ada.", "Ada."]) as url, MasterChat(url) as client:
        first = await client.chat("My name is Ada.", mode="chat")
        assert await first.text() == "Hello, Ada."
        second = await client.chat("What is my name?", mode="chat", conversation_id=first.conversation_id)
        assert await second.text() == "Ada."
        [listed] = (await client.conversations.list()).conversations
        found = await client.conversations.get(listed.id, limit=3)
        assert [message.content for message in found.messages] == ["Hello, Ada.", "What is my name?", "Ada."]
        assert found.before == 2
        await client.conversations.delete(listed.id)
        with pytest.raises(Refused, match="no conversation") as refused:
            await client.conversations.get(listed.id)
        assert refused.value.status == 404


async def test_tasks_are_submitted_waited_for_listed_and_cancelled(live: Live) -> None:
    async with live() as url, MasterChat(url) as client:
        task = await client.tasks.submit(crawl=["Mandelbrot set"], max_nodes=2, idempotency_key="one")
        again = await client.tasks.submit(crawl=["Mandelbrot set"], max_nodes=2, idempotency_key="one")
        done = await client.tasks.wait(task.id, timeout_s=60)
        assert (task.id, done.status, done.ended) == (again.id, "complete", True)
        assert done.result is not None
        assert done.created is not None
        assert [one.id for one in (await client.tasks.list(status="complete")).tasks] == [task.id]
        assert (await client.tasks.cancel(task.id)).status == "complete"
        with pytest.raises(Refused, match="no task"):
            await client.tasks.get("nothing")


async def test_plans_queries_health_and_the_planner_log(live: Live) -> None:
    async with live() as url, MasterChat(url) as client:
        assert (await client.health())["status"] == "ok"
        assert (await client.plan(QUESTION, mode="wiki_qa", topics=["Fractal"]))["verdict"] == "run"
        assert (await client.query("SELECT 1 AS one"))["rows"] == [[1]]
        response = await client.chat("Hi", mode="chat")
        await response.text()
        logged = []
        async for event in client.planner_logs(task_id=response.task_id):
            logged.append(event)
            if event.type == "plan.done":
                break
        assert logged[0].type == "plan.start"
        assert {event.task_id for event in logged} == {response.task_id}


async def test_refusals_and_failures_carry_the_reason(live: Live) -> None:
    async with live(keys="ada:k1") as url:
        async with MasterChat(url) as stranger:
            with pytest.raises(Refused, match="a key is needed") as refused:
                await stranger.chat("Hi")
            assert (refused.value.status, refused.value.title) == (401, "Unauthorized")
        async with MasterChat(url, api_key="k1") as client:
            with pytest.raises(Refused, match="there are: wiki_qa"):
                await client.chat("x", mode="fly")
            response = await client.chat("x", mode="crawl", topics=["Mandelbort set"])
            with pytest.raises(RunFailed, match="Mandelbrot set"):
                await response.text()


async def test_nobody_there_is_unreachable(unused_tcp_port: int) -> None:
    async with MasterChat(f"http://127.0.0.1:{unused_tcp_port}", max_retries=1) as client:
        with pytest.raises(Unreachable, match=f"no answer from http://127.0.0.1:{unused_tcp_port}"):
            await client.health()
    with pytest.raises(Unreachable, match="http://"):
        MasterChat("localhost:8000")


async def test_the_sync_twin_works_while_a_loop_is_running(live: Live) -> None:
    async with live(answers=["Hello."]) as url:

        def talk() -> list[str]:
            async def inside() -> list[str]:  # as a notebook's cell: a loop runs in this thread
                with MasterChatSync(url) as client:
                    response = client.chat("Hi", mode="chat")
                    kinds = [chunk.kind for chunk in response]
                    assert response.text() == "Hello."
                    assert response.usage.output_tokens == 7
                    task = client.tasks.submit(crawl=["Fractal"], max_nodes=1)
                    assert client.tasks.wait(task.id, timeout_s=60).status == "complete"
                    assert client.conversations.list().conversations[0].id == response.conversation_id
                    logged = client.planner_logs(task_id=response.task_id)
                    assert next(logged).type == "plan.start"
                    logged.close()
                    with pytest.raises(Refused):
                        client.query("DROP TABLE events")
                    return kinds

            return asyncio.run(inside())

        kinds = await asyncio.to_thread(talk)
    assert kinds[-1] == "done"


def test_it_needs_httpx_and_nothing_of_the_server() -> None:
    script = """
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top.startswith("lang") or top in FORBIDDEN:
            raise ModuleNotFoundError(name)
FORBIDDEN = {"fastapi", "starlette", "redis", "pydantic", "numpy", "duckdb", "uvicorn", "loguru", "errors", "services"}
sys.meta_path.insert(0, Guard())
import masterchat
client = masterchat.MasterChatSync("http://127.0.0.1:9", max_retries=0)
try:
    client.health()
except masterchat.Unreachable:
    print("unreachable")
client.close()
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.returncode) == ("unreachable\n", 0), ran.stderr
