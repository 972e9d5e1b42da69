"""Goals, ways and feasible states: the mathematics that the planner rests on, without any input or output.

A *state* is a set of goals that hold. It is *feasible* when it can be reached from nothing by adding one goal at a
time, each by a way whose requirements hold already. The feasible states are closed under union and each non-empty one
loses some goal and stays feasible: an antimatroid, in other words the states of a knowledge space that is
well-graded (Doignon & Falmagne 1985). Ordered by inclusion they form a lattice: the join is the union, the meet is
the largest feasible subset of the intersection. Where every goal has one way, the states are the down-sets of a
partial order, the meet is the intersection, and the lattice is distributive (Birkhoff 1937).

Inside, a state is an integer whose bit *i* stands for the *i*-th goal in the order of the ids, so that set operations
cost next to nothing and no result depends on the order of a dict or a set.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from errors import LuminaError

State = frozenset[str]
"""The ids of the goals that hold."""

STATES_LIMIT = 10_000
"""States that ``Lattice.states`` lists before it refuses; twenty unrelated goals already have a million."""


class InvalidLattice(LuminaError):
    """Goals and ways do not fit together."""


class UnknownGoal(LuminaError):
    """A state or a target names a goal that the lattice does not have."""


class TooManyStates(LuminaError):
    """The lattice has more feasible states than the caller wanted listed."""


@dataclass(frozen=True, slots=True)
class Way:
    """One manner of achieving one goal."""

    id: str
    """Unique in the lattice, e.g. ``crawled.links[Fractal]``."""
    goal: str
    """The goal that holds afterwards."""
    agent: str
    """Name of the agent that does the work."""
    requires: frozenset[str] = frozenset()
    """Goals that must hold before."""
    cost: float = 0.0
    """Expected cost in seconds (other costs converted), finite and not negative."""
    params: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Arguments for the agent."""


