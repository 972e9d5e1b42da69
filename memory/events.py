"""The event store: one DuckDB file that takes each event of the streams once, opened by exactly one process.

Every call into DuckDB runs on a thread of the store's own: one thread writes, two read, two more run the SQL of owners,
the event loop never waits. The schema is in `memory.migrations`, the rules of read-only SQL in `memory.event_queries`,
what an owner's SQL can reach in `memory.owner_events`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from errors import LuminaError
from memory.consumers import NotReady
from memory.event_columns import RawEntry, columns
from memory.event_export import DAYS, Day, DayWriter
from memory.event_file import EventStoreHeld, EventStoreUnreadable, open_file
from memory.event_history import HALF_LIFE_RUNS, HISTORY, WayHistory
from memory.event_queries import InvalidQuery, QueryResult, QueryTimeout, forbidden_functions, one_line, run_query
from memory.event_rows import Entry, arrow_table
from memory.event_threads import ReadingThreads
from memory.owner_events import OwnerEvents
from memory.query_processes import QueryProcesses
from memory.streams import Delivered, Event

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = [
    "Day",
    "Entry",
    "EventStore",
    "EventStoreHeld",
    "EventStoreUnreadable",
    "EventsNotStored",
    "InvalidEvents",
    "InvalidQuery",
    "QueryResult",
    "QueryTimeout",
    "WayHistory",
    "open_events",
]

T = TypeVar("T")
BATCH = 5_000
"""Events of one transaction. Each commit waits for the disk, so small batches are slow (docs/decisions/events.md)."""

_INSERT = """
INSERT INTO events (stream, id, ts, type, agent, task_id, data)
SELECT stream, id, ts, type, agent, task_id, data FROM incoming
"""
_INSERT_NEW = f"{_INSERT} ON CONFLICT DO NOTHING"
_REPLAY = """
SELECT id, epoch_ms(ts), type, agent, task_id, data
FROM events
WHERE stream = $stream AND (len($types) = 0 OR list_contains($types, type))
    AND ($owner IS NULL OR data ->> 'owner' = $owner)
