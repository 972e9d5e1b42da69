"""The child process in which an owner's SQL runs: the kernel limits its memory, and killing it stops any query.

Started by ``memory.query_processes`` as ``python -m memory.query_process FEEDS``. Standard input takes a request a
line, standard output gives an answer a line, both in JSON. FEEDS is the descriptor of a socket. There the child says
``BEGUN`` when it has taken a request, and ``MORE`` whenever the query wants to read the owner's events: then the parent
sends back a descriptor that gives them as a stream of Arrow's IPC format.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import socket
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any, NoReturn, TypedDict

from memory.event_feed import FEED
from memory.event_file import open_memory
from memory.event_queries import InvalidQuery, one_line, run_query
from memory.migrations import MIGRATIONS

MEMORY_BYTES = 1 << 30
"""Of all that the process allocates; DuckDB does not count the texts of a running vector against its own limit."""
TOO_MUCH = f"the query needs more than {MEMORY_BYTES >> 20} MB of memory: ask for fewer or shorter values"
IDLE_S = 60.0
"""A child that nobody asks for so long ends, and gives back what it had."""
BEGUN, MORE = b"!", b"+"
_THREADS = 2
_PARENT_CHECK_S = 2.0
_VIEW = f"CREATE TEMP VIEW events AS SELECT * REPLACE (data::JSON AS data) FROM {FEED}"


class Request(TypedDict):
    """A query."""

    sql: str
    params: Any
    max_rows: int
    forbidden: list[str]
    memory_limit: str
    """DuckDB's own limit."""


class _Received:
    """The owner's events, asked for again each time that the query reads them."""

    def __init__(self, feeds: socket.socket) -> None:
        self._feeds = feeds

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        import pyarrow.ipc

        self._feeds.sendall(MORE)
        _, descriptors, _, _ = socket.recv_fds(self._feeds, 1, 1)
        return pyarrow.ipc.open_stream(os.fdopen(descriptors[0], "rb")).__arrow_c_stream__()


def _answer(request: Request, feeds: socket.socket) -> dict[str, Any]:
    import duckdb

    try:
        with open_memory(request["memory_limit"]) as database:
            database.execute(f"SET GLOBAL threads = {_THREADS}")
            database.register(FEED, _Received(feeds))
            for statement in (statement for version in MIGRATIONS for statement in version):
                database.execute(statement)
            database.execute("DROP TABLE events")
            database.execute(_VIEW)
            database.execute("SET GLOBAL lock_configuration = true")
            asked = (request["sql"], request["params"], request["max_rows"], frozenset(request["forbidden"]))
            result = run_query(database, *asked)
    except InvalidQuery as error:
        memory = isinstance(error.__cause__, duckdb.OutOfMemoryException) and "bad allocation" in str(error)
        return {"refused": TOO_MUCH if memory else str(error)}
    except (duckdb.OutOfMemoryException, MemoryError):
        return {"refused": TOO_MUCH}
    except duckdb.Error as error:
        return {"refused": f"the query failed: {one_line(error)}"}
    return {
        "columns": result.columns,
        "types": result.types,
        "rows": result.rows,
        "truncated": result.truncated,
    }


def _say(answers: IO[bytes], answer: dict[str, Any]) -> None:
    try:
        line = json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace")
    except (MemoryError, RecursionError):
        line = json.dumps({"refused": TOO_MUCH}).encode()
    answers.write(line + b"\n")
    answers.flush()


def _is_full() -> bool:
    """Whether what the allocator keeps leaves the next query less than half of the memory."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[5])  # proc(5): what RLIMIT_DATA counts, and the stack
    except OSError:  # not Linux: there is no limit either
        return False
    return pages * resource.getpagesize() > MEMORY_BYTES // 2


def _leave_with(parent: int) -> NoReturn:
    """End this process when the parent is gone, by whatever death, also in the middle of a query."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_S)
    os._exit(0)


def main(feeds_descriptor: int) -> None:
    """Answer requests until there are none."""
    # RLIMIT_DATA counts what can be written; RLIMIT_AS would count the libraries' code too. macOS knows neither.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    with os.fdopen(os.dup(1), "wb") as answers, socket.socket(fileno=feeds_descriptor) as feeds:
        os.dup2(2, 1)  # whatever a library prints is no answer
        while select.select([0], [], [], IDLE_S)[0] and (line := sys.stdin.buffer.readline()):
            feeds.sendall(BEGUN)
            _say(answers, _answer(json.loads(line), feeds))
            if _is_full():  # the parent starts another
                break


if __name__ == "__main__":
    main(int(sys.argv[1]))
