"""The event store as Parquet files, a folder a day: ``day=2026-11-23/events.parquet``.

That is Hive's layout, which DuckDB (``read_parquet('DIR/*/*.parquet', hive_partitioning = true)``), Spark and pandas
read. A day is that of the event's ``ts`` in UTC. Events are only ever added, so a day's file is complete when it holds
as many as the store: that, and no clock, decides what is written again.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from errors import LuminaError
from memory.event_feed import FEED, FedDatabase
from memory.event_queries import one_line

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FILE_NAME = "events.parquet"
DAYS = """
SELECT (ts AT TIME ZONE 'UTC')::DATE AS day, count(*)
FROM events
WHERE ($since IS NULL OR day >= $since) AND ($until IS NULL OR day <= $until)
    AND ($owner IS NULL OR data ->> 'owner' = $owner)
GROUP BY day
ORDER BY day
"""
"""The columns of ``Day``."""
_ROWS = """
SELECT stream, id, ts, type, agent, task_id, data
FROM events
WHERE ts >= $day::TIMESTAMPTZ AND ts < $day::TIMESTAMPTZ + INTERVAL 1 DAY
    AND ($owner IS NULL OR data ->> 'owner' = $owner)
ORDER BY stream, stream_order(id)
"""
_COPY = f"""
COPY (SELECT * REPLACE (data::JSON AS data) FROM {FEED}) TO $path
(FORMAT parquet, COMPRESSION zstd)
"""


class ExportFailed(LuminaError):
    """A day could not be written; what was there before is untouched."""


@dataclass(frozen=True, slots=True)
class Day:
    """A day (UTC) and how many events it has."""

    day: date
    events: int


@dataclass(frozen=True, slots=True)
class ExportedDay:
    """What an export did with a day."""

    day: date
    events: int
    path: Path
    written: bool
    """False when the file held all its events already."""


class DaySource(Protocol):
    """Where days come from: the event store, or the server that holds it."""

    async def days(self, since: date | None, until: date | None) -> list[Day]:
        """The days that have events, in order."""

    async def write_day(self, day: date, path: Path) -> None:
        """Write the day's events to a Parquet file."""


async def export_days(
    source: DaySource, folder: Path, since: date | None = None, until: date | None = None
) -> AsyncIterator[ExportedDay]:
    """Write the days that the folder does not hold completely; each file appears whole or not at all.

    Args:
        source: Where the events are.
        folder: Where to; made when missing.
        since: First day.
        until: Last day.

    Raises:
        ExportFailed: when a file cannot be written, or holds more events than the source: it is another store's.
    """
    for day in await source.days(since, until):
        path = folder / f"day={day.day}" / FILE_NAME
        held = await asyncio.to_thread(count_rows, path)
        if held > day.events:
            raise ExportFailed(
                f"{path} holds {held} events and the store only {day.events} of that day: "
                "it is from another store or owner, choose another folder"
            )
        if held < day.events:
            await _write(source, day.day, path)
        yield ExportedDay(day.day, max(day.events, held), path, written=held < day.events)


async def _write(source: DaySource, day: date, path: Path) -> None:
    part = await asyncio.to_thread(_new_part, path)
    try:
        await source.write_day(day, part)
        await asyncio.to_thread(_finish, part, path)
    finally:
        part.unlink(missing_ok=True)


def _new_part(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(".part", f".{FILE_NAME}.", path.parent)  # the name matches no *.parquet
        os.close(handle)
        return Path(name)
    except OSError as error:
        raise ExportFailed(f"{path} cannot be written: {error}; choose another folder") from error


def _finish(part: Path, path: Path) -> None:
    if not count_rows(part):
        raise ExportFailed(f"{path} was not written: what came is no whole Parquet file; try again")
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.chmod(0o644)
    part.replace(path)


def count_rows(path: Path) -> int:
    """How many rows a Parquet file says it has; 0 when it is missing or not whole."""
    import pyarrow as pa  # heavy
    from pyarrow import parquet

    try:
        return int(parquet.read_metadata(path).num_rows)
    except (OSError, pa.ArrowInvalid):
        return 0


class DayWriter:
    """Copies a day's events from the store to a Parquet file.

    The store's own DuckDB has no access to files and must not get it, for others send it SQL. Its rows go as Arrow
    batches to a second one, which has, and which copies them.
    """

    def __init__(self, store: DuckDBPyConnection, day: date, owner: str | None, memory_limit: str) -> None:
        """Prepare; nothing is read yet."""
        self._database = FedDatabase(store, _ROWS, {"day": f"{day}T00:00:00Z", "owner": owner})
        self._memory_limit = memory_limit

    def write(self, path: Path) -> None:
        """Write the file; blocks.

        Raises:
            ExportFailed: when DuckDB cannot write it.
        """
        import duckdb

        try:
            with self._database.open(self._memory_limit, file_access=True) as database:
                database.execute(_COPY, {"path": str(path)})
        except duckdb.InterruptException:
            raise
        except duckdb.Error as error:
            raise ExportFailed(f"{path} was not written: {one_line(error)}; free space, or choose another") from error

    def interrupt(self) -> None:
        """Stop writing."""
        self._database.interrupt()
