"""What the README says is so."""

from __future__ import annotations

import re
from pathlib import Path

import typer

import cli
from graphs.drawing import goals_mermaid
from graphs.goals import load_goals

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_drawing_of_the_goals_is_the_current_one() -> None:
    drawn = README.partition("<!-- goals:begin -->\n```mermaid\n")[2].partition("\n```\n<!-- goals:end -->")[0]
    assert drawn == goals_mermaid(load_goals(ROOT / "goal_lattice.yml").ground(["topic"])).strip()


def test_every_command_it_names_exists() -> None:
    known = set(typer.main.get_group(cli.app).commands)
    assert set(re.findall(r"(?:\.venv/bin/lumina|`lumina) ([a-z]+)", README)) <= known
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
