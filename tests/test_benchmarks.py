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
from benchmarks.plots import MOST_BYTES, cells_of, draw_kept
from benchmarks.profiling import report

ROOT = Path(__file__).parents[1]
APART = {
    "figures",
    "harness",
    "engine",
    "profiling",
    "plots",
    "__main__",
    "reader_data",
    "reader_fit",
    "token_match_fit",
    "reader_network",
    "reader_confidence",
    "recall_fit",
    "made_up_passages",
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

    again = Figures.kept(tmp_path / "bench.json")
    assert (again.found, again.growth) == (figures.found, figures.growth)
    [picture] = draw_kept(tmp_path, tmp_path / "drawn")
    assert picture.read_bytes() == (tmp_path / "bench.png").read_bytes()


def test_what_lumina_did_alone_stands_together_by_its_unit() -> None:
    figures = Figures("bench")
    for measure in ("few: ms", "many: ms", "few: share"):
        figures.note(measure, "lumina", 1.0)
    for who in ("lumina", "peer"):
        figures.note("both: ms", who, 2.0)
    figures.note_at(10, "growing", "lumina", 3.0)
    assert cells_of(figures) == {
        "both: ms": {"lumina": [2.0], "peer": [2.0]},
        "ms": {"few": [1.0], "many": [1.0]},
        "few: share": {"lumina": [1.0]},
    }


def test_no_figures_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run a benchmark first"):
        draw_kept(tmp_path, tmp_path / "drawn")


def test_the_documentation_shows_a_small_picture_of_every_benchmark_that_saves_its_figures() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    for name in (name for name, bench in BENCHES.items() if bench.saves):
        picture = ROOT / "docs" / "pictures" / "performance" / f"{name}.png"
        assert f"](pictures/performance/{name}.png)" in page, name
        assert picture.stat().st_size < MOST_BYTES, name


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


def test_a_profile_of_several_processes_looks_at_those_that_are_named() -> None:
    bench = 'process 1:"python -m benchmarks.gateway";'
    stacks = f"""{bench}load (benchmarks/gateway.py:1) 7
{bench}process 2:"python cli.py serve --port 1";chat (serving/chat.py:9) 4
{bench}process 3:"litellm --port 2";chat (litellm/proxy.py:9) 5
"""
    told = report(stacks, ["cli.py serve"])
    assert told.startswith("4 samples")
    assert "100.0 %  chat (serving/chat.py)" in told
    assert "process" not in told


def test_every_peer_has_a_version() -> None:
    for line in (ROOT / "benchmarks" / "peers.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w.\[\]-]+==[\w.]+", line), line
