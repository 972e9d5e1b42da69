"""Every benchmark, or one: ``python -m benchmarks [NAME] [--short] [--profile] [--out FOLDER]``, or ``make bench``;
``--plots FOLDER`` draws what they found.

Each is a process of its own. What cannot run here says why and does not count as a failure. `chaos` is apart:
``make chaos``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.harness import ROOT, peer_python

SQUAD = ROOT.parent / "shared" / "data" / "squad"


def chromium() -> str | None:
    """The browser's path."""
    return os.environ.get("LUMINA_CHROMIUM") or shutil.which("chromium")


@dataclass(frozen=True)
class Bench:
    """A module of this folder and what it is started with."""

    about: str
    long: tuple[str, ...] = ()
    short: tuple[str, ...] = ("--short",)
    saves: bool = True
    """Whether it uses the harness, and so takes ``--out``."""
    missing: Callable[[], str] = lambda: ""
    """Why it cannot run here; nothing when it can."""


BENCHES = {
    "startup": Bench("lumina --help, lumina serve, memory"),
    "task_queue": Bench("no-op tasks beside taskiq-redis, arq and a bare stream"),
    "ingest": Bench("a Redis stream into DuckDB beside executemany and reading alone"),
    "embedding_cache": Bench("known embeddings beside CacheBackedEmbeddings and one MGET"),
    "checkpointer": Bench("LangGraph checkpoints beside Valkey's, SQLite's and memory's savers"),
    "crawl": Bench("real pages of a MediaWiki beside LangChain's loader, wikipedia-api and the same requests alone"),
    "index_recall": Bench("passages indexed and found, beside LangChain's local Qdrant and the bare engine"),
    "whole": Bench("lumina ask with a crawl and from memory, beside the model, the network and a plain script"),
    "scale": Bench("what an item costs from few to many: events, threads, workers, servers"),
    "run_log": Bench("the log of a chat's run, in batches and one by one"),
    "fan_out": Bench("one stream to 400 clients beside one XREAD each and a broadcast"),
    "gateway": Bench("chat completions behind /v1 beside LiteLLM's proxy and a thin one"),
    "parallel": Bench("two topics at once and one after the other"),
    "planner": Bench("planning time by goals and ways, beside networkx on the explicit lattice"),
    "console_graph": Bench(
        "the console's graph: frames with 5,000 nodes and 20,000 edges",
        missing=lambda: "" if chromium() else "no Chromium on the PATH nor in LUMINA_CHROMIUM",
    ),
    "intents": Bench("which intent a message has", short=(), saves=False),
    "recall": Bench(
        "what retrieval finds on SQuAD",
        long=(str(SQUAD),),
        short=(str(SQUAD), "--questions", "40", "--unanswerable", "20", "--no-embed"),
        saves=False,
        missing=lambda: "" if SQUAD.is_dir() else f"no {SQUAD.relative_to(ROOT.parent)} beside the checkout",
    ),
}


def run(name: str, *, short: bool, out: Path, profile: bool = False) -> bool:
    """Run one; whether it came to a good end."""
    bench = BENCHES[name]
    if why := bench.missing():
        print(f"{name}: left out, {why}\n", flush=True)
        return True
    arguments = [*(bench.short if short else bench.long), *(("--out", str(out)) if bench.saves else ())]
    began = time.perf_counter()
    if not bench.saves:
        print(f"## {name}\n", flush=True)
    module = [f"benchmarks.{name}"]
    if profile:
        module = ["benchmarks.profiling", name, "--profile-to", str(out)]
    ended = subprocess.run([sys.executable, "-m", *module, *arguments], cwd=ROOT, check=False)
    print(f"{name} took {time.perf_counter() - began:.0f} s\n", flush=True)
    return ended.returncode == 0


def main() -> None:
    about = "\n".join(f"  {name:<16} {bench.about}" for name, bench in BENCHES.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n{about}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help="one of those above; none: all of them")
    parser.add_argument("--short", action="store_true", help="each in its short form: all of them under 15 minutes")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="where JSON, tables and plots go")
    parser.add_argument("--profile", action="store_true", help="also say where time goes (<name>.profile.txt)")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="run nothing: draw what --out has, into FOLDER")
    given = parser.parse_args()
    if given.plots:
        from benchmarks.plots import draw_kept

        try:
            print(*draw_kept(given.out, given.plots), sep="\n")
        except FileNotFoundError as error:
            sys.exit(str(error))
        return
    if given.name and given.name not in BENCHES:
        parser.error(f"no benchmark is called {given.name}; there are: {', '.join(BENCHES)}")
    if peer_python() is None:
        print("The peers are not installed, so Lumina is measured without them: make bench-peers\n")
    names = [given.name] if given.name else list(BENCHES)
    failed = [name for name in names if not run(name, short=given.short, out=given.out, profile=given.profile)]
    print(f"Tables and plots: {given.out}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
