"""Goal files of the first Lumina, converted to version 1.

The old format has ``goals`` (``id``, ``name``, ``description``, ``subgoals``: ids, or goals written in place),
``dependencies`` (``source``, ``target``, ``type``) and ``metrics``. It says what comes before what, but not who does
it nor at what cost: every goal gets one way, ``achieve``, with a given agent and a prior cost to be replaced.

What comes before what: a goal requires its subgoals; ``a requires b`` puts b first; ``a enables b`` puts a first;
``a monitored_by b`` gives no order. Metrics become a sentence of ``why`` where they name a goal, else a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from graphs.goal_check import InvalidGoalFile, Place, Problem, Source, read_yaml

PRIOR_S = 60
"""Expected seconds of an imported way; nothing is known of it."""
DEPENDENCIES = ("requires", "enables", "monitored_by")
SCHEMA_COMMENT = "# yaml-language-server: $schema=goal_lattice.schema.json"

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9 ()/.,;'+*_-]*[A-Za-z0-9).]")
_WORDS_WITH_MEANING = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


@dataclass
class _Goal:
    id: str
    """As the old file has it."""
    place: Place
    title: str
    why: str
    requires: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)

    @property
    def new_id(self) -> str:
        """The id in the form of version 1: lower-case letters, digits, _ and -, beginning with a letter."""
        spelled = re.sub(r"[^a-z0-9_-]+", "_", self.id.lower()).strip("_")
        return spelled if spelled[:1].isalpha() else f"g_{spelled}"


def import_goals(path: Path, *, agent: str = "orchestrator") -> str:
    """The YAML text of version 1 for an old goal file.

    Args:
        path: The old file.
        agent: Who walks every way, until somebody says better.

    Raises:
        InvalidGoalFile: With every problem of the old file, each with its line: wrong shape, unknown ids, duplicates,
            and circles with their path.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidGoalFile(path, [Problem(1, f"cannot be read as text ({error})")]) from error
    source = read_yaml(text)
    reading = _Reading(source)
    problems = [*source.problems, *(reading.read() if isinstance(source.data, dict) else [_no_goals(source)])]
    if problems:
        raise InvalidGoalFile(path, problems)
    return _written(path.name, reading, agent)


def _no_goals(source: Source) -> Problem:
    return Problem(1, "has no goals; the old format has goals, dependencies and metrics at its root")


