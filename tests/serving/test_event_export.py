"""Days of events over HTTP, and the commands beside a running server and without one."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from memory.events import EventStore, open_events
from memory.keys import GRAPH_STREAM
from memory.streams import Event
from serving import event_export, problems

ROOT = Path(__file__).parents[2]
ADA, BOB = {"X-API-Key": "k1"}, {"X-API-Key": "k2"}
DAY = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp() * 1000)


def event(owner: str, number: int, days: int = 0) -> tuple[str, str, Event]:
    ts = DAY + days * 86_400_000 + number
    return GRAPH_STREAM, f"{ts}-{number}", Event("node.add", {"owner": owner, "id": f"N{number}"}, "crawl", "t", ts)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EventStore]:
    async with open_events(tmp_path / "events.duckdb") as opened:
        await opened.append([event("ada", 1), event("ada", 2), event("ada", 3, days=1), event("bob", 4)])
        yield opened


def asking(store: EventStore | None, api_keys: dict[str, str]) -> httpx.AsyncClient:
    app = FastAPI()
    problems.install(app)
    app.include_router(event_export.router)
    runner = SimpleNamespace(context=SimpleNamespace(events=store))

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        state = {"runner": runner, "api_keys": api_keys, "default_owner": "local"}
        await app({**scope, "state": state}, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(asgi), base_url="http://lumina")


def owners(content: bytes) -> list[str]:
    from pyarrow import parquet

    rows = parquet.read_table(io.BytesIO(content)).to_pylist()
    return [json.loads(row["data"])["owner"] for row in rows]


async def test_a_key_gets_own_days_and_events(store: EventStore) -> None:
    async with asking(store, {"k1": "ada", "k2": "bob"}) as client:
        listed = (await client.get("/events/days", headers=ADA)).json()
        assert listed == [{"day": "2026-11-20", "events": 2}, {"day": "2026-11-21", "events": 1}]
        assert (await client.get("/events/days", params={"since": "2026-11-21"}, headers=BOB)).json() == []
        day = await client.get("/events/days/2026-11-20", headers=ADA)
        assert day.headers["content-type"] == "application/vnd.apache.parquet"
        assert int(day.headers["content-length"]) == len(day.content)
        assert owners(day.content) == ["ada", "ada"]
        assert owners((await client.get("/events/days/2026-11-20", headers=BOB)).content) == ["bob"]
        assert (await client.get("/events/days")).status_code == 401
        missing = await client.get("/events/days/2026-11-21", headers=BOB)
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
        for path in ("yesterday", "2026-13-01", "..%2F..%2Fx", "2026-11-20%00"):
            assert (await client.get(f"/events/days/{path}", headers=ADA)).status_code in (404, 422)
        for day_without in ("0001-01-01", "9999-12-31"):
            assert (await client.get(f"/events/days/{day_without}", headers=ADA)).status_code == 404
    assert sorted(path.suffix for path in store.path.parent.iterdir()) in ([".duckdb"], [".duckdb", ".wal"])


async def test_without_keys_everybodys_events_are_given(store: EventStore) -> None:
    async with asking(store, {}) as client:
        assert (await client.get("/events/days")).json()[0]["events"] == 3
        assert sorted(owners((await client.get("/events/days/2026-11-20")).content)) == ["ada", "ada", "bob"]


async def test_a_process_without_the_store_says_so(store: EventStore) -> None:
    async with asking(None, {}) as client:
        for path in ("/events/days", "/events/days/2026-11-20"):
            assert (await client.get(path)).status_code == 503


def lumina(data: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DATA_DIR": str(data), "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, str(ROOT / "cli.py"), *args]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=250)


@pytest.mark.slow
async def test_the_commands_work_beside_a_server_and_without_one(tmp_path: Path) -> None:
    """One real server, with two owners; then the same commands on the files."""
    data, keys = tmp_path / "data", {"LUMINA_API_KEYS": "ada:k1,bob:k2"}
    environment = {**os.environ, "DATA_DIR": str(data), "PYTHONPATH": str(ROOT), **keys}
    server = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "cli.py"), "serve", "--port", "18473", env=environment, stdout=subprocess.PIPE
    )
    assert server.stdout is not None

    async def run(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(lumina, data, *args, **variables)

    try:
        async with asyncio.timeout(250):
            assert b"serves" in await server.stdout.readline()
        async with httpx.AsyncClient(base_url="http://127.0.0.1:18473", timeout=60) as client:
            for headers, titles in ((ADA, "AB"), (BOB, "ABC")):
                nodes = {"nodes": [{"title": title} for title in titles]}
                assert (await client.post("/nodes", json=nodes, headers=headers)).status_code == 201
            async with asyncio.timeout(60):
                while True:  # until the events have been taken in
                    sql = {"sql": "SELECT count(*) FROM nodes"}
                    rows = (await client.post("/events/query", json=sql, headers=BOB)).json()["rows"]
                    if rows == [[3]]:
                        break
        asked = await run("sql", "SELECT count(*) AS n FROM nodes", "--json", **keys)
        assert json.loads(asked.stdout)["rows"] == [[2]], asked.stderr
        out = tmp_path / "out"
        assert "1 written, 0 complete" in (await run("export", "--out", str(out), **keys)).stdout
        assert "0 written, 1 complete" in (await run("export", "--out", str(out), **keys)).stdout
        [file] = out.rglob("*.parquet")
        assert owners(file.read_bytes()) == ["ada", "ada"]
        rebuilt = await run("graph", "rebuild", **keys)
        assert "0 nodes and edges corrected, 0 removed" in rebuilt.stdout, rebuilt.stderr
        written = await run("graph", "export", str(tmp_path / "g.json"), **keys)
        assert {node["id"] for node in json.loads((tmp_path / "g.json").read_text())["nodes"]} == {"A", "B"}, written
        wrong = await run("export", "--out", str(tmp_path / "other"), LUMINA_API_KEYS="eve:k3")
        assert (wrong.returncode, "not known" in wrong.stderr) == (1, True)
    finally:
        server.send_signal(signal.SIGTERM)
        await server.wait()
    every = await run("export", "--out", str(tmp_path / "all"))
    assert "1 written, 0 complete" in every.stdout, every.stderr
    [file] = (tmp_path / "all").rglob("*.parquet")
    assert sorted(set(owners(file.read_bytes()))) == ["ada", "bob"]
    mixed = await run("export", "--out", str(tmp_path / "all"), "--until", "2020-01-01")
    assert "0 written, 0 complete" in mixed.stdout
    rebuilt = await run("graph", "rebuild")
    assert "0 nodes and edges corrected, 0 removed" in rebuilt.stdout, rebuilt.stderr
    graph = await run("graph", "export", str(tmp_path / "g.graphml"))
    assert (graph.returncode, (tmp_path / "g.graphml").read_text()[:5]) == (0, "<?xml")
    refused = await run("graph", "export", str(tmp_path / "g.svg"))
    assert (refused.returncode, ".graphml or .json" in refused.stderr) == (1, True)
