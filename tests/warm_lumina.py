"""The ``lumina`` command without the seconds of imports: one process imports everything, and forks for each call.

``warm_lumina.py SOCKET --serve`` is that process; ``warm_lumina.py SOCKET ARGUMENTS…`` is the command. It hands over
its arguments, environment, folder and standard streams, and ends with the exit code. tests/test_cli.py runs the real
one.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path


def serve(path: str) -> None:
    """Answer until the process is ended."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import cli
    import commands.planning
    import commands.running
    import server

    assert cli
    assert commands.planning
    assert commands.running
    assert server
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(16)
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                _attend(connection)
            connection.close()


def _attend(connection: socket.socket) -> None:
    """Run one command in a child, and tell its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    given = json.load(connection.makefile())
    child = os.fork()
    if child == 0:
        import cli

        for own, theirs in enumerate(streams):
            os.dup2(theirs, own)
        os.environ.clear()
        os.environ.update(given["environment"])
        os.chdir(given["folder"])
        sys.argv = ["lumina", *given["arguments"]]
        cli.main()
    _, status = os.waitpid(child, 0)
    connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def call(path: str, arguments: list[str]) -> int:
    """Have a command run; returns its exit code."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [b"."], [0, 1, 2])
        given = {"arguments": arguments, "environment": dict(os.environ), "folder": str(Path.cwd())}
        connection.sendall(json.dumps(given).encode())
        connection.shutdown(socket.SHUT_WR)
        return int(connection.recv(16) or b"1")


if __name__ == "__main__":
    if sys.argv[2:] == ["--serve"]:
        serve(sys.argv[1])
    sys.exit(call(sys.argv[1], sys.argv[2:]))
