"""The goal file: goals, ways, intents, standing goals and limits as data, and the lattice that they make for a request.

The file is YAML, version 1. ``goal_lattice.schema.json``, made from these models, lets editors complete it.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from graphs.goal_check import InvalidGoalFile, Place, Problem, Source, meaning_problems, read_yaml
from graphs.lattice import Lattice, Way

__all__ = [
    "GoalFile",
    "InvalidGoalFile",
    "check_goals",
    "goal_schema",
    "load_goals",
    "parse_instance",
    "read_goals",
    "schema_text",
]

Id = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
"""Lower-case letters, digits, _ and -; starts with a letter."""
Text = Annotated[str, Field(min_length=1)]
Package = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")]
"""Dotted name of a Python package."""
Ids = Annotated[tuple[Id, ...], Strict(False)]  # YAML has lists, the model tuples
Amount = Annotated[float, Field(ge=0)]


class _Part(BaseModel):
    """What all parts of the file have in common: no other keys, no conversions, no change afterwards."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Cost(_Part):
    """Expected cost of a way, before anything was learned about it."""

    seconds: Amount = 0.0
    """Wall time."""
    usd: Amount = 0.0
    """US dollars for paid models."""
    loss_s: Amount = 0.0
    """Seconds that a reader would rather wait than take the poorer result of this way."""


class WaySpec(_Part):
    """One manner of achieving a goal."""

    id: Id
    """Unique within the goal; the full name is goal.way, e.g. crawled.links."""
    agent: Text
    """Name of the agent that does it."""
    requires: Ids = ()
    """Goals that must hold before. One that exists for each topic means that of the same topic, or all topics' ones."""
    cost: Cost = Cost()
    """Expected cost, the prior that history updates."""
    params: dict[str, Any] = {}
    """Arguments for the agent."""


class GoalSpec(_Part):
    """Something that can come to hold."""

    id: Id
    """Unique in the file."""
    title: Text
    """What holds, in a few words."""
    why: str = ""
    """What it is good for."""
    value: Amount = 1.0
    """What having it is worth; decides what is done first, never what is done."""
    each: Literal["topic"] | None = None
    """The goal exists once for each topic of a request."""
    ways: Annotated[tuple[WaySpec, ...], Strict(False), Field(min_length=1)]
    """How it can be achieved; the planner takes the one with which the whole plan costs least."""


class Intent(_Part):
    """What a kind of request asks for."""

    goals: Ids = ()
    """Goals to reach."""
    examples: Annotated[tuple[Text, ...], Strict(False)] = ()
    """Messages of this kind; a new message has the intent whose examples it is nearest to."""


class StandingTask(_Part):
    """The task that a standing goal submits; keys beside kind are the task's own."""

    model_config = ConfigDict(extra="allow")

    kind: Text
    """Kind of the task."""


class Standing(_Part):
    """A goal that is kept: when its predicate is false, its task is submitted."""

    id: Id
    """Unique among standing goals."""
    title: str = ""
    """What holds, in a few words."""
    predicate: Text
    """SQL over the event store that returns one true or false."""
    task: StandingTask
    """What is submitted when the predicate is false."""
    subjects: Text | None = None
    """SQL over the event store: one task for each row, whose columns (owner, topics, …) are fields of the task."""
    cooldown_s: Amount = 3600.0
    """Seconds between two submissions at least."""


class Limits(_Part):
    """What ends a run that would not end by itself, and what a dollar is worth."""

    max_attempts: Annotated[int, Field(ge=1)] = 3
    """Times that a way may be tried in a run."""
    max_retractions: Annotated[int, Field(ge=0)] = 8
    """Times that goals which held may stop to hold in a run."""
    max_rounds: Annotated[int, Field(ge=1)] = 1000
    """Planning rounds of a run."""
    seconds_per_usd: Amount = 3600.0
    """Seconds that are worth as much as one dollar, so that the two kinds of cost can be added."""


class GoalFile(_Part):
    """A whole goal file."""

    version: Literal[1]
    """Version of the format."""
    agents: Annotated[tuple[Package, ...], Strict(False)] = ()
    """Packages whose modules have the agents (a ``SPEC`` each); the shipped ones when left out."""
    goals: Annotated[tuple[GoalSpec, ...], Strict(False), Field(min_length=1)]
    """Everything that can come to hold."""
    intents: dict[Id, Intent] = {}
    """Kinds of requests and what they ask for."""
    standing: Annotated[tuple[Standing, ...], Strict(False)] = ()
    """Goals that are kept over time."""
    limits: Limits = Limits()
    """Limits of a run."""

    def ground(self, topics: Sequence[str]) -> Lattice:
        """The lattice of a request: a goal with ``each`` once for each topic, costs in seconds.

        Way ids are ``goal.way`` or ``goal.way[topic]``. Without topics there are no goals for each topic, and goals
        that require such a goal require nothing of it.
        """
        unique = tuple(dict.fromkeys(topics))
        ways: dict[str, list[Way]] = {}
        values: dict[str, float] = {}
        for goal in self.goals:
            for topic in unique if goal.each else (None,):
                instance = _instance(goal.id, topic)
                values[instance] = goal.value
                ways[instance] = [self._way(goal, way, topic, unique) for way in goal.ways]
        return Lattice(ways, values)

    def instances(self, goals: Collection[str], topics: Sequence[str]) -> frozenset[str]:
        """The goals of a request's lattice that ids of this file stand for, e.g. crawled → crawled[Fractal], ….

        Raises:
            KeyError: An id is not in the file.
        """
        each = {goal.id: goal.each for goal in self.goals}
        return frozenset(
            _instance(goal, topic) for goal in goals for topic in (dict.fromkeys(topics) if each[goal] else (None,))
        )

    def seconds(self, cost: Cost) -> float:
        """A cost in seconds, dollars converted at ``limits.seconds_per_usd``."""
        return cost.seconds + cost.usd * self.limits.seconds_per_usd + cost.loss_s

    def _way(self, goal: GoalSpec, way: WaySpec, topic: str | None, topics: Sequence[str]) -> Way:
        return Way(
            id=_instance(f"{goal.id}.{way.id}", topic),
            goal=_instance(goal.id, topic),
            agent=way.agent,
            requires=self.instances(way.requires, topics if topic is None else [topic]),
            cost=self.seconds(way.cost),
            params=way.params,
        )


