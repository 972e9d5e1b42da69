"""The house: which room may use which."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LEVELS = {
    "errors": 0,
    "memory": 1,
    "models": 1,
    "tools": 2,
    "agents": 3,
    "graphs": 4,
    "serving": 5,
    "docs": 4,
    "services": 6,
    "settings": 1,
    "server": 7,
    "worker": 7,
    "studio": 7,
    "logs": 1,
    "commands": 8,
    "evaluation": 9,
    "cli": 10,
    "masterchat": 0,
    "deploy": 0,
}
"""Every module and package of the root; a room may use those below it. ``masterchat`` and ``deploy`` stand alone."""

ENTRY_POINTS = {"server", "worker", "studio", "cli", "commands", "services", "evaluation"}
OUTSIDE = {
    *(".venv", ".venv-clients", ".venv-manifests", ".venv-peers", ".venv-studio", ".venv-webui"),
    *("build", "tests", "benchmarks", "notebooks", "hooks"),
}
SOURCES = [path for path in sorted(ROOT.rglob("*.py")) if not OUTSIDE & set(path.relative_to(ROOT).parts)]


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found & set(LEVELS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    own = room(path)
    assert own in LEVELS, f"{own} has no place in the house"
    for other in imports(path) - {own}:
        assert LEVELS[other] < LEVELS[own], f"{path.relative_to(ROOT)} uses {other}, which is not below {own}"
        if other == "settings":
            assert own in ENTRY_POINTS, f"{path.relative_to(ROOT)} reads the settings; only entry points may"


def test_the_client_needs_nothing_of_the_application() -> None:
    modules = sorted((ROOT / "masterchat").glob("*.py"))
    assert modules
    assert set().union(*map(imports, modules)) <= {"masterchat"}
