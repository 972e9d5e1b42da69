"""Goal files of the first Lumina become version 1, or are refused with the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphs.goal_import import import_goals
from graphs.goals import InvalidGoalFile, load_goals

OLD = """\
goals:
  - id: Knowledge
    name: Grow knowledge
    description: "The graph grows: every day"
    subgoals: [crawl, index]
  - id: crawl
    name: Crawl
    subgoals:
      - {id: fetch, name: "Fetch: pages"}
  - id: index
    name: Index
dependencies:
  - {source: index, target: crawl, type: requires}
  - {source: fetch, target: index, type: enables}
  - {source: crawl, target: pages_per_hour, type: monitored_by}
  - {source: fetch, target: index, type: monitored_by}
metrics:
  - {id: pages_per_hour, target: 100}
  - {name: recall, goal: index, threshold: 0.9}
"""


def convert(tmp_path: Path, text: str, agent: str = "orchestrator") -> str:
    (tmp_path / "old.yml").write_text(text)
    return import_goals(tmp_path / "old.yml", agent=agent)


def refused(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(InvalidGoalFile) as error:
        convert(tmp_path, text)
    return str(error.value).splitlines()


def test_every_dependency_gets_its_direction(tmp_path: Path) -> None:
    text = convert(tmp_path, OLD, agent="crawl")
    (tmp_path / "new.yml").write_text(text)
    new = load_goals(tmp_path / "new.yml")
    requires = {goal.id: set(goal.ways[0].requires) for goal in new.goals}
    assert requires == {
        "knowledge": {"crawl", "index"},
        "crawl": {"fetch"},
        "fetch": set(),
        "index": {"crawl", "fetch"},
    }
    assert {way.agent for goal in new.goals for way in goal.ways} == {"crawl"}
    assert new.goals[0].title == "Grow knowledge"
    assert [goal.title for goal in new.goals if goal.id == "fetch"] == ["Fetch: pages"]
    assert all(way.cost.seconds > 0 for goal in new.goals for way in goal.ways)


def test_the_schema_comes_first_and_metrics_are_kept(tmp_path: Path) -> None:
    text = convert(tmp_path, OLD)
    assert text.startswith("# yaml-language-server: $schema=goal_lattice.schema.json\n")
    assert "# metric pages_per_hour: target 100\n" in text
    assert "Metric recall: threshold 0.9." in text
    assert "Monitored by pages_per_hour." in text
    assert "id: knowledge  # Knowledge" in text


def test_a_circle_is_refused_with_its_path_and_line(tmp_path: Path) -> None:
    text = OLD.replace("type: enables", "type: requires")
    assert refused(tmp_path, text.replace("target: crawl,", "target: fetch,")) == [
        "old.yml:13: a circle: index requires fetch requires index"
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("target: crawl,", "target: crawly,", 13, "unknown goal «crawly»; known: Knowledge, crawl, fetch, index"),
        ("[crawl, index]", "[crawl, indx]", 5, "unknown goal «indx»"),
        ("target: pages_per_hour", "target: pages", 15, "unknown goal or metric «pages»"),
        ("type: enables", "type: blocks", 14, "a type of requires, enables, monitored_by; its type is «blocks»"),
        ("id: index", "id: crawl", 10, "two goals are called «crawl»; the first is in line 6"),
        ("- id: index\n    name", "- name", 10, "a goal needs an id"),
        ("subgoals: [crawl, index]", "subgoals: crawl", 5, "a list is needed"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, old: str, new: str, line: int, told: str) -> None:
    assert old in OLD
    found = refused(tmp_path, OLD.replace(old, new, 1))
    assert any(one.startswith(f"old.yml:{line}: ") and told in one for one in found), found


@pytest.mark.parametrize("text", ["", "- a\n", "goals: []\n", "goals: [\n", "metrics: [x]\n"])
def test_what_is_no_old_goal_file_is_refused(tmp_path: Path, text: str) -> None:
    assert refused(tmp_path, text)[0].startswith("old.yml:")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidGoalFile, match=r"gone\.yml:1: cannot be read"):
        import_goals(tmp_path / "gone.yml")


@pytest.mark.parametrize(
    "text", ["no", "1.0", "a: b", "a # b", 'say "x" \\', "- x", "tab\there", "{x}", "ünï—ç", "\x7f"]
)
def test_any_text_survives(tmp_path: Path, text: str) -> None:
    import json

    (tmp_path / "new.yml").write_text(
        convert(
            tmp_path,
            f"goals:\n  - {{id: true_, name: {json.dumps(text)}}}\n"
            if text != "\x7f"
            else 'goals: [{id: a, name: "\\x7f"}]',
        )
    )
    assert load_goals(tmp_path / "new.yml").goals[0].title == text
