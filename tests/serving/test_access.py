"""Who may call what, how large a request may be, and what every answer carries."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from loguru import logger
from redis.exceptions import ConnectionError
from starlette.types import Message

from server import create_app
from serving import documentation, problems
from serving.bodies import MAX_HEADER_BYTES, RequestLimits
from serving.guards import Hosts, Origins
from serving.headers import AnswerHeaders
from settings import load_settings


def client_of(app: Any, base_url: str = "http://lumina") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base_url)


@pytest.fixture
async def plain() -> AsyncIterator[httpx.AsyncClient]:
    """The application without open services."""
    async with client_of(create_app(load_settings(lumina_api_keys="ada:k1", max_body_bytes=1_000))) as client:
        yield client


def toy(**paths: Any) -> FastAPI:
    """An application with the same middleware around routes of the test's own."""
    app = create_app(load_settings(lumina_api_keys="ada:k1", cors_origins="https://ui.example"))
    for name, endpoint in paths.items():
        app.add_api_route(f"/{name}", endpoint, methods=["GET", "POST"])
    return app


def problem_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["detail"]
    return body


# --- request ids


@pytest.mark.parametrize("given", ["abc-123", "4bf92f3577b34da6a3ce929d0e0e4736", "a" * 128])
async def test_a_request_id_of_the_client_comes_back(plain: httpx.AsyncClient, given: str) -> None:
    response = await plain.get("/", headers={"X-Request-Id": given})
    assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "a" * 129, "ü", "<script>", 'x"y'])
async def test_one_that_is_none_is_replaced(plain: httpx.AsyncClient, given: str) -> None:
    response = await plain.get("/", headers=[(b"X-Request-Id", given.encode())])
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


async def test_every_answer_has_an_id_and_errors_too(plain: httpx.AsyncClient) -> None:
    answers = [
        await plain.get("/"),
        await plain.get("/nothing"),
        await plain.put("/tasks"),
        await plain.post("/tasks", content=b"x" * 2_000),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 405, 413]
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)
    assert {answer.headers["x-content-type-options"] for answer in answers} == {"nosniff"}
    assert {answer.headers["referrer-policy"] for answer in answers} == {"no-referrer"}


async def test_what_breaks_is_a_500_with_the_id_under_which_the_log_has_the_trace() -> None:
    async def broken() -> None:
        raise RuntimeError("the secret of the house")

    told: list[str] = []
    sink = logger.add(lambda line: told.append(str(line)), format="{extra[request_id]} {message} {exception}")
    try:
        async with client_of(toy(broken=broken)) as client:
            response = await client.get("/broken", headers={"X-Request-Id": "mine-1", "Origin": "https://ui.example"})
    finally:
        logger.remove(sink)
    body = problem_of(response, 500)
    assert body["request_id"] == response.headers["x-request-id"] == "mine-1"
    assert response.headers["access-control-allow-origin"] == "https://ui.example"
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert any("mine-1" in line and "the secret of the house" in line for line in told)


async def test_without_redis_it_is_a_503_that_does_not_tell_where_redis_is() -> None:
    async def broken() -> None:
        raise ConnectionError("Error 111 connecting to 10.1.2.3:6379")

    async with client_of(toy(broken=broken)) as client:
        response = await client.get("/broken")
    body = problem_of(response, 503)
    assert "10.1.2.3" not in response.text
    assert "/health" in body["detail"]
    assert response.headers["retry-after"] == "5"


async def test_a_websocket_is_told_its_id_too() -> None:
    sent: list[Message] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    async def send(message: Message) -> None:
        sent.append(message)

    nothing: Any = None
    await AnswerHeaders(app)({"type": "websocket", "headers": [(b"x-request-id", b"mine")]}, nothing, send)
    assert (b"x-request-id", b"mine") in sent[0]["headers"]


# --- errors


async def test_errors_say_what_to_do(plain: httpx.AsyncClient) -> None:
    assert "/docs" in problem_of(await plain.get("/nothing"), 404)["detail"]
    wrong_method = await plain.put("/tasks")
    assert "PUT" in problem_of(wrong_method, 405)["detail"]
    assert wrong_method.headers["allow"] == "GET, POST"
    assert (await plain.post("/tasks/x")).headers["allow"] == "DELETE, GET"


