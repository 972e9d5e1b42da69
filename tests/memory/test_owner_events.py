"""SQL of an owner who wants to see somebody else's events."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from memory.events import EventStore, EventStoreUnreadable, InvalidQuery, QueryTimeout, open_events
from memory.keys import GRAPH_STREAM, TASKS_STREAM
from memory.streams import Event, now_ms

SECRET = "zq7secret"
"""Stands in every text of Bob's events, and in none of Ada's."""


def life(owner: str, mark: str, begin: int) -> list[tuple[str, str, Event]]:
    """Some events of every kind that the views read."""
    events: list[tuple[str, str, dict[str, Any]]] = [
        (TASKS_STREAM, "task.submit", {"kind": "crawl", "payload": {"crawl": [mark]}}),
        (GRAPH_STREAM, "task.start", {"kind": "crawl", "worker": mark}),
        (GRAPH_STREAM, "node.add", {"id": f"N_{mark}", "title": mark, "url": mark, "revision": "1", "data": {}}),
        (GRAPH_STREAM, "edge.add", {"source": f"N_{mark}", "target": f"M_{mark}", "type": "links_to", "data": {}}),
        (GRAPH_STREAM, "llm.usage", {"provider": mark, "model": mark, "input_tokens": 1, "usd": 0.5}),
        (GRAPH_STREAM, "task.complete", {"kind": "crawl", "seconds": 1.0, "result": {}}),
    ]
    return [
        (stream, f"{begin + n}-0", Event(type_, {"owner": owner, **data}, mark, f"t_{mark}", begin + n))
        for n, (stream, type_, data) in enumerate(events)
    ]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EventStore]:
    begin = now_ms() - 60_000
    bobs = [entry for n in range(40) for entry in life("bob", f"{SECRET}{n}", begin + 10 * n)]
    adas = [entry for n in range(3) for entry in life("ada", f"a{n}", begin + 1_000 + 10 * n)]
    nobodys = [(GRAPH_STREAM, "1-0", Event("error", {"error": SECRET}, SECRET, SECRET, begin))]
    entries = [*bobs, *adas, *nobodys]
    random.Random(3).shuffle(entries)
    async with open_events(tmp_path / "events.duckdb") as opened:
        await opened.append(entries)
        yield opened


async def test_an_owner_sees_own_events_in_the_table_and_every_view(store: EventStore) -> None:
    async def count(sql: str, owner: str | None) -> Any:
        return (await store.query(f"SELECT count(*) FROM {sql}", owner=owner)).rows[0][0]

    for table, adas, bobs in (("events", 18, 240), ("nodes", 3, 40), ("edges", 3, 40), ("tasks", 3, 40)):
        assert (await count(table, "ada"), await count(table, "bob")) == (adas, bobs)
    assert await count("llm_usage", "ada") == 3
    growth = await store.query("SELECT sum(nodes), sum(edges) FROM node_growth WHERE per = 'day'", owner="ada")
    assert growth.rows == [[3, 3]]
    assert await count("events", None) == 18 + 240 + 1
    assert await count("events", "nobody") == 0
    assert await count("events", "' OR true --") == 0


async def test_an_owner_finds_the_same_columns_and_types_as_the_operator(store: EventStore) -> None:
    for table in ("events", "nodes", "edges", "tasks", "llm_usage", "node_growth"):
        own = await store.query(f"SELECT column_name, column_type FROM (DESCRIBE {table})", owner="ada")
        assert own.rows == (await store.query(f"SELECT column_name, column_type FROM (DESCRIBE {table})")).rows


ATTACKS = [
    # other names of the table, other catalogues
    "FROM main.events", "FROM events.events", "FROM events.main.events", "FROM memory.main.events",
    "FROM temp.main.events", "FROM temp.events", "FROM system.main.events", 'FROM "events"."main"."events"',
    "FROM feed", "FROM temp.feed", "FROM main.nodes", "FROM events.main.nodes", "FROM memory.nodes",
    "WITH events AS (FROM events.main.events) FROM events", "FROM query_table('events.main.events')",
    "FROM query('FROM events.main.events')", "FROM events AT (VERSION => 1)", "PIVOT events.main.events ON type",
    # the condition of a query, tried before the view's own
    "SELECT id FROM events WHERE error(data::VARCHAR) IS NULL", "SELECT id FROM events WHERE (agent::INT) > 0",
    "SELECT id FROM events WHERE (data ->> 'error')::INT > 0", "SELECT id FROM nodes WHERE title::INT > 0",
    f"SELECT id FROM events WHERE CASE WHEN agent LIKE '{SECRET}%' THEN error(agent) ELSE true END",
    "SELECT (SELECT error(e.data::VARCHAR) FROM events e WHERE e.id = o.id) FROM events o",
    # statistics, plans
    "SELECT stats(agent), stats(id), stats(task_id) FROM events", "SELECT stats(title) FROM nodes",
    "SUMMARIZE events", "SUMMARIZE events.main.events", "EXPLAIN FROM events", "EXPLAIN ANALYZE FROM events",
    f"EXPLAIN FROM events WHERE agent = '{SECRET}1'", "SELECT approx_count_distinct(id), max(agent) FROM events",
    # the catalogue
    "FROM duckdb_tables()", "FROM duckdb_tables", "FROM duckdb_views()", "FROM duckdb_columns()", "FROM sqlite_master",
    "FROM duckdb_databases", "FROM duckdb_databases()", "FROM pragma_database_list", "FROM pg_database",
    "FROM pg_catalog.pg_database", "FROM information_schema.tables", "FROM information_schema.columns",
    "SHOW ALL TABLES", "SHOW DATABASES", "SHOW TABLES FROM events", "DESCRIBE events.main.events",
    "FROM pragma_storage_info('events')", "FROM pragma_table_info('events')", "FROM duckdb_temporary_files()",
    "FROM duckdb_settings()", "FROM pg_settings", "FROM duckdb_logs", "FROM duckdb_logs_parsed('QueryLog')",
    "FROM duckdb_secrets()", "FROM duckdb_memory()", "FROM duckdb_prepared_statements()", "FROM duckdb_variables()",
    "SELECT current_setting('temp_directory'), current_setting('secret_directory')",
    # out of the database
    "ATTACH '{path}' AS other", "ATTACH 'events'", "USE events", "COPY events TO '{path}.csv'",
    "EXPORT DATABASE '/tmp'",
    "COPY (FROM events) TO '{path}.parquet' (FORMAT parquet)", "FROM '{path}'", "FROM read_csv('{path}')",
    "FROM read_duckdb('{path}')", "FROM read_blob('{path}')", "FROM sniff_csv('{path}')", "FROM glob('/*')",
    "FROM 'http://127.0.0.1:9/x.csv'", "INSTALL httpfs", "LOAD httpfs", "SELECT getenv('HOME')",
    "FROM arrow_scan(1, 2, 3)", "FROM python_map_function()", "FROM duckdb_extensions()", "PRAGMA database_list",
    "PRAGMA enable_logging", "SET memory_limit = '9GB'", "RESET lock_configuration", "CALL enable_logging()",
    "SET search_path = 'events.main'", "SELECT write_log('{path}')", "FROM json_execute_serialized_sql('{{}}')",
    # writing, several statements
    "CREATE TEMP TABLE mine AS FROM events", "DROP VIEW events", "INSERT INTO events VALUES (1)",
    "SELECT 1; FROM events.main.events", "BEGIN", "PREPARE p AS FROM events", "EXECUTE p", "VACUUM", "CHECKPOINT",
    "CREATE MACRO m() AS 1", "SET VARIABLE v = 1", "SELECT nextval('s')", "ALTER VIEW events RENAME TO other",
]  # fmt: skip


@pytest.mark.parametrize("part", range(4))
async def test_no_attack_shows_what_is_not_the_owners(store: EventStore, part: int) -> None:
    hidden = (SECRET, str(store.path.parent))
    for attack in ATTACKS[part::4]:
        sql = attack.replace("{path}", str(store.path)).replace("{{}}", "{}")
        try:
            shown = json.dumps((await store.query(sql, owner="ada")).rows)
        except InvalidQuery as error:
            shown = str(error)
        shown = shown.replace(sql, "")  # an error may quote the query itself
        for literal in (f"'{SECRET}1'", f"'{SECRET}%'", str(store.path)):
            shown = shown.replace(literal, "") if literal in sql else shown
        for secret in hidden:
            assert secret not in shown, attack
        assert (await store.query("SELECT count(*) FROM events")).rows == [[18 + 240 + 1]], attack
    assert sorted(path.name for path in store.path.parent.iterdir() if path.suffix != ".wal") == ["events.duckdb"]


async def test_an_error_of_the_owners_own_event_is_told(store: EventStore) -> None:
    with pytest.raises(InvalidQuery, match=r"a\d"):
        await store.query("SELECT (agent::INT) FROM events", owner="ada")


async def test_tables_cannot_be_counted_through_the_catalogue(store: EventStore) -> None:
    rows = (await store.query("SELECT table_name, estimated_size FROM duckdb_tables()", owner="ada")).rows
    assert rows == []
    names = await store.query("SELECT database_name FROM duckdb_databases", owner="ada")
    assert {name for (name,) in names.rows} <= {"memory", "system", "temp"}


@pytest.mark.parametrize(
    "sql",
    ["WITH RECURSIVE f(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM f) SELECT count(*) FROM f",
     "SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b",
     "SELECT count(*) FROM events a, range(1000000000) b WHERE a.id || b.range = 'x'",
     "SELECT sleep_ms(60000)"],
)  # fmt: skip
async def test_a_query_without_end_is_stopped_and_holds_up_nobody(store: EventStore, sql: str) -> None:
    slow = [asyncio.create_task(store.query(sql, owner="ada", timeout_s=0.5)) for _ in range(3)]
    assert (await store.query("SELECT 1", timeout_s=30)).rows == [[1]]
    for end in await asyncio.gather(*slow, return_exceptions=True):
        assert isinstance(end, QueryTimeout)
    assert (await store.query("SELECT count(*) FROM events", owner="ada")).rows == [[18]]


@pytest.mark.parametrize("owner", [None, "ada"])
async def test_a_result_is_limited_in_size_and_says_so(store: EventStore, owner: str | None) -> None:
    wide = await store.query("SELECT repeat('x', 20000) FROM range(10000)", owner=owner, timeout_s=60)
    assert (wide.truncated, len(wide.rows)) == (True, 1_600)
    with pytest.raises(InvalidQuery, match="first row is larger"):
        await store.query("SELECT repeat('x', 40000000)", owner=owner, timeout_s=60)
    with pytest.raises(InvalidQuery, match=r"(?i)memory"):
        await store.query("SELECT list(repeat('x', 1000) || range) FROM range(1000000)", owner=owner, timeout_s=60)
    deep = await store.query("SELECT (repeat('[', 900) || repeat(']', 900))::JSON", owner=owner)
    assert json.dumps(deep.rows)
    deeper = await store.query("SELECT (repeat('[', 100000) || repeat(']', 100000))::JSON AS j", owner=owner)
    assert len(deeper.rows[0][0]) == 200_000


HUNGRY = [
    "SELECT length(repeat('x', 10000000) || range) FROM range(2000)",
    "SELECT string_agg(repeat('x', 1000000), '') FROM range(5000)",
    "SELECT list(repeat('x', 1000000)) FROM range(5000)",
    "SELECT count(*) FROM (SELECT DISTINCT repeat(id, 10000000) FROM events, range(100))",
]
"""Queries for gigabytes of text, which DuckDB does not count against its memory limit."""


def resident(pid: int | str) -> int:
    """What a process has in memory, in KB; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")), 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel limits what a process allocates")
