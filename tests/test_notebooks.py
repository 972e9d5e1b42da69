"""Every notebook runs from the first cell to the last, and is kept without outputs."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


async def execute(path: Path) -> dict[str, Any]:
    """Run the cells in one namespace, with ``await`` at the top level as a notebook has it."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(code_cells(path), 1):
        source, name = "".join(cell["source"]), f"{path.name}, cell {number}"
        code: CodeType = compile(source, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        pending = eval(code, namespace)
        if inspect.iscoroutine(pending):
            await pending
    return namespace


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_kept(path: Path) -> None:
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code_cells(path))


@pytest.mark.slow
async def test_the_quick_start_reads_answers_draws_and_counts(
    tmp_path: Path, sample: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WIKI_SOURCE", str(sample))
    monkeypatch.setenv("LLM_PROVIDER", "embedded")
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("QDRANT_URL", raising=False)
    names = await execute(next(path for path in NOTEBOOKS if path.stem == "quick_start"))
    [crawl] = names["crawled"]["report"]["crawls"]
    assert len(crawl["titles"]) == 5
    assert "Douady" in names["answer"]["answer"]
    assert names["picture"]._repr_svg_().startswith("<svg")
    assert dict(names["found"].rows)["node.add"] > 0
    assert f"revision {names['answer']['citations'][0]['revision']}" in capsys.readouterr().out


SQUAD = Path(__file__).parents[2] / "shared" / "data" / "squad"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(Path("absent"), id="without questions"),
        pytest.param(
            SQUAD,
            id="with questions",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(not SQUAD.exists(), reason="the questions of ../shared/data/squad are not here"),
            ],
        ),
    ],
)
async def test_the_evaluation_counts_where_there_are_questions(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SQUAD_DIR", str(data))
    monkeypatch.setenv("SQUAD_SAMPLE", "10")
    monkeypatch.setenv("LLM_PROVIDER", "embedded")
    names = await execute(next(path for path in NOTEBOOKS if path.stem == "evaluate_retrieval"))
    assert "True 0.667" in capsys.readouterr().out
    assert set(names["results"]) == ({"Lumina", "plain chain"} if data == SQUAD else set())
    if data == SQUAD:
        assert names["results"]["Lumina"]["recall@3"] > 0.6