class Lattice:
    """The feasible states over a finite set of goals, each with any number of ways.

    Ways may require each other in a circle as long as alternatives leave some order; a goal without a way, or whose
    ways all depend on it, is simply never reachable. A lattice does not change after it was made.

    Args:
        ways: The ways of each goal; the keys are the goals.
        values: What having a goal is worth, 0 where it is not given. Only ratios matter.

    Raises:
        InvalidLattice: A way is listed under another goal, has the id of another way, requires an unknown goal, or
            costs something negative or not finite; or a value is given for an unknown goal.
    """

    def __init__(self, ways: Mapping[str, Collection[Way]], values: Mapping[str, float] | None = None) -> None:
        self.order: tuple[str, ...] = tuple(sorted(ways))
        """Ids of all goals, sorted; the number of a goal is its place here."""
        self.goals: State = frozenset(self.order)
        """Ids of all goals."""
        self.index: Mapping[str, int] = {goal: number for number, goal in enumerate(self.order)}
        """Number of each goal, the place of its bit."""
        self.ways: tuple[tuple[Way, ...], ...] = tuple(
            tuple(sorted(ways[goal], key=lambda way: way.id)) for goal in self.order
        )
        """Ways of each goal, parallel to ``order``, sorted by id."""
        self._way = {way.id: way for own in self.ways for way in own}
        self._check(values or {})
        self.values: Mapping[str, float] = {goal: (values or {}).get(goal, 0.0) for goal in self.order}
        """Value of each goal."""
        index = self.index
        self.requires: tuple[tuple[tuple[int, ...], ...], ...] = tuple(
            tuple(tuple(sorted([index[goal] for goal in way.requires])) for way in own) for own in self.ways
        )
        """Requirements of each way as numbers of goals, parallel to ``ways``."""
        self._masks = [[sum(1 << r for r in required) for required in own] for own in self.requires]
        self._dependents: list[list[int]] = [[] for _ in self.order]
        for number, own in enumerate(self.requires):
            for required in sorted({r for one in own for r in one}):
                self._dependents[required].append(number)

    def _check(self, values: Mapping[str, float]) -> None:
        seen: set[str] = set()
        for goal, own in zip(self.order, self.ways, strict=True):
            for way in own:
                if way.goal != goal:
                    raise InvalidLattice(f"way «{way.id}» achieves «{way.goal}» but is listed under «{goal}»")
                if way.id in seen:
                    raise InvalidLattice(f"two ways have the id «{way.id}»: give each its own")
                seen.add(way.id)
                if missing := sorted(way.requires - self.index.keys()):
                    raise InvalidLattice(
                        f"way «{way.id}» requires the unknown goal «{missing[0]}»: add it to the goals"
                    )
                if not (math.isfinite(way.cost) and way.cost >= 0):
                    raise InvalidLattice(f"way «{way.id}» costs {way.cost}: a cost is a finite number ≥ 0")
        if unknown := sorted(values.keys() - self.index.keys()):
            raise InvalidLattice(f"a value is given for the unknown goal «{unknown[0]}»: add it to the goals")

    # -- states as integers, for the search and the drawing -----------------------------------------------------------

    def bits(self, goals: Iterable[str]) -> int:
        """The integer that stands for a set of goals.

        Raises:
            UnknownGoal: One of them is not in the lattice.
        """
        state = 0
        for goal in goals:
            number = self.index.get(goal)
            if number is None:
                raise UnknownGoal(f"unknown goal «{goal}»; known: {', '.join(self.order[:20]) or 'none'}")
            state |= 1 << number
        return state

    def named(self, state: int) -> State:
        """The set of goals that an integer stands for."""
        return frozenset([self.order[number] for number in iter_bits(state)])

    def grow(self, state: int, within: int = -1) -> int:
        """Everything that can be reached from a state through goals of ``within``, in linear time."""
        front = [number for number in range(len(self.order)) if self._open(number, state, within)]
        while front:
            number = front.pop()
            if state >> number & 1:
                continue
            state |= 1 << number
            front += [above for above in self._dependents[number] if self._open(above, state, within)]
        return state

    def _open(self, number: int, state: int, within: int) -> bool:
        if state >> number & 1 or not within >> number & 1:
            return False
        return any(not mask & ~state for mask in self._masks[number])

    # -- states as sets of ids -----------------------------------------------------------------------------------------

    def fringe(self, state: Collection[str]) -> State:
        """Every goal that can be added next."""
        held = self.bits(state)
        return frozenset([goal for number, goal in enumerate(self.order) if self._open(number, held, -1)])

    def covers(self, state: Collection[str]) -> tuple[State, ...]:
        """The states directly above: the state and one goal of its fringe, in the order of the ids."""
        return tuple(frozenset(state) | {goal} for goal in sorted(self.fringe(state)))

    def is_feasible(self, state: Collection[str]) -> bool:
        """Whether the state can be reached from nothing, one goal at a time."""
        held = self.bits(state)
        return self.grow(0, held) == held

    def interior(self, goals: Collection[str]) -> State:
        """The largest feasible subset of any set of goals."""
        return self.named(self.grow(0, self.bits(goals)))

    def closure(self, state: Collection[str]) -> State:
        """The state and everything that can follow it."""
        return self.named(self.grow(self.bits(state)))

    def reachable(self) -> State:
        """The greatest feasible state: every goal that some order reaches."""
        return self.named(self.grow(0))

    def join(self, one: Collection[str], other: Collection[str]) -> State:
        """The least feasible state above two feasible ones: their union."""
        return self.named(self.bits(one) | self.bits(other))

    def meet(self, one: Collection[str], other: Collection[str]) -> State:
        """The greatest feasible state below two: the largest feasible subset of their intersection."""
        return self.named(self.grow(0, self.bits(one) & self.bits(other)))

    def leading_to(self, goals: Collection[str]) -> Lattice:
        """The part of the lattice that the given goals depend on: they, and all that some way towards them requires."""
        found, front = 0, list(iter_bits(self.bits(goals)))
        while front:
            number = front.pop()
            if not found >> number & 1:
                found |= 1 << number
                front += [below for own in self.requires[number] for below in own]
        kept = [(self.order[number], self.ways[number]) for number in iter_bits(found)]
        return Lattice(dict(kept), {goal: self.values[goal] for goal, _ in kept})

    def necessary(self, goals: Collection[str]) -> State:
        """The goals that lie in every feasible state that contains the given ones.

        Where every goal has one way this is the down-set that they generate, itself the least such state.

        Raises:
            UnknownGoal: One of them is not in the lattice.
            InvalidLattice: No feasible state contains them all.
        """
        wanted = self.bits(goals)
        top = self.grow(0)
        if wanted & ~top:
            raise InvalidLattice(f"no feasible state contains «{min(self.named(wanted & ~top))}»")
        everything = (1 << len(self.goals)) - 1
        without = [number for number in iter_bits(top) if wanted & ~self.grow(0, everything & ~(1 << number))]
        return frozenset([self.order[number] for number in without])

    def is_distributive(self) -> bool:
        """Whether every reachable goal has one usable way, so that states are the down-sets of a partial order."""
        top = self.grow(0)
        return all(sum(not mask & ~top for mask in self._masks[number]) == 1 for number in iter_bits(top))

    def states(self, limit: int = STATES_LIMIT) -> tuple[State, ...]:
        """Every feasible state, smaller ones first, ties by ids.

        Raises:
            TooManyStates: There are more than ``limit``.
        """
        level, found = [0], [0]
        while level:
            above: set[int] = set()
            for state in level:
                fringe = (number for number in range(len(self.order)) if self._open(number, state, -1))
                above.update(state | 1 << number for number in fringe)
                if len(found) + len(above) > limit:
                    raise TooManyStates(f"the lattice has more than {limit} feasible states: draw or list a part of it")
            level = sorted(above, key=lambda state: list(iter_bits(state)))
            found += level
        return tuple(self.named(state) for state in found)

    def way(self, way_id: str) -> Way:
        """The way with this id.

        Raises:
            InvalidLattice: There is none.
        """
        if way_id not in self._way:
            raise InvalidLattice(f"unknown way «{way_id}»; ways are named goal.way, as in the goal file")
        return self._way[way_id]

    def ways_of(self, goal: str) -> tuple[Way, ...]:
        """All ways of a goal, sorted by id.

        Raises:
            UnknownGoal: The goal is not in the lattice.
        """
        self.bits([goal])
        return self.ways[self.index[goal]]


def iter_bits(state: int) -> Iterator[int]:
    """The numbers of the bits that are set, from the lowest."""
    while state:
        low = state & -state
        yield low.bit_length() - 1
        state ^= low
