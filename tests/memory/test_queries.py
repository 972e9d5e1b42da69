"""The query sheet: every block is run, and the table of event types is complete."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from memory.events import EventStore, open_events
from memory.keys import GRAPH_STREAM, PLANNER_STREAM, TASKS_STREAM
from memory.streams import Event, now_ms

SHEET = (Path(__file__).parents[2] / "docs" / "queries.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^(\S[^\n]*)\n\n```sql\n(.*?)```", SHEET, re.MULTILINE | re.DOTALL)
ROWS = re.findall(r"^\| `([a-z]+\.[a-z]+|error)` \| [^|]+ \| (.*) \|$", SHEET, re.MULTILINE)
DESIGNED = (
    "node.add edge.add summary.add answer.add chat.message task.submit task.start task.retry task.complete task.fail "
    "task.dead plan.start plan.step plan.done llm.usage error"
)


def fields(cell: str) -> set[str]:
    """The fields of ``data`` that a row of the table names, without those of inner objects."""
    outer = re.sub(r"(`\w+`) \((?:`\w+`(?:, )?)+\)", r"\1", cell)
    return set(re.findall(r"`(\w+)`", outer))


DECISION = {
    "verdict": "run",
    "run": [{"goal": "crawled[A]", "way": "crawled.links[A]"}, {"goal": "crawled[B]", "way": "crawled.links[B]"}],
    "plan": [], "cost": 12.5, "exact": True, "fringe": [], "candidates": [], "why": "least expected cost",
}  # fmt: skip
SITUATION: dict[str, Any] = {"targets": ["answered"], "topics": ["A"], "holding": [], "ruled_out": [], "costs": {}}

LIFE: list[tuple[str, str, str, dict[str, Any]]] = [
    # stream, type, agent, data; one every ten seconds
    (TASKS_STREAM, "task.submit", "", {"kind": "crawl", "attempts": 0, "payload": {"crawl": ["A"]}}),
    (GRAPH_STREAM, "task.start", "w1", {"kind": "crawl", "attempts": 1, "worker": "w1"}),
    (PLANNER_STREAM, "plan.start", "planner", {"request": {"message": "What is A?"}}),
    (PLANNER_STREAM, "plan.step", "planner", {"round": 1, "situation": SITUATION, "decision": DECISION}),
    (GRAPH_STREAM, "node.add", "crawl",
     {"id": "A", "title": "A", "url": "http://w/A", "revision": "1", "source": "s", "data": {}}),
    (GRAPH_STREAM, "node.add", "crawl",
     {"id": "A", "title": "A", "url": "http://w/A", "revision": "2", "source": "s", "data": {}}),
    (GRAPH_STREAM, "node.add", "crawl",
     {"id": "B", "title": "B", "url": "http://w/B", "revision": "1", "source": "s", "data": {}}),
    (GRAPH_STREAM, "edge.add", "crawl", {"source": "A", "target": "B", "type": "links_to", "data": {}}),
    (GRAPH_STREAM, "edge.add", "crawl", {"source": "B", "target": "Unread", "type": "links_to", "data": {}}),
    (GRAPH_STREAM, "error", "crawl", {"kind": "skipped", "error": "larger than 2 MB", "title": "Huge"}),
    (PLANNER_STREAM, "plan.step", "crawl",
     {"goal": "crawled[A]", "way": "crawled.links[A]", "agent": "crawl", "topic": "A", "ok": True, "seconds": 4.0,
      "usd": 0.0}),
    (PLANNER_STREAM, "plan.step", "crawl",
     {"goal": "crawled[B]", "way": "crawled.links[B]", "agent": "crawl", "topic": "B", "ok": False, "seconds": 9.0,
      "usd": 0.0, "error": "the source is down"}),
    (GRAPH_STREAM, "task.fail", "w1", {"kind": "crawl", "attempts": 1, "error": "the source is down"}),
    (TASKS_STREAM, "task.retry", "", {"kind": "crawl", "attempts": 1}),
    (GRAPH_STREAM, "task.start", "w2", {"kind": "crawl", "attempts": 2, "worker": "w2"}),
    (GRAPH_STREAM, "summary.add", "summarise",
     {"title": "A", "revision": "2", "source": "s", "text": "A is.", "citations": [], "seconds": 1.0}),
    (GRAPH_STREAM, "llm.usage", "qa",
     {"input_tokens": 100, "output_tokens": 20, "usd": 0.002, "provider": "mistral", "model": "m", "seconds": 2.0,
      "first_token_s": 0.4, "ok": True}),
    (GRAPH_STREAM, "answer.add", "qa",
     {"question": "What is A?", "answer": "A is [1].", "abstained": False, "confidence": 0.9,
      "citations": [{"title": "A"}], "seconds": 3.0, "conversation_id": "c1"}),
    (GRAPH_STREAM, "chat.message", "", {"conversation_id": "c1", "turn_id": "u1", "role": "user", "characters": 10}),
    (PLANNER_STREAM, "plan.done", "planner", {"status": "done", "reason": "", "detail": "every target holds"}),
    (GRAPH_STREAM, "task.complete", "w2", {"kind": "crawl", "attempts": 2, "seconds": 60.0, "result": {}}),
    (GRAPH_STREAM, "page.prune", "",
     {"source": "s", "title": "A", "revision": "1", "reason": "superseded", "passages": 3, "cited": 1}),
    (GRAPH_STREAM, "prune.done", "",
     {"passages": 3, "pages": 1, "cited": 1, "reasons": {"superseded": {"passages": 3, "pages": 1}},
      "superseded": True, "unsettled": 1, "seen": "1-1", "seconds": 0.1}),
]  # fmt: skip
POISON: list[tuple[str, str, str, dict[str, Any]]] = [
    (TASKS_STREAM, "task.submit", "", {"kind": "ask", "attempts": 0, "payload": {}}),
    (GRAPH_STREAM, "task.start", "w1", {"kind": "ask", "attempts": 1, "worker": "w1"}),
    (GRAPH_STREAM, "task.dead", "w1", {"kind": "ask", "attempts": 5, "error": "poison"}),
]
CANCELLED: list[tuple[str, str, str, dict[str, Any]]] = [
    (TASKS_STREAM, "task.submit", "", {"kind": "ask", "attempts": 0, "payload": {}}),
    (GRAPH_STREAM, "task.cancel", "", {"kind": "ask", "attempts": 0}),
    (
        GRAPH_STREAM,
        "node.add",
        "crawl",
        {"id": "Alone", "title": "Alone", "url": "", "revision": "1", "source": "s", "data": {}},
    ),
]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EventStore]:
    begin = now_ms() - 300_000
    entries = [
        (stream, f"{begin + step * 10_000}-{number}",
         Event(type_, {"owner": "ada", **data}, agent, task, begin + step * 10_000))
        for number, (task, life) in enumerate({"t1": LIFE, "t2": POISON, "t3": CANCELLED}.items())
        for step, (stream, type_, agent, data) in enumerate(life)
    ]  # fmt: skip
    async with open_events(tmp_path / "events.duckdb") as opened:
        await opened.append(entries)
        yield opened


def test_the_sheet_holds_enough_queries() -> None:
    assert len(BLOCKS) == SHEET.count("```sql")
    assert len(BLOCKS) >= 12


@pytest.mark.parametrize(("title", "sql"), BLOCKS, ids=[title[:60] for title, _ in BLOCKS])
async def test_every_query_of_the_sheet_answers(store: EventStore, title: str, sql: str) -> None:
    result = await store.query(sql)
    assert result.rows, title
    assert not all(value is None for row in result.rows for value in row)
    own = await store.query(sql, owner="ada")  # every event of this store is Ada's
    assert (own.columns, own.types, len(own.rows)) == (result.columns, result.types, len(result.rows))


async def answer(store: EventStore, title: str) -> list[dict[str, Any]]:
    [sql] = [sql for name, sql in BLOCKS if name.startswith(title)]
    result = await store.query(sql)
    return [dict(zip(result.columns, row, strict=True)) for row in result.rows]


async def test_the_answers_are_right(store: EventStore) -> None:
    linked = await answer(store, "Which nodes are linked to most")
    assert [(row["target"], row["title"], row["links"]) for row in linked] == [
        ("B", "B", 1), ("Unread", "(not read yet)", 1)]  # fmt: skip
    assert [row["target"] for row in await answer(store, "What is linked to but was never read")] == ["Unread"]
    unsummarised = await answer(store, "Which articles of the graph have no summary")
    assert [row["title"] for row in unsummarised] == ["Alone", "B"]
    assert [row["id"] for row in await answer(store, "Which nodes are orphans")] == ["Alone"]
    growth = await answer(store, "How much did it grow each day")
    assert (sum(day["nodes"] for day in growth), growth[0]["nodes_so_far"], growth[0]["edges_so_far"]) == (3, 3, 2)
    ended = await answer(store, "How did the tasks of the last day end")
    assert {(row["kind"], row["status"], row["median_seconds"]) for row in ended} == {
        ("crawl", "complete", 200.0), ("ask", "dead", 20.0), ("ask", "cancelled", 10.0)}  # fmt: skip
    [retried] = await answer(store, "Which tasks needed more than one attempt")
    assert (retried["id"], retried["attempts"], retried["error"]) == ("t1", 2, "the source is down")
    failures = await answer(store, "How many attempts failed each day")
    assert sorted((row["kind"], row["failures"], row["most_often"]) for row in failures) == [
        ("ask", 1, "poison"), ("crawl", 1, "the source is down")]  # fmt: skip
    assert [row["error"] for row in await answer(store, "What lies among the dead letters")] == ["poison"]
    [agent] = await answer(store, "How long does each agent take")
    assert (agent["agent"], agent["runs"], agent["median_s"], agent["failed_percent"]) == ("crawl", 2, 6.5, 50.0)
    [choice] = await answer(store, "What did the planner choose")
    assert (choice["round"], choice["ways"]) == (1, ["crawled.links[A]", "crawled.links[B]"])
    chosen = await answer(store, "How often is each way chosen")
    assert [(row["way"], row["times"], row["side_by_side"]) for row in chosen] == [
        ("crawled.links[A]", 1, 2.0), ("crawled.links[B]", 1, 2.0)]  # fmt: skip
    [spent] = await answer(store, "Tokens and US dollars by provider")
    assert (spent["provider"], spent["input"], spent["output"], spent["usd"]) == ("mistral", 100, 20, 0.002)
    [by_owner] = await answer(store, "What did each owner spend")
    assert (by_owner["owner"], by_owner["usd"], by_owner["tokens"], by_owner["runs"]) == ("ada", 0.002, 120, 1)
    assert sum(row["events"] for row in await answer(store, "How much happened each day")) == len(LIFE) + 6
    [error] = await answer(store, "Errors by agent and kind")
    assert (error["agent"], error["errors"], error["most_often"]) == ("crawl", 1, "larger than 2 MB")


def test_the_table_lists_every_type_that_was_designed() -> None:
    assert set(DESIGNED.split()) | {"task.cancel", "page.prune", "prune.done"} == {type_ for type_, _ in ROWS}


def test_the_events_of_this_test_have_the_fields_of_the_table() -> None:
    listed = {type_: [fields(cell) for other, cell in ROWS if other == type_] for type_, _ in ROWS}
    for _, type_, _, data in [*LIFE, *POISON, *CANCELLED]:
        assert any(set(data) <= allowed for allowed in listed[type_]), (type_, set(data), listed[type_])
    assert {type_ for _, type_, _, _ in [*LIFE, *POISON, *CANCELLED]} == set(listed)


async def test_the_columns_of_the_views_are_those_of_the_table(store: EventStore) -> None:
    listed = re.findall(r"^\| `(\w+)` \| [^|]+ \| (.*) \|$", SHEET, re.MULTILINE)
    described = {
        name: cell for name, cell in listed if name in ("events nodes edges tasks llm_usage node_growth".split())
    }
    assert len(described) == 6
    for name, cell in described.items():
        columns = [row[0] for row in (await store.query(f"DESCRIBE {name}")).rows]
        assert columns == re.findall(r"`(\w+)`", cell), name
