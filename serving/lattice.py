"""``GET /planner/lattice``: goals, ways and feasible states as data, for who draws them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, Field

from graphs.drawing import DRAWN_STATES
from graphs.goals import GoalFile, parse_instance
from graphs.lattice import Lattice, TooManyStates
from graphs.runs import InvalidRequest
from serving.auth import Owner
from serving.dependencies import OpenRunner

router = APIRouter(tags=["planner"])

Topic = Annotated[str, Field(min_length=1, max_length=512)]


class WayView(BaseModel):
    """One manner of achieving a goal."""

    id: str
    agent: str
    requires: list[str]
    cost: float = Field(description="The goal file's own expectation, in seconds.")


class GoalView(BaseModel):
    """A goal of the request's lattice."""

    id: str = Field(description="As in the planner's log: crawled[Fractal].")
    topic: str | None
    title: str
    why: str
    value: float
    ways: list[WayView]


class LatticeView(BaseModel):
    """A lattice. A state is a list of places in ``goals``, a cover a pair of places in ``states``."""

    targets: list[str]
    goals: list[GoalView] = Field(description="The targets and what leads to them, sorted by id.")
    states: list[list[int]] = Field(description="Every feasible state, smaller ones first; none when too many.")
    covers: list[tuple[int, int]] = Field(description="Which state lies directly below which.")
    complete: bool = Field(description=f"False: there are more than {DRAWN_STATES} states, and none is listed.")
    intents: dict[str, list[str]] = Field(description="What each kind of request wants.")

    @classmethod
    def of(cls, file: GoalFile, lattice: Lattice, targets: list[str]) -> LatticeView:
        """The view of a part of a goal file's lattice."""
        try:
            states = lattice.states(DRAWN_STATES)
        except TooManyStates:
            states = ()
        place = {state: number for number, state in enumerate(states)}
        return cls(
            targets=targets,
            goals=[_goal(file, lattice, id_) for id_ in lattice.order],
            states=[sorted(lattice.index[goal] for goal in state) for state in states],
            covers=[(place[state], place[above]) for state in states for above in lattice.covers(state)],
            complete=bool(states),
            intents={name: list(intent.goals) for name, intent in file.intents.items()},
        )


@router.get("/planner/lattice")
async def lattice(
    _: Owner,
    runner: OpenRunner,
    intent: Annotated[str | None, Query(max_length=64, description="A kind of request; none: every goal.")] = None,
    topics: Annotated[list[Topic] | None, Query(max_length=20, description="Titles that the request is about.")] = None,
) -> LatticeView:
    """The goals that a kind of request wants, what leads to them, and the states that can be passed on the way."""
    file = runner.goals
    if intent is not None and intent not in file.intents:
        raise InvalidRequest(f"intent «{intent}» is not in the goal file; there are: {', '.join(file.intents)}")
    whole = file.ground(topics or [])
    wanted = file.instances(file.intents[intent].goals, topics or []) if intent is not None else whole.goals
    if not wanted:
        raise HTTPException(422, f"intent «{intent}» wants no goal: there is nothing to draw")
    return LatticeView.of(file, whole.leading_to(wanted), sorted(wanted))


def _goal(file: GoalFile, lattice: Lattice, id_: str) -> GoalView:
    base, topic = parse_instance(id_)
    spec = next(goal for goal in file.goals if goal.id == base)
    ways = [
        WayView(id=way.id, agent=way.agent, requires=sorted(way.requires), cost=way.cost)
        for way in lattice.ways_of(id_)
    ]
    return GoalView(id=id_, topic=topic, title=spec.title, why=spec.why, value=spec.value, ways=ways)
