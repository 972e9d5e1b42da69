"""Every notebook runs from the first cell to the last in a kernel of its own, and is kept without outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

SEEN = {
    "quick_start": ["Douady", "revision 1001", "<svg", "node.add"],
    "goal_lattice_by_hand": ["18 s: find, read, index, quote", "31 s", "so write", "23 s: shorten, write", "<svg"],
    "agents_alone": ["4 pages", "1918", "revision", "I don't know.", "step -1", "['Koch snowflake'] done"],
    "evaluate_retrieval": ["True 0.667"],
    "query_events": ["plan.done", "crawled.links[Koch", "links", "image/png"],
}
"""What a reader has to find in the outputs."""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_kept(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own packages
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
async def test_it_runs_and_shows_what_it_speaks_of(
    path: Path, tmp_path: Path, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"DATA_DIR": str(tmp_path / "data"), "WIKI_SOURCE": str(sample), "LLM_PROVIDER": "embedded"}
    given |= {"SQUAD_SAMPLE": "10"}
    for name, value in {**given, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path / "ipython")}.items():
        monkeypatch.setenv(name, value)
    for name in ("REDIS_URL", "QDRANT_URL"):
        monkeypatch.delenv(name, raising=False)
    notebook = cast(Any, nbformat).read(path, as_version=4)
    await NotebookClient(notebook, timeout=250, kernel_name="python3").async_execute(cwd=str(ROOT))
    shown = json.dumps([output for cell in code_cells(notebook) for output in cell.outputs], ensure_ascii=False)
    for words in SEEN.get(path.stem, []):
        assert words in shown, shown[-3_000:]


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]
