"""The event store against a real DuckDB file."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from memory.consumers import NotReady
from memory.events import (
    EventsNotStored,
    EventStore,
    EventStoreHeld,
    EventStoreUnreadable,
    InvalidEvents,
    InvalidQuery,
    QueryTimeout,
    open_events,
)
from memory.migrations import MIGRATIONS
from memory.streams import Delivered, Event

ROOT = Path(__file__).parents[2]
GRAPH = "graph_stream/v1"
PLANNER = "planner_log/v1"
T0 = 1_790_000_000_000
"""A moment in September 2026, in milliseconds."""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EventStore]:
    async with open_events(tmp_path / "events.duckdb") as opened:
        yield opened


def node(number: int, *, owner: str = "ada", at: int | None = None, **data: Any) -> tuple[str, str, Event]:
    ts = T0 + number if at is None else at
    content = {"owner": owner, "id": f"N{number}", "title": f"N {number}", "url": "", "revision": "1", "source": "s"}
    return GRAPH, f"{ts}-{number}", Event("node.add", {**content, "data": {}, **data}, "crawl", "t1", ts)


def edge(source: str, target: str, at: int) -> tuple[str, str, Event]:
    data = {"owner": "ada", "source": source, "target": target, "type": "links_to", "data": {}}
    return GRAPH, f"{at}-0", Event("edge.add", data, "crawl", "t1", at)


async def value(store: EventStore, sql: str, params: Any = None) -> Any:
    return (await store.query(sql, params)).rows[0][0]


# Appending


async def test_an_event_is_stored_once_however_often_it_is_delivered(store: EventStore) -> None:
    entries = [node(n) for n in range(10)]
    assert await store.append(entries) == 10
    assert await store.append(entries) == 0
    assert await store.append([node(9), node(10), node(10)]) == 1
    assert await value(store, "SELECT count(*) FROM events") == 11


async def test_the_same_id_on_another_stream_is_another_event(store: EventStore) -> None:
    _, id_, event = node(1)
    assert await store.append([(GRAPH, id_, event), ("tasks/v1", id_, event)]) == 2


async def test_nothing_to_append_is_no_error(store: EventStore) -> None:
    assert await store.append([]) == 0


async def test_every_field_comes_back_as_it_was_sent(store: EventStore) -> None:
    event = Event(
        "answer.add", {"owner": "ada", "text": 'é "quoted" 😀\n\x00', "n": [1, {"deep": None}]}, "qa", "t9", T0
    )
    await store.append([(GRAPH, "1-0", event)])
    assert [entry async for entry in store.replay(GRAPH)] == [("1-0", event)]


async def test_values_that_sql_cannot_hold_do_not_stop_the_batch(store: EventStore) -> None:
    odd = [
        (GRAPH, f"{T0}-0", Event("node.add", {"id": "half \ud800 pair"}, "crawl", "t1", T0)),
        (GRAPH, f"{T0}-1", Event("node.add", {"id": "nan", "score": float("nan")}, "crawl", "t1", T0)),
        (GRAPH, f"{T0}-2", Event("node.add", {"id": "late"}, "crawl", "t1", 10**30)),
        (GRAPH, f"{T0}-3", Event("node.add", {"id": "early"}, "crawl", "t1", -1)),
        (GRAPH, "no stream id", Event("node.add", {"id": "odd id"}, "cr\ud800awl", "", 10**30)),
    ]
    assert await store.append([*odd, node(7)]) == 6
    rows = (await store.query("SELECT data->>'id', epoch_ms(ts) FROM events ORDER BY 1")).rows
    assert rows == [["N7", T0 + 7], ["early", T0], ["half ? pair", T0], ["late", T0], ["nan", T0], ["odd id", 0]]
    assert await value(store, "SELECT data->'score' FROM events WHERE data->>'id' = 'nan'") is None


async def test_a_deeply_nested_event_is_stored(store: EventStore) -> None:
    deep: dict[str, Any] = {}
    for _ in range(900):
        deep = {"d": deep}
    await store.append([(GRAPH, "1-0", Event("node.add", deep, "", "", T0))])
    assert [event.data async for _, event in store.replay(GRAPH)] == [deep]


def test_a_full_disk_is_not_blamed_on_the_entries() -> None:
    assert issubclass(EventsNotStored, NotReady)  # the consumer waits and sends the batch again
    assert not issubclass(InvalidEvents, NotReady)  # the consumer divides the batch and buries the one at fault


async def test_a_handler_of_a_consumer_appends_what_was_delivered(store: EventStore) -> None:
    handler = store.ingester(PLANNER)
    await handler([Delivered("5-0", Event("plan.start", {}, "planner", "t1", T0), 1)])
    await handler([Delivered("5-0", Event("plan.start", {}, "planner", "t1", T0), 2)])
    assert (await store.query("SELECT stream, id, type FROM events")).rows == [[PLANNER, "5-0", "plan.start"]]


async def test_appends_and_queries_run_side_by_side(store: EventStore) -> None:
    async def reads() -> list[int]:
        return [await value(store, "SELECT count(*) FROM events") for _ in range(20)]

    batches = [[node(start + n) for n in range(100)] for start in range(0, 1000, 100)]
    reading = asyncio.create_task(reads())
    stored = await asyncio.gather(*(store.append(batch) for batch in batches))
    counts = await reading
    assert stored == [100] * 10
    assert counts == sorted(counts)
    assert all(count % 100 == 0 for count in counts)  # a query never sees half a batch


async def test_a_long_query_does_not_hold_up_an_append(store: EventStore) -> None:
    slow = asyncio.create_task(store.query("SELECT sum(a.range * b.range) FROM range(100000) a, range(1000000) b"))
    await asyncio.sleep(0)
    assert await store.append([node(1)]) == 1
    assert not slow.done()
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow


# The views


async def test_the_latest_state_of_a_node_is_decided_by_stream_order(store: EventStore) -> None:
    def version(id_: str, revision: str) -> tuple[str, str, Event]:
        data = {"owner": "ada", "id": "Fractal", "title": "Fractal", "revision": revision, "data": {"r": revision}}
        return GRAPH, id_, Event("node.add", data, "crawl", "t1", T0 - int(revision))  # clocks run backwards

    await store.append([version("7-10", "3"), version("7-9", "2"), version("6-0", "1")])
    result = await store.query("SELECT id, revision, data, versions FROM nodes")
    assert result.rows == [["Fractal", "3", {"r": "3"}, 3]]


async def test_owners_have_nodes_of_their_own(store: EventStore) -> None:
    await store.append([node(1), node(1, owner="bob", at=T0 + 5)])
    assert (await store.query("SELECT owner, id FROM nodes ORDER BY 1")).rows == [["ada", "N1"], ["bob", "N1"]]


async def test_growth_counts_what_is_new_per_minute_hour_and_day(store: EventStore) -> None:
    minute, hour, day = 60_000, 3_600_000, 86_400_000
    start = T0 - T0 % day
    moments = [start, start + 1, start + minute, start + hour, start + day]
    await store.append([node(n, at=at) for n, at in enumerate(moments)])
    await store.append([node(0, at=start + 2 * day), edge("N0", "N1", start + minute)])  # an update is no growth
    rows = (await store.query("SELECT per, nodes, edges, nodes_so_far FROM node_growth ORDER BY per, bucket")).rows
    assert [row[1:] for row in rows if row[0] == "minute"] == [[2, 0, 2], [1, 1, 3], [1, 0, 4], [1, 0, 5]]
    assert [row[1:] for row in rows if row[0] == "hour"] == [[3, 1, 3], [1, 0, 4], [1, 0, 5]]
    assert [row[1:] for row in rows if row[0] == "day"] == [[4, 1, 4], [1, 0, 5]]


async def test_a_task_has_the_status_of_its_latest_event(store: EventStore) -> None:
    lives: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "done": [("task.submit", {"kind": "crawl", "owner": "ada"}), ("task.start", {"worker": "w1"}),
                 ("task.fail", {"error": "timeout"}), ("task.retry", {}), ("task.start", {"worker": "w2"}),
                 ("task.complete", {"seconds": 0.9})],
        "buried": [("task.submit", {"kind": "ask"}), ("task.start", {}), ("task.fail", {"error": "poison"}),
                   ("task.dead", {"error": "poison"})],
        "called off": [("task.submit", {"kind": "ask"}), ("task.start", {}), ("task.cancel", {})],
        "queued": [("task.submit", {"kind": "ask"})],
        "failed": [("task.submit", {"kind": "ask"}), ("task.start", {}), ("task.fail", {"error": "x"})],
        "again": [("task.submit", {}), ("task.dead", {"error": "x"}), ("task.retry", {}), ("task.start", {})],
    }  # fmt: skip
    entries = [
        (GRAPH, f"{1000 * step}-{n}", Event(type_, data, "", task, T0 + 1000 * step))
        for n, (task, life) in enumerate(lives.items())
        for step, (type_, data) in enumerate(life)
    ]
    entries.append(("tasks/v1:dead", "99-0", Event("task.dead", {"error": "poison"}, "", "buried", T0)))
    await store.append(entries[::-1])
    rows = (
        await store.query("SELECT id, status, attempts, failures, worker, error, seconds, finished FROM tasks")
    ).rows
    found = {row[0]: row[1:] for row in rows}
    assert found["done"][:6] == ["complete", 2, 1, "w2", "timeout", 5.0]
    assert found["buried"][:6] == ["dead", 1, 1, None, "poison", 3.0]
    assert found["called off"][0] == "cancelled"
    assert found["queued"] == ["queued", 0, 0, None, None, None, None]
    assert found["failed"][0] == "retrying"
    assert (found["again"][0], found["again"][5:]) == ("running", [None, None])


async def test_steps_of_a_task_on_two_streams_in_one_millisecond_keep_their_order(store: EventStore) -> None:
    await store.append([
        ("tasks/v1", "5-7", Event("task.submit", {}, "", "t", T0)),
        (GRAPH, "5-0", Event("task.start", {}, "", "t", T0)),
        ("tasks/v1", "6-9", Event("task.retry", {}, "", "u", T0)),
        (GRAPH, "6-1", Event("task.start", {}, "", "u", T0)),
        (GRAPH, "6-2", Event("task.complete", {}, "", "u", T0)),
    ])  # fmt: skip
    assert (await store.query("SELECT id, status FROM tasks ORDER BY 1")).rows == [["t", "running"], ["u", "complete"]]


async def test_usage_of_models_is_a_table_of_numbers(store: EventStore) -> None:
    data = {"owner": "ada", "provider": "mistral", "model": "m", "input_tokens": 10, "output_tokens": 5, "usd": 0.25}
    await store.append([(GRAPH, "1-0", Event("llm.usage", data, "qa", "t1", T0)),
                        (GRAPH, "2-0", Event("llm.usage", {"model": "m", "usd": "much"}, "qa", "t1", T0))])  # fmt: skip
    rows = (await store.query("SELECT provider, tokens, usd FROM llm_usage ORDER BY ts, tokens DESC")).rows
    assert rows == [["mistral", 15, 0.25], [None, 0, 0.0]]


async def test_history_of_a_way_rests_on_its_latest_runs(store: EventStore) -> None:
    def step(n: int, **data: Any) -> tuple[str, str, Event]:
        return PLANNER, f"{n}-0", Event("plan.step", data, "planner", "t", T0 + n)

    await store.append([step(n, way="crawl.api", ok=True, seconds=900, usd=9) for n in range(5)])
    await store.append([step(10 + n, way="crawl.api[Fractal]", ok=n != 3, seconds=n, usd=0.5) for n in range(4)])
    await store.append([step(20, way="crawl.api", state=[], fringe=["a"]), step(21, way="dark", ok=False, seconds=1)])
    history = await store.run_history(limit=4)
    crawl = history["crawl.api"]
    assert (crawl.runs, crawl.seconds, crawl.ok_seconds) == (4, 2.0, 1.0)
    assert crawl.failure_rate == pytest.approx(0.26, abs=0.005)
    assert crawl.usd == pytest.approx(0.5)
    assert (crawl.failed_seconds, crawl.last_s) == (3.0, (T0 + 13) / 1000)
    assert (history["dark"].ok_seconds, history["dark"].failure_rate, history["dark"].usd) == (None, 1.0, 0.0)
    assert (await store.run_history())["crawl.api"].runs == 9


async def test_the_history_of_200_runs_follows_what_changed_lately(store: EventStore) -> None:
    def steps(start: int, count: int, seconds: float, *, ok: bool = True) -> list[tuple[str, str, Event]]:
        data = {"way": "w", "ok": ok, "seconds": seconds, "usd": seconds}
        return [(PLANNER, f"{start + n}-0", Event("plan.step", data, "", "t", T0 + n)) for n in range(count)]

    await store.append([*steps(1, 300, 9.0), *steps(1000, 20, 1.0)])
    before = (await store.run_history())["w"]
    await store.append(steps(2000, 6, 1.0))
    after = (await store.run_history())["w"]
    await store.append(steps(3000, 25, 5.0, ok=False))
    failing = (await store.run_history())["w"]
    assert (before.runs, before.ok_seconds, after.ok_seconds) == (200, 9.0, 1.0)
    assert 4 < after.usd < 6
    assert failing.failure_rate == pytest.approx(0.5, abs=0.01)
    assert failing.failed_seconds == 5.0


async def test_replay_gives_a_stream_in_order_and_only_the_types_asked_for(store: EventStore) -> None:
    await store.append([node(1, at=9), edge("a", "b", 10), (GRAPH, "7-10", node(2)[2]), (GRAPH, "7-9", node(3)[2])])
    await store.append([(PLANNER, "1-0", Event("plan.start", {}, "", "", T0))])
    assert [id_ async for id_, _ in store.replay(GRAPH)] == ["7-9", "7-10", "9-1", "10-0"]
    assert [id_ async for id_, _ in store.replay(GRAPH, ["edge.add"])] == ["10-0"]


# Read-only SQL


async def test_values_come_back_as_json(store: EventStore) -> None:
    result = await store.query(
        "SELECT TIMESTAMPTZ '2026-01-02 03:04:05+00' AS t, DATE '2026-01-02' AS d, 1.25::DECIMAL(9,2) AS m, "
        "[1, NULL] AS l, {'a': DATE '2026-01-02'} AS s, MAP {'k': 1.5} AS p, '{\"x\": [1]}'::JSON AS j, 'x' AS v, "
        "INTERVAL 90 SECOND AS i, 'NaN'::DOUBLE AS n, 170141183460469231731687303715884105727::HUGEINT AS h, "
        "'\\xAA'::BLOB AS b, uuid '6f6c1f0e-6b0f-5c55-9d7f-6c756d696e61' AS u, TIME '01:02:03' AS c, "
        "12345678901234567890.123456789::DECIMAL(38,9) AS e"
    )
    assert json.loads(json.dumps(result.rows, allow_nan=False)) == result.rows
    row = dict(zip(result.columns, result.rows[0], strict=True))
    assert row["t"] == "2026-01-02T03:04:05+00:00"
    assert (row["d"], row["m"], row["l"], row["s"]) == ("2026-01-02", 1.25, [1, None], {"a": "2026-01-02"})
    assert (row["p"], row["j"], row["v"], row["i"], row["n"]) == ({"k": 1.5}, {"x": [1]}, "x", 90.0, "nan")
    assert (row["h"], row["b"], row["u"][:8], row["c"]) == (2**127 - 1, "aa", "6f6c1f0e", "01:02:03")
    assert row["e"] == "12345678901234567890.123456789"
    types = dict(zip(result.columns, result.types, strict=True))
    assert (types["t"], types["j"], types["v"]) == ("TIMESTAMP WITH TIME ZONE", "JSON", "VARCHAR")


@pytest.mark.parametrize(
    "sql",
    ["SELECT 1", "WITH x AS (SELECT 1) SELECT * FROM x", "FROM events", "VALUES (1)", "DESCRIBE events", "SHOW TABLES",
     "SUMMARIZE events", "EXPLAIN SELECT 1", "TABLE events;", "SELECT 1 -- a comment", "SELECT count(*) FROM range(3)",
     "SELECT * FROM events WHERE ts > now() - INTERVAL 1 HOUR", "SELECT 'query(1)'"],
)  # fmt: skip
async def test_statements_that_read_are_accepted(store: EventStore, sql: str) -> None:
    assert (await store.query(sql)).columns


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("", "0 statements"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nowhere", "nowhere does not exist"),
        ("SELECT now() - 3600", "No function matches"),
        ("DELETE FROM events", "DELETE is not accepted"),
        ("INSERT INTO events VALUES ('a','1-0',now(),'t','','','{}')", "INSERT is not accepted"),
        ("CREATE TABLE x (y INTEGER)", "CREATE is not accepted"),
        ("DROP VIEW nodes", "DROP is not accepted"),
        ("COPY events TO '/tmp/x.csv'", "COPY is not accepted"),
        ("ATTACH '/tmp/x.duckdb'", "ATTACH is not accepted"),
        ("SET threads = 1", "SET is not accepted"),
        ("PRAGMA database_list", "PRAGMA is not accepted"),
        ("INSTALL httpfs", "LOAD is not accepted"),
        ("CALL force_checkpoint()", "CALL is not accepted"),
        ("CHECKPOINT", "CALL is not accepted|CHECKPOINT|not accepted"),
        ("EXPLAIN ANALYZE DELETE FROM events", "read-only"),
        ("WITH gone AS (DELETE FROM events RETURNING *) SELECT * FROM gone", "read-only|syntax"),
        ("SELECT * FROM '/etc/passwd'", "disabled|does not exist"),
        ("SELECT * FROM read_text('/etc/passwd')", "read_text is not accepted"),
        ("SELECT * FROM read_csv /* hidden */ ('/etc/passwd')", "read_csv is not accepted"),
        ("SELECT * FROM main.\"READ_CSV\"('/etc/passwd')", "read_csv is not accepted"),
        ("SELECT * FROM glob('/*')", "glob is not accepted"),
        ("SELECT * FROM 'https://example.org/x.parquet'", "disabled|not exist|extension"),
        ("SELECT * FROM arrow_scan(1, 2, 3)", "arrow_scan is not accepted"),
        ("SELECT * FROM query('SELECT * FROM arrow' || '_scan(1,2,3)')", "query is not accepted"),
        ("SELECT * FROM json_execute_serialized_sql('{}')", "json_execute_serialized_sql is not accepted"),
        ("SELECT * FROM leaked", "leaked does not exist"),
        ("SELECT getenv('HOME')", "does not exist"),
        ("SELECT ?", "parameter"),
    ],
)
async def test_everything_else_is_refused_and_the_accepted_form_named(store: EventStore, sql: str, why: str) -> None:
    import pyarrow as pa

    leaked = pa.table({"secret": ["of this process"]})
    await store.append([node(1)])
    with pytest.raises(InvalidQuery) as refusal:
        await store.query(sql)
    text = str(refusal.value)
    assert re.search(why, text, re.IGNORECASE), text
    assert "SELECT" in text or "use the tables" in text
    assert "\n" not in text
    assert leaked.num_rows == 1
    assert await value(store, "SELECT count(*) FROM events") == 1


async def test_no_table_function_of_this_duckdb_reaches_outside(store: EventStore) -> None:
    names = await store.query(
        "SELECT DISTINCT function_name FROM duckdb_functions() "
        "WHERE function_type = 'table' "
        "AND regexp_matches(function_name, 'read|scan|parquet|blob|csv|logg|profil|extern')"
    )
    assert len(names.rows) > 20
    for (name,) in names.rows:
        with pytest.raises(InvalidQuery, match="is not accepted"):
            await store.query(f"SELECT * FROM {name}('x')")


async def test_parameters_are_values_and_never_sql(store: EventStore) -> None:
    await store.append([node(1)])
    assert await value(store, "SELECT count(*) FROM events WHERE id = ?", ["' OR 1=1 --"]) == 0
    assert await value(store, "SELECT count(*) FROM nodes WHERE id = $id", {"id": "N1"}) == 1


async def test_rows_are_limited_and_the_result_says_so(store: EventStore) -> None:
    result = await store.query("SELECT * FROM range(1000000000)", max_rows=3)
    assert (result.rows, result.truncated) == ([[0], [1], [2]], True)
    assert not (await store.query("SELECT * FROM range(3)", max_rows=3)).truncated


@pytest.mark.parametrize(
    "sql",
    ["SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b",
     "WITH RECURSIVE f(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM f) SELECT count(*) FROM f",
     "SELECT a.range FROM range(1000000) a, range(1000000) b WHERE a.range + b.range < 0"],
)  # fmt: skip
async def test_a_query_ends_at_its_time_limit_and_the_store_goes_on(store: EventStore, sql: str) -> None:
    with pytest.raises(QueryTimeout, match=r"longer than 0.2 s.*INTERVAL"):
        await store.query(sql, timeout_s=0.2)
    assert await value(store, "SELECT 1") == 1


async def test_a_query_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    async with open_events(tmp_path / "e.duckdb", memory_limit="64MB") as store:
        with pytest.raises(InvalidQuery, match=r"(?i)memory"):
            await store.query(
                "SELECT length(list(repeat('x', 100) || range)::VARCHAR) FROM range(3000000)", timeout_s=60
            )
        assert await store.append([node(1)]) == 1


async def test_a_cancelled_caller_stops_the_statement(store: EventStore) -> None:
    endless = "SELECT sum(a.range) FROM range(1000000) a, range(1000000) b"
    slow = [asyncio.create_task(store.query(endless, timeout_s=60)) for _ in range(4)]
    await store.append([node(1)])
    for task in slow:
        task.cancel()
    assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*slow, return_exceptions=True))
    assert await value(store, "SELECT 1") == 1  # both reading threads are free again


# Opening, closing, crashing


def python(code: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


OPEN_AND_SAY_WHY_NOT = """
import asyncio, sys
from errors import LuminaError
from memory.events import open_events
async def main():
    async with open_events(sys.argv[1]): print("opened")
