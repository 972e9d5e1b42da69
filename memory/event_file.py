"""Opening the event store's file: its lock, its settings and its schema."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from errors import LuminaError
from memory.event_queries import one_line
from memory.migrations import MIGRATIONS, VERSIONS_TABLE

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class EventStoreHeld(LuminaError):
    """Another process, or another part of this one, has the file open."""


class EventStoreUnreadable(LuminaError):
    """The file cannot be opened: damaged, written by a newer version, or out of reach."""


def open_file(path: Path, memory_limit: str) -> DuckDBPyConnection:
    """A connection to the file, made when missing, with the newest schema and without access to anything else; blocks.

    Raises:
        EventStoreHeld: when the file is open elsewhere.
        EventStoreUnreadable: when it is damaged, newer than this version, or cannot be made.
    """
    import duckdb  # heavy

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = duckdb.connect(str(path), config=_settings(memory_limit))
        try:
            # DuckDB hands a second caller in this process the same database; only the first finds it unlocked.
            if connection.execute("SELECT current_setting('lock_configuration')").fetchone() == (True,):
                raise EventStoreHeld(f"the event store {path} is already open in this process: share that one")
            connection.execute("SET GLOBAL TimeZone = 'UTC'")
            _migrate(connection, path)
            connection.execute("SET GLOBAL lock_configuration = true")
        except BaseException:  # whatever it is passes on, and leaves no lock behind
            connection.close()
            raise
        return connection
    except (duckdb.Error, OSError) as error:
        message = one_line(error)
        if "Could not set lock" in message:
            holder = re.search(r"PID \d+", message)
            raise EventStoreHeld(
                f"the event store {path} is held by another process ({holder[0] if holder else 'unknown'}): "
                "ask the running server with `lumina sql` or POST /events/query, or stop it first"
            ) from error
        raise EventStoreUnreadable(
            f"the event store {path} cannot be opened: {message}; "
            "restore it from a backup, or move it away to begin a new one"
        ) from error


def _settings(memory_limit: str) -> dict[str, str | bool | int | float | list[str]]:
    return {
        "enable_external_access": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "allow_community_extensions": "false",
        "python_enable_replacements": "false",  # or a query could read this process's variables as tables
        "memory_limit": memory_limit,
    }


def _migrate(connection: DuckDBPyConnection, path: Path) -> None:
    connection.execute(VERSIONS_TABLE)
    row = connection.execute("SELECT coalesce(max(version), 0) FROM schema_versions").fetchone()
    version = int(row[0]) if row else 0
    if version > len(MIGRATIONS):
        raise EventStoreUnreadable(
            f"the event store {path} has schema version {version} and this Lumina knows up to {len(MIGRATIONS)}: "
            "run a newer Lumina, or set DATA_DIR to another folder"
        )
    for number, statements in enumerate(MIGRATIONS[version:], version + 1):
        connection.execute("BEGIN")
        for statement in statements:
            connection.execute(statement)
        connection.execute("INSERT INTO schema_versions VALUES (?, now())", [number])
        connection.execute("COMMIT")


def open_memory(memory_limit: str, *, file_access: bool = False) -> DuckDBPyConnection:
    """An empty database in memory, apart from every other; blocks.

    Args:
        memory_limit: What it may hold; nothing spills to disk.
        file_access: Whether its statements may name files; never for SQL that somebody else wrote.
    """
    import duckdb  # heavy

    config = {
        **_settings(memory_limit),
        "enable_external_access": "true" if file_access else "false",
        "temp_directory": "",
    }
    connection = duckdb.connect(":memory:", config=config)
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    return connection
