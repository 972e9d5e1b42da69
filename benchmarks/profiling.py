"""One benchmark under pyinstrument: ``python -m benchmarks NAME --profile``, or ``… -m benchmarks.profiling NAME …``.

Prints the tree of where its own process spent the time, and writes it to ``<name>.profile.txt`` in ``--out``. Threads
and child processes (Valkey, peers, a server that is started) are not in it. Figures of such a run are not to be kept.
pyinstrument comes with ``make bench-peers``.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.harness import add_peers

LEAST_SHARE_PERCENT = 2.0
"""Of the whole time: what takes less is not shown."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a module of this folder; what follows is given to it")
    parser.add_argument("--profile-to", type=Path, help="file for the tree")
    given, passed_on = parser.parse_known_args()
    add_peers()
    try:
        from pyinstrument import Profiler  # type: ignore[import-not-found, unused-ignore]  # comes with the peers
    except ImportError:
        sys.exit("pyinstrument is not installed: make bench-peers")
    sys.argv = [f"benchmarks.{given.name}", *passed_on]
    # Without following one task only: the event loop's other tasks are where the time goes.
    profiler = Profiler(interval=0.002, async_mode="disabled")
    with profiler:
        runpy.run_module(f"benchmarks.{given.name}", run_name="__main__", alter_sys=False)
    options = {"filter_threshold": LEAST_SHARE_PERCENT / 100}
    tree = profiler.output_text(unicode=True, color=False, show_all=False, processor_options=options)
    print(tree)
    if given.profile_to:
        given.profile_to.parent.mkdir(parents=True, exist_ok=True)
        given.profile_to.write_text(tree)


if __name__ == "__main__":
    main()
