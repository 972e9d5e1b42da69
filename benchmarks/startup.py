"""How long until Lumina can be used, and what it takes: ``python -m benchmarks.startup [--short]``.

``lumina --help`` beside a Python that does nothing and one that imports Typer and Rich alone; ``lumina serve`` until
its first answer, beside a bare FastAPI on uvicorn. Memory is resident memory of the process at that moment; the
embedded Valkey, a process of its own, is counted apart.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.figures import Figures
from benchmarks.harness import ROOT, Work, finish, options, rounds_of, take_turns

EXPECTATION = (
    "--help under 0.3 s; serve ready under 3 s and under 300 MB before the first model, of which the bare "
    "server's imports are a third"
)
BARE = """
import sys, uvicorn
from fastapi import FastAPI
app = FastAPI()
@app.get("/docs/files/favicon-32x32.png")
async def answer(): return "ok"
uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""
HELP, READY, MEMORY, VALKEY = "help, s", "ready to serve, s", "memory when ready, MB", "of its Valkey, MB"


async def helped(*command: str) -> Mapping[str, float]:
    """Seconds of a process that ends by itself."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    code = await process.wait()
    assert code == 0, command
    return {HELP: time.perf_counter() - began}


async def served(*command: str) -> Mapping[str, float]:
    """Seconds until a server answers, and its memory then."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        unset = ("REDIS_URL", "QDRANT_URL", "LUMINA_API_KEYS")
        environment = {name: value for name, value in os.environ.items() if name not in unset}
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *(word.replace("PORT", str(port)) for word in command),
            cwd=ROOT,
            env={**environment, "DATA_DIR": f"{folder}/data"},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            while not await _answers(port):
                assert process.returncode is None, command
                await asyncio.sleep(0.01)
            seconds = time.perf_counter() - began
            found = {READY: seconds, MEMORY: _megabytes(process.pid)}
            if children := _children(process.pid):
                found[VALKEY] = sum(map(_megabytes, children))
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()
    return found


async def _answers(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.write(b"GET /docs/files/favicon-32x32.png HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    line = await reader.readline()
    writer.close()
    return b" 200 " in line


def _megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _children(pid: int) -> list[int]:
    found = [tasks.read_text().split() for tasks in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for children in found for child in children]


async def main(figures: Figures, rounds: int) -> None:
    python = sys.executable
    helpers: dict[str, Work] = {
        "lumina": partial(helped, python, "cli.py", "--help"),
        "typer and rich": partial(helped, python, "-c", "import typer, rich.console, rich.table"),
        "python alone": partial(helped, python, "-c", "pass"),
    }
    servers: dict[str, Work] = {
        "lumina": partial(served, python, "cli.py", "serve", "--port", "PORT"),
        "bare fastapi": partial(served, python, "-c", BARE, "PORT"),
    }
    await take_turns(figures, helpers, 3 * rounds)
    await take_turns(figures, servers, rounds)


if __name__ == "__main__":
    given = options(__doc__, rounds=5).parse_args()
    collected = Figures("startup", expectation=EXPECTATION)
    asyncio.run(main(collected, rounds_of(given)))
    finish(collected, given)
