"""One benchmark under py-spy: ``python -m benchmarks NAME --profile``, or ``python -m benchmarks.profiling NAME …``.

Samples every thread of the benchmark's own process a hundred times a second, waiting ones left out; Valkey, peers and
servers that it starts are not in it, but for ``gateway`` and ``scale``, where Lumina's own processes do the work.
Prints where time goes and writes ``<name>.profile.txt``; the stacks themselves (``<name>.stacks``, one a line with its
samples) open in speedscope or flamegraph.pl. py-spy comes with ``make bench-peers``. Being sampled costs a little, so
the figures of such a run are not to be kept.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.harness import PEERS, ROOT

RATE_HZ = 100
ROWS = 20
LOADING = ("importlib", "matplotlib", "benchmarks/figures.py")
"""Importing and drawing are not what is measured."""
CHILDREN = {"gateway": ("cli.py serve",), "scale": ("benchmarks.scale", "benchmarks/scale.py", "cli.py serve")}
"""Benchmarks whose work is in processes of their own, and which of these are looked at: a part of the command line."""
WAITING = ("select", "poll", "_worker", "_do_waitpid", "wait", "acquire")
"""Functions in which a thread only waits; on a busy machine py-spy does not always see that it does."""


def report(stacks: str, processes: Sequence[str] = ()) -> str:
    """Shares of the samples: functions by themselves, and Lumina's own with what they call.

    Args:
        stacks: py-spy's raw format: frames from the outermost in, ``;`` between them, then the number of samples.
        processes: Only what ran in processes with one of these in their command line; none: everything.
    """
    alone: Counter[str] = Counter()
    within: Counter[str] = Counter()
    total = 0
    for line in stacks.splitlines():
        stack, _, samples = line.rpartition(" ")
        frames = [re.sub(r":\d+\)$", ")", frame) for frame in stack.split(";") if frame.strip()]
        # A process stands below those that started it.
        command = next((frame for frame in reversed(frames) if frame.startswith("process ")), "")
        if any(part in stack for part in LOADING) or (processes and not any(part in command for part in processes)):
            continue
        frames = [frame for frame in frames if not frame.startswith("process ")]
        if not frames or frames[-1].partition(" ")[0].rpartition(".")[2] in WAITING:
            continue
        total += int(samples)
        alone[frames[-1]] += int(samples)
        for frame in {frame for frame in frames if _is_ours(frame.rpartition("(")[2].rstrip(")"))}:
            within[frame] += int(samples)
    lines = [f"{total} samples; waiting, imports and pictures left out"]
    for title, counted in (("by itself", alone), ("Lumina's and the benchmark's, with what it calls", within)):
        lines += ["", f"{title}:"]
        lines += [f"{100 * samples / max(1, total):5.1f} %  {frame}" for frame, samples in counted.most_common(ROWS)]
    return "\n".join(lines) + "\n"


def _is_ours(path: str) -> bool:
    return (ROOT / path).is_file() or (ROOT / "benchmarks" / path).is_file()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a module of this folder; what follows is given to it")
    parser.add_argument("--profile-to", type=Path, default=ROOT / "build" / "bench", help="folder for the two files")
    given, passed_on = parser.parse_known_args()
    spy = PEERS / "bin" / "py-spy"
    if not spy.exists():
        sys.exit("py-spy is not installed: make bench-peers")
    given.profile_to.mkdir(parents=True, exist_ok=True)
    stacks = given.profile_to / f"{given.name}.stacks"
    record = [str(spy), "record", "--rate", str(RATE_HZ), "--format", "raw", "--output", str(stacks)]
    processes = CHILDREN.get(given.name, ())
    record += ["--subprocesses", "--"] if processes else ["--"]
    command = [sys.executable, "-m", f"benchmarks.{given.name}", *passed_on]
    ended = subprocess.run([*record, *command], cwd=ROOT, check=False)
    if ended.returncode:
        sys.exit(ended.returncode)
    text = report(stacks.read_text(), processes)
    (given.profile_to / f"{given.name}.profile.txt").write_text(text)
    print(f"Where time goes in {given.name}: {text}")


if __name__ == "__main__":
    main()
