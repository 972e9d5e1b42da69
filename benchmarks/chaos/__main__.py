"""Every fault, really done, and what it cost: ``make chaos``, or ``python -m benchmarks.chaos [--small] [FAULT …]``.

Each runs on an embedded Redis of its own with real processes. The exit code is 1 when something was lost, done twice,
or late. docs/decisions/faults.md says what each does and how it counts.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from loguru import logger
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.chaos.faults import FAULTS, run_fault
from benchmarks.chaos.stage import FULL, SMALL, NotReached, Outcome
from tools.encyclopaedia import ensure_sample


def show(console: Console, outcomes: dict[str, Outcome | str]) -> bool:
    """Print the table; whether all is well."""
    table = Table("fault", "injected", "lost", "duplicated", "recovered (s)", "counts", box=None, padding=(0, 2, 0, 0))
    well = True
    for name, outcome in outcomes.items():
        if isinstance(outcome, str):
            well = well and outcome.startswith("skipped")
            table.add_row(name, f"[yellow]{escape(outcome)}[/]")
            continue
        late = outcome.limit_s is not None and outcome.recovered_s > outcome.limit_s
        well = well and not (outcome.lost or outcome.duplicated or late)
        limit = f" [dim]of {outcome.limit_s:.0f}[/]" if outcome.limit_s is not None else ""
        seconds = f"[red]{outcome.recovered_s:.1f}[/]" if late else f"{outcome.recovered_s:.1f}"
        table.add_row(
            name,
            escape(outcome.injected),
            *(f"[red]{number}[/]" if number else "0" for number in (outcome.lost, outcome.duplicated)),
            seconds + limit,
            escape(outcome.note),
        )
    console.print(table)
    return well


async def main(names: list[str], *, small: bool) -> bool:
    """Run these faults one after the other; whether all is well."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    outcomes: dict[str, Outcome | str] = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lumina-chaos-") as folder:
        sample = ensure_sample(Path(folder) / "sample.zim")
        for name in names:
            started = time.monotonic()
            reason = FAULTS[name].missing()
            try:
                scale = SMALL if small else FULL
                outcomes[name] = f"skipped: {reason}" if reason else await run_fault(name, Path(folder), sample, scale)
            except NotReached as error:
                outcomes[name] = str(error)
            console.print(f"[dim]{name}: {time.monotonic() - started:.0f} s[/]", highlight=False)
    well = show(console, outcomes)
    console.print(f"{len(outcomes)} faults in {time.monotonic() - began:.0f} s", highlight=False)
    return well


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"of: {', '.join(FAULTS)}; none means all")
    parser.add_argument("--small", action="store_true", help="the numbers that `make test` uses")
    given = parser.parse_args()
    if unknown := set(given.faults) - set(FAULTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(FAULTS)}")
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    sys.exit(not asyncio.run(main(given.faults or list(FAULTS), small=given.small)))