class _Reading:
    """Takes an old file apart."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.goals: dict[str, _Goal] = {}
        self.comments: list[str] = []
        self._edges: list[tuple[str, str, Place]] = []
        """(what requires, what is required, where that is said)"""

    def read(self) -> list[Problem]:
        """Read everything; what is wrong, if anything."""
        data = self._source.data
        problems = list(self._take_goals(data.get("goals"), ("goals",)))
        if not self.goals and not problems:
            return [_no_goals(self._source)]
        metrics = [one for one in _listed(data.get("metrics")) if isinstance(one, (dict, str))]
        names = {str(one.get("id") or one.get("name")) for one in metrics if isinstance(one, dict)}
        problems += self._take_dependencies(data.get("dependencies"), names)
        known = ", ".join(self.goals)
        problems += [
            Problem(self._source.line(place), f"unknown goal «{name}»; known: {known}")
            for above, below, place in self._edges
            for name in (above, below)
            if name not in self.goals
        ]
        for metric in metrics:
            self._take_metric(metric)
        return problems or list(self._order())

    def _take_goals(self, listed: Any, place: Place, parent: str | None = None) -> Iterator[Problem]:
        if listed is not None and not isinstance(listed, list):
            yield Problem(self._source.line(place), f"{place[-1]} is {type(listed).__name__}: a list is needed")
            return
        for position, goal in enumerate(listed or []):
            here = (*place, position)
            if parent is not None and isinstance(goal, str | int):
                self._edges.append((parent, str(goal), here))
                continue
            if not isinstance(goal, dict) or not isinstance(goal.get("id"), str | int) or not str(goal["id"]).strip():
                yield Problem(self._source.line(here), "a goal needs an id")
                continue
            name = str(goal["id"])
            found = _Goal(
                name, here, str(goal.get("name") or name), " ".join(str(goal.get("description") or "").split())
            )
            for other in self.goals.values():
                if other.new_id == found.new_id:
                    first = self._source.line(other.place)
                    yield Problem(
                        self._source.line(here), f"two goals are called «{found.new_id}»; the first is in line {first}"
                    )
            self.goals.setdefault(name, found)
            if parent is not None:
                self._edges.append((parent, name, here))
            yield from self._take_goals(goal.get("subgoals"), (*here, "subgoals"), name)

    def _take_dependencies(self, listed: Any, metrics: set[str]) -> Iterator[Problem]:
        for position, one in enumerate(_listed(listed)):
            here: Place = ("dependencies", position)
            kind = one.get("type") if isinstance(one, dict) else None
            if kind not in DEPENDENCIES or not {"source", "target"} <= one.keys():
                accepted = ", ".join(DEPENDENCIES)
                text = f"a dependency needs source, target and a type of {accepted}; its type is «{kind}»"
                yield Problem(self._source.line(here), text)
                continue
            start, end = str(one["source"]), str(one["target"])
            if kind == "requires":
                self._edges.append((start, end, here))
            elif kind == "enables":
                self._edges.append((end, start, here))
            elif start not in self.goals or end not in {*self.goals, *metrics}:
                name = end if start in self.goals else start
                known = ", ".join([*self.goals, *sorted(metrics)])
                yield Problem(self._source.line(here), f"unknown goal or metric «{name}»; known: {known}")
            else:
                self.goals[start].metrics.append(f"Monitored by {end}.")

    def _take_metric(self, metric: Mapping[str, Any] | str) -> None:
        if isinstance(metric, str):
            self.comments.append(f"metric {metric}")
            return
        goal = self.goals.get(str(metric.get("goal") or metric.get("goal_id")))
        rest = {key: value for key, value in metric.items() if key not in ("id", "name", "goal", "goal_id")}
        name = metric.get("name") or metric.get("id") or "without a name"
        text = f"{name}{': ' if rest else ''}{', '.join(f'{key} {value}' for key, value in rest.items())}"
        if goal:
            goal.metrics.append(f"Metric {text}.")
        else:
            self.comments.append(f"metric {text}")

    def _order(self) -> Iterator[Problem]:
        """Give every goal what it requires, or tell the circle in the way."""
        for above, below, _ in self._edges:
            if below not in self.goals[above].requires:
                self.goals[above].requires.append(below)
        try:
            TopologicalSorter({goal.id: goal.requires for goal in self.goals.values()}).prepare()
        except CycleError as error:
            circle = error.args[1][::-1]  # graphlib tells it from what is required to what requires
            place = next(place for above, below, place in self._edges if (above, below) == (circle[0], circle[1]))
            yield Problem(self._source.line(place), f"a circle: {' requires '.join(circle)}")


def _written(name: str, reading: _Reading, agent: str) -> str:
    lines = [
        SCHEMA_COMMENT,
        "#",
        f"# Imported from {_one_line(name)}. The agent and the cost of every way are placeholders: say who does it,",
        "# what it costs, and what requests ask for (intents); then `lumina goals` checks the file.",
        *[f"# {_one_line(comment)}" for comment in reading.comments],
        "version: 1",
        "",
        "goals:",
    ]
    for goal in reading.goals.values():
        why = " ".join([*([goal.why] if goal.why else []), *goal.metrics])
        requires = ", ".join(_scalar(reading.goals[one].new_id) for one in goal.requires)
        lines += [
            f"  - id: {_scalar(goal.new_id)}" + (f"  # {_one_line(goal.id)}" if goal.new_id != goal.id else ""),
            f"    title: {_scalar(goal.title)}",
            *([f"    why: {_scalar(why)}"] if why else []),
            "    ways:",
            "      - id: achieve",
            f"        agent: {_scalar(agent)}",
            f"        requires: [{requires}]",
            f"        cost: {{seconds: {PRIOR_S}}}",
        ]
    return "\n".join(lines) + "\n"


def _scalar(text: str) -> str:
    """A string as YAML: plain where that is safe, else in double quotes."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS_WITH_MEANING:
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