ORDER BY stream_order(id)
"""


class EventsNotStored(NotReady):
    """A batch could not be written (no space, for example); nothing of it was, and it can be sent again."""


class InvalidEvents(LuminaError):
    """A batch holds a value that DuckDB refuses; nothing of it was written."""


class EventStore:
    """The events, appended once each and asked with SQL. Made by ``EventStore.open`` or ``open_events``."""

    def __init__(self, path: Path, memory_limit: str) -> None:
        self.path = path
        self._memory_limit = memory_limit
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="events-write")
        self._reading = ReadingThreads(2)
        self._asking = ReadingThreads(2)  # of their own, so that the owners' slow queries hold up nobody else
        self._processes = QueryProcesses()
        self._root: DuckDBPyConnection | None = None  # only makes cursors, so that two threads never share one
        self._cursors: set[DuckDBPyConnection] = set()
        self._forbidden: frozenset[str] = frozenset()

    @classmethod
    async def open(cls, path: str | Path, *, memory_limit: str = "512MB") -> EventStore:
        """Open the file, made when missing, and bring its schema up to date.

        Args:
            path: The DuckDB file.
            memory_limit: What DuckDB may hold in memory; larger sorts spill to a folder beside the file.

        Raises:
            EventStoreHeld: when another process has it open.
            EventStoreUnreadable: when it is damaged, newer than this version, or cannot be made.
        """
        store = cls(Path(path), memory_limit)
        try:
            await store._write(store._connect)
        except BaseException:  # whatever it is, cancellation too, passes on and leaves nothing open
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Stop running queries, fold the write-ahead log into the file and let go of it. May be called twice."""
        root, self._root = self._root, None
        await self._reading.stop()
        await self._asking.stop()
        await asyncio.to_thread(self._processes.close)
        if root is not None:
            await self._write(self._disconnect, root)
        self._writing.shutdown(wait=False)

    async def append(self, entries: Sequence[Entry]) -> int:
        """Store the entries that are not there yet; when this returns, they survive a crash.

        Entries are told apart by (stream, stream id), so a batch may safely be sent again. A value that SQL cannot hold
        does not stop the others: half a surrogate pair becomes ``?``, a number that is not finite becomes null, and a
        time outside 1970 to 9999 becomes that of the stream id.

        Returns:
            How many were new.

        Raises:
            EventsNotStored: when DuckDB could not write; batches of ``BATCH`` entries before the failing one are kept.
            InvalidEvents: when DuckDB refuses a value.
        """
        new = 0
        for start in range(0, len(entries), BATCH):
            batch = entries[start : start + BATCH]
            new += await self._write(self._append, partial(arrow_table, batch), len(batch))
        return new

    def ingester(self, stream: str) -> Callable[[Sequence[Delivered]], Awaitable[None]]:
        """A handler for the consumer of ``stream`` that appends what was delivered.

        The consumer acknowledges after the handler returned, so a crash in between delivers again and changes nothing.
        """

        async def ingest(delivered: Sequence[Delivered]) -> None:
            await self.append([(stream, entry.id, entry.event) for entry in delivered])

        return ingest

    def bulk_ingester(self, stream: str) -> Callable[[Sequence[RawEntry]], Awaitable[None]]:
        """The same for a consumer of whole batches: no ``Event`` is made, the text of ``data`` is kept as it came.

        It raises ``InvalidEvents`` for a batch with anything out of the ordinary; ``ingester`` takes what can be taken.
        """

        async def ingest(entries: Sequence[RawEntry]) -> None:
            try:
                table = await columns(stream, entries)
            except ValueError as error:
                raise InvalidEvents(f"{len(entries)} events are not all plain: {error}; send them singly") from error
            await self._write(self._append, lambda: table, len(entries))

        return ingest

    async def query(
        self,
        sql: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        owner: str | None = None,
        max_rows: int = 10_000,
        timeout_s: float = 10,
    ) -> QueryResult:
        """The rows of one reading statement; sees every append that returned before.

        Args:
            sql: One statement that reads the tables and views (docs/queries.md).
            params: Values for ``?`` (a sequence) or ``$name`` (a mapping).
            owner: Whose SQL this is: it reaches this owner's events only. None reaches all.
            max_rows: Rows returned at most; ``truncated`` says when there were more.
            timeout_s: The statement is stopped after so many seconds of running.

        Raises:
            InvalidQuery: when it is no such statement or DuckDB refuses it.
            QueryTimeout: when the time was over.
        """
        with self._cursor() as cursor:
            if owner is None:
                run = partial(run_query, cursor, sql, params, max_rows, self._forbidden)
                return await self._reading.run(cursor, timeout_s, run)
            own = OwnerEvents(cursor, owner, self._memory_limit, self._processes)
            return await self._asking.run(own, timeout_s, lambda: own.query(sql, params, max_rows, self._forbidden))

    async def run_history(self, limit: int = 200) -> dict[str, WayHistory]:
        """What each way of the goal lattice cost in its latest runs, for the planner's expected costs.

        It reads the ``plan.step`` events that report an outcome: ``data`` holds ``way`` (the way's id; a topic in
        brackets behind it does not count), ``ok`` (whether the agent ended well), ``seconds`` and ``usd``. A
        ``plan.step`` without ``ok`` announces a choice and is left out.

        Args:
            limit: Runs of each way that count, the latest by stream id.
        """
        result = await self.query(HISTORY, {"runs": limit, "half_life": HALF_LIFE_RUNS}, timeout_s=60)
        return {row[0]: WayHistory(*row) for row in result.rows}

    async def days(
        self, since: date | None = None, until: date | None = None, *, owner: str | None = None
    ) -> list[Day]:
        """The days (UTC, both ends included) that have events, with their number; of one owner, or of all."""
        bound = {"since": since, "until": until, "owner": owner}
        with self._cursor() as cursor:
            rows = await self._reading.run(cursor, None, lambda: cursor.execute(DAYS, bound).fetchall())
        return [Day(day, events) for day, events in rows]

    async def write_day(self, day: date, path: Path, *, owner: str | None = None) -> None:
        """Write a day's events (UTC) to a Parquet file, of one owner or of all; a file of that name is replaced.

        Raises:
            ExportFailed: when the file cannot be written.
        """
        with self._cursor() as cursor:
            writer = DayWriter(cursor, day, owner, self._memory_limit)
            await self._reading.run(writer, None, lambda: writer.write(path))

    async def replay(
        self, stream: str, types: Sequence[str] = (), *, owner: str | None = None
    ) -> AsyncGenerator[tuple[str, Event], None]:
        """Every stored event of a stream in the order of its ids.

        Args:
            stream: Name of the stream.
            types: Event types; none means all.
            owner: Whose events; None means everybody's.
        """
        bound = {"stream": stream, "types": list(types), "owner": owner}
        with self._cursor() as cursor:
            await self._reading.run(cursor, None, lambda: cursor.execute(_REPLAY, bound))
            while rows := await self._reading.run(cursor, None, lambda: cursor.fetchmany(BATCH)):
                for id_, ts, type_, agent, task_id, data in rows:
                    yield id_, Event(type_, json.loads(data), agent, task_id, ts)

    async def checkpoint(self) -> None:
        """Fold the write-ahead log into the file (it also happens by itself, every 16 MB and on close).

        Raises:
            EventsNotStored: when DuckDB could not write; what was appended is safe in the log.
        """
        await self._write(self._checkpoint)

    def _require(self) -> DuckDBPyConnection:
        if self._root is None:
            raise EventStoreUnreadable(f"the event store {self.path} is closed: open it again")
        return self._root

    @contextmanager
    def _cursor(self) -> Iterator[DuckDBPyConnection]:
        cursor = self._require().cursor()
        self._cursors.add(cursor)
        try:
            yield cursor
        finally:
            self._cursors.discard(cursor)
            cursor.close()

    def _disconnect(self, root: DuckDBPyConnection) -> None:
        for cursor in self._cursors.copy():  # the file is only let go of when the last of them is closed
            cursor.close()
        root.close()

    async def _write(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writing, function, *args)

    def _checkpoint(self) -> None:
        import duckdb

        try:
            self._require().execute("CHECKPOINT")
        except duckdb.Error as error:
            raise EventsNotStored(f"{self.path} was not brought up to date: {one_line(error)}; free space") from error

    def _connect(self) -> None:
        root = open_file(self.path, self._memory_limit)
        self._forbidden = forbidden_functions(root)
        self._root = root

    def _append(self, table: Callable[[], Any], count: int) -> int:
        import duckdb

        try:
            with self._cursor() as cursor:
                cursor.register("incoming", table())
                try:
                    row = cursor.execute(_INSERT).fetchone()
                except duckdb.ConstraintException:  # some of them are there: looking for them costs a third more
                    row = cursor.execute(_INSERT_NEW).fetchone()
            return int(row[0]) if row else 0
        except (duckdb.DataError, duckdb.IntegrityError) as error:
            raise InvalidEvents(f"{count} events were not stored: {one_line(error)}; send them singly") from error
        except duckdb.Error as error:
            if isinstance(error, duckdb.FatalException):  # DuckDB refuses all further work until the file is reopened
                self._disconnect(self._require())
                self._root = None
                self._connect()
            raise EventsNotStored(
                f"{count} events were not stored in {self.path}: {one_line(error)}; "
                "free space or mend the disk, the streams keep them until then"
            ) from error


@asynccontextmanager
async def open_events(path: str | Path, *, memory_limit: str = "512MB") -> AsyncIterator[EventStore]:
    """The event store of that file while the block runs; see ``EventStore.open``."""
    store = await EventStore.open(path, memory_limit=memory_limit)
    try:
        yield store
    finally:
        await store.close()
