"""The child processes that run owners' SQL (`memory.query_process`): started when needed, kept for the next query."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

from memory.event_feed import StoredRows
from memory.event_file import EventStoreUnreadable
from memory.event_queries import InvalidQuery, QueryResult
from memory.query_process import BEGUN, TOO_MUCH, Request


class QueryProcesses:
    """The children that wait for a query. Used by several threads."""

    def __init__(self) -> None:
        self._idle: list[_Child] = []
        self._closed = False

    def take(self) -> _Child:
        """A child of one's own until it is given back; started when none waits."""
        with contextlib.suppress(IndexError):
            return self._idle.pop()
        return _Child()

    def give_back(self, child: _Child) -> None:
        """Let the child wait for another query."""
        self._idle.append(child)
        if self._closed:
            self.close()

    def close(self) -> None:
        """End every child that waits, and those that come back later."""
        self._closed = True
        while self._idle:
            self._idle.pop().end()


class RunningQuery:
    """One query in one child. One thread runs it, another may stop it."""

    def __init__(self, processes: QueryProcesses, rows: StoredRows) -> None:
        """Prepare; nothing is started yet.

        Args:
            processes: Where a child comes from.
            rows: What it may read.
        """
        self._processes, self._rows = processes, rows
        self._child: _Child | None = None
        self._stopped = False

    def run(self, request: Request) -> QueryResult:
        """The answer; blocks.

        Raises:
            InvalidQuery: the query is refused, needs too much memory, or was stopped.
            EventStoreUnreadable: no child can be started.
        """
        try:
            answer = self._ask(request, self._processes.take())
            if answer is None:  # it had just left, for nobody had asked it for long
                answer = self._ask(request, _Child())
        finally:
            self._rows.close()
        if answer is None:
            raise EventStoreUnreadable("the process that runs queries does not start: see whether memory is left")
        if "refused" in answer:
            raise InvalidQuery(answer["refused"])
        return QueryResult(answer["columns"], answer["types"], answer["rows"], answer["truncated"])

    def interrupt(self) -> None:
        """Stop the query, by ending its process."""
        self._stopped = True
        if self._child is not None:
            self._child.kill()
        self._rows.interrupt()

    def _ask(self, request: Request, child: _Child) -> dict[str, Any] | None:
        """The answer, or None from a child that had ended before it was asked."""
        self._child = child
        try:
            if self._stopped:
                raise InvalidQuery("the query was stopped: ask again later")
            answer = child.ask(request, self._rows)
        except BaseException:  # whatever it is passes on, and leaves no process behind
            child.end()
            raise
        if answer:
            self._processes.give_back(child)
            return answer
        child.end()
        if self._stopped:
            raise InvalidQuery("the query was stopped because the event store is closing: ask again later")
        return None if answer is None else {"refused": TOO_MUCH}


class _Child:
    """One process, and what goes to it and comes from it."""

    def __init__(self) -> None:
        self._feeds, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "memory.query_process", str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # the last words of a process without memory tell nothing
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parents[1],
                start_new_session=True,  # the terminal's Ctrl-C is the parent's to handle
            )

    def kill(self) -> None:
        """End it at once. May be called from any thread, and again."""
        self._process.kill()

    def end(self) -> None:
        """Kill it and let go of everything that belongs to it; not while it is asked."""
        self._process.kill()
        self._process.communicate()  # closes what goes to it and comes from it
        self._feeds.close()

    def ask(self, request: Request, rows: StoredRows) -> dict[str, Any] | None:
        """The answer; empty when the child died over the query, None when it had ended before."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(request, default=str).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            return None
        sources: list[IO[bytes] | socket.socket] = [stdout, self._feeds]
        begun, answer, readers = False, b"", list[threading.Thread]()
        try:
            while True:
                ready, _, _ = select.select(sources, [], [])
                if begun and stdout in ready:
                    answer = stdout.readline()
                    break
                match self._feeds.recv(1):
                    case b"":
                        break
                    case said if said == BEGUN:
                        begun = True
                    case _:
                        readers.append(self._send_rows(rows))
        finally:
            if not answer.endswith(b"\n"):  # it is gone, or soon will be; and nobody takes what is on its way to it
                self._process.kill()
                self._feeds.close()
            for reader in readers:
                reader.join()
        if answer.endswith(b"\n"):
            return dict(json.loads(answer))
        return {} if begun else None

    def _send_rows(self, rows: StoredRows) -> threading.Thread:
        theirs, ours = os.pipe()
        socket.send_fds(self._feeds, [b"+"], [theirs])
        os.close(theirs)
        thread = threading.Thread(target=_write_rows, args=(rows, ours), name="events-feed")
        thread.start()
        return thread


def _write_rows(rows: StoredRows, descriptor: int) -> None:
    """Write rows until there are no more, or nobody reads them; the reader notices a stream that breaks off."""
    import duckdb
    import pyarrow

    with contextlib.suppress(BrokenPipeError, duckdb.Error, pyarrow.ArrowException), os.fdopen(descriptor, "wb") as out:
        reader = rows.read()
        with pyarrow.ipc.new_stream(out, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)