@pytest.mark.parametrize("sql", HUNGRY)
async def test_a_query_for_gigabytes_is_refused_and_the_server_does_not_grow(store: EventStore, sql: str) -> None:
    await store.query("SELECT 1", owner="ada")
    [child] = store._processes._idle
    before = resident("self")
    hungry = asyncio.create_task(store.query(sql, owner="ada", timeout_s=60))
    server, query = [before], [resident(child._process.pid)]
    while not hungry.done():
        await asyncio.wait({hungry}, timeout=0.01)
        server.append(resident("self"))
        query.append(resident(child._process.pid))
    with pytest.raises(InvalidQuery, match=r"(?i)memory"):
        await hungry
    assert max(server) - before < 200 << 10
    assert 0 < max(query) < 1_200 << 10
    assert (await store.query("SELECT count(*) FROM events", owner="ada")).rows == [[18]]


async def test_a_process_serves_query_after_query_and_is_replaced_when_it_is_gone(store: EventStore) -> None:
    assert (await store.query("SELECT count(*) FROM events", owner="ada")).rows == [[18]]
    [child] = store._processes._idle
    assert (await store.query("SELECT count(*) FROM events, nodes", owner="bob")).rows == [[240 * 40]]
    assert store._processes._idle == [child]
    child._process.kill()
    child._process.wait()
    assert (await store.query("SELECT count(*) FROM events", owner="ada")).rows == [[18]]
    assert len(store._processes._idle) == 1
    assert child not in store._processes._idle


