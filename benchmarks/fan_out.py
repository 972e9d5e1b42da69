"""What it costs to tell one stream to many: 200 WebSocket and 200 SSE clients.

Three ways take turns in one run. *Lumina*: the fan-out, its WebSocket and SSE routes behind uvicorn. *Peer*: the same
server and the same frames, and one XREAD a client. *Limit*: ``websockets.broadcast`` of frames that are in memory, one
event each, to all 400, with no Redis, no filter and no place to resume from. The clients are another process, which
reads bytes and counts events without parsing them. ``python -m benchmarks.fan_out [--short] [--events 500]``
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import uvicorn
import websockets
from fastapi import FastAPI, WebSocket
from redis.asyncio import Redis
from starlette.responses import StreamingResponse

from benchmarks.engine import open_valkey
from benchmarks.figures import Figures
from benchmarks.harness import finish, options, rounds_of, take_turns
from memory.backlog import PAGE
from memory.fan_out import FanOut
from memory.followed import Followed, read_entry
from memory.keys import GRAPH_STREAM
from memory.streams import Event, Streams
from serving import mux
from serving.frames import encode_frame, encode_sse

CLIENT = """
import asyncio, base64, os, sys
port, ws, sse, events, ws_path, sse_path = int(sys.argv[1]), *map(int, sys.argv[2:5]), *sys.argv[5:7]
def request(path, upgrade):
    more = "Connection: Upgrade\\r\\nUpgrade: websocket\\r\\nSec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: "
    more = more + base64.b64encode(os.urandom(16)).decode() + "\\r\\n" if upgrade else ""
    return f"GET {path} HTTP/1.1\\r\\nHost: 127.0.0.1:{port}\\r\\n{more}\\r\\n".encode()
class Client(asyncio.Protocol):
    def __init__(self, path, upgrade, done):
        self.path, self.upgrade, self.done, self.seen, self.end = path, upgrade, done, 0, b""
    def connection_made(self, transport):
        transport.write(request(self.path, self.upgrade))
    def data_received(self, data):
        data = self.end + data
        self.seen += data.count(b'"mark":')
        self.end = data[-6:]
        if self.seen >= events and not self.done.done():
            self.done.set_result(None)
async def main():
    loop = asyncio.get_running_loop()
    waiting = []
    for number in range(ws + sse):
        done = loop.create_future()
        waiting.append(done)
        path, upgrade = (ws_path, True) if number < ws else (sse_path, False)
        await loop.create_connection(lambda: Client(path, upgrade, done), "127.0.0.1", port)
    await asyncio.gather(*waiting)
    print("done", flush=True)
