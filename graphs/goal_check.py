"""What can be wrong with a goal file, each problem with its line.

The checks read plain YAML data and step over what has the wrong shape (the model of ``goals`` reports that), so that
one reading of the file tells every problem.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import LuminaError

Place = tuple[int | str, ...]
"""Keys and positions that lead to a value, from the top of the file."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Something to mend."""

    line: int
    """From 1."""
    text: str


class InvalidGoalFile(LuminaError):
    """The goal file cannot be used; the text has one line for each problem."""

    def __init__(self, path: Path, problems: Collection[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        """All that was found, by line."""
        super().__init__("\n".join(f"{path.name}:{problem.line}: {problem.text}" for problem in self.problems))


@dataclass(frozen=True)
class Source:
    """The data of a YAML text, where each value stands, and what is wrong with the text itself."""

    data: Any
    lines: Mapping[Place, int]
    problems: tuple[Problem, ...] = ()

    def line(self, place: Place) -> int:
        """The line of a value, or of the nearest thing around it that the file has."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def read_yaml(text: str) -> Source:
    """Data and positions of a YAML 1.2 text; syntax errors and keys that occur twice are its problems."""
    from ruamel.yaml import YAML  # slow to import, and only whoever reads a goal file needs it
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    yaml = YAML(typ="safe", pure=True)
    yaml.allow_duplicate_keys = True
    try:
        node = yaml.compose(text)
        data = None if node is None else yaml.constructor.construct_document(node)  # `load` would parse it again
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(filter(None, (error.context, error.problem)))
        return Source(None, {}, (Problem(mark.line + 1 if mark else 1, f"not valid YAML: {what}"),))
    except YAMLError as error:
        return Source(None, {}, (Problem(1, f"not valid YAML: {' '.join(str(error).split())}"),))
    except RecursionError:
        return Source(None, {}, (Problem(1, "is nested too deeply"),))
    except ValueError as error:  # such as a date that no calendar has
        return Source(None, {}, (Problem(1, f"not valid YAML: {error}"),))
    lines: dict[Place, int] = {}
    return Source(data, lines, tuple(_positions(node, (), lines, set())))


def _positions(node: Any, place: Place, lines: dict[Place, int], inside: set[int]) -> Iterator[Problem]:
    """Note where each value starts (a mapping's at its key); yields keys that occur twice."""
    from ruamel.yaml.nodes import MappingNode, SequenceNode

    if node is None or id(node) in inside:
        return
    lines.setdefault(place, node.start_mark.line + 1)
    inside = inside | {id(node)}
    if isinstance(node, SequenceNode):
        for position, child in enumerate(node.value):
            yield from _positions(child, (*place, position), lines, inside)
    elif isinstance(node, MappingNode):
        for key, child in node.value:
            line, name = key.start_mark.line + 1, str(key.value)
            if (*place, name) in lines:
                yield Problem(line, f"key «{name}» occurs twice; first in line {lines[(*place, name)]}")
                continue
            lines[(*place, name)] = line
            yield from _positions(child, (*place, name), lines, inside)


@dataclass(frozen=True)
class _Way:
    id: str
    place: Place
    agent: Any
    requires: tuple[tuple[str, Place], ...]


@dataclass(frozen=True)
class _Goal:
    id: str
    place: Place
    ways: tuple[_Way, ...]


def meaning_problems(source: Source, agents: Mapping[str, Collection[str]] | None) -> list[Problem]:
    """Duplicates, unknown goals and agents, and goals that no order reaches.

    Args:
        source: The file.
        agents: The goals that each agent can achieve; None leaves agents unchecked.
    """
    goals = _goals(source.data)
    known: dict[str, _Goal] = {}
    for goal in goals:
        known.setdefault(goal.id, goal)
    problems = _duplicates(source, goals)
    listed = ", ".join(known) or "none"
    for goal in goals:
        for way in goal.ways:
            problems += [
                Problem(
                    source.line(place), f"unknown goal «{name}» in requires of «{goal.id}.{way.id}»; known: {listed}"
                )
                for name, place in way.requires
                if name not in known
            ]
            problems += _agent_problems(source, goal, way, agents)
    for intent, value in _items(_get(source.data, "intents")):
        problems += [
            Problem(source.line(place), f"unknown goal «{name}» in intent «{intent}»; known: {listed}")
            for name, place in _strings(_get(value, "goals"), ("intents", intent, "goals"))
            if name not in known
        ]
    return problems + _unreachable(source, known)


def _duplicates(source: Source, goals: list[_Goal]) -> list[Problem]:
    named = [("goal", goal.id, (*goal.place, "id")) for goal in goals]
    named += [("way", f"{goal.id}.{way.id}", (*way.place, "id")) for goal in goals for way in goal.ways]
    named += [
        ("standing goal", one["id"], ("standing", position, "id"))
        for position, one in enumerate(_list(_get(source.data, "standing")))
        if isinstance(_get(one, "id"), str)
    ]
    first: dict[tuple[str, str], int] = {}
    problems: list[Problem] = []
    twice = {goal.id for place, goal in enumerate(goals) if goal.id in {other.id for other in goals[:place]}}
    for kind, name, place in named:
        line = source.line(place)
        before = first.setdefault((kind, name), line)
        if before != line and not (kind == "way" and name.partition(".")[0] in twice):
            problems.append(Problem(line, f"two {kind}s are called «{name}»; the first is in line {before}"))
    return problems


def _agent_problems(
    source: Source, goal: _Goal, way: _Way, agents: Mapping[str, Collection[str]] | None
) -> Iterator[Problem]:
    if agents is None or not isinstance(way.agent, str):
        return
    line = source.line((*way.place, "agent"))
    if way.agent not in agents:
        known = ", ".join(sorted(agents)) or "none"
        yield Problem(line, f"unknown agent «{way.agent}» in way «{goal.id}.{way.id}»; known: {known}")
    elif goal.id not in agents[way.agent]:
        able = ", ".join(sorted(agents[way.agent])) or "none"
        yield Problem(line, f"agent «{way.agent}» does not achieve goal «{goal.id}»; it achieves: {able}")


def _unreachable(source: Source, goals: Mapping[str, _Goal]) -> list[Problem]:
    """Goals that no order reaches, with the circle that is in the way; unknown requirements count as met."""
    lost = {name: goal for name, goal in goals.items() if goal.ways}
    while usable := [name for name, goal in lost.items() if any(not _missing(way, lost) for way in goal.ways)]:
        for name in usable:
            del lost[name]
    problems: list[Problem] = []
    told: set[str] = set()
    for name, goal in lost.items():
        path = [name]
        while (after := min(_missing(lost[path[-1]].ways[0], lost), key=list(lost).index)) not in path:
            path.append(after)
        circle = path[path.index(after) :]
        line = source.line((*goal.place, "id"))
        if name in circle and not told.intersection(circle):
            told.update(circle)
            problems.append(Problem(line, f"no order reaches goal «{name}»: {' requires '.join([*circle, after])}"))
        elif name not in told:
            problems.append(
                Problem(line, f"goal «{name}» is unreachable: every way requires a goal that is, as {path[1]}")
            )
    return problems


def _missing(way: _Way, lost: Mapping[str, _Goal]) -> list[str]:
    return [name for name, _ in way.requires if name in lost]


def _goals(data: Any) -> list[_Goal]:
    """The goals as far as they have the right shape."""
    found: list[_Goal] = []
    for position, goal in enumerate(_list(_get(data, "goals"))):
        if not isinstance(_get(goal, "id"), str):
            continue
        place: Place = ("goals", position)
        ways = [
            _Way(
                way["id"],
                (*place, "ways", number),
                way.get("agent"),
                tuple(_strings(way.get("requires"), (*place, "ways", number, "requires"))),
            )
            for number, way in enumerate(_list(goal.get("ways")))
            if isinstance(_get(way, "id"), str)
        ]
        found.append(_Goal(goal["id"], place, tuple(ways)))
    return found


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _items(value: Any) -> list[tuple[str, Any]]:
    return [(str(key), one) for key, one in value.items()] if isinstance(value, dict) else []


def _strings(value: Any, place: Place) -> list[tuple[str, Place]]:
    return [(one, (*place, position)) for position, one in enumerate(_list(value)) if isinstance(one, str)]
