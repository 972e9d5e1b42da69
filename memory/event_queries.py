"""Read-only SQL over the event store: what is accepted, how it is limited, and what comes back.

Four fences, each enough for most statements and none for all: the text must be one statement that reads; it must not
call a table function that reaches outside the database (`arrow_scan` takes a bare pointer); the transaction is
read-only, which stops writes inside `WITH` and `EXPLAIN ANALYZE`; and the database itself has no file or network access
and a locked configuration (set in `memory.event_file`). Whose events there are to read is decided in
`memory.owner_events`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from errors import LuminaError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ACCEPTED = "one statement that reads: SELECT, WITH, FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN"
TABLE_FUNCTIONS = frozenset(
    {
        "generate_series",
        "icu_calendar_names",
        "json_each",
        "json_tree",
        "pg_timezone_names",
        "pragma_table_info",
        "pragma_version",
        "range",
        "repeat",
        "repeat_row",
        "summary",
        "unnest",
        "duckdb_columns",
        "duckdb_constraints",
        "duckdb_functions",
        "duckdb_keywords",
        "duckdb_tables",
        "duckdb_types",
        "duckdb_views",
    }
)
"""Table functions that a query may call. A list of what is allowed, so that a new DuckDB brings no new hole."""

FORBIDDEN_SCALARS = frozenset({"write_log"})
"""Functions of a row that do more than compute."""

_MAX_SQL_BYTES = 100_000
MAX_RESULT_CHARACTERS = 32_000_000
"""Of all texts and numbers of a result together; ten thousand rows of a megabyte each would fill the memory."""
_FETCH = 64
"""Rows taken from DuckDB at a time, so that a result that is too large is noticed early."""


class InvalidQuery(LuminaError):
    """A query that the event store refuses or cannot run; the text carries DuckDB's own message."""


class QueryTimeout(InvalidQuery):
    """A query that did not finish within its time limit."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Rows as plain JSON values."""

    columns: list[str]
    types: list[str]
    """DuckDB's name of each column's type, e.g. ``BIGINT``, ``TIMESTAMP WITH TIME ZONE``, ``JSON``."""
    rows: list[list[Any]]
    truncated: bool
    """Whether there were more rows than asked for, or than ``MAX_RESULT_CHARACTERS`` allow."""


def forbidden_functions(connection: DuckDBPyConnection) -> frozenset[str]:
    """Names of every function and pragma of this DuckDB that a query must not call."""
    names = connection.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() "
        "WHERE function_type IN ('table', 'table_macro', 'pragma')"
    ).fetchall()
    return (frozenset(name.lower() for (name,) in names) - TABLE_FUNCTIONS) | FORBIDDEN_SCALARS


def run_query(
    connection: DuckDBPyConnection,
    sql: str,
    params: Sequence[Any] | Mapping[str, Any] | None,
    max_rows: int,
    forbidden: frozenset[str],
) -> QueryResult:
    """Run one reading statement on a connection of its own; blocks.

    Raises:
        InvalidQuery: when the statement is not accepted or DuckDB refuses it.
        duckdb.InterruptException: when somebody called ``connection.interrupt()``.
        duckdb.FatalException: when the database can no longer be used.
    """
    import duckdb  # heavy

    try:
        statement = _accepted_statement(connection, sql, forbidden)
        connection.execute("BEGIN TRANSACTION READ ONLY")
        try:
            cursor = connection.execute(statement, _parameters(params))
            described = cursor.description or []
            types = [str(column[1]).strip('"') for column in described]
            rows, truncated = _fetch(cursor, [name == "JSON" for name in types], max_rows)
        finally:
            connection.execute("ROLLBACK")
    except (duckdb.InterruptException, duckdb.FatalException):
        raise
    except duckdb.Error as error:
        raise InvalidQuery(f"the query failed: {one_line(error)}; accepted is {ACCEPTED}") from error
    return QueryResult([column[0] for column in described], types, rows, truncated)