asyncio.run(main())
"""


def made(number: int) -> Event:
    data = {"owner": "local", "mark": number, "id": f"Node_{number}", "title": f"Node {number}", "text": "word " * 40}
    return Event("node.add", data, agent="crawl", task_id="task")


async def one_read_a_client(redis: Redis, encode: Any) -> AsyncIterator[str]:
    place = {GRAPH_STREAM: "$"}
    while True:
        streams: dict[Any, Any] = dict(place)
        reply: Any = await redis.xread(streams, count=PAGE, block=5_000)
        for _, raw in reply or ():
            entries = [read_entry(GRAPH_STREAM, id_, fields) for id_, fields in raw]
            mine = [entry for entry in entries if entry.owner == "local"]
            after = {GRAPH_STREAM: entries[-1].id}
            yield encode(mine, place, after, False)
            place = after


def peer_app(redis: Redis) -> FastAPI:
    app = FastAPI()

    @app.get("/sse")
    async def stream() -> StreamingResponse:
        return StreamingResponse(one_read_a_client(redis, encode_sse), media_type="text/event-stream")

    @app.websocket("/ws")
    async def connect(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in one_read_a_client(redis, encode_frame):
            await websocket.send_text(text)

    return app


def lumina_app(fan_out: FanOut) -> Any:
    app = FastAPI()
    app.include_router(mux.router)
    state = {"fan_out": fan_out, "api_keys": {}, "default_owner": "local", "cors_origins": ()}

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "state": dict(state)}, receive, send)

    return asgi


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[int]:
    listening = socket.create_server(("127.0.0.1", 0), backlog=1_000)
    options: dict[str, Any] = {"ws": "websockets-sansio", "ws_per_message_deflate": False, "ws_ping_interval": None}
    options |= {"lifespan": "off", "log_level": "critical", "timeout_graceful_shutdown": 1}
    server = uvicorn.Server(uvicorn.Config(app, **options))
    serving = asyncio.create_task(server.serve([listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


async def clients(
    port: int, counts: tuple[int, int], events: int, paths: tuple[str, str]
) -> asyncio.subprocess.Process:
    words = [str(port), *map(str, counts), str(events), *paths]
    return await asyncio.create_subprocess_exec(sys.executable, "-c", CLIENT, *words, stdout=asyncio.subprocess.PIPE)


async def finished(process: asyncio.subprocess.Process, started: float) -> float:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 300)
    assert line == b"done\n"
    seconds = time.perf_counter() - started
    await process.wait()
    return seconds


async def written(redis: Redis, events: int) -> None:
    """Ten at a time, as a crawler writes a batch."""
    streams = Streams(redis)
    for start in range(0, events, 10):
        await streams.publish([made(number) for number in range(start, start + 10)])


async def with_lumina(redis: Redis, count: int, events: int) -> float:
    stop = asyncio.Event()
    fan_out = FanOut(redis)
    running = asyncio.create_task(fan_out.run(stop))
    query = "?streams=graph_stream"
    async with served(lumina_app(fan_out)) as port:
        process = await clients(port, (count, count), events, (f"/ws{query}", f"/events/stream{query}"))
        while fan_out.followers < 2 * count:
            await asyncio.sleep(0.02)
        started = time.perf_counter()
        await written(redis, events)
        seconds = await finished(process, started)
        stop.set()
        await running
    return seconds


async def with_peer(redis: Redis, count: int, events: int) -> float:
    async with served(peer_app(redis)) as port:
        process = await clients(port, (count, count), events, ("/ws", "/sse"))
        while (await redis.info("clients"))["blocked_clients"] < 2 * count:
            await asyncio.sleep(0.02)
        started = time.perf_counter()
        await written(redis, events)
        return await finished(process, started)


async def with_broadcast(redis: Redis, count: int, events: int) -> float:
    frames = []
    for number in range(events):
        id_ = f"{1_700_000_000_000 + number}-0"
        entry = Followed(GRAPH_STREAM, id_, made(number))
        frames.append(encode_frame([entry], {}, {GRAPH_STREAM: id_}, False))
    connected: set[Any] = set()

    async def accept(connection: Any) -> None:
        connected.add(connection)
        with contextlib.suppress(websockets.ConnectionClosed):
            await connection.wait_closed()

    async with websockets.serve(accept, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        process = await clients(port, (2 * count, 0), events, ("/", "/"))
        while len(connected) < 2 * count:
            await asyncio.sleep(0.02)
        started = time.perf_counter()
        for frame in frames:
            websockets.broadcast(connected, frame)
            await asyncio.sleep(0)
        return await finished(process, started)


WAYS = {"lumina": with_lumina, "one XREAD a client": with_peer, "broadcast": with_broadcast}


async def compare(figures: Figures, rounds: int, count: int, events: int) -> None:
    async with open_valkey(max_connections=2_000) as (redis, _):

        async def turn(way: Callable[[Redis, int, int], Awaitable[float]]) -> Mapping[str, float]:
            await redis.flushall()
            return {"deliveries/s": 2 * count * events / await way(redis, count, events)}

        await take_turns(figures, {name: partial(turn, way) for name, way in WAYS.items()}, rounds)


if __name__ == "__main__":
    parser = options(__doc__, rounds=3)
    parser.add_argument("--clients", type=int, default=200, help="of each kind")
    parser.add_argument("--events", type=int, help="500; short: 100")
    given = parser.parse_args()
    collected = Figures("fan_out")
    asyncio.run(compare(collected, rounds_of(given), given.clients, given.events or (100 if given.short else 500)))
    finish(collected, given)
