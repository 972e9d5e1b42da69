"""The planner: from facts to the next steps. Pure: the same situation gives the same decision.

A ``Situation`` is everything that a decision rests on. It is logged with the decision on ``planner_log/v1``, so that
``replay`` can decide again from the log alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from errors import LuminaError
from graphs.goals import GoalFile
from graphs.lattice import Lattice
from graphs.search import NoPlan, Plan, Step, alternatives, plan


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What the planner knows when it decides."""

    targets: tuple[str, ...]
    """Ids of the goals that the intent asks for."""
    topics: tuple[str, ...]
    holding: frozenset[str]
    """The lattice state: goal instances that hold, by checked facts."""
    ruled_out: frozenset[str] = frozenset()
    """Way instances that must not be used any more."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """Way instance → expected cost learned here, in seconds; the file's prior counts where nothing was learned."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Title of an article without which an agent cannot go on → why. Nothing is chosen by it: what follows from it is
    that some goals do not hold any more."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, sets sorted."""
        return {
            "targets": list(self.targets),
            "topics": list(self.topics),
            "holding": sorted(self.holding),
            "ruled_out": sorted(self.ruled_out),
            "costs": dict(sorted(self.costs.items())),
            **({"links": dict(self.links)} if self.links else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Situation:
        """The inverse of ``to_json``."""
        return cls(
            targets=tuple(data["targets"]),
            topics=tuple(data["topics"]),
            holding=frozenset(data["holding"]),
            ruled_out=frozenset(data["ruled_out"]),
            costs=dict(data["costs"]),
            links=dict(data.get("links", {})),
        )


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do next, and why."""

    verdict: Literal["run", "done", "stuck"]
    steps: tuple[Step, ...] = ()
    """What runs now, in parallel: the steps of the plan whose requirements hold."""
    plan: Plan | None = None
    """The whole way from here to the targets."""
    fringe: tuple[str, ...] = ()
    """Every goal that could be added to the state now, whether the plan needs it or not."""
    candidates: tuple[dict[str, Any], ...] = ()
    """For every step of the plan its cost, value, and what its other ways would have cost."""
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values for the log."""
        return {
            "verdict": self.verdict,
            "run": [{"goal": step.goal, "way": step.way} for step in self.steps],
            "plan": [{"goal": step.goal, "way": step.way, "cost": step.cost} for step in self.plan.steps]
            if self.plan
            else [],
            "cost": self.plan.cost if self.plan else 0.0,
            "exact": self.plan.exact if self.plan else True,
            "fringe": list(self.fringe),
            "candidates": list(self.candidates),
            "why": self.why,
        }


def decide(goals: GoalFile, situation: Situation) -> Decision:
    """Choose the next steps.

    Least expected cost decides which ways are taken; value over cost decides the order; everything in the plan whose
    requirements hold runs now.
    """
    lattice = goals.ground(situation.topics)
    targets = goals.instances(situation.targets, situation.topics)
    holding = situation.holding & lattice.goals
    fringe = tuple(sorted(lattice.fringe(holding)))
    if targets <= holding:
        return Decision(verdict="done", fringe=fringe, why="every target holds")
    try:
        found = plan(lattice, holding, targets, blocked=situation.ruled_out, cost=situation.costs)
    except NoPlan as error:
        return Decision(verdict="stuck", fringe=fringe, why=str(error))
    now = found.frontier(holding)
    return Decision(
        verdict="run",
        steps=now,
        plan=found,
        fringe=fringe,
        candidates=tuple(_candidates(lattice, targets, found, situation)),
        why="; ".join([_why(found, now), *situation.links.values()]),
    )


def _candidates(
    lattice: Lattice, targets: frozenset[str], found: Plan, situation: Situation
) -> Iterable[dict[str, Any]]:
    others = alternatives(lattice, found.start, targets, found, blocked=situation.ruled_out, cost=situation.costs)
    for step in found.steps:
        yield {
            "goal": step.goal,
            "way": step.way,
            "cost": step.cost,
            "value": lattice.values[step.goal],
            "others": [
                {
                    "way": other.way,
                    "total": other.cost if math.isfinite(other.cost) else None,
                    "reason": other.reason,
                }
                for other in others[step.goal]
            ],
        }


def _why(found: Plan, now: tuple[Step, ...]) -> str:
    names = " and ".join(step.way for step in now)
    together = " together, for neither needs the other" if len(now) == 2 else " together" if len(now) > 2 else ""
    kind = "least" if found.exact else f"at most {found.cost - found.bound:.3g} s above the least"
    return f"{names}{together}: {_share(len(now), len(found.steps), f'{found.cost:.4g} s')}, the {kind} expected cost"


def _share(now: int, total: int, cost: str) -> str:
    """How much of a plan runs now, and what all of it costs."""
    if total == 1:
        return f"the only step needed, {cost}"
    if now == total:
        return f"{'both' if total == 2 else f'all {total}'} steps, {cost} in all"
    return f"first {'' if now == 1 else f'{now} '}of {total} steps, {cost} in all"


class ReplayDiffers(LuminaError):
    """A logged decision is not what the planner decides today."""


def replay(goals: GoalFile, log: Iterable[Mapping[str, Any]]) -> list[Decision]:
    """Decide again from logged situations.

    Args:
        goals: The goal file that the log was made with.
        log: Data of ``plan.step`` events; those that tell how a way ended (no ``decision`` in them) are passed over.

    Raises:
        ReplayDiffers: naming the first round whose choice is another one.
    """
    decisions = []
    for entry in log:
        if "decision" not in entry:
            continue
        situation, logged = Situation.from_json(entry["situation"]), entry["decision"]
        if unknown := sorted(set(situation.targets) - {goal.id for goal in goals.goals}):
            raise ReplayDiffers(f"round {entry.get('round')}: the log wants «{unknown[0]}», which is no goal any more")
        decision = decide(goals, situation)
        then, now = _choice(logged), _choice(decision.to_json())
        if then != now:
            raise ReplayDiffers(f"round {entry.get('round')}: the log chose {then}, now it would be {now}")
        decisions.append(decision)
    return decisions


def _choice(decision: Mapping[str, Any]) -> str:
    """What was decided, in words: the verdict, what ran and what was to follow."""
    first = [step["way"] for step in decision["run"]]
    after = [step["way"] for step in decision["plan"] if step["way"] not in first]
    then = f" (then {', '.join(after)})" if after else ""
    return f"{decision['verdict']} {' and '.join(first)}".rstrip() + then
