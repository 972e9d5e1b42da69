"""AND/OR problems on plain integers: what every solution needs, what no cheapest one needs, and what it costs at least.

These are the parts of the search in ``least_cost``. Each keeps at least one optimum:

- *necessary goals* lie in every solution (fact landmarks: Keyder, Richter & Helmert, ECAI 2010);
- a way is *dominated* when another way of its goal, with what that one needs beyond it, is not dearer;
- *landmark cuts* (Helmert & Domshlak, ICAPS 2009) give a lower bound and the reduced cost of each way: how much the
  bound rises when a solution uses it.

Costs are integers, so that equal costs are equal and every run gives the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

INFINITE = 1 << 2000
"""More than any sum of costs; the largest double is below 2 ** 1024."""

Ways = list[tuple[int, ...]]
"""The ways that are still allowed for each goal, as numbers."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Goals 0 … n-1 and numbered ways; goals that hold already are left out."""

    requires: Sequence[tuple[int, ...]]
    """Goals that each way needs."""
    cost: Sequence[int]
    """Cost of each way, at least 1."""
    ways: Sequence[tuple[int, ...]]
    """The ways of each goal."""
    targets: Sequence[int]
    """Goals that must hold in the end."""
    acyclic: bool
    """Whether every way needs only goals with smaller numbers than its own goal's."""


@dataclass(slots=True)
class Needs:
    """What cannot be avoided."""

    goals: list[int]
    """For each goal the set of goals (as bits, itself included) in every solution for it; 0 where there is none."""
    ways: dict[int, int]
    """The same for each usable way, its own goal left out."""


def necessary(problem: Problem, ways: Ways) -> Needs:
    """The greatest fixed point: a goal needs itself and what all of its ways need."""
    requires, goals, of_way = problem.requires, [0] * len(ways), dict[int, int]()
    changed = True
    while changed:
        changed = False
        for goal, own in enumerate(ways):
            shared, usable, bit = -1, False, 1 << goal
            for way in own:
                union = 0
                for required in requires[way]:
                    if not goals[required]:
                        break
                    union |= goals[required]
                else:
                    of_way[way] = union
                    if not union & bit:
                        shared &= union
                        usable = True
            if usable and goals[goal] != shared | bit:
                goals[goal] = shared | bit
                changed = not problem.acyclic
    return Needs(goals, of_way)


def reduce_ways(problem: Problem, ways: Ways) -> tuple[Ways, int] | None:
    """The ways without the useless ones, and the goals (as bits) of every solution; None when there is no solution.

    Useless are ways that cannot be used, that need their own goal, that are dominated, or whose goal nothing needs.
    """
    while True:
        needs = necessary(problem, ways)
        needed = 0
        for target in problem.targets:
            if not needs.goals[target]:
                return None
            needed |= needs.goals[target]
        extra = _tree_costs(problem, ways, needs, needed) if problem.acyclic else None
        kept: Ways = [()] * len(ways)
        seen, shrunk = needed, False
        stack = [goal for goal in range(len(ways)) if needed >> goal & 1]
        while stack:
            goal = stack.pop()
            usable = [way for way in ways[goal] if way in needs.ways and not needs.ways[way] >> goal & 1]
            kept[goal] = tuple(_undominated(problem, usable, needs.ways, extra) if len(usable) > 1 else usable)
            shrunk = shrunk or len(kept[goal]) < len(ways[goal])
            for way in kept[goal]:
                for required in problem.requires[way]:
                    if not seen >> required & 1:
                        seen |= 1 << required
                        stack.append(required)
        ways = kept
        if not shrunk:
            return ways, needed


def _tree_costs(problem: Problem, ways: Ways, needs: Needs, needed: int) -> list[int]:
    """What each goal adds at most to a solution: the cost of a tree below it, necessary goals free."""
    tree = [0] * len(ways)
    for goal, own in enumerate(ways):
        if needs.goals[goal] and not needed >> goal & 1:
            costs = [
                problem.cost[way] + sum([tree[required] for required in problem.requires[way]])
                for way in own
                if way in needs.ways
            ]
            tree[goal] = min([*costs, INFINITE])
    return tree


