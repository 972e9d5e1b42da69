"""The event mux over real sockets: SSE and WebSocket, who may see what, slow clients, resuming."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import websockets
from redis.asyncio import Redis
from websockets.exceptions import ConnectionClosed, InvalidStatus

from graphs.runs import Runner
from memory.fan_out import FanOut
from memory.followed import EVENT_TYPES, Filter
from memory.keys import GRAPH_STREAM, PLANNER_STREAM, TASKS_STREAM
from memory.streams import Event
from memory.subscriptions import Subscription
from memory.tasks import TaskQueue
from server import MAX_MESSAGE_BYTES, create_app
from serving.frames import FollowResponse, encode_sse
from settings import load_settings

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]


class Served:
    """The application behind a real server on a port of its own."""

    def __init__(self, port: int, state: dict[str, Any]) -> None:
        self.port, self.runner, self.fan_out, self.tasks = port, state["runner"], state["fan_out"], state["tasks"]
        self.host = f"127.0.0.1:{port}"
        self.client = httpx.AsyncClient(base_url=f"http://{self.host}", timeout=60)

    async def publish(self, *events: Event, stream: str | None = None) -> list[str]:
        ids: list[str] = await self.runner.context.streams.publish(events, stream)
        return ids

    def connect(self, query: str = "", **options: Any) -> websockets.connect:
        return websockets.connect(f"ws://{self.host}/ws{query}", compression=None, **options)

    @asynccontextmanager
    async def stream(self, query: str = "", path: str = "/events/stream", **headers: str) -> AsyncIterator[Any]:
        """SSE blocks as (id, event, data)."""
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.stream("GET", path + query, headers=spelled) as response:
            assert response.status_code == 200, await response.aread()

            async def blocks() -> AsyncIterator[tuple[str, str, Any]]:
                fields: dict[str, str] = {}
                async for line in response.aiter_lines():
                    if line:
                        name, _, value = line.partition(": ")
                        fields[name or "comment"] = value
                        continue
                    text = fields.get("data", "null")
                    kind = fields.get("event") or fields.get("comment") or next(iter(fields), "")
                    yield fields.get("id", ""), kind, json.loads(text)
                    fields = {}

            yield blocks()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)


@pytest.fixture
def serve(lumina: Lumina, tmp_path: Path) -> Any:
    @asynccontextmanager
    async def open_server(**given: Any) -> AsyncIterator[Served]:
        settings = load_settings(data_dir=tmp_path / "data", **given)
        app = create_app(settings, open_runner=lambda _: lumina())
        async with app.router.lifespan_context(app) as opened:
            state = dict(opened or {})

            async def asgi(scope: Any, receive: Any, send: Any) -> None:
                await app({**scope, "state": dict(state)}, receive, send)

            options: dict[str, Any] = {"ws": "websockets-sansio", "ws_per_message_deflate": False}
            config = uvicorn.Config(asgi, port=0, lifespan="off", log_level="critical", **options)
            config.ws_max_size = MAX_MESSAGE_BYTES
            config.timeout_graceful_shutdown = 1
            server = uvicorn.Server(config)
            listening = socket.create_server(("127.0.0.1", 0))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)  # so that a stuck client is seen soon
            serving = asyncio.create_task(server._serve([listening]))
            served = Served(listening.getsockname()[1], state)
            try:
                async with served.client:
                    await served.until(lambda: server.started)
                    yield served
            finally:
                served.fan_out.close("the test ends")
                server.should_exit = True
                await serving

    return open_server


Serve = Callable[..., AbstractAsyncContextManager[Served]]


def made(number: int, owner: str = "local", type_: str = "node.add", **fields: Any) -> Event:
    return Event(type_, {"owner": owner, "number": number, **fields}, agent="test", task_id="t")


async def received(connection: Any, count: int) -> tuple[list[dict[str, Any]], str]:
    """So many events, and the place after them."""
    events: list[dict[str, Any]] = []
    position = ""
    async with asyncio.timeout(60):
        while len(events) < count:
            frame = json.loads(await connection.recv())
            events += frame.get("events", [])
            position = frame.get("position", position)
    return events, position


async def test_events_of_several_streams_are_told_as_sse_and_resumed_by_the_id(serve: Serve) -> None:
    async with serve() as served:
        async with served.stream() as blocks:
            kinds = [(await anext(blocks))[1] for _ in range(2)]
            assert kinds == ["events", "live"]
            await served.publish(made(0), made(1, type_="edge.add"))
            told = [await anext(blocks) for _ in range(2)]
            await served.publish(made(2, type_="task.x"), stream=TASKS_STREAM)
            told.append(await anext(blocks))
        assert [(kind, data["stream"], data["data"]["number"]) for _, kind, data in told] == [
            ("node.add", "graph_stream", 0),
            ("edge.add", "graph_stream", 1),
            ("task.x", "tasks", 2),
        ]
        for resumed in (0, 1):
            async with served.stream(last_event_id=told[resumed][0]) as blocks:
                again = [block async for block in _first(blocks, 3 - resumed) if block[2]]
            assert again == told[resumed + 1 :]
        query = f"?types=edge.add&enrich=1&after={told[0][2]['id']}"
        async with served.stream(query) as blocks:
            await anext(blocks)
            _, kind, data = await anext(blocks)
        assert (kind, data["data"]["number"]) == ("edge.add", 1)
        assert data["lag_ms"] >= 0


async def _first(blocks: Any, count: int) -> AsyncIterator[Any]:
    for _ in range(count):
        yield await anext(blocks)


async def test_a_websocket_gets_a_backlog_in_few_frames_and_resumes_from_its_position(serve: Serve) -> None:
    async with serve() as served:
        await served.publish(*(made(number) for number in range(1_200)))
        async with served.connect("?streams=graph_stream&after=0") as connection:
            frames = [json.loads(await connection.recv()) for _ in range(5)]
            assert sum(len(frame["events"]) for frame in frames) == 1_200
            assert "live" in json.loads(await connection.recv())
            await served.publish(made(1_200))
            live, position = await received(connection, 1)
        assert live[0]["data"]["number"] == 1_200
        await served.publish(made(1_201))
        async with served.connect(f"?streams=graph_stream&after={position}") as connection:
            later, _ = await received(connection, 1)
        assert [event["data"]["number"] for event in later] == [1_201]
        await served.until(lambda: served.fan_out.followers == 0)


async def test_fifty_clients_of_both_kinds_see_everything_while_two_are_stuck(serve: Serve) -> None:
    rounds, text = 60, "x" * 20_000
    async with serve() as served, contextlib.AsyncExitStack() as stack:
        served.fan_out.max_queued_events = 20
        stuck = stack.enter_context(socket.socket())
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        stuck.connect(("127.0.0.1", served.port))
        stuck.sendall(b"GET /events/stream HTTP/1.1\r\nHost: lumina\r\n\r\n")
        plug = stack.enter_context(socket.socket())
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        plug.connect(("127.0.0.1", served.port))
        slow = await stack.enter_async_context(served.connect(sock=plug, max_queue=1))
        sockets = [await stack.enter_async_context(served.connect()) for _ in range(24)]
        streams = [await stack.enter_async_context(served.stream()) for _ in range(24)]
        await served.until(lambda: served.fan_out.followers == 50)
        heard = [0] * 48

        async def follow(number: int, blocks: Any) -> list[int]:
            seen: list[int] = []
            async for _, kind, data in blocks:
                if kind == "node.add":
                    seen.append(data["data"]["number"])
                heard[number] = len(seen)
                if len(seen) == rounds:
                    break
            return seen

        async def listen(number: int, connection: Any) -> list[int]:
            seen: list[int] = []
            while len(seen) < rounds:
                seen += [event["data"]["number"] for event in json.loads(await connection.recv()).get("events", ())]
                heard[number] = len(seen)
            return seen

        seeing = [asyncio.create_task(follow(number, blocks)) for number, blocks in enumerate(streams)]
        seeing += [asyncio.create_task(listen(24 + number, one)) for number, one in enumerate(sockets)]
        for number in range(rounds):
            await served.publish(made(number, text=text))
            await served.until(lambda written=number: min(heard) > written - 5)  # type: ignore[misc]  # a lambda's default
        async with asyncio.timeout(60):
            assert await asyncio.gather(*seeing) == [list(range(rounds))] * 48
        await served.until(lambda: served.fan_out.followers == 48)
        frames = [json.loads(frame) async for frame in _until_closed(slow)]
        assert (slow.close_code, frames[-1]["dropped"]["reason"]) == (1013, slow.close_reason)
        assert "too slow" in str(slow.close_reason)
        told = await asyncio.to_thread(_read_to_the_end, stuck)
        reason = json.loads(told.rpartition("event: dropped\ndata: ")[2].partition("\n")[0])
        seen_slowly = [event["data"]["number"] for frame in frames for event in frame.get("events", ())]
        for seen, resume in ((seen_slowly, frames[-1]["dropped"]["resume"]), (_numbers(told), reason["resume"])):
            async with served.connect(f"?after={resume}") as connection:
                rest, _ = await received(connection, rounds - len(seen))
            assert seen + [event["data"]["number"] for event in rest] == list(range(rounds))


async def _until_closed(connection: Any) -> AsyncIterator[Any]:
    with contextlib.suppress(ConnectionClosed):
        while True:
            yield await connection.recv()


def _read_to_the_end(connection: socket.socket) -> str:
    body = b""
    connection.settimeout(60)
    while b"event: dropped" not in body or not body.endswith(b"0\r\n\r\n"):
        body += connection.recv(65_536)
    chunks, rest = [], body.partition(b"\r\n\r\n")[2]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        chunks.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return b"".join(chunks).decode()


def _numbers(text: str) -> list[int]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith('data: {"stream"')]
    return [json.loads(line)["data"]["number"] for line in lines]


async def test_every_way_to_send_a_key_and_nobody_sees_anothers_events(serve: Serve) -> None:
    protocols = ["lumina.v1", "lumina.key." + base64.urlsafe_b64encode(b"k1").decode().rstrip("=")]
    async with serve(lumina_api_keys="ada:k1,bob:k2") as served:
        async with contextlib.AsyncExitStack() as stack:
            ways: list[dict[str, Any]] = [
                {"additional_headers": {"Authorization": "Bearer k1"}},
                {"additional_headers": {"X-API-Key": "k1"}},
                {"subprotocols": protocols},
                {},
            ]
            connections = [await stack.enter_async_context(served.connect(**way)) for way in ways]
            assert connections[2].subprotocol == "lumina.v1"
            await connections[3].send(json.dumps({"key": "k1"}))
            for connection in connections:
                assert "live" in json.loads(await connection.recv())
            await served.publish(made(0, "bob"), made(1, "ada"))
            for connection in connections:
                events, _ = await received(connection, 1)
                assert [event["data"]["number"] for event in events] == [1]
        async with served.stream("?after=0", x_api_key="k2") as blocks:
            await anext(blocks)
            assert (await anext(blocks))[2]["data"]["number"] == 0
        for wrong in ({"additional_headers": {"X-API-Key": "k3"}}, {"subprotocols": ["lumina.key.%%%"[:-3] + "_"]}):
            with pytest.raises(InvalidStatus, match="401"):
                await served.connect(**wrong)
        for message in ('{"key": "k3"}', "no json", "[1]", b"\x00", '{"key": 7}'):
            async with served.connect() as connection:
                await connection.send(message)
                with pytest.raises(ConnectionClosed):
                    await connection.recv()
                assert connection.close_code == 4401
        for query, words in (("?key=k1", "«key» is no parameter"), ("?streams=logs", "")):
            way = {"additional_headers": {"X-API-Key": "k1"}}
            if words:
                with pytest.raises(InvalidStatus) as refused:
                    await served.connect(query, **way)
                assert words in json.loads(refused.value.response.body or b"{}")["detail"]
            else:
                async with served.connect(query, **way) as connection:
                    with pytest.raises(ConnectionClosed):
                        await connection.recv()
                    assert "the log tells of every owner" in (connection.close_reason or "")
        assert (await served.client.get("/events/stream")).status_code == 401
        log = await served.client.get("/events/stream?streams=logs", headers={"X-API-Key": "k1"})
        assert log.status_code == 403


async def test_a_page_of_another_site_may_not_connect(serve: Serve) -> None:
    async with serve(cors_origins="https://console.example") as served:
        own = f"http://{served.host}"
        for origin in (own, "https://console.example"):
            async with served.connect(origin=origin) as connection:
                assert "live" in json.loads(await connection.recv())
        for origin in ("https://evil.example", "null", "http://[", own + "0"):
            with pytest.raises(InvalidStatus) as refused:
                await served.connect(origin=origin)
            assert refused.value.response.status_code == 403
        # A name of the attacker's that points to this machine: Origin and Host agree.
        upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"
        ask = f"GET /ws HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n{upgrade}\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(f"{ask}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
        assert b" 403 " in await reader.readline()
        writer.close()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?streams=nodes", "accepted: graph_stream, tasks, planner_log, passages, logs"),
        ("?types=node.ad", "accepted: node.add, edge.add"),
        ("?after=yesterday", "no stream id; send one like"),
        ("?after=tasks=1-2-3", "no stream id"),
        ("?enrich=perhaps", "enrich"),
        ("?task_id=" + "x" * 201, "task_id"),
    ],
)
async def test_what_cannot_be_followed_is_refused_in_both(serve: Serve, query: str, words: str) -> None:
    async with serve() as served:
        response = await served.client.get(f"/events/stream{query}")
        assert response.status_code == 422
        assert words in response.json()["detail"]
        with pytest.raises(InvalidStatus) as refused:
            await served.connect(query)
        assert refused.value.response.status_code == 422
        assert words in json.loads(refused.value.response.body or b"{}")["detail"]


async def test_a_task_is_told_over_all_streams_from_its_beginning_to_its_end(serve: Serve) -> None:
    async with serve() as served:
        posted = await served.client.post("/tasks", json={"crawl": ["Mandelbrot set"], "max_nodes": 3})
        location = posted.headers["Location"]
        told = []
        async with asyncio.timeout(60), served.stream(path=f"{location}/events") as blocks:
            told += [block async for block in blocks]
        kinds = [kind for _, kind, data in told if data]
        assert kinds[0] == "task.submit"
        assert kinds[-1] == "task.complete"
        assert {"task.start", "plan.start", "plan.step", "node.add", "plan.done"} <= set(kinds)
        async with asyncio.timeout(60), served.stream(path=f"{location}/events") as blocks:
            again = [block async for block in blocks]
        # What was read live may stand in another order within one millisecond.
        assert sorted((d["stream"], d["id"]) for *_, d in again if d) == sorted(
            (d["stream"], d["id"]) for *_, d in told if d
        )
        middle = next(block[0] for block in told if block[1] == "task.start")
        async with asyncio.timeout(60), served.stream(path=f"{location}/events", last_event_id=middle) as blocks:
            rest = [kind async for _, kind, data in blocks if data]
        assert rest[-1] == "task.complete"
        assert len(rest) < len(kinds)
        assert (await served.client.get("/tasks/nobody/events")).status_code == 404


async def test_a_task_that_was_retried_is_told_past_its_first_end(serve: Serve) -> None:
    async with serve() as served:
        queue: TaskQueue = served.tasks
        task = await queue.submit("a kind that nobody runs", {}, owner="local")
        await queue.cancel(task.id)
        path = f"/tasks/{task.id}/events"
        async with asyncio.timeout(60), served.stream(path=path) as blocks:
            assert [kind async for _, kind, data in blocks if data] == ["task.submit", "task.cancel"]
        await queue.retry(task.id)
        async with asyncio.timeout(60), served.stream(path=path) as blocks:
            kinds = []
            async for _, kind, data in blocks:
                kinds += [kind] if data else []
                if kind == "live":
                    await queue.cancel(task.id)
        assert kinds == ["task.submit", "task.cancel", "task.retry", "task.cancel"]


async def test_the_planner_s_log_goes_back_beyond_what_the_stream_holds(serve: Serve) -> None:
    async with serve() as served:
        ids = await served.publish(*(made(number, type_="plan.step") for number in range(20)))
        events = served.runner.context.events
        async with asyncio.timeout(60):
            while (await events.query("SELECT count(*) FROM events WHERE type = 'plan.step'")).rows[0][0] < 20:
                await asyncio.sleep(0.02)
        await served.runner.context.redis.xtrim(PLANNER_STREAM, minid=ids[15], approximate=False)
        async with served.stream("?after=0", path="/planner/logs") as blocks:
            told = [block async for block in _first(blocks, 21) if block[2]]
    assert [(id_, data["data"]["number"]) for id_, _, data in told] == list(zip(ids, range(20), strict=True))


async def test_the_log_of_the_only_owner_is_a_stream(serve: Serve) -> None:
    from loguru import logger

    async with serve() as served, served.stream("?streams=logs") as blocks:
        assert [(await anext(blocks))[1] for _ in range(2)] == ["events", "live"]
        logger.warning("the kettle boils")
        _, kind, data = await anext(blocks)
    assert (kind, data["data"]["text"], data["data"]["level"]) == ("log", "the kettle boils", "WARNING")


async def test_the_mux_alone_says_what_it_tells(serve: Serve) -> None:
    from serving.mux import look_at

    async with serve() as served:
        assert await look_at(served.fan_out) == {"status": "ok", "streams": ["graph_stream", "tasks"]}


def test_every_type_of_the_query_sheet_can_be_asked_for() -> None:
    page = (Path(__file__).parents[2] / "docs" / "queries.md").read_text()
    rows = page.partition("## Event types")[2].partition("\n## ")[0].splitlines()
    listed = {row.split("`")[1] for row in rows if row.startswith("| `")}
    assert listed <= set(EVENT_TYPES)
    assert GRAPH_STREAM


async def test_a_client_that_was_dropped_and_takes_nothing_is_cut_off(redis: Redis) -> None:
    stuck = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("it stays")

    async def send(message: Any) -> None:
        if message.get("body", b"").startswith(b": live"):
            stuck.set()
            await asyncio.Event().wait()

    fan_out = FanOut(redis)
    wanted = Subscription(Filter((GRAPH_STREAM,), "local"), encode_sse)
    response = FollowResponse(fan_out.follow(wanted, {GRAPH_STREAM: "0-0"}), grace_s=0.01)
    answering = asyncio.create_task(response({"type": "http"}, receive, send))
    async with asyncio.timeout(60):
        await stuck.wait()
        fan_out.close("the server stops")
        await answering
    assert not fan_out.followers