async def test_values_reach_a_query_and_come_back_as_they_are(store: EventStore) -> None:
    sql = "SELECT ?::INT + 1, ?, ?::TIMESTAMP, 'nan'::DOUBLE, '{\"a\": [1, null]}'::JSON, x'ff'::BLOB"
    asked = [41, "é \u2028", "2026-11-23"]
    assert (await store.query(sql, asked, owner="ada")).rows == (await store.query(sql, asked)).rows
    assert (await store.query("SELECT $a || 'b'", {"a": "a"}, owner="ada")).rows == [["ab"]]


async def test_closing_the_store_ends_an_owners_query(tmp_path: Path) -> None:
    async with open_events(tmp_path / "e.duckdb") as store:
        await store.append(life("ada", "a", now_ms()))
        sql = "SELECT count(*) FROM events a, range(1000000000) b WHERE a.id || b.range = 'x'"
        slow = asyncio.create_task(store.query(sql, owner="ada", timeout_s=300))
        while not store._asking._jobs:
            await asyncio.sleep(0)
    with pytest.raises((InvalidQuery, EventStoreUnreadable)):
        await slow
    async with open_events(tmp_path / "e.duckdb") as store:  # the file was let go of
        assert len((await store.query("FROM events", owner="ada")).rows) == 6


async def test_owners_ask_while_events_arrive(store: EventStore) -> None:
    begin = now_ms()

    async def grow() -> None:
        for n in range(20):
            await store.append(life("ada", f"more{n}", begin + 10 * n))

    async def ask() -> list[int]:
        return [(await store.query("SELECT count(*) FROM events", owner="ada")).rows[0][0] for _ in range(5)]

    _, first, second = await asyncio.gather(grow(), ask(), ask())
    for counts in (first, second):
        assert counts == sorted(counts)
        assert all(count % 6 == 0 for count in counts)