def _undominated(problem: Problem, own: list[int], needs: dict[int, int], extra: list[int] | None) -> list[int]:
    """The ways of a goal that remain when each one that another can stand for is dropped.

    ``extra`` bounds the cost of goals which the other way needs beyond this one. In a problem with circles such a goal
    might need this one, so there the other way must need nothing more.
    """
    kept = own[:]
    for way in reversed(own):
        for other in kept:
            if other == way or problem.cost[other] > problem.cost[way]:
                continue
            beyond = [required for required in problem.requires[other] if not needs[way] >> required & 1]
            if beyond and extra is None:
                continue
            more = sum([extra[required] for required in beyond]) if extra else 0
            if problem.cost[other] + more <= problem.cost[way]:
                kept.remove(way)
                break
    return kept


def heights(problem: Problem, ways: Ways, cost: Sequence[int] | dict[int, int]) -> list[int]:
    """For each goal the cost of the dearest chain that it needs at least, ``INFINITE`` where it is out of reach."""
    height, requires = [INFINITE] * len(ways), problem.requires
    changed = True
    while changed:
        changed = False
        for goal, own in enumerate(ways):
            least = height[goal]
            for way in own:
                top = 0
                for required in requires[way]:
                    if height[required] > top:
                        top = height[required]
                if top + cost[way] < least:
                    least = top + cost[way]
            if least < height[goal]:
                height[goal] = least
                changed = not problem.acyclic
    return height


def lower_bound(
    problem: Problem, ways: Ways, needed: int, cuts: Sequence[Sequence[int]], stop: int, rounds: int
) -> tuple[int, dict[int, int], list[list[int]]]:
    """A cost that no solution undercuts, the reduced cost of each way, and the landmarks that prove it.

    Args:
        problem: What is to be solved.
        ways: The ways still allowed, reduced.
        needed: The goals of every solution, as bits.
        cuts: Landmarks known already: sets of ways of which every solution uses one.
        stop: Stop as soon as the bound is that high.
        rounds: Look for so many more landmarks at most.
    """
    rest = {way: problem.cost[way] for own in ways for way in own}
    total = 0
    known: list[list[int]] = []
    for own in [list(own) for goal, own in enumerate(ways) if needed >> goal & 1]:
        total += _pay(rest, own)
    for cut in cuts:
        still = [way for way in cut if way in rest]
        if paid := _pay(rest, still) if still else 0:
            total += paid
            known.append(still)
    while total < stop and rounds > 0:
        rounds -= 1
        found = _cut(problem, ways, rest)
        if not found:
            break
        total += _pay(rest, found)
        known.append(found)
    return total, rest, known


def _pay(rest: dict[int, int], cut: list[int]) -> int:
    """Take the cost of the cheapest way of a landmark off all of its ways."""
    paid = min([rest[way] for way in cut])
    if paid:
        for way in cut:
            rest[way] -= paid
    return paid


def _cut(problem: Problem, ways: Ways, rest: dict[int, int]) -> list[int]:
    """A landmark none of whose ways is free: what leads into the goals from which a target follows for nothing."""
    height, requires = heights(problem, ways, rest), problem.requires
    top = max(problem.targets, key=height.__getitem__)
    if not height[top]:
        return []
    dearest: dict[int, int] = {}
    for own in ways:
        for way in own:
            most = dearest[way] = -1
            for required in requires[way]:
                if height[required] > most:
                    most, dearest[way] = height[required], required
    zone, stack = {top}, [top]
    entering: list[int] = []
    while stack:
        for way in ways[stack.pop()]:
            if rest[way]:
                entering.append(way)
            elif dearest[way] not in zone:
                zone.add(dearest[way])
                stack.append(dearest[way])
    before = {-1}
    changed = True
    while changed:
        changed = False
        for goal, own in enumerate(ways):
            if goal not in before and goal not in zone and not before.isdisjoint([dearest[way] for way in own]):
                before.add(goal)
                changed = not problem.acyclic
    return [way for way in entering if dearest[way] in before]
