"""The console alone, for who changes it: ``ui/`` as it is on the disk, and all else from a server that runs already.

To the browser both are one origin, so the console's strict policy holds as it is and the server needs no CORS.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx
import uvicorn
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from errors import LuminaError
from serving import console, problems
from serving.disconnects import WatchedStream, unless_gone
from serving.guards import Hosts, Origins
from serving.problems import problem

HOST = "127.0.0.1"
"""Nothing else: a server without keys trusts whoever reaches it, and this would let others reach it."""
CONNECT_S = 5.0
STOP_S = 1
"""How long open requests may take to end after Ctrl-C."""
OF_THE_CONNECTION = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"}
    | {"upgrade", "date", "server"}
)
"""Headers that are not passed on (RFC 9110, 7.6.1), and those that every server sets itself."""
OF_THE_PAGE = frozenset({"host", "origin", "cookie"})
"""Headers of requests that tell of this address, which the server does not know. The guards here have read them."""
KEYS = frozenset({"authorization", "x-api-key"})


class InvalidAddress(LuminaError):
    """An address that no server can have, or a port that is in use."""


def create_app(api: str) -> FastAPI:
    """The console's files, never kept by a browser, and everything else from ``api``, WebSockets and streams too.

    Args:
        api: URL of a running server, such as ``http://127.0.0.1:8000``.

    Raises:
        InvalidAddress: it is no such URL.
    """
    return _around(Forwarding(_checked(api)))


def _around(forwarding: Forwarding) -> FastAPI:
    app = FastAPI(
        middleware=[Middleware(Hosts), Middleware(Origins)],
        lifespan=forwarding.lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    problems.install(app)
    console.install(app, console.FRESH)
    app.mount("/", forwarding)
    return app


class Forwarding:
    """Passes requests and WebSockets on to a server, and what it answers back as it comes."""

    def __init__(self, api: str) -> None:
        self._api = api
        self._client: httpx.AsyncClient
        self._closing = asyncio.Event()

    @contextlib.asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Its connections; streams may stay open for ever."""
        timeout = httpx.Timeout(None, connect=CONNECT_S)
        limits = httpx.Limits(max_connections=None)
        opening = httpx.AsyncClient(base_url=self._api, timeout=timeout, limits=limits, trust_env=False)
        async with opening as self._client:
            yield

    def close(self) -> None:
        """End the streams that are open; they would go on for ever."""
        self._closing.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        try:
            if scope["type"] == "websocket":
                await self._pass_websocket(WebSocket(scope, receive, send))
            else:
                await self._pass_request(Request(scope, receive), send)
        except (ClientDisconnect, WebSocketDisconnect):
            pass

    async def _pass_request(self, request: Request, send: Send) -> None:
        given = [(name, value) for name, value in _passed(request.headers.items()) if name not in OF_THE_PAGE]
        body = await request.body()
        asked = self._client.build_request(request.method, _target(request.scope), headers=given, content=body or None)
        try:
            answer = await unless_gone(request, self._client.send(asked, stream=True))
        except httpx.TransportError as error:
            await self._no_server(error)(request.scope, request.receive, send)
            return
        try:
            shown = WatchedStream(_pieces(answer), status_code=answer.status_code)
            shown.raw_headers = [(k.encode(), v.encode("latin-1")) for k, v in _passed(answer.headers.multi_items())]
            await shown(request.scope, partial(self._unless_closing, request.receive), send)
            if self._closing.is_set():
                await send({"type": "http.response.body", "body": b""})
        finally:
            await answer.aclose()

    async def _unless_closing(self, receive: Receive) -> Message:
        heard, closing = asyncio.ensure_future(receive()), asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({heard, closing}, return_when=asyncio.FIRST_COMPLETED)
            return heard.result() if heard.done() else {"type": "http.disconnect"}
        finally:
            heard.cancel()
            closing.cancel()

    async def _pass_websocket(self, websocket: WebSocket) -> None:
        headers = [(name, value) for name, value in websocket.headers.items() if name in KEYS]
        opening = connect(
            "ws" + self._api.removeprefix("http") + _target(websocket.scope),
            additional_headers=headers,
            subprotocols=[Subprotocol(name) for name in websocket.scope.get("subprotocols", ())] or None,
            open_timeout=CONNECT_S,
            max_size=None,
            proxy=None,
        )
        try:
            async with opening as server:
                await websocket.accept(server.subprotocol)
                await _between(websocket, server)
        except InvalidStatus as refused:
            answer = refused.response
            detail = problem(answer.status_code, "refused", "")
            detail.body = bytes(answer.body or b"")
            detail.headers["content-length"] = str(len(detail.body))
            await websocket.send_denial_response(detail)
        except (WebSocketException, OSError) as error:
            await websocket.send_denial_response(self._no_server(error))

    def _no_server(self, error: Exception) -> problems.Problem:
        why = str(error) or type(error).__name__
        detail = f"{self._api} does not answer ({why}); start `lumina serve`, or name another one with --api"
        return problem(502, "No server", detail)


