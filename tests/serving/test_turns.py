"""Chats over a real socket: connections that break, servers that die, clients that never come back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import PrivateAttr

from models.chat import Chat

Live = Callable[..., AbstractAsyncContextManager[str]]

WORDS = [f"word{number} " for number in range(40)]
HELLO = {"message": "Say forty words.", "mode": "chat", "stream": True}
QUESTION = {
    "message": "Who proved that the Mandelbrot set is connected?",
    "mode": "wiki_qa",
    "topics": ["Mandelbrot set"],
    "max_nodes": 5,
    "stream": True,
}
SHORT = {"grace_s": 0.5, "lease_s": 1.0}


class Speaker(BaseChatModel):
    """Says a word whenever ``let`` allows one, and notes how its calls end."""

    words: list[str] = WORDS
    _allowed: asyncio.Semaphore = PrivateAttr(default_factory=lambda: asyncio.Semaphore(0))
    _said: list[str] = PrivateAttr(default_factory=list)
    _stopped: asyncio.Event = PrivateAttr(default_factory=asyncio.Event)
    _calls: int = PrivateAttr(0)

    @property
    def _llm_type(self) -> str:
        return "speaker"

    def let(self, words: int) -> None:
        for _ in range(words):
            self._allowed.release()

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        self._calls += 1
        try:
            for word in self.words:
                await self._allowed.acquire()
                self._said.append(word)
                yield ChatGenerationChunk(message=AIMessageChunk(content=word))
            usage = UsageMetadata(input_tokens=5, output_tokens=40, total_tokens=45)
            yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=usage))
        except (asyncio.CancelledError, GeneratorExit):
            self._stopped.set()
            raise


Seen = tuple[str, str, dict[str, Any]]


async def read(response: httpx.Response, until: Callable[[list[Seen]], bool] = lambda seen: False) -> list[Seen]:
    """(id, kind, data) of the events, to the end or until enough was seen."""
    seen: list[Seen] = []
    block: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            block[name] = value
        else:
            if "data" in block:
                seen.append((block["id"], block["event"], json.loads(block["data"])))
                if until(seen):
                    break
            block = {}
    return seen


def words(seen: list[Seen]) -> list[str]:
    return [data["text"] for _, kind, data in seen if kind == "token"]


def after_words(count: int) -> Callable[[list[Seen]], bool]:
    return lambda seen: len(words(seen)) >= count


def without_ids(seen: list[Seen]) -> list[tuple[str, Any]]:
    """What two runs of the same have in common: no ids, no times."""
    return [(kind, data.get("text") if kind in ("token", "progress") else data.get("goal")) for _, kind, data in seen]


async def begin(client: httpx.AsyncClient, count: int, **headers: str) -> list[Seen]:
    """The first events of a chat, up to so many words; then the socket is closed."""
    async with client.stream("POST", "/masterchat/chat", json=HELLO, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        return await read(response, after_words(count))


async def resume(client: httpx.AsyncClient, last_id: str, **headers: str) -> list[Seen]:
    headers["Last-Event-ID"] = last_id
    async with client.stream("POST", "/masterchat/chat", json=HELLO, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        return await read(response)


def task_of(seen: list[Seen]) -> str:
    return seen[-1][0].rpartition(".")[0]


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", ["post", "get"])
async def test_a_dropped_connection_is_taken_up_again_without_gap_or_repetition(live: Live, how: str) -> None:
    model = Speaker()
    async with live(chat=Chat.from_model(model)) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        model.let(40)
        async with client.stream("POST", "/masterchat/chat", json=HELLO) as response:
            undisturbed = await read(response)
        model.let(10)
        first = await begin(client, 7)
        model.let(30)
        if how == "post":
            rest = await resume(client, first[-1][0])
        else:
            path, headers = f"/masterchat/chat/{task_of(first)}/events", {"Last-Event-ID": first[-1][0]}
            async with client.stream("GET", path, headers=headers) as response:
                rest = await read(response)
            assert (await client.get(path, headers={"Last-Event-ID": rest[-1][0]})).status_code == 204
    assert model._calls == 2, "the run was not interrupted"
    assert [int(id_.rpartition(".")[2]) for id_, _, _ in first + rest] == list(range(1, len(first + rest) + 1))
    assert without_ids(first + rest) == without_ids(undisturbed)
    assert "".join(words(first + rest)) == "".join(WORDS).strip() == rest[-1][2]["answer"]
    assert rest[-1][2]["usage"]["output_tokens"] == 40


async def test_a_run_to_which_nobody_comes_back_is_stopped_with_its_model(live: Live) -> None:
    model = Speaker()
    async with (
        live(chat=Chat.from_model(model), logs=SHORT) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        model.let(5)
        first = await begin(client, 5)
        async with asyncio.timeout(60):
            await model._stopped.wait()
        assert len(model._said) == 5
        model.let(100)
        rest = await resume(client, first[-1][0])
    assert model._calls == 2, "who comes back later continues it from its checkpoint"
    assert "".join(words(first + rest)) == "".join(WORDS).strip()
    assert [kind for _, kind, _ in rest].count("done") == 1
    assert "restart" not in [kind for _, kind, _ in rest]


async def test_a_run_in_the_background_goes_on_alone(live: Live) -> None:
    model = Speaker()
    body = {**HELLO, "background": True}
    async with (
        live(chat=Chat.from_model(model), logs=SHORT) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        model.let(1)
        async with client.stream("POST", "/masterchat/chat", json=body) as response:
            first = await read(response, after_words(1))
        held = asyncio.create_task(model._stopped.wait())
        done, _ = await asyncio.wait({held}, timeout=3 * SHORT["grace_s"])
        held.cancel()
        assert not done
        model.let(39)
        async with client.stream("GET", f"/masterchat/chat/{task_of(first)}/events") as response:
            seen = await read(response)
    assert model._calls == 1
    assert seen[: len(first)] == first
    assert "".join(words(seen)) == "".join(WORDS).strip()


async def test_a_client_that_waits_for_json_and_goes_away_ends_its_run(live: Live) -> None:
    model = Speaker()
    async with live(chat=Chat.from_model(model), logs=SHORT) as url:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            model.let(3)
            asked = asyncio.create_task(client.post("/chat", json={"message": "Hi"}, timeout=30))
            await until(lambda: len(model._said) == 3)
            asked.cancel()
            await asyncio.wait({asked})
        async with asyncio.timeout(60):
            await model._stopped.wait()


async def test_another_process_goes_on_with_the_answer_of_one_that_runs(live: Live, sample: Any) -> None:
    model, other = Speaker(), Speaker(words=["never"])
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(live(chat=Chat.from_model(model)))
        there = await stack.enter_async_context(live(chat=Chat.from_model(other), owns_files=False))
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=30))
        client.base_url = httpx.URL(here)
        model.let(10)
        first = await begin(client, 6)
        model.let(30)
        client.base_url = httpx.URL(there)
        rest = await resume(client, first[-1][0])
    assert "".join(words(first + rest)) == "".join(WORDS).strip()
    assert (model._calls, other._calls) == (1, 0)


async def test_the_run_of_a_server_that_stopped_is_continued_by_another(live: Live) -> None:
    model, other = Speaker(), Speaker(words=[*WORDS[:3], "something ", "else"])
    async with live(chat=Chat.from_model(other), logs=SHORT) as there:
        async with (
            live(chat=Chat.from_model(model), owns_files=False) as here,
            httpx.AsyncClient(base_url=here, timeout=30) as client,
        ):
            model.let(6)
            first = await begin(client, 6)
        assert model._stopped.is_set()
        other.let(5)
        async with httpx.AsyncClient(base_url=there, timeout=30) as client:
            rest = await resume(client, first[-1][0])
    kinds = [kind for _, kind, _ in rest]
    assert kinds.count("restart") == 1
    assert "".join(words(rest)) == rest[-1][2]["answer"] == "word0 word1 word2 something else"
    positions = [int(id_.rpartition(".")[2]) for id_, _, _ in first + rest]
    assert positions == list(range(1, len(positions) + 1))


async def test_no_other_owner_sees_or_ends_a_run(live: Live) -> None:
    model = Speaker()
    ada, bob = {"X-API-Key": "k1"}, {"X-API-Key": "k2"}
    async with (
        live(chat=Chat.from_model(model), keys="ada:k1,bob:k2") as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        model.let(2)
        first = await begin(client, 2, **ada)
        path = f"/masterchat/chat/{task_of(first)}"
        stolen = {**bob, "Last-Event-ID": first[-1][0]}
        refused = [
            await client.post("/masterchat/chat", json=HELLO, headers=stolen),
            await client.get(f"{path}/events", headers=bob),
            await client.delete(path, headers=bob),
        ]
        assert [one.status_code for one in refused] == [404, 404, 404]
        assert "word" not in "".join(one.text for one in refused)
        model.let(38)
        rest = await resume(client, first[-1][0], **ada)
    assert rest[-1][1] == "done"


async def test_a_cancelled_run_stops_at_once_and_says_so(live: Live) -> None:
    model = Speaker()
    async with live(chat=Chat.from_model(model)) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        model.let(2)
        async with client.stream("POST", "/masterchat/chat", json=HELLO) as response:
            seen: list[Seen] = []

            async def follow() -> None:
                seen.extend(await read(response))

            following = asyncio.create_task(follow())
            await until(lambda: len(model._said) == 2)
            task_id = response.headers["content-location"].split("/")[-2]
            assert (await client.delete(f"/masterchat/chat/{task_id}")).status_code == 204
            async with asyncio.timeout(60):
                await following
        assert (await client.delete(f"/masterchat/chat/{task_id}")).status_code == 204
    assert model._stopped.is_set()
    assert seen[-1][1:] == ("error", {"title": "Cancelled", "detail": "the run was cancelled", "status": 409})


async def test_the_same_idempotency_key_gives_the_same_run(live: Live) -> None:
    model = Speaker()
    body = {"message": "Say forty words."}
    async with live(chat=Chat.from_model(model)) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        model.let(40)
        headers = {"Idempotency-Key": "one"}
        answers = await asyncio.gather(*(client.post("/chat", json=body, headers=headers) for _ in range(3)))
        other = await client.post("/chat", json={"message": "Something else."}, headers=headers)
        conversation = await client.get(f"/conversations/{answers[0].json()['conversation_id']}")
    assert {one.text for one in answers} == {answers[0].text}
    assert model._calls == 1
    assert [message["role"] for message in conversation.json()["messages"]] == ["user", "assistant"]
    assert other.status_code == 422
    assert "Idempotency-Key" in other.json()["detail"]


@pytest.mark.parametrize(
    ("last_id", "status", "words"),
    [
        ("7", 422, "no id of an event"),
        ("00000000-0000-0000-0000-000000000000.3", 404, "10 minutes"),
        ("RUN.99999", 410, "you have seen event 99999"),
        ("RUN.1", 200, ""),
        ("RUN.0x1", 422, "no id of an event"),
    ],
)
async def test_a_bad_last_event_id_is_refused(live: Live, last_id: str, status: int, words: str) -> None:
    async with (
        live(answers=["Hi."]) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        body = {"message": "Hi", "mode": "chat", "stream": True}
        seen = [one async for one in _events(client, body, {})]
        last_id = last_id.replace("RUN", task_of(seen))
        response = await client.post("/masterchat/chat", json=body, headers={"Last-Event-ID": last_id})
        other = {"Last-Event-ID": seen[-1][0]}
        changed = await client.post("/masterchat/chat", json={**body, "message": "Ho"}, headers=other)
    assert response.status_code == status, response.text
    assert words in response.text
    assert changed.status_code == 422


async def _events(client: httpx.AsyncClient, body: dict[str, Any], headers: dict[str, str]) -> AsyncIterator[Seen]:
    async with client.stream("POST", "/masterchat/chat", json=body, headers=headers) as response:
        for one in await read(response):
            yield one


async def test_a_question_dropped_after_every_few_events_ends_like_one_that_is_not(live: Live) -> None:
    async with live() as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        seen: list[Seen] = []
        headers: dict[str, str] = {}
        while not seen or seen[-1][1] != "done":
            async with client.stream("POST", "/masterchat/chat", json=QUESTION, headers=headers) as response:
                seen += await read(response, lambda part: len(part) >= 3)
            headers = {"Last-Event-ID": seen[-1][0]}
        async with client.stream("GET", f"/masterchat/chat/{task_of(seen)}/events") as response:
            whole = await read(response)
    assert seen == whole
    assert "".join(words(seen)) == seen[-1][2]["answer"]
    assert "Douady" in seen[-1][2]["answer"]