def _fetch(cursor: DuckDBPyConnection, json_columns: Sequence[bool], max_rows: int) -> tuple[list[list[Any]], bool]:
    """The first rows as JSON values, and whether there were more."""
    rows: list[list[Any]] = []
    room = MAX_RESULT_CHARACTERS
    while batch := cursor.fetchmany(min(_FETCH, max_rows + 1 - len(rows))):
        for row in batch:
            room -= sum(map(_size, row))
            if room < 0 and not rows:
                raise InvalidQuery(
                    f"the first row is larger than {MAX_RESULT_CHARACTERS} characters: ask for fewer columns, "
                    "or for a part of them with substring(…)"
                )
            if room < 0 or len(rows) == max_rows:
                return rows, True
            rows.append([_json_value(value, parse=parse) for value, parse in zip(row, json_columns, strict=True)])
    return rows, False


def _size(value: Any) -> int:
    """About how many characters a value takes."""
    match value:
        case str() | bytes() | bytearray():
            return len(value)
        case Mapping():
            return sum(_size(key) + _size(item) for key, item in value.items())
        case list() | tuple() | set():
            return 2 + sum(map(_size, value))
        case _:
            return 8


def _accepted_statement(connection: DuckDBPyConnection, sql: str, forbidden: frozenset[str]) -> Any:
    import duckdb

    if len(sql.encode("utf-8", "replace")) > _MAX_SQL_BYTES:
        raise InvalidQuery(f"the query is longer than {_MAX_SQL_BYTES} bytes; accepted is {ACCEPTED}")
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise InvalidQuery(f"the query holds {len(statements)} statements; accepted is {ACCEPTED}")
    if statements[0].type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise InvalidQuery(f"{statements[0].type.name} is not accepted here; accepted is {ACCEPTED}")
    for name in _called_names(sql):
        if name in forbidden:
            raise InvalidQuery(f"the function {name} is not accepted: it can reach outside the events; use the tables")
    return statements[0]


def _called_names(sql: str) -> list[str]:
    """Every name in the text that an opening parenthesis follows, lower case, quotes and comments aside."""
    import duckdb

    encoded = sql.encode("utf-8", "replace")  # positions are in bytes
    tokens = [(at, kind) for at, kind in duckdb.tokenize(sql) if kind != duckdb.token_type.comment]
    called = []
    for (at, kind), (following, _) in pairwise(tokens):
        if encoded[following : following + 1] != b"(":
            continue
        if kind in (duckdb.token_type.identifier, duckdb.token_type.keyword):
            text = encoded[at:following].decode()
            quoted = re.match(r'"((?:[^"]|"")*)"', text)
            plain = re.match(r"[\w$]+", text)
            name = quoted[1].replace('""', '"') if quoted else plain[0] if plain else ""
            called.append(name.lower())
    return called


def _parameters(params: Sequence[Any] | Mapping[str, Any] | None) -> Any:
    if params is None or isinstance(params, Mapping):
        return dict(params) if params else None
    return list(params)


def one_line(error: Exception) -> str:
    """DuckDB's message without the excerpt of the query and the list of candidates, on one line."""
    return " ".join(re.split(r"\n\nLINE |\n\s*Candidate functions:", str(error))[0].split())[:500]


def _json_value(value: Any, *, parse: bool = False) -> Any:
    """The same value with JSON's types: times as ISO 8601, decimals as numbers where exact, bytes as hexadecimal."""
    match value:
        case None | bool() | int():
            return value
        case str():
            return _parsed(value) if parse else value
        case float():
            return value if math.isfinite(value) else str(value)
        case Decimal():
            number = float(value) if value.is_finite() else math.nan
            return number if Decimal(repr(number)) == value else str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes() | bytearray():
            return value.hex()
        case Mapping():
            return {str(key): _json_value(item) for key, item in value.items()}
        case list() | tuple() | set():
            return [_json_value(item) for item in value]
        case _:
            return str(value)


def _parsed(text: str) -> Any:
    import json

    try:
        return _json_value(json.loads(text))
    except (ValueError, RecursionError):  # nested too deeply for a list of lists to leave again as JSON
        return text
