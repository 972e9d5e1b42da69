"""What the benchmarks share: ratios by round, turns, tables, and a list in which every benchmark stands."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHES
from benchmarks.figures import Figures
from benchmarks.harness import Work, take_turns
from benchmarks.profiling import report

ROOT = Path(__file__).parents[1]
APART = {
    "figures",
    "harness",
    "engine",
    "profiling",
    "__main__",
    "reader_data",
    "reader_fit",
    "reader_network",
    "reader_confidence",
    "recall_fit",
}
"""What the benchmarks share, and what is started by another."""


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    figures = Figures("bench")
    for ours, theirs in ((10, 5), (100, 400), (9, 3)):  # a neighbour slowed the second round for one of them
        figures.note("puts/s", "lumina", ours)
        figures.note("puts/s", "peer", theirs)
    assert figures.ratios("puts/s", "peer") == [2.0, 0.25, 3.0]
    assert figures.to_json()["measures"]["puts/s"]["peer"]["lumina_ratio"] == 2.0
    assert "| puts/s | lumina | 10.0 (9.0–100.0) |  |" in figures.table()
    assert "|  | peer | 5.00 (3.00–400.00) | 2.00 (0.25–3.00) |" in figures.table()


def test_who_missed_a_round_has_no_ratio() -> None:
    figures = Figures("bench")
    figures.note("puts/s", "lumina", 1)
    figures.note("puts/s", "lumina", 2)
    figures.note("puts/s", "peer", 1)
    assert figures.ratios("puts/s", "peer") == []
    assert "| peer | 1.00 |  |" in figures.table()


def test_who_took_no_part_is_named_with_the_reason() -> None:
    figures = Figures("bench")
    figures.note("puts/s", "lumina", 1)
    figures.left_out["peer"] = "not installed: `make bench-peers`"
    assert figures.table().endswith("| not measured | peer | not installed: `make bench-peers` | |")
    assert figures.to_json()["left_out"] == {"peer": "not installed: `make bench-peers`"}


def test_what_grows_is_kept_by_size() -> None:
    figures = Figures("bench")
    for size, seconds in ((10, 1.0), (1_000, 2.0)):
        figures.note_at(size, "s", "lumina", seconds)
    assert figures.found == {"s, at 10": {"lumina": [1.0]}, "s, at 1,000": {"lumina": [2.0]}}
    assert figures.growth == {"s": {10: "s, at 10", 1_000: "s, at 1,000"}}


async def test_contenders_take_turns() -> None:
    figures = Figures("bench")
    order: list[str] = []

    def contender(name: str) -> Work:
        async def work() -> Mapping[str, float]:
            order.append(name)
            return {"s": float(len(order))}

        return work

    await take_turns(figures, {"lumina": contender("a"), "peer": contender("b")}, 2)
    assert order == ["a", "b", "a", "b"]
    assert figures.found == {"s": {"lumina": [1.0, 3.0], "peer": [2.0, 4.0]}}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of matplotlib's own dependencies
def test_a_run_is_kept_as_json_table_and_picture(tmp_path: Path) -> None:
    figures = Figures("bench", expectation="twice as fast")
    for number in (1.0, 2.0):
        figures.note("puts/s", "lumina", 2 * number)
        figures.note("puts/s", "peer", number)
        figures.note("alone", "lumina", number)
        for size in (1, 10):
            figures.note_at(size, "growing", "lumina", number)
    figures.save(tmp_path, {"cores": 2})
    kept = json.loads((tmp_path / "bench.json").read_text())
    assert kept["machine"] == {"cores": 2}
    assert kept["expectation"] == "twice as fast"
    assert (tmp_path / "bench.md").read_text().startswith("| | |")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_every_benchmark_is_listed_and_its_short_form_exists() -> None:
    modules = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - APART
    assert modules == set(BENCHES)
    for name, bench in BENCHES.items():
        source = (ROOT / "benchmarks" / f"{name}.py").read_text()
        assert bench.saves == ("finish(" in source), name
        assert re.match(r'"""[A-Z]', source), name


def test_a_profile_names_functions_by_themselves_and_with_what_they_call() -> None:
    stacks = """run (threading.py:1);with_lumina (benchmarks/crawl.py:80);parse (selectolax/parser.py:5) 3
run (threading.py:1);EpollSelector.select (selectors.py:468) 50
run (threading.py:1);with_lumina (benchmarks/crawl.py:82);decode (json/decoder.py:7) 1
 5
<module> (benchmarks/crawl.py:1);_load (<frozen importlib._bootstrap>:9) 96
"""
    told = report(stacks)
    assert told.startswith("4 samples")
    assert " 75.0 %  parse (selectolax/parser.py)" in told
    assert "100.0 %  with_lumina (benchmarks/crawl.py)" in told
    assert "importlib" not in told


def test_every_peer_has_a_version() -> None:
    for line in (ROOT / "benchmarks" / "peers.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w.\[\]-]+==[\w.]+", line), line