def _instance(name: str, topic: str | None) -> str:
    return name if topic is None else f"{name}[{topic}]"


def parse_instance(instance: str) -> tuple[str, str | None]:
    """Id and topic of a goal or way of a lattice: ``crawled[Fractal]`` → ``("crawled", "Fractal")``, else no topic."""
    name, bracket, topic = instance.partition("[")
    return (name, topic.removesuffix("]")) if bracket else (name, None)


def load_goals(path: Path, *, agents: Mapping[str, Collection[str]] | None = None) -> GoalFile:
    """Read and check a goal file.

    Args:
        path: The YAML file.
        agents: The goals that each agent can achieve; None leaves agents unchecked.

    Raises:
        InvalidGoalFile: With every problem of the file, each with its line.
    """
    return check_goals(path, read_goals(path), agents=agents)


def read_goals(path: Path) -> Source:
    """Read a goal file, for ``check_goals``.

    Raises:
        InvalidGoalFile: It cannot be read, or is no YAML.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidGoalFile(
            path, [Problem(1, f"cannot be read ({error.strerror}); name another file, or set GOAL_FILE")]
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidGoalFile(path, [Problem(1, f"is not UTF-8 text (byte {error.start})")]) from error
    source = read_yaml(text)
    if source.data is None:
        raise InvalidGoalFile(path, source.problems or [Problem(1, "is empty; it needs version and goals")])
    return source


def check_goals(path: Path, source: Source, *, agents: Mapping[str, Collection[str]] | None = None) -> GoalFile:
    """The goals of a file that was read.

    Args:
        path: Where it was read, for the messages.
        source: What was read.
        agents: The goals that each agent can achieve; None leaves agents unchecked.

    Raises:
        InvalidGoalFile: With every problem of the file, each with its line.
    """
    problems = [*source.problems, *meaning_problems(source, agents)]
    try:
        loaded = GoalFile.model_validate(source.data)
    except ValidationError as error:
        raise InvalidGoalFile(path, problems + _shape_problems(source, error)) from error
    if problems:
        raise InvalidGoalFile(path, problems)
    return loaded


def _shape_problems(source: Source, error: ValidationError) -> list[Problem]:
    """What pydantic found, in the words of the file."""
    problems: list[Problem] = []
    for one in error.errors(include_url=False, include_context=True):
        place: Place = tuple(key for key in one["loc"] if key != "[key]")
        if one["type"] == "missing":
            text = f"{_spelled(source, place[:-1])} lacks «{place[-1]}»"
        elif one["type"] == "extra_forbidden":
            text = f"unknown key «{place[-1]}» in {_spelled(source, place[:-1])}; known: {', '.join(_keys(place[:-1]))}"
        elif one["type"] == "string_pattern_mismatch":
            text = f"{_spelled(source, place)} is «{one['input']}»: an id is lower-case letters, digits, _ and -"
        else:
            text = (
                f"{_spelled(source, place)} is {reprlib.repr(one['input'])}: {one['msg'][:1].lower()}{one['msg'][1:]}"
            )
        problems.append(Problem(source.line(place), text))
    return problems


def _spelled(source: Source, place: Place) -> str:
    """A place as a person names it: goals[crawled].ways[links].cost."""
    value, text = source.data, ""
    for key in place:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            value = None
        if isinstance(key, int):
            name = value.get("id") if isinstance(value, dict) else None
            text += f"[{name if isinstance(name, str) else key + 1}]"
        else:
            text += f".{key}" if text else key
    return text or "the file"


def _keys(place: Place) -> list[str]:
    """The keys that the part of the file at a place may have."""
    part: Any = goal_schema()
    root = part
    for key in place:
        part = part["items"] if isinstance(key, int) else part.get("properties", {}).get(key) or _any_value(part)
        if "$ref" in part:
            part = root["$defs"][part["$ref"].rpartition("/")[2]]
    return list(part.get("properties", {}))


def _any_value(part: Mapping[str, Any]) -> Any:
    return part.get("additionalProperties") or next(iter(part.get("patternProperties", {}).values()), {})


def goal_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of the file."""
    schema = GoalFile.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Lumina goal file"}


def schema_text() -> str:
    """The text of ``goal_lattice.schema.json``."""
    return json.dumps(goal_schema(), indent=2, ensure_ascii=False) + "\n"
