"""One owner's events as a database of their own, for SQL that this owner wrote.

A view that filters by owner would not do. Its table can be named, its statistics asked for (``stats(id)``), and DuckDB
may try the condition of a query on a row before the view's own: ``WHERE error(data)`` then reports somebody else's
event. So an owner's query runs in a second DuckDB, in memory, that holds no event at all. What it reads as ``events``
comes as Arrow batches from the store, filtered there by a statement in which nothing is the owner's but a parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memory.event_feed import FEED, FedDatabase
from memory.event_queries import QueryResult, run_query
from memory.migrations import MIGRATIONS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_OWN = "SELECT stream, id, ts, type, agent, task_id, data FROM events WHERE data ->> 'owner' = $owner"
_VIEW = f"CREATE TEMP VIEW events AS SELECT * REPLACE (data::JSON AS data) FROM {FEED}"


class OwnerEvents:
    """The tables and views of docs/queries.md, with one owner's events in them."""

    def __init__(self, store: DuckDBPyConnection, owner: str, memory_limit: str) -> None:
        """Prepare; nothing is opened yet.

        Args:
            store: A connection to the event store.
            owner: Whose events.
            memory_limit: What a query may hold in memory; nothing spills to disk.
        """
        self._database = FedDatabase(store, _OWN, {"owner": owner})
        self._memory_limit = memory_limit

    def query(
        self, sql: str, params: Sequence[Any] | Mapping[str, Any] | None, max_rows: int, forbidden: frozenset[str]
    ) -> QueryResult:
        """Open, ask, close; blocks. See ``memory.event_queries.run_query``."""
        with self._database.open(self._memory_limit) as database:
            for statement in (statement for version in MIGRATIONS for statement in version):
                database.execute(statement)
            database.execute("DROP TABLE events")
            database.execute(_VIEW)
            database.execute("SET GLOBAL lock_configuration = true")
            return run_query(database, sql, params, max_rows, forbidden)

    def interrupt(self) -> None:
        """Stop the query."""
        self._database.interrupt()