async def serve(api: str, *, port: int) -> bool:
    """Serve the console alone until a signal comes.

    Args:
        api: URL of the server that everything else comes from.
        port: Port to listen on, on loopback only; 0 for any.

    Raises:
        InvalidAddress: ``api`` is no URL of a server, or the port is in use.
    """
    forwarding = Forwarding(_checked(api))
    try:
        listening = socket.create_server((HOST, port))
    except OSError as error:
        raise InvalidAddress(f"port {port} of {HOST} is in use; choose another with --port") from error
    config = uvicorn.Config(
        _around(forwarding),
        log_config=None,
        access_log=False,
        ws="websockets-sansio",
        timeout_graceful_shutdown=STOP_S,
    )
    with listening:
        address = f"http://{HOST}:{listening.getsockname()[1]}"
        print(f"The console is on {address}, all else comes from {api}  (Ctrl-C ends it)", flush=True)
        await _Server(config, forwarding).serve([listening])
    return True


class _Server(uvicorn.Server):
    """Ends what is forwarded before it waits for open requests to end."""

    def __init__(self, config: uvicorn.Config, forwarding: Forwarding) -> None:
        super().__init__(config)
        self._forwarding = forwarding

    async def shutdown(self, sockets: Any = None) -> None:
        self._forwarding.close()
        await super().shutdown(sockets)


def _checked(api: str) -> str:
    try:
        parts = urlsplit(api)
        well = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.query
    except ValueError:
        well = False
    if not well:
        raise InvalidAddress(f"--api «{api[:100]}»: accepted: the URL of a server, such as http://127.0.0.1:8000")
    return api.rstrip("/")


def _target(scope: Scope) -> str:
    """Path and query as they came, still encoded."""
    query = scope["query_string"].decode("latin-1")
    path: str = scope.get("raw_path", b"").decode("latin-1") or scope["path"]
    return path + (f"?{query}" if query else "")


def _passed(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() not in OF_THE_CONNECTION]


async def _pieces(answer: httpx.Response) -> AsyncIterator[bytes]:
    with contextlib.suppress(httpx.TransportError):  # the server went: the stream ends, and its reader connects again
        async for piece in answer.aiter_raw():
            yield piece


async def _between(websocket: WebSocket, server: ClientConnection) -> None:
    """Pass messages both ways until one side closes; then the other is closed the same way."""

    async def up() -> None:
        while (message := await websocket.receive())["type"] == "websocket.receive":
            text = message.get("text")
            await server.send(text if text is not None else message["bytes"])

    async def down() -> None:
        async for said in server:
            await (websocket.send_text(said) if isinstance(said, str) else websocket.send_bytes(said))
        await websocket.close(server.close_code or 1000, server.close_reason)

    ways = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