@pytest.mark.parametrize(
    ("content", "kind", "status", "word"),
    [
        (b"{", "application/json", 400, "character 1"),
        (b"", "application/json", 422, "Field required"),
        (b"message=x", "application/x-www-form-urlencoded", 415, "application/json"),
        (b'{"message": "x"}', "text/plain", 415, "text/plain"),
        (b'{"message": "x"}', None, 415, "application/json"),
        (b"\xff\xfe", "application/json", 400, "body"),
        (b"[" * 900, "application/json", 400, "JSON"),
        (b'{"message": "x", "hops": NaN}', "application/json", 422, "hops"),
        (b'{"message": ["\\ud800"]}', "application/json", 422, "message"),
        (b'{"message": "x", "\\ud800": 1}', "application/json", 422, "unicode"),
        (b"null", "application/json", 422, "body"),
    ],
)
async def test_a_body_that_does_not_fit_is_explained(content: bytes, kind: str | None, status: int, word: str) -> None:
    with_state = create_app(load_settings(max_body_bytes=1_000))

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        state: dict[str, Any] = {"api_keys": {}, "default_owner": "local", "runner": None, "turns": None}
        await with_state({**scope, "state": state}, receive, send)

    async with client_of(asgi) as client:
        headers = {"Content-Type": kind} if kind else {}
        response = await client.post("/masterchat/chat", content=content, headers=headers)
    assert word in problem_of(response, status)["detail"]


# --- sizes and times


async def test_a_body_is_limited_with_and_without_its_length(plain: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    declared = await plain.post("/tasks", content=b"x" * 1_001)
    streamed = await plain.post("/tasks", content=chunks(), headers={"X-API-Key": "k1"})
    for response in (declared, streamed):
        assert "1000 bytes" in problem_of(response, 413)["detail"]
    assert (await plain.post("/tasks", content=b"x" * 1_000)).status_code != 413


async def test_headers_are_limited(plain: httpx.AsyncClient) -> None:
    problem_of(await plain.get("/", headers={"X-Long": "x" * MAX_HEADER_BYTES}), 431)
    assert (await plain.get("/", headers={"X-Long": "x" * (MAX_HEADER_BYTES - 500)})).status_code == 200


async def test_a_body_that_does_not_arrive_is_not_waited_for() -> None:
    inner = FastAPI()
    problems.install(inner)

    @inner.post("/")
    async def take(body: dict[str, Any]) -> dict[str, Any]:
        return body

    sent: list[Message] = []
    parts = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Message:
        if parts:
            return parts.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/", "raw_path": b"/", "query_string": b"", "root_path": "",
        "headers": [(b"content-type", b"application/json")], "http_version": "1.1", "scheme": "http",
        "server": ("lumina", 80), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    await RequestLimits(inner, max_body_bytes=100, arrival_s=0.05)(scope, receive, send)
    assert sent[0]["status"] == 408
    assert "0.05 s" in json.loads(sent[1]["body"])["detail"]


async def test_the_time_for_the_body_is_none_for_the_answer() -> None:
    """Waiting for the client to go away, which a stream does from its beginning to its end, is not limited."""
    waited = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        waited.set()
        assert (await receive())["type"] == "http.disconnect"

    left = asyncio.Event()
    parts = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if parts:
            return parts.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError

    limits = RequestLimits(app, max_body_bytes=100, arrival_s=0.01)
    running = asyncio.create_task(limits({"type": "http", "headers": []}, receive, send))
    await waited.wait()
    done, _ = await asyncio.wait({running}, timeout=0.1)
    assert not done
    left.set()
    await running


# --- pages of other origins


async def test_a_page_of_an_allowed_origin_may_send_a_key_and_read_the_headers() -> None:
    async def fine() -> dict[str, bool]:
        return {"ok": True}

    async with client_of(toy(fine=fine)) as client:
        origin = {"Origin": "https://ui.example"}
        asked = {"Access-Control-Request-Method": "POST"}
        asked |= {"Access-Control-Request-Headers": "authorization,content-type,idempotency-key,last-event-id"}
        before = await client.options("/fine", headers=origin | asked)
        answer = await client.get("/fine", headers=origin)
        stranger = await client.options("/fine", headers={"Origin": "https://evil.example"} | asked)
    assert before.status_code == 200
    assert before.headers["access-control-allow-origin"] == "https://ui.example"
    assert {"authorization", "idempotency-key"} <= set(
        before.headers["access-control-allow-headers"].lower().replace(" ", "").split(",")
    )
    exposed = set(answer.headers["access-control-expose-headers"].lower().replace(" ", "").split(","))
    assert {"location", "ratelimit", "ratelimit-policy", "retry-after", "x-request-id"} <= exposed
    assert "access-control-allow-origin" not in stranger.headers


async def answers(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
    ("method", "origin", "host", "status"),
    [
        ("POST", None, "127.0.0.1:8000", 204),
        ("POST", "http://127.0.0.1:8000", "127.0.0.1:8000", 204),
        ("POST", "http://[::1]:8000", "[::1]:8000", 204),
        ("POST", "https://ui.example", "127.0.0.1:8000", 204),
        ("POST", "https://evil.example", "127.0.0.1:8000", 403),
        ("POST", "http://localhost:3000", "localhost:8000", 403),
        ("POST", "null", "127.0.0.1:8000", 403),
        ("POST", "null", "", 403),
        ("POST", "", "127.0.0.1:8000", 403),
        ("DELETE", "https://evil.example", "127.0.0.1:8000", 403),
        ("GET", "https://evil.example", "127.0.0.1:8000", 204),
    ],
)
async def test_a_page_of_another_origin_changes_nothing(
    method: str, origin: str | None, host: str, status: int
) -> None:
    async with client_of(Origins(answers, allowed=["https://ui.example"])) as client:
        headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
        response = await client.request(method, "/tasks", headers=headers)
    assert response.status_code == status
    if status == 403:
        assert "CORS_ORIGINS" in problem_of(response, 403)["detail"]


@pytest.mark.parametrize(("origin", "reached"), [("http://127.0.0.1:8000", True), ("https://evil.example", False)])
async def test_a_websocket_of_another_origin_is_not_accepted(origin: str, reached: bool) -> None:
    sent: list[Message] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    async def send(message: Message) -> None:
        sent.append(message)

    nothing: Any = None
    scope = {"type": "websocket", "headers": [(b"host", b"127.0.0.1:8000"), (b"origin", origin.encode())]}
    await Origins(app)(scope, nothing, send)
    assert [message["type"] for message in sent] == ["websocket.accept" if reached else "websocket.close"]


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("127.0.0.1:8000", True),
        ("127.9.9.9", True),
        ("[::1]:8000", True),
        ("lumina.test:8000", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1@evil.example", False),
        ("10.0.0.1", False),
        ("[::1", False),
        ("", False),
    ],
)
async def test_a_server_on_loopback_answers_to_its_own_names_only(host: str, own: bool) -> None:
    async with client_of(Hosts(answers, names=["lumina.test"])) as client:
        response = await client.get("/", headers={"Host": host})
    if own:
        assert response.status_code == 204
    else:
        problem_of(response, 421)


