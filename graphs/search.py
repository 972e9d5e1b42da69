"""Least-cost plans over a goal lattice: a chain of steps from a state to the targets, and what else it could have been.

The ways are chosen by ``least_cost``; here they become steps in a useful order, or the reason why there are none.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from errors import LuminaError
from graphs.and_or import Problem
from graphs.lattice import Lattice, State, Way
from graphs.least_cost import EXACT_GOALS, least_cost
from graphs.urgency import by_urgency

RESOLUTION = 1e-6
"""Costs that differ by less than this (a microsecond, when they are seconds) count as equal."""


class NoPlan(LuminaError):
    """Some targets cannot be reached; the text says which and why."""

    def __init__(self, targets: Collection[str], reasons: Collection[str]) -> None:
        self.targets = tuple(sorted(targets))
        """The targets that are out of reach."""
        self.reasons = tuple(reasons)
        """What stands in the way, the root causes only."""
        names = ", ".join(f"«{target}»" for target in self.targets)
        super().__init__(f"no plan reaches {names}: {'; '.join(self.reasons)}")


class InvalidCost(LuminaError):
    """A cost given to the planner is negative or not a number."""


@dataclass(frozen=True, slots=True)
class Step:
    """One goal of a plan and the way it is to be achieved."""

    goal: str
    way: str
    """Id of the way; ``Lattice.way`` has the rest."""
    cost: float
    """Expected cost in seconds, as the planner took it."""
    requires: State
    """Goals that must hold before."""


@dataclass(frozen=True)
class Plan:
    """A chain of steps from a state to a state that contains the targets."""

    start: State
    """The goals that held when the plan was made."""
    targets: State
    steps: tuple[Step, ...]
    """In order: value early, and each after what it requires."""
    cost: float
    """Sum of the steps' costs."""
    exact: bool
    """Whether no cheaper plan exists."""
    bound: float
    """No plan costs less than this; equal to ``cost`` when the plan is exact."""

    @cached_property
    def states(self) -> tuple[State, ...]:
        """The chain of states, the start first, each with one goal more than the one before."""
        held, chain = self.start, [self.start]
        for step in self.steps:
            held = held | {step.goal}
            chain.append(held)
        return tuple(chain)

    def frontier(self, state: Collection[str]) -> tuple[Step, ...]:
        """The steps that can be taken now, in order of the plan: an antichain, so they can run side by side.

        None of them requires another, for what each requires holds in ``state`` already.
        """
        held = frozenset(state)
        return tuple(step for step in self.steps if step.goal not in held and step.requires <= held)


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another way that a step of a plan could have taken."""

    goal: str
    way: str
    cost: float
    """Cost of the cheapest whole plan that reaches this goal by this way; infinite where there is none."""
    extra: float
    """How much more that is than the plan; infinite where there is none."""
    reason: str
    """Why there is none, else empty."""


def plan(
    lattice: Lattice,
    state: Collection[str],
    targets: Collection[str],
    *,
    blocked: Collection[str] = frozenset(),
    cost: Mapping[str, float] | None = None,
    exact_goals: int = EXACT_GOALS,
) -> Plan:
    """The plan of least total cost from a state to the targets, each goal paid once however many need it.

    Equal costs are decided by the number of steps, then by a fixed rule on the ids: the same arguments give the same
    plan. The state is taken as it is, feasible or not, for facts can hold although what usually comes before does not.

    *Order.* A step is as urgent as the best value per cost of a chain of the plan that starts with it (itself, or
    itself and a step that requires it, and so on). Of the possible steps the most urgent comes first, ties by id.

    Args:
        lattice: Goals and ways.
        state: Goals that hold.
        targets: Goals to reach.
        blocked: Ids of ways that must not be used.
        cost: Expected costs that replace those of the ways, by way id; an infinite cost blocks the way.
        exact_goals: With more goals that have a choice than this, the plan may be approximate (see ``Plan.bound``).

    Raises:
        NoPlan: Some target is out of reach.
        UnknownGoal: A goal of the state or the targets is not in the lattice.
        InvalidCost: A cost is negative or not a number.
    """
    held, wanted = lattice.bits(state), lattice.bits(targets)
    start, goals = frozenset(state), frozenset(targets)
    if not wanted & ~held:
        return Plan(start, goals, (), 0.0, exact=True, bound=0.0)
    relevant = _Relevant(lattice, held, wanted & ~held, frozenset(blocked), cost or {})
    choice = least_cost(relevant.problem, exact_goals=exact_goals)
    if choice is None:
        raise _no_plan(lattice, start, goals, frozenset(blocked), cost or {})
    chosen = {way.goal: (way, price) for way, price in [relevant.ways[number] for number in choice.ways.values()]}
    order = by_urgency({goal: (price, way.requires) for goal, (way, price) in chosen.items()}, lattice.values)
    steps = tuple([Step(goal, way.id, price, way.requires) for goal, (way, price) in [(g, chosen[g]) for g in order]])
    total = math.fsum([step.cost for step in steps])
    exact = choice.bound >= choice.cost
    return Plan(start, goals, steps, total, exact=exact, bound=total if exact else relevant.seconds(choice.bound))


def alternatives(
    lattice: Lattice,
    state: Collection[str],
    targets: Collection[str],
    chosen: Plan,
    *,
    blocked: Collection[str] = frozenset(),
    cost: Mapping[str, float] | None = None,
    steps: Iterable[Step] | None = None,
) -> dict[str, tuple[Alternative, ...]]:
    """For each step of a plan the other ways of its goal, cheapest first, and what the whole plan would have cost.

    Args:
        lattice: As it was given to ``plan``.
        state: As it was given to ``plan``.
        targets: As they were given to ``plan``.
        chosen: The plan.
        blocked: As they were given to ``plan``.
        cost: As they were given to ``plan``.
        steps: Only these steps, e.g. the frontier; all when None.
    """

    def forced(goal: str, way: str, rivals: set[str]) -> Alternative:
        if way in blocked:
            return Alternative(goal, way, math.inf, math.inf, "ruled out")
        try:
            other = plan(lattice, state, {*targets, goal}, blocked=rivals | set(blocked), cost=cost)
        except NoPlan as error:
            return Alternative(goal, way, math.inf, math.inf, "; ".join(error.reasons))
        return Alternative(goal, way, other.cost, other.cost - chosen.cost, "")

    found: dict[str, tuple[Alternative, ...]] = {}
    for step in chosen.steps if steps is None else steps:
        own = {way.id for way in lattice.ways_of(step.goal)}
        others = [forced(step.goal, way, own - {way}) for way in own - {step.way}]
        found[step.goal] = tuple(sorted(others, key=lambda other: (other.cost, other.way)))
    return found


class _Relevant:
    """The part of a lattice that some plan could touch, as an AND/OR problem on integers.

    Goals are numbered so that, where no circle exists, each comes after what it may require. A way's integer cost is
    its cost in units of ``RESOLUTION`` times more than the number of goals, plus one: so fewer steps win a tie.
    """

    def __init__(
        self, lattice: Lattice, held: int, wanted: int, blocked: frozenset[str], cost: Mapping[str, float]
    ) -> None:
        self._lattice, self._held, self._blocked, self._cost = lattice, held, blocked, cost
        self.ways: list[tuple[Way, float]] = []
        self._owner: list[int] = []
        self._requires: list[tuple[int, ...]] = []
        targets = [number for number in range(len(lattice.order)) if wanted >> number & 1]
        order, acyclic = self._visit(targets)
        place = {number: position for position, number in enumerate(order)}
        self._unit = len(order) + 1
        ways: list[list[int]] = [[] for _ in order]
        for way, number in enumerate(self._owner):
            ways[place[number]].append(way)
        self.problem = Problem(
            requires=[tuple([place[number] for number in required]) for required in self._requires],
            cost=[round(price / RESOLUTION) * self._unit + 1 for _, price in self.ways],
            ways=[tuple(own) for own in ways],
            targets=[place[number] for number in targets],
            acyclic=acyclic,
        )

    def _visit(self, targets: list[int]) -> tuple[list[int], bool]:
        """Goals below the targets in depth-first postorder, and whether no circle was met."""
        order: list[int] = []
        done = [False] * len(self._lattice.order)
        entered = done[:]
        acyclic = True
        for target in targets:
            if entered[target]:
                continue
            entered[target] = True
            path = [(target, self._open(target))]
            while path:
                number, below = path[-1]
                while below:
                    required = below.pop()
                    if not entered[required]:
                        entered[required] = True
                        path.append((required, self._open(required)))
                        break
                    acyclic = acyclic and done[required]
                else:
                    path.pop()
                    done[number] = True
                    order.append(number)
        return order, acyclic

    def _open(self, number: int) -> list[int]:
        """Note the usable ways of a goal; the goals that they may require."""
        below: list[int] = []
        for way, required in zip(self._lattice.ways[number], self._lattice.requires[number], strict=True):
            price = _price(way, self._blocked, self._cost)
            if price == math.inf:
                continue
            if self._held:
                required = tuple([one for one in required if not self._held >> one & 1])
            self.ways.append((way, price))
            self._owner.append(number)
            self._requires.append(required)
            below += required
        return below

    def seconds(self, bound: int) -> float:
        """The cost that an integer bound proves, the rounding of each step's cost allowed for."""
        return max(0.0, (bound // self._unit - self._unit / 2) * RESOLUTION)


def _price(way: Way, blocked: Collection[str], cost: Mapping[str, float]) -> float:
    """Expected cost of a way, infinite when it is ruled out."""
    if way.id in blocked:
        return math.inf
    price = cost.get(way.id, way.cost)
    if not price >= 0:
        raise InvalidCost(f"way «{way.id}» costs {price}: a cost is a number ≥ 0, infinity rules the way out")
    return price


def _no_plan(
    lattice: Lattice, state: State, targets: State, blocked: frozenset[str], cost: Mapping[str, float]
) -> NoPlan:
    """Why some targets are out of reach: follow what is missing down to what nothing is missing for but a way."""
    usable = {
        goal: [way for way in own if _price(way, blocked, cost) < math.inf]
        for goal, own in zip(lattice.order, lattice.ways, strict=True)
    }
    reached = Lattice(usable).closure(state)
    lost = sorted(targets - reached)
    reasons: list[str] = []
    seen, stack = set(lost), lost[::-1]
    while stack:
        goal = stack.pop()
        if not usable[goal]:
            ruled_out = ", ".join(way.id for way in lattice.ways_of(goal))
            reasons.append(f"every way of «{goal}» is ruled out ({ruled_out})" if ruled_out else f"«{goal}» has no way")
        below = sorted({required for way in usable[goal] for required in way.requires - reached} - seen, reverse=True)
        seen.update(below)
        stack += below
    if not reasons:
        reasons.append(f"{', '.join(f'«{goal}»' for goal in sorted(seen))} require each other in a circle")
    return NoPlan(lost, reasons)
