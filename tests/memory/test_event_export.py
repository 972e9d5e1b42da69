"""Days of events as Parquet files, written from a real event store and read back by DuckDB."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from memory.event_export import Day, ExportFailed, count_rows, export_days
from memory.events import EventStore, InvalidQuery, open_events
from memory.keys import GRAPH_STREAM, TASKS_STREAM
from memory.streams import Event

ROOT = Path(__file__).parents[2]
DAYS = [date(2026, 11, day) for day in (20, 21, 23)]


def ms(day: date, hour: float) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000 + hour * 3_600_000)


def entries(day: date, count: int, owner: str = "ada", first: int = 0) -> list[tuple[str, str, Event]]:
    """Events over a whole day, its first and its last millisecond among them."""
    streams = (GRAPH_STREAM, TASKS_STREAM)
    times = [ms(day, 0), ms(day, 24) - 1, *(ms(day, 24 * n / count) for n in range(2, count))]
    return [
        (streams[n % 2], f"{ts}-{first + n}", Event("node.add", {"owner": owner, "id": f"é{n}"}, "crawl", "t1", ts))
        for n, ts in enumerate(times[:count])
    ]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EventStore]:
    async with open_events(tmp_path / "events.duckdb") as opened:
        for n, day in enumerate(DAYS):
            await opened.append(entries(day, 10 * (n + 1)))
        yield opened


async def export(store: EventStore, folder: Path, *span: date | None) -> list[tuple[date, int, bool]]:
    return [(day.day, day.events, day.written) async for day in export_days(store, folder, *span)]


def read(folder: Path, what: str) -> list[tuple[Any, ...]]:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        source = f"read_parquet('{folder}/*/*.parquet', hive_partitioning = true)"
        rows: list[tuple[Any, ...]] = connection.execute(what.replace("EVENTS", source)).fetchall()
    return rows


async def test_what_was_written_is_what_the_store_holds(store: EventStore, tmp_path: Path) -> None:
    assert await export(store, tmp_path / "out") == [(day, 10 * n, True) for n, day in enumerate(DAYS, 1)]
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")) == [
        f"day={day}/events.parquet" for day in DAYS
    ]
    by_day = read(tmp_path / "out", "SELECT day, count(*) FROM EVENTS WHERE day = ts::DATE GROUP BY 1 ORDER BY 1")
    assert by_day == [(day, 10 * n) for n, day in enumerate(DAYS, 1)]
    columns = "stream, id, epoch_ms(ts), type, agent, task_id, data ->> 'owner', data ->> 'id'"
    stored = await store.query(f"SELECT {columns} FROM events ORDER BY ALL")
    assert [list(row) for row in read(tmp_path / "out", f"SELECT {columns} FROM EVENTS ORDER BY ALL")] == stored.rows
    [(type_,)] = read(tmp_path / "out", "SELECT DISTINCT typeof(data) FROM EVENTS")
    assert type_ == "JSON"


async def test_running_again_writes_only_what_is_not_complete(store: EventStore, tmp_path: Path) -> None:
    out = tmp_path / "out"
    await export(store, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    assert [written for _, _, written in await export(store, out)] == [False] * 3
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")} == before
    late = date(2026, 11, 22)
    await store.append([*entries(DAYS[1], 3, first=500), *entries(late, 2)])
    assert await export(store, out) == [
        (DAYS[0], 10, False),
        (DAYS[1], 23, True),
        (late, 2, True),
        (DAYS[2], 30, False),
    ]
    assert read(out, "SELECT count(*) FROM EVENTS") == [(65,)]


async def test_only_the_days_asked_for_are_written(store: EventStore, tmp_path: Path) -> None:
    assert [day for day, _, _ in await export(store, tmp_path / "a", DAYS[1])] == DAYS[1:]
    assert [day for day, _, _ in await export(store, tmp_path / "b", None, DAYS[1])] == DAYS[:2]
    assert [day for day, _, _ in await export(store, tmp_path / "c", DAYS[1], DAYS[1])] == [DAYS[1]]
    assert await export(store, tmp_path / "d", DAYS[2], DAYS[0]) == []


async def test_an_owners_days_hold_own_events(store: EventStore, tmp_path: Path) -> None:
    await store.append(entries(DAYS[0], 4, "bob", first=900))
    assert await store.days(owner="bob") == [Day(DAYS[0], 4)]
    await store.write_day(DAYS[0], tmp_path / "bob.parquet", owner="bob")
    await store.write_day(DAYS[0], tmp_path / "all.parquet")
    assert (count_rows(tmp_path / "bob.parquet"), count_rows(tmp_path / "all.parquet")) == (4, 14)


@pytest.mark.parametrize("damage", [b"", b"PAR1 and then nothing"])
async def test_a_damaged_file_is_written_again(store: EventStore, tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "out" / f"day={DAYS[0]}" / "events.parquet"
    file.parent.mkdir(parents=True)
    file.write_bytes(damage)
    assert (await export(store, tmp_path / "out"))[0] == (DAYS[0], 10, True)
    assert count_rows(file) == 10


async def test_what_another_store_has_written_is_not_overwritten(store: EventStore, tmp_path: Path) -> None:
    await store.append(entries(DAYS[0], 5, first=700))
    await export(store, tmp_path / "out")
    async with open_events(tmp_path / "new.duckdb") as other:
        await other.append(entries(DAYS[0], 5))
        with pytest.raises(ExportFailed, match=r"holds 15 events and the store only 5.*another folder"):
            await export(other, tmp_path / "out")
    assert read(tmp_path / "out", f"SELECT count(*) FROM EVENTS WHERE day = '{DAYS[0]}'") == [(15,)]


async def test_a_folder_that_cannot_be_made_gives_one_line(store: EventStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportFailed, match="another folder"):
        await export(store, tmp_path / "file")
    with pytest.raises(ExportFailed, match="was not written"):
        await store.write_day(DAYS[0], tmp_path / "missing" / "x.parquet")


async def test_what_comes_broken_replaces_nothing(store: EventStore, tmp_path: Path) -> None:
    class Cut:
        async def days(self, since: date | None, until: date | None) -> list[Day]:
            return await store.days(since, until)

        async def write_day(self, day: date, path: Path) -> None:
            await store.write_day(day, path)
            os.truncate(path, 500)

    with pytest.raises(ExportFailed, match="try again"):
        _ = [day async for day in export_days(Cut(), tmp_path / "out")]
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


async def test_days_of_any_time_can_be_written(store: EventStore, tmp_path: Path) -> None:
    odd = [Event("error", {"owner": "ada"}, "", "", ts) for ts in (0, 253_402_300_799_999)]
    await store.append([(GRAPH_STREAM, f"{n}-0", event) for n, event in enumerate(odd)])
    days = [day for day, _, _ in await export(store, tmp_path / "out")]
    assert days == [date(1970, 1, 1), *DAYS, date(9999, 12, 31)]
    assert read(tmp_path / "out", "SELECT count(*) FROM EVENTS") == [(62,)]


async def test_the_store_stays_without_access_to_files(store: EventStore, tmp_path: Path) -> None:
    await export(store, tmp_path / "out")
    file = tmp_path / "out" / f"day={DAYS[0]}" / "events.parquet"
    for owner in (None, "ada"):
        with pytest.raises(InvalidQuery):
            await store.query(f"FROM '{file}'", owner=owner)


async def test_events_arrive_while_days_are_written(store: EventStore, tmp_path: Path) -> None:
    async def grow() -> None:
        for n in range(20):
            await store.append(entries(DAYS[2], 50, first=1_000 + 50 * n))

    await asyncio.gather(grow(), export(store, tmp_path / "out"))
    await export(store, tmp_path / "out")
    [(count,)] = read(tmp_path / "out", "SELECT count(*) FROM EVENTS")
    assert count == (await store.query("SELECT count(*) FROM events")).rows[0][0] == 1_060


EXPORT_FOREVER = """
import asyncio, sys
from pathlib import Path
from memory.event_export import export_days
from memory.events import open_events
async def main():
    async with open_events(sys.argv[1]) as store:
        for n in range(10**6):
            async for day in export_days(store, Path(sys.argv[2], str(n))):
                print(day.path, flush=True)
asyncio.run(main())
"""


def start(code: str, *args: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code, *args], stdout=subprocess.PIPE, text=True, env=environment)


async def test_kill_9_leaves_whole_files_only(tmp_path: Path) -> None:
    async with open_events(tmp_path / "events.duckdb") as store:
        for day in DAYS:
            await store.append(entries(day, 2_000))
    process = start(EXPORT_FOREVER, str(tmp_path / "events.duckdb"), str(tmp_path / "out"))
    assert process.stdout is not None
    for _ in range(4):
        assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    await asyncio.to_thread(process.communicate)
    files = list((tmp_path / "out").rglob("*.parquet"))
    assert len(files) >= 4
    assert {count_rows(file) for file in files} == {2_000}
