"""One owner's events as a database of their own, for SQL that this owner wrote.

A view that filters by owner would not do. Its table can be named, its statistics asked for (``stats(id)``), and DuckDB
may try the condition of a query on a row before the view's own: ``WHERE error(data)`` then reports somebody else's
event. So an owner's query runs in a second DuckDB, in memory, that holds no event at all. What it reads as ``events``
comes as Arrow batches from the store, filtered there by a statement in which nothing is the owner's but a parameter.
That second DuckDB is in a process of its own, whose memory is limited (`memory.query_process`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memory.event_feed import StoredRows
from memory.event_queries import QueryResult
from memory.query_process import Request
from memory.query_processes import QueryProcesses, RunningQuery

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_OWN = "SELECT stream, id, ts, type, agent, task_id, data FROM events WHERE data ->> 'owner' = $owner"


class OwnerEvents:
    """The tables and views of docs/queries.md, with one owner's events in them."""

    def __init__(self, store: DuckDBPyConnection, owner: str, memory_limit: str, processes: QueryProcesses) -> None:
        """Prepare; nothing is opened yet.

        Args:
            store: A connection to the event store.
            owner: Whose events.
            memory_limit: What DuckDB may hold in memory for a query; nothing spills to disk.
            processes: Where queries run.
        """
        self._query = RunningQuery(processes, StoredRows(store, _OWN, {"owner": owner}))
        self._memory_limit = memory_limit

    def query(
        self, sql: str, params: Sequence[Any] | Mapping[str, Any] | None, max_rows: int, forbidden: frozenset[str]
    ) -> QueryResult:
        """Ask once; blocks. See ``memory.event_queries.run_query``."""
        request = Request(
            sql=sql,
            params=params,
            max_rows=max_rows,
            forbidden=sorted(forbidden),
            memory_limit=self._memory_limit,
        )
        return self._query.run(request)

    def interrupt(self) -> None:
        """Stop the query."""
        self._query.interrupt()
