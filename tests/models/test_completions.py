"""Passing chat completions through, against servers that keep, drop, mangle and delay what they send."""

import asyncio
import contextlib
import gzip
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from models.chat import Chat, ChatConfig, open_chat
from models.completions import Completion
from models.fallback import NoModelAnswers
from models.providers import OpenAICompatible

ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Sure?"}]}
STREAMED = {**ASKED, "stream": True}
CHUNK = b'data: {"choices": [{"index": 0, "delta": {"content": "yes"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
WHOLE = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}}]}).encode()

Reply = Callable[["Server", asyncio.StreamWriter], Awaitable[None]]


def sized(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """A response whose length is told before."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(*parts: bytes) -> bytes:
    """A response in chunks; it ends with an empty part."""
    top = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return top + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


class Server:
    """Takes requests on loopback and answers them byte by byte as it is told; None breaks the connection off."""

    def __init__(self, *replies: bytes | None) -> None:
        self.replies = list(replies)
        """One for each request; the last one for all that follow."""
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        """The first line, the headers and the body."""
        self.connections = 0
        self.hung_up = asyncio.Event()
        self.rest = b""
        """What follows the answer once ``go`` is set."""
        self.go = asyncio.Event()
        self.stays = True
        """Whether a connection stays open after its answer."""
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                self.requests.append((first, headers, body))
                reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
                if reply is None:
                    return
                writer.write(reply)
                await writer.drain()
                if self.rest:
                    await self.go.wait()
                    writer.write(self.rest)
                if not self.stays:
                    return
        self.hung_up.set()

    @contextlib.asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator["Server"]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with server:
            yield self


@contextlib.asynccontextmanager
async def asking(server: Server, tmp_path: Path, **changed: Any) -> AsyncIterator[Chat]:
    """A chat that has this server only."""
    config = ChatConfig(
        provider="openai",
        openai_base_url=server.url,
        openai_api_key=SecretStr("sk-secret"),
        data_dir=tmp_path,
        connect_timeout_s=20.0,
        read_timeout_s=60.0,
    )
    async with server.listening() as listening:
        config = replace(config, **{"openai_base_url": listening.url, **changed})
        async with open_chat(config) as chat:
            chat.model.spare = None
            yield chat


async def text_of(completion: Completion) -> bytes:
    return b"".join([piece async for piece in completion.body()])


async def ask(chat: Chat, body: dict[str, Any]) -> bytes:
    return await text_of(await chat.complete(body, scope="s"))


async def test_answers_come_over_one_kept_connection(tmp_path: Path) -> None:
    server = Server(sized(WHOLE), chunked(CHUNK, DONE, b""), sized(WHOLE))
    async with asking(server, tmp_path) as chat:
        assert await ask(chat, ASKED) == WHOLE
        assert await ask(chat, STREAMED) == CHUNK + DONE
        assert await ask(chat, ASKED) == WHOLE
    assert server.connections == 1
    first, headers, _ = server.requests[0]
    assert first == "POST /v1/chat/completions HTTP/1.1"
    assert headers["authorization"] == "Bearer sk-secret"
    assert headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("body", [ASKED, STREAMED])
async def test_a_kept_connection_that_is_dropped_is_asked_again(tmp_path: Path, body: dict[str, Any]) -> None:
    answer = chunked(CHUNK, DONE, b"") if body is STREAMED else sized(WHOLE)
    server = Server(answer, None, answer)
    async with asking(server, tmp_path) as chat:
        first = await ask(chat, body)
        assert await ask(chat, body) == first
    assert [server.connections, len(server.requests)] == [2, 3]


async def test_a_connection_that_the_server_closed_while_idle_is_not_used(tmp_path: Path) -> None:
    server = Server(sized(WHOLE))
    server.stays = False
    async with asking(server, tmp_path) as chat:
        for _ in range(3):
            assert await ask(chat, ASKED) == WHOLE
    assert server.connections == 3


async def test_a_server_that_comes_back_when_it_is_revived_is_asked_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = Server(sized(WHOLE))
    async with contextlib.AsyncExitStack() as stack:

        class Child(OpenAICompatible):
            async def revive(self) -> bool:
                await stack.enter_async_context(server.listening(port))
                return True

        config = ChatConfig(provider="openai", openai_base_url=f"http://127.0.0.1:{port}/v1", data_dir=tmp_path)
        chat = await stack.enter_async_context(open_chat(config))
        chat.model.providers = [Child(config, paid=False)]
        stack.push_async_callback(chat.model.providers[0].close)
        assert await ask(chat, ASKED) == WHOLE


@pytest.mark.parametrize(
    ("body", "reply"),
    [
        (STREAMED, None),
        (STREAMED, b"what?\r\n\r\n"),
        (ASKED, sized(WHOLE)[:-9]),
        (ASKED, sized(b"<html>")),
        (ASKED, sized(b"[]")),
        (STREAMED, sized(b"", "Location: /v1/elsewhere", status="307 Temporary Redirect")),
        (STREAMED, sized(WHOLE, f"X-Long: {'x' * 100_000}")),
        (ASKED, sized(b"{}", status="503 Service Unavailable")),
        (STREAMED, chunked(b"").replace(b"0\r\n", b"zz\r\n")),
    ],
    ids="dropped nonsense cut html list redirect header 503 chunk".split(),
)
async def test_a_server_that_gives_no_answer_is_told_of_in_one_line(
    tmp_path: Path, body: dict[str, Any], reply: bytes | None
) -> None:
    server = Server(reply)
    server.stays = False
    async with asking(server, tmp_path) as chat:
        with pytest.raises(NoModelAnswers) as caught:
            await ask(chat, body)
    assert "\n" not in str(caught.value)
    assert server.url in str(caught.value)
    assert len(server.requests) <= 3


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
async def test_only_the_chunk_of_the_usage_is_taken_out_of_what_came_together(tmp_path: Path, end: bytes) -> None:
    told = b'data: {"choices": [], "usage": {"prompt_tokens": 3}}\n\n'
    together = b"".join([CHUNK, CHUNK, told, DONE]).replace(b"\n\n", end)
    async with asking(Server(chunked(together[:40], together[40:], b"")), tmp_path) as chat:
        completion = await chat.complete(STREAMED, scope="s")
        assert await text_of(completion) == b"".join([CHUNK, CHUNK, DONE]).replace(b"\n\n", end)
        assert completion.usage == {"prompt_tokens": 3}


async def test_silence_before_the_first_byte_is_a_timeout(tmp_path: Path) -> None:
    server = Server(b"")
    async with asking(server, tmp_path, read_timeout_s=0.2) as chat:
        with pytest.raises(NoModelAnswers, match=r"(?i)timeout"):
            await ask(chat, STREAMED)
        await asyncio.wait_for(server.hung_up.wait(), 60)
    assert len(server.requests) == 1, "a server that does not answer in time is not asked again"


@pytest.mark.parametrize(
    ("rest", "stays"),
    [(b"", True), (b"zz\r\n", True), (b"", False), (b"1000\r\nhalf", False)],
    ids="silence nonsense cut half".split(),
)
async def test_a_stream_that_fails_midway_ends_with_an_error(tmp_path: Path, rest: bytes, stays: bool) -> None:
    server = Server(chunked(CHUNK))
    server.rest, server.stays = rest, stays
    async with asking(server, tmp_path, read_timeout_s=2.0 if stays else 60.0) as chat:
        completion = await chat.complete(STREAMED, scope="s")
        server.go.set()
        told = await text_of(completion)
        if stays:
            await asyncio.wait_for(server.hung_up.wait(), 60)
    assert told.startswith(CHUNK)
    error = json.loads(told.removeprefix(CHUNK).split(b"data: ", 1)[1])["error"]
    assert error["code"] == "answer_cut_short"
    assert server.url in error["message"]
    assert not completion.whole


async def test_leaving_a_stream_hangs_up(tmp_path: Path) -> None:
    server = Server(chunked(CHUNK))
    async with asking(server, tmp_path) as chat:
        completion = await chat.complete(STREAMED, scope="s")
        assert await anext(completion.body()) == CHUNK
        await completion.aclose()
        await asyncio.wait_for(server.hung_up.wait(), 60)


async def test_a_call_that_is_cancelled_hangs_up(tmp_path: Path) -> None:
    server = Server(b"")
    async with asking(server, tmp_path) as chat:
        calling = asyncio.create_task(chat.complete(STREAMED, scope="s"))
        async with asyncio.timeout(60):
            while not server.requests:
                await asyncio.sleep(0.005)
            calling.cancel()
            await asyncio.wait([calling])
            await server.hung_up.wait()
    assert calling.cancelled()


async def test_nothing_of_one_callers_answer_goes_with_the_next_call(tmp_path: Path) -> None:
    server = Server(sized(WHOLE, "Set-Cookie: session=1; Path=/"))
    async with asking(server, tmp_path) as chat:
        chat.model.providers[0].where = server.url.replace("127.0.0.1", "localhost")  # addresses have no cookies anyway
        for _ in range(2):
            await ask(chat, ASKED)
    assert "cookie" not in server.requests[1][1]


async def test_an_answer_that_is_compressed_all_the_same_is_readable(tmp_path: Path) -> None:
    server = Server(sized(gzip.compress(WHOLE), "Content-Encoding: gzip"))
    async with asking(server, tmp_path) as chat:
        assert await ask(chat, ASKED) == WHOLE


async def test_pictures_of_megabytes_go_through(tmp_path: Path) -> None:
    server = Server(sized(WHOLE))
    content = "x" * 3_000_000
    async with asking(server, tmp_path) as chat:
        await ask(chat, {**ASKED, "messages": [{"role": "user", "content": content}]})
    assert json.loads(server.requests[0][2])["messages"][0]["content"] == content


async def test_a_user_in_the_address_is_sent_in_place_of_the_key(tmp_path: Path) -> None:
    server = Server(sized(WHOLE))
    async with asking(server, tmp_path) as chat:
        provider = chat.model.providers[0]
        provider.where = server.url.replace("//", "//ada:secret@")
        await ask(chat, ASKED)
    assert server.requests[0][1]["authorization"] == "Basic YWRhOnNlY3JldA=="


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
async def test_the_environments_proxy_is_asked_for_hosts_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    server = Server(sized(WHOLE))
    async with server.listening():
        monkeypatch.setenv(variable, server.url.removesuffix("/v1").replace("//", "//ada:secret@"))
        async with asking(server, tmp_path, openai_base_url="http://models.example/v1") as chat:
            assert await ask(chat, ASKED) == WHOLE
        async with asking(server, tmp_path) as chat:
            assert await ask(chat, ASKED) == WHOLE
    (proxied, headers, _), (direct, _, _) = server.requests
    assert proxied == "POST http://models.example/v1/chat/completions HTTP/1.1"
    assert headers["proxy-authorization"] == "Basic YWRhOnNlY3JldA=="
    assert headers["authorization"] == "Bearer sk-secret"
    assert direct == "POST /v1/chat/completions HTTP/1.1", "what is on this machine is asked directly"


async def test_hosts_of_no_proxy_are_asked_directly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(sized(WHOLE))
    monkeypatch.setenv("NO_PROXY", "models.invalid")
    async with server.listening():
        monkeypatch.setenv("HTTP_PROXY", server.url)
        async with asking(server, tmp_path, openai_base_url="http://models.invalid/v1") as chat:
            with pytest.raises(NoModelAnswers):
                await ask(chat, ASKED)
    assert server.requests == []