try: asyncio.run(main())
except LuminaError as error: print(type(error).__name__, error)
"""

APPEND_FOREVER = """
import asyncio, sys
from memory.events import open_events
from memory.streams import Event
async def main():
    async with open_events(sys.argv[1]) as store:
        for batch in range(10**6):
            await store.append([("s", f"{batch}-{n}", Event("node.add", {"id": n})) for n in range(500)])
            print(batch, flush=True)
asyncio.run(main())
"""


async def test_a_second_process_is_told_who_holds_the_file_and_what_to_do(store: EventStore) -> None:
    process = python(OPEN_AND_SAY_WHY_NOT, str(store.path))
    output, errors = await asyncio.to_thread(process.communicate)
    assert output.startswith("EventStoreHeld"), errors
    assert str(store.path) in output
    assert f"PID {os.getpid()}" in output
    assert "lumina sql" in output


async def test_a_second_part_of_this_process_is_told_to_share(store: EventStore) -> None:
    with pytest.raises(EventStoreHeld, match="already open in this process"):
        await EventStore.open(store.path)
    assert await store.append([node(1)]) == 1


async def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "events.duckdb"
    process = python(APPEND_FOREVER, str(path))
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 40:
            break
    process.send_signal(signal.SIGKILL)
    acknowledged = max([40, *(int(line) for line in process.stdout.read().split())])
    process.wait()
    process.communicate()
    async with open_events(path) as store:
        rows = (await store.query("SELECT split_part(id, '-', 1)::INT AS batch, count(*) FROM events GROUP BY 1")).rows
    sizes = dict(map(tuple, rows))
    assert all(sizes[batch] == 500 for batch in range(acknowledged + 1))
    assert set(sizes.values()) == {500}  # a batch that was not acknowledged is there whole or not at all


async def test_what_was_stored_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "events.duckdb"
    for expected in (1, 0):
        async with open_events(path) as store:
            assert await store.append([node(1)]) == expected
            await store.checkpoint()
    assert [file.name for file in path.parent.iterdir()] == ["events.duckdb"]


async def test_closing_stops_running_queries_and_lets_go_of_the_file(tmp_path: Path) -> None:
    store = await EventStore.open(tmp_path / "e.duckdb")
    await store.append([node(n) for n in range(10)])
    halfway = store.replay(GRAPH)
    await anext(halfway)
    slow = asyncio.create_task(store.query("SELECT sum(a.range) FROM range(1000000) a, range(1000000) b", timeout_s=60))
    await store.query("SELECT 1")
    await store.close()
    await store.close()
    with pytest.raises(InvalidQuery, match="closing"):
        await slow
    with pytest.raises(EventStoreUnreadable, match="closed"):
        await store.query("SELECT 1")
    process = python(OPEN_AND_SAY_WHY_NOT, str(store.path))
    assert (await asyncio.to_thread(process.communicate))[0] == "opened\n"
    await halfway.aclose()


@pytest.mark.parametrize("damage", ["garbage", "empty", "cut", "folder", "scribble"])
async def test_a_damaged_file_gives_one_clear_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "events.duckdb"
    async with open_events(path) as store:
        await store.append([node(n) for n in range(1000)])
    content = path.read_bytes()
    match damage:
        case "garbage":
            path.write_bytes(b"these are not the bytes of a database" * 1000)
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(content[:5000])
        case "scribble":
            path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
        case _:
            path.unlink()
            path.mkdir()
    with pytest.raises(EventStoreUnreadable, match=re.escape(str(path))) as refusal:
        await EventStore.open(path)
    assert "\n" not in str(refusal.value)
    assert "backup" in str(refusal.value)


async def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    import duckdb

    path = tmp_path / "events.duckdb"
    async with open_events(path):
        pass
    with duckdb.connect(str(path)) as connection:
        assert connection.execute("SELECT version FROM schema_versions").fetchall() == [
            (number,) for number in range(1, len(MIGRATIONS) + 1)
        ]
        connection.execute("INSERT INTO schema_versions VALUES (999, now())")
    with pytest.raises(EventStoreUnreadable, match=r"version 999.*newer Lumina"):
        await EventStore.open(path)


DISK_FULL = """
import asyncio, resource, sys
from memory.events import EventsNotStored, open_events
from memory.streams import Event
async def main():
    async with open_events(sys.argv[1]) as store:
        event = lambda b, n: ("s", f"{b}-{n}", Event("node.add", {"id": f"{b} {n}" * 50}))
        batches = [[event(b, n) for n in range(2000)] for b in range(6)]
        await store.append(batches[0])
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
        kept, refused = [0], []
        for number, batch in enumerate(batches[1:], 1):
            try:
                await store.append(batch)
                kept.append(number)
            except EventsNotStored as error:
                refused.append(number)
                print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert refused, kept
        count = (await store.query("SELECT count(*) FROM events")).rows[0][0]
        assert count == 2000 * len(kept), (count, kept)
        assert sum([await store.append(batch) for batch in batches]) == 2000 * len(refused)
asyncio.run(main())
print("recovered")
"""


async def test_a_full_disk_refuses_batches_whole_and_recovers(tmp_path: Path) -> None:
    process = python(DISK_FULL, str(tmp_path / "events.duckdb"))
    output, errors = await asyncio.to_thread(process.communicate)
    assert output.endswith("recovered\n"), output + errors
    assert "events were not stored" in output
    assert EventsNotStored.__name__ not in errors


def test_importing_the_store_does_not_import_duckdb() -> None:
    code = "import sys, memory.events; sys.exit(bool({'duckdb', 'pyarrow', 'pytz'} & set(sys.modules)))"
    process = python(code)
    assert process.wait() == 0
    process.communicate()


async def test_closing_right_after_a_query_has_ended_does_not_spin(tmp_path: Path) -> None:
    for _ in range(20):
        store = await EventStore.open(tmp_path / "events.duckdb")
        asking = asyncio.ensure_future(store.query("SELECT 1"))
        while not store._reading._jobs:
            await asyncio.sleep(0)
        [job] = store._reading._jobs
        await asyncio.wait({job})
        async with asyncio.timeout(60):
            await store.close()
        await asyncio.wait({asking})