async def test_the_guards_stand_where_there_are_no_keys() -> None:
    evil = {"Origin": "https://evil.example"}
    async with client_of(create_app(load_settings(), host="127.0.0.1"), "http://evil.example") as client:
        problem_of(await client.get("/"), 421)
        assert (await client.get("/", headers={"Host": "127.0.0.1"})).status_code == 200
        problem_of(await client.post("/tasks", headers={"Host": "127.0.0.1", **evil}), 403)
    async with client_of(create_app(load_settings(lumina_api_keys="k1"), host="127.0.0.1"), "http://proxy") as client:
        assert (await client.get("/", headers=evil)).status_code == 200


# --- the page that lists the routes


async def test_the_docs_load_nothing_from_elsewhere(plain: httpx.AsyncClient) -> None:
    page = await plain.get("/docs")
    assert page.status_code == 200
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert loaded
    for path in loaded:
        assert path.startswith("/docs/files/")
        assert (await plain.get(path)).status_code == 200
    policy = page.headers["content-security-policy"]
    assert "script-src 'self' 'sha256-" in policy
    assert "https:" not in policy + page.text
    assert documentation._hashes(page.text) in policy


async def test_every_route_describes_its_errors(plain: httpx.AsyncClient) -> None:
    schema = (await plain.get("/openapi.json")).json()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            responses = operation["responses"]
            assert {"422", "429", "4XX", "5XX"} <= set(responses), f"{method} {path}"
            assert "security" not in operation or "401" in responses, f"{method} {path}"
            kind, name = ("json", "ErrorDocument") if path.startswith("/v1/") else ("problem+json", "Problem")
            expected = {f"application/{kind}": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
            assert responses["429"]["content"] == responses["4XX"]["content"] == expected, f"{method} {path}"
    assert set(schema["components"]["securitySchemes"]) == {"bearer", "key"}
    assert "HTTPValidationError" not in json.dumps(schema)


async def test_an_application_that_is_no_web_application_is_left_alone() -> None:
    """The lifespan passes through every middleware."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    nothing: Any = None
    for wrap in (AnswerHeaders, Hosts, Origins, problems.Faults, lambda one: RequestLimits(one, max_body_bytes=1)):
        await wrap(app)({"type": "lifespan"}, nothing, nothing)
    assert seen == ["lifespan"] * 5
