"""What the client does when a server is busy, breaks off, or is newer; the server is a stand-in."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from masterchat import Chunk, MasterChat, Refused, RunFailed, Unreachable
from masterchat.connection import sent_events

Answer = Callable[[httpx.Request], httpx.Response]
BUSY = {"type": "about:blank", "title": "Too many requests", "status": 429, "detail": "qa: 20 a minute"}
TASK = {"id": "t", "kind": "crawl", "status": "queued"}


class Server:
    """Answers one request after the other from a list, the last answer for ever, and keeps the requests."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[httpx.Request] = []
        self._answers = answers

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._answers[min(len(self.requests), len(self._answers)) - 1](request)

    def client(self, **options: Any) -> MasterChat:
        return MasterChat("http://lumina", transport=httpx.MockTransport(self), **options)


def answer(status: int, body: Any, **headers: str) -> Answer:
    return lambda request: httpx.Response(status, json=body, headers=headers)


def busy(retry_after: str) -> Answer:
    return answer(429, BUSY, **{"Retry-After": retry_after})


def broken(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("reset")


def never_there(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


class Broken(httpx.AsyncByteStream):
    """Bytes, and then the connection breaks."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part
        raise httpx.ReadError("reset")


def events(*blocks: tuple[str, Any, str], breaks: bool = False) -> Answer:
    text = "".join(f"event: {kind}\ndata: {json.dumps(data)}\nid: {id_}\n\n" for kind, data, id_ in blocks).encode()

    def respond(request: httpx.Request) -> httpx.Response:
        headers = {"Content-Type": "text/event-stream"}
        if breaks:
            return httpx.Response(200, stream=Broken(text, b"event: tok"), headers=headers)
        return httpx.Response(200, content=text, headers=headers)

    return respond


async def test_a_busy_server_is_asked_again_after_the_time_that_it_names() -> None:
    server = Server(busy("0.01"), answer(503, {}), answer(200, {"status": "ok"}))
    async with server.client() as client:
        assert await client.health() == {"status": "ok"}
    assert len(server.requests) == 3


async def test_a_server_that_names_a_long_time_is_not_waited_for() -> None:
    server = Server(busy("3600"))
    async with server.client() as client:
        with pytest.raises(Refused, match="qa: 20 a minute") as refused:
            await client.chat("Hi")
    assert (refused.value.status, refused.value.retry_after_s, len(server.requests)) == (429, 3600, 1)


async def test_a_date_is_understood_too() -> None:
    server = Server(busy("Wed, 21 Oct 2015 07:28:00 GMT"), answer(200, TASK))
    async with server.client() as client:
        assert (await client.tasks.get("t")).status == "queued"


async def test_only_what_may_be_sent_twice_is_sent_twice() -> None:
    submitting = Server(broken, answer(202, TASK))
    async with submitting.client() as client:
        await client.tasks.submit(crawl=["A"])
    keys = {request.headers["idempotency-key"] for request in submitting.requests}
    assert (len(submitting.requests), len(keys)) == (2, 1)
    retrying = Server(broken, answer(200, TASK))
    async with retrying.client() as client:
        with pytest.raises(Unreachable, match="reset"):
            await client.tasks.retry("t")
    assert len(retrying.requests) == 1
    unconnected = Server(never_there, answer(200, TASK))
    async with unconnected.client() as client:
        assert (await client.tasks.retry("t")).id == "t"
    assert unconnected.requests[-1].url.path == "/tasks/t/retry"


async def test_a_chat_is_sent_again_before_its_first_event_and_taken_up_after_it() -> None:
    server = Server(
        broken,
        events(breaks=True),
        events(("token", {"text": "a"}, "r.1"), breaks=True),
        events(("token", {"text": "b"}, "r.2"), ("done", {"answer": "ab"}, "r.3")),
    )
    async with server.client() as client:
        assert await (await client.chat("Hi")).text() == "ab"
    first, second, third, fourth = server.requests
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"] == third.headers["idempotency-key"]
    assert fourth.headers["last-event-id"] == "r.1"
    assert first.content == fourth.content


async def test_a_restart_takes_back_what_was_said() -> None:
    server = Server(
        events(
            ("token", {"agent": "qa", "text": "wrong"}, "r.1"),
            ("citation", {"number": 1}, "r.2"),
            ("restart", {"agent": "qa"}, "r.3"),
            ("token", {"agent": "qa", "text": "right"}, "r.4"),
            ("done", {"answer": "right"}, "r.5"),
        )
    )
    async with server.client() as client:
        response = await client.chat("Hi")
        assert await response.text() == "right"
    assert response.citations == []


async def test_a_connection_that_breaks_again_and_again_is_given_up() -> None:
    server = Server(events(breaks=True))
    async with server.client(max_retries=2) as client:
        with pytest.raises(Unreachable, match="broke"):
            await (await client.chat("Hi")).text()
    assert len(server.requests) == 3


async def test_kinds_and_fields_that_are_newer_survive() -> None:
    server = Server(events(("sparkle", {"x": 1}, "r.1"), ("error", {"detail": "no model", "status": 503}, "r.2")))
    async with server.client() as client:
        chunks = aiter(await client.chat("Hi"))
        assert await anext(chunks) == Chunk("sparkle", {"x": 1}, "r.1")
        with pytest.raises(RunFailed, match="no model") as failed:
            await anext(chunks)
    assert (failed.value.status, failed.value.task_id) == (503, "r")
    async with Server(answer(200, {**TASK, "colour": "red"})).client() as client:
        assert (await client.tasks.get("t")).data["colour"] == "red"


async def test_the_events_of_a_task_come_over_several_connections_to_its_end() -> None:
    def event(type_: str, position: int) -> tuple[str, Any, str]:
        return type_, {"ts": position, "agent": "w", "task_id": "t", "data": {"n": position}}, f"{position}-0"

    server = Server(
        events(event("task.start", 1), breaks=True),
        answer(200, {**TASK, "status": "running"}),
        events(event("task.complete", 2)),
        answer(200, {**TASK, "status": "complete"}),
        lambda request: httpx.Response(204),
    )
    async with server.client() as client:
        seen = [one async for one in client.tasks.events("t")]
    assert [(one.type, one.ts, one.agent, one.task_id, one.data) for one in seen] == [
        ("task.start", 1, "w", "t", {"n": 1}),
        ("task.complete", 2, "w", "t", {"n": 2}),
    ]
    asked = [request for request in server.requests if request.url.path == "/tasks/t/events"]
    assert [request.headers.get("last-event-id") for request in asked] == [None, "1-0", "2-0"]


async def test_a_task_that_dies_is_a_failure_with_its_reason() -> None:
    server = Server(answer(200, TASK), answer(200, {**TASK, "status": "dead", "error": "the source is down"}))
    async with server.client() as client:
        with pytest.raises(RunFailed, match="task t is dead: the source is down"):
            await client.tasks.wait("t")
    async with Server(answer(200, TASK)).client() as client:
        with pytest.raises(TimeoutError, match="queued"):
            await client.tasks.wait("t", timeout_s=0.2)


@pytest.mark.parametrize("parts", [1, 3, 1000])
async def test_events_are_cut_as_the_standard_says(parts: int) -> None:
    text = ': hi\r\nevent: token\r\ndata: {"text":\rdata: "a\u2028b"}\r\nid: 7\r\n\r\ndata: {}\n\nevent: lost\ndata: {}'
    data = text.encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), parts):
            yield data[start : start + parts]

    response = httpx.Response(200, content=pieces(), request=httpx.Request("GET", "http://lumina"))
    seen = [(event.type, event.data, event.id) async for event in sent_events(response)]
    assert seen == [("token", {"text": "a\u2028b"}, "7"), ("message", {}, "7")]


@pytest.mark.parametrize(
    "response", [httpx.Response(200, text="<html>"), httpx.Response(502, text="<html>"), httpx.Response(500, json=[1])]
)
async def test_what_is_no_lumina_server_is_said_so(response: httpx.Response) -> None:
    async with Server(lambda request: response).client(max_retries=0) as client:
        with pytest.raises((Unreachable, Refused)):
            await client.health()
        with pytest.raises((Unreachable, Refused)):
            await client.chat("Hi")


@pytest.mark.parametrize("task_id", ["", "..", "."])
async def test_what_is_no_id_is_not_sent(task_id: str) -> None:
    server = Server(answer(200, TASK))
    async with server.client() as client:
        with pytest.raises(Exception, match="is no id"):
            await client.tasks.cancel(task_id)
        await client.tasks.get("a/b?c")
    assert [request.url.raw_path for request in server.requests] == [b"/tasks/a%2Fb%3Fc"]
