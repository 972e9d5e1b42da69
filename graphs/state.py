"""The state of one run. Every value is plain JSON, so that any checkpoint can be read without Lumina's classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from typing_extensions import TypedDict

from agents.spec import RunRequest, RunView, Usage


def merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Later values win; a value of None removes the key."""
    merged = {**old, **new}
    return {key: value for key, value in merged.items() if value is not None}


def extend(old: list[Any], new: list[Any]) -> list[Any]:
    """Append."""
    return [*old, *new]


def add_usage(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Sum token counts and dollars."""
    return (Usage(**old) + Usage(**new)).model_dump()


class RunInput(TypedDict):
    """What starts a run."""

    request: dict[str, Any]
    """A ``RunRequest``."""


class RunState(RunInput, total=False):
    """What a run knows."""

    holding: list[str]
    """The lattice state S: goal instances that hold, by checked facts."""
    chain: Annotated[list[list[str]], extend]
    """Every lattice state walked, in order."""
    assigned: dict[str, str]
    """Goal instance → way instance of the current superstep."""
    results: Annotated[dict[str, Any], merge]
    """Goal instance → output of the agent that worked on it."""
    carry: Annotated[dict[str, Any], merge]
    """Goal instance → what its agent wants handed back to go on."""
    walked: Annotated[list[dict[str, Any]], extend]
    """Every agent run: goal, way, agent, seconds, ok."""
    failures: Annotated[list[dict[str, Any]], extend]
    """Every failure: goal, way, agent, error, transient, exhausted."""
    decided: int
    """How many of the failures have been decided upon."""
    ruled_out: Annotated[dict[str, str], merge]
    """Way instance → why it is not used any more."""
    costs: dict[str, float]
    """Way of the goal file → expected cost, learned before the run began; the same to its end."""
    rounds: int
    retractions: int
    usage: Annotated[dict[str, Any], add_usage]
    outcome: dict[str, Any] | None
    """Set at the end: status (done, partial, failed), reason, detail, notices."""


class RunOutput(TypedDict, total=False):
    """What a run leaves behind."""

    request: dict[str, Any]
    results: dict[str, Any]
    chain: list[list[str]]
    walked: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    usage: dict[str, Any]
    outcome: dict[str, Any] | None


def view(state: RunState, task_id: str) -> RunView:
    """What an agent may see of a state."""
    return RunView(
        task_id=task_id,
        request=RunRequest(**state["request"]),
        results=state.get("results", {}),
        failures=tuple(state.get("failures", [])[state.get("decided", 0) :]),
        links={title: link for one in state.get("carry", {}).values() for title, link in one.get("links", {}).items()},
    )
