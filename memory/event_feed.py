"""A second DuckDB, in memory, whose only rows are those that a query on the event store gives it.

What runs there reaches nothing else of the store, whatever it is; and it may have rights that the store must not have.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from memory.event_file import open_memory

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FEED = "feed"
"""The name under which the rows can be read."""
BATCH = 10_000
"""Rows of one Arrow batch."""


class FedDatabase:
    """The second database. One thread opens and uses it, another may stop it."""

    def __init__(self, store: DuckDBPyConnection, sql: str, params: Mapping[str, Any]) -> None:
        """Prepare; nothing is opened yet.

        Args:
            store: A connection to the event store.
            sql: Which rows; run again each time that they are read.
            params: Values for its ``$name``.
        """
        self._rows = StoredRows(store, sql, params)
        self._database: DuckDBPyConnection | None = None

    @contextmanager
    def open(self, memory_limit: str, *, file_access: bool = False) -> Iterator[DuckDBPyConnection]:
        """A connection to the database while the block runs; see ``memory.event_file.open_memory``."""
        try:
            with open_memory(memory_limit, file_access=file_access) as self._database:
                self._database.register(FEED, self._rows)
                yield self._database
        finally:
            self._rows.close()

    def interrupt(self) -> None:
        """Stop what runs, in both databases."""
        if self._database is not None:
            _interrupt(self._database)
        self._rows.interrupt()


class StoredRows:
    """What a query on the store gives, as often as it is read: any object with ``__arrow_c_stream__`` is a table to
    DuckDB (Arrow's PyCapsule interface).
    """

    def __init__(self, store: DuckDBPyConnection, sql: str, params: Mapping[str, Any]) -> None:
        """Prepare; see ``FedDatabase``."""
        self._store, self._sql, self._params = store, sql, dict(params)
        self._cursors: list[DuckDBPyConnection] = []

    def read(self) -> Any:
        """Run the query: a ``pyarrow.RecordBatchReader``."""
        cursor = self._store.cursor()
        self._cursors.append(cursor)
        return cursor.sql(self._sql, params=self._params).to_arrow_reader(BATCH)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.read().__arrow_c_stream__()

    def interrupt(self) -> None:
        """Stop whatever is being read."""
        for cursor in self._cursors.copy():
            _interrupt(cursor)

    def close(self) -> None:
        """Let go of the store."""
        for cursor in self._cursors:
            cursor.close()


def _interrupt(connection: DuckDBPyConnection) -> None:
    import duckdb  # heavy

    with contextlib.suppress(duckdb.ConnectionException):  # its thread has closed it meanwhile
        connection.interrupt()
