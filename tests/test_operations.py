"""The blocks of docs/operations.md are run, one after the other, or say why not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINES = (ROOT / "docs/operations.md").read_text(encoding="utf-8").splitlines()


def blocks() -> list[tuple[str, str]]:
    """Each block, and the reason why it is not run, empty where it is."""
    found = []
    begun: tuple[int, str] | None = None
    for number, line in enumerate(LINES):
        if line.startswith("```") and begun is None:
            assert line == "```bash", f"line {number + 1}: {line}"
            reason = re.fullmatch(r"<!-- not run: (\S.*) -->", LINES[number - 1])
            begun = (number + 1, reason[1] if reason else "")
        elif line == "```" and begun is not None:
            found.append(("\n".join(LINES[begun[0] : number]), begun[1]))
            begun = None
    assert begun is None
    return found


@pytest.mark.slow
def test_the_blocks_run(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "lumina").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/cli.py" "$@"\n')
    (programs / "lumina").chmod(0o755)
    data = tmp_path / "data"
    path = f"{programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "DATA_DIR": str(data)}

    def run(script: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    run('lumina crawl "Koch snowflake" --max-nodes 2 --json')
    texts = [text for text, why_not in blocks() if not why_not]
    assert len(texts) == 7
    said = "".join(map(run, texts))
    assert "node.add" in said, "in the restored store"
    stored = re.search(r"events\.parquet\s+(\d+) events", said)
    restored = re.search(r"restored\s+(\d+)", said)
    assert stored
    assert restored
    assert int(restored[1]) == int(stored[1]) > 0
    assert "events read" in said, "for the graph"


def test_what_it_says_of_roles_is_so() -> None:
    from serving.roles import ROLES

    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (\d+)", "\n".join(LINES), re.MULTILINE))
    assert rows == {role.name: str(role.port) for role in ROLES.values() if role.name != "all"}
