"""The console alone, in front of a server that runs already."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from urllib.parse import quote

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from serving.console import UI
from serving.console_alone import InvalidAddress, create_app, serve

Live = Callable[..., AbstractAsyncContextManager[str]]
Alone = Callable[[str], AbstractAsyncContextManager[str]]


async def test_files_are_the_consoles_own_with_its_policy_and_no_browser_keeps_them(console_alone: Alone) -> None:
    async with console_alone("http://127.0.0.1:9") as url, httpx.AsyncClient(base_url=url, timeout=60) as browser:
        for path, file in (("/", "index.html"), ("/ui/main.js", "main.js"), ("/ui/styles/base.css", "styles/base.css")):
            response = await browser.get(path)
            assert response.text == (UI / file).read_text()
            assert response.headers["cache-control"] == "no-store"
            assert "default-src 'none'" in response.headers["content-security-policy"]
        assert (await browser.get("/ui/nothing.js")).status_code == 404


async def test_requests_answers_and_errors_are_those_of_the_server(live: Live, console_alone: Alone) -> None:
    async with (
        live(answers=["Hi."], keys="ada:k1") as server,
        console_alone(server) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as browser,
    ):
        assert (await browser.get("/tasks")).status_code == 401
        browser.headers["Authorization"] = "Bearer k1"
        own = {"Origin": url, "Cookie": "theirs=1"}
        node = await browser.post("/nodes", json={"title": "Ångström & 50 %"}, headers=own)
        assert node.status_code == 201
        found = await browser.get(f"/nodes/{quote('Ångström & 50 %'.replace(' ', '_'), safe='')}")
        assert found.json()["title"] == "Ångström & 50 %"
        assert found.headers["x-request-id"]
        assert (await browser.get("/tasks", params={"limit": "many"})).status_code == 422
        said = await browser.post("/chat", json={"message": "Hello", "stream": False})
        assert said.json()["answer"] == "Hi."
        assert (await browser.delete(f"/conversations/{said.json()['conversation_id']}")).status_code == 204


async def test_streams_are_told_as_they_come(live: Live, console_alone: Alone) -> None:
    async with (
        live() as server,
        console_alone(server) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as browser,
        connect(f"ws{url.removeprefix('http')}/ws?streams=graph_stream", subprotocols=["lumina.v1"]) as socket,  # type: ignore[list-item]  # a NewType of str
        browser.stream("GET", "/events/stream") as stream,
    ):
        assert socket.subprotocol == "lumina.v1"
        lines = stream.aiter_lines()
        while "live" not in await anext(lines):
            pass
        while json.loads(await socket.recv()).get("live") is None:
            pass
        await browser.post("/nodes", json={"title": "Cantor set"})
        while "Cantor set" not in await anext(lines):
            pass
        while "Cantor set" not in str(await socket.recv()):
            pass


async def test_pages_of_other_sites_and_names_that_point_here_are_refused(live: Live, console_alone: Alone) -> None:
    async with live() as server, console_alone(server) as url, httpx.AsyncClient(base_url=url, timeout=60) as browser:
        other = {"Origin": "http://elsewhere.example"}
        assert (await browser.post("/nodes", json={"title": "Bad"}, headers=other)).status_code == 403
        assert (await browser.get("/tasks", headers={"Host": "elsewhere.example"})).status_code == 421
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"ws{url.removeprefix('http')}/ws", additional_headers=other):
                pass
        assert refused.value.response.status_code == 403
        assert (await browser.get("/graph")).json()["nodes"] == []


async def test_a_websocket_is_refused_as_the_server_refuses_it(live: Live, console_alone: Alone) -> None:
    async with live(keys="ada:k1") as server, console_alone(server) as url:
        wrong = {"Authorization": "Bearer k2"}
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"ws{url.removeprefix('http')}/ws", additional_headers=wrong):
                pass
        assert refused.value.response.status_code == 401
        assert b"not known" in bytes(refused.value.response.body or b"")


async def test_without_the_server_the_page_is_there_and_says_where_it_looked(console_alone: Alone) -> None:
    async with console_alone("http://127.0.0.1:9") as url, httpx.AsyncClient(base_url=url, timeout=60) as browser:
        assert (await browser.get("/")).status_code == 200
        response = await browser.get("/tasks")
        assert response.status_code == 502
        assert "http://127.0.0.1:9 does not answer" in response.json()["detail"]
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"ws{url.removeprefix('http')}/ws"):
                pass
        assert refused.value.response.status_code == 502


@pytest.mark.parametrize("api", ["", "127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://[", "http://a:x"])
def test_what_is_no_address_of_a_server_is_refused(api: str) -> None:
    with pytest.raises(InvalidAddress, match="accepted: the URL of a server"):
        create_app(api)


async def test_a_port_that_is_in_use_is_named() -> None:
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with taken:
        port = taken.sockets[0].getsockname()[1]
        with pytest.raises(InvalidAddress, match=f"port {port} of 127.0.0.1 is in use"):
            await serve("http://127.0.0.1:8000", port=port)
