"""The steps: health → a crawl → ``node.add`` on the mux → DuckDB, with nothing but what any client could use."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Callable
from typing import Any

import httpx
import websockets

from deploy.smoke.deployment import Deployment
from deploy.smoke.report import Report, SmokeFailed

HEALTH: dict[str, tuple[str, dict[str, Any]]] = {
    "hub": ("/health", {"redis": "ok", "qdrant": "ok", "ollama": "ok", "scheduler": "ok"}),
    "graph-api": ("/metrics?ready=1", {"status": "ok"}),
    "event-mux": ("/health", {"status": "ok", "streams": ["graph_stream", "tasks"]}),
    "masterchat": ("/health", {"planner_alive": True, "redis": "ok", "duckdb": "ok"}),
}
"""Where each role says that all is well, and the body. The hub's has details under further keys."""
TOPIC = "Mandelbrot set"
PASSAGES = re.compile(r'^lumina_passages\{which="all"\} (\S+)$', re.MULTILINE)
INDEXED_S = 120.0
"""What the first passages may take: the model is loaded before."""
START_S = 300.0
"""What a role may take until it is well: containers start at the same time, on whatever machine there is."""


async def walk(deployment: Deployment, report: Report) -> None:
    """The smoke test.

    Raises:
        SmokeFailed: a step went wrong.
    """
    async with httpx.AsyncClient(headers=deployment.headers, timeout=10, trust_env=False) as http:
        for role, (path, expected) in HEALTH.items():
            await report.step(f"{role} {path}", lambda r=role, p=path, e=expected: _healthy(deployment, http, r, p, e))  # type: ignore[misc]  # lambda defaults have no types
        address = deployment.url("event-mux", "/ws?types=node.add&streams=graph_stream", "ws")
        async with websockets.connect(address, additional_headers=deployment.headers, proxy=None) as mux:
            task: dict[str, Any] = {}

            async def submit() -> str:
                body = {"crawl": [TOPIC], "hops": 0, "max_nodes": 3}
                response = await http.post(deployment.url("hub", "/tasks"), json=body)
                if response.status_code != 202:
                    raise SmokeFailed(f"{response.status_code} {response.text[:200]}")
                task.update(response.json())
                return f"task {task['id']}"

            async def node_added() -> str:
                event = await _next_event(mux, lambda event: event["task_id"] == task["id"])
                return f"{event['data'].get('title') or event['data'].get('id')}, on the mux"

            async def complete() -> str:
                url = deployment.url("hub", f"/tasks/{task['id']}")
                ended = ("complete", "dead", "cancelled")
                done = await deployment.until(lambda: _json(http, url), lambda body: body["status"] in ended)
                if done["status"] != "complete":
                    raise SmokeFailed(json.dumps(done)[:300])
                return f"{done['attempts']} attempt" if "attempts" in done else "complete"

            async def node_posted() -> str:
                title = f"Smoke {secrets.token_hex(4)}"
                response = await http.post(deployment.url("graph-api", "/nodes"), json={"title": title})
                if response.status_code != 201:
                    raise SmokeFailed(f"{response.status_code} {response.text[:200]}")
                await _next_event(mux, lambda event: event["data"].get("title") == title)
                return "201, and node.add on the mux"

            await report.step("POST /tasks on the hub", submit)
            await report.step("node.add of the crawl", node_added)
            await report.step("the task is complete", complete)
            await report.step("POST /nodes on graph-api", node_posted)
        await report.step("events in DuckDB", lambda: _count(deployment, http))
        await report.step("passages in the index", lambda: _passages(deployment, http))


async def _healthy(
    deployment: Deployment, http: httpx.AsyncClient, role: str, path: str, expected: dict[str, Any]
) -> str:
    def well(body: dict[str, Any]) -> bool:
        return expected == ({name: body.get(name) for name in expected} if role == "hub" else body)

    async with asyncio.timeout(START_S):
        body = await deployment.until(lambda: _json(http, deployment.url(role, path)), well)
    return json.dumps({name: body[name] for name in expected}, separators=(",", ":"))


async def _count(deployment: Deployment, http: httpx.AsyncClient) -> str:
    query = {"sql": "SELECT count(*) FROM events WHERE type = 'node.add'"}

    async def ask() -> int:
        response = await http.post(deployment.url("masterchat", "/events/query"), json=query)
        return int(response.raise_for_status().json()["rows"][0][0])

    async with asyncio.timeout(30):
        return f"{await deployment.until(ask, lambda count: count > 0)} node.add, through masterchat"


async def _passages(deployment: Deployment, http: httpx.AsyncClient) -> str:
    """Whoever indexes, the hub counts what it could find."""

    async def ask() -> int:
        response = await http.get(deployment.url("hub", "/metrics"))
        found = PASSAGES.search(response.raise_for_status().text)
        return int(float(found[1])) if found else 0

    async with asyncio.timeout(INDEXED_S):
        return f"{await deployment.until(ask, lambda count: count > 0)}, as the hub counts"


async def _json(http: httpx.AsyncClient, url: str) -> Any:
    response = await http.get(url)
    try:
        return response.json()
    except ValueError as error:
        raise SmokeFailed(f"{url} answers {response.status_code} without JSON: {response.text[:100]}") from error


async def _next_event(mux: websockets.ClientConnection, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(60):
        async for frame in mux:
            for event in json.loads(frame).get("events", ()):
                if wanted(event):
                    return dict(event)
    raise SmokeFailed("the mux closed the connection")
