"""The least-cost choice of ways: branch and bound, on plain integers.

Choosing ways so that the targets become reachable at least total cost, each goal paid once, is the least-cost solution
of an AND/OR graph with shared parts; it is also optimal planning without delete effects, and NP-hard. A node of the
search is a set of ways still allowed. It is reduced and bounded (``and_or``); ways whose reduced cost lifts the bound
to the best known solution go; then a necessary goal that still has several ways takes each in turn. When no necessary
goal has a choice left, the necessary goals *are* the solution, so circles among alternatives need no search of their
own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from graphs.and_or import INFINITE, Problem, Ways, heights, lower_bound, reduce_ways

EXACT_GOALS = 64
"""Goals with a choice up to which the search goes on until it has a proven optimum."""
EXACT_WORK = 600_000
"""Ways looked at (nodes × ways) before even such a search gives up its proof, about ten to twenty seconds. Only dense
circles among alternatives with many targets were seen to need so much; the plan then says that it is not exact."""
APPROXIMATE_WORK = 10_000
"""Ways looked at (nodes × ways) after the first node, when there are more goals with a choice than that."""
CUT_WORK = 300_000
"""Ways looked at (landmarks × ways) for the lower bound of the first node, in the same case."""
MORE_CUTS = 8
"""Landmarks looked for in each later node, in the same case; the earlier ones are inherited."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A solution."""

    ways: dict[int, int]
    """The way of each goal of the solution."""
    cost: int
    """Sum of the costs of these ways."""
    bound: int
    """No solution costs less than this."""


@dataclass(frozen=True, slots=True)
class _Node:
    bound: int
    ways: Ways
    cuts: list[list[int]]


def least_cost(problem: Problem, *, exact_goals: int = EXACT_GOALS) -> Choice | None:
    """The cheapest choice of ways that reaches every target, or None when none does.

    With at most ``exact_goals`` goals with a choice the result is an optimum (``bound`` equals ``cost``), short of
    ``EXACT_WORK``. Above that the search ends after a fixed small amount of work; then bound ≤ optimum ≤ cost, and cost
    is at most bound × number of goals (on random instances much closer, see docs/decisions/lattice.md).
    """
    if problem.acyclic and all(len(own) == 1 for own in problem.ways):
        cost = sum([problem.cost[own[0]] for own in problem.ways])
        return Choice({goal: own[0] for goal, own in enumerate(problem.ways)}, cost, cost)
    if problem.acyclic:
        return _Search(problem, exact_goals).run()
    order, sorted_problem = _by_height(problem)
    choice = _Search(sorted_problem, exact_goals).run()
    if choice is None:
        return None
    return Choice({order[goal]: way for goal, way in choice.ways.items()}, choice.cost, choice.bound)


def _by_height(problem: Problem) -> tuple[list[int], Problem]:
    """The problem with low goals first, so that what repeats until nothing changes has little to repeat."""
    height = heights(problem, list(problem.ways), problem.cost)
    order = sorted(range(len(problem.ways)), key=lambda goal: (height[goal], goal))
    place = {goal: position for position, goal in enumerate(order)}
    return order, Problem(
        requires=[tuple([place[goal] for goal in required]) for required in problem.requires],
        cost=problem.cost,
        ways=[problem.ways[goal] for goal in order],
        targets=[place[goal] for goal in problem.targets],
        acyclic=False,
    )


class _Search:
    """Depth first; the most promising case goes first."""

    def __init__(self, problem: Problem, exact_goals: int) -> None:
        self.problem = problem
        self.exact_goals = exact_goals
        self.best: dict[int, int] = {}
        self.best_cost = INFINITE
        self.bounded = self._too_many(problem.ways)

    def _too_many(self, ways: Iterable[tuple[int, ...]]) -> bool:
        return sum([len(own) > 1 for own in ways]) > self.exact_goals

    def run(self) -> Choice | None:
        stack = self._cases(_Node(0, list(self.problem.ways), []))
        if not self.best:
            return None
        self.bounded = self.bounded and bool(stack) and self._too_many(stack[-1].ways)
        work = APPROXIMATE_WORK if self.bounded else EXACT_WORK
        while stack and work > 0:
            node = stack.pop()
            if node.bound < self.best_cost:
                work -= sum([len(own) for own in node.ways])
                stack += self._cases(node)
        return Choice(self.best, self.best_cost, min([self.best_cost, *[node.bound for node in stack]]))

    def _rounds(self, node: _Node, ways: Ways) -> int:
        if not self.bounded:
            return INFINITE
        return MORE_CUTS if node.bound else max(MORE_CUTS, CUT_WORK // sum([len(own) for own in ways]))

    def _cases(self, node: _Node) -> list[_Node]:
        """The open cases that are left of a node, the most promising last; better solutions are kept on the way."""
        problem, ways, cuts, bound = self.problem, node.ways, node.cuts, node.bound
        while True:
            reduced = reduce_ways(problem, ways)
            if reduced is None:
                return []
            ways, needed = reduced
            self._try_solutions(ways, needed, first=not node.bound)
            if not any(len(own) > 1 and needed >> goal & 1 for goal, own in enumerate(ways)):
                return []
            rounds = self._rounds(node, ways)
            total, rest, cuts = lower_bound(problem, ways, needed, cuts, self.best_cost, rounds)
            bound = max(bound, total)
            if self.bounded and not node.bound:
                height = heights(problem, ways, problem.cost)
                bound = max(bound, max([height[target] for target in problem.targets]))
            if bound >= self.best_cost:
                return []
            kept = [tuple([way for way in own if total + rest[way] < self.best_cost]) for own in ways]
            if any(needed >> goal & 1 and not own for goal, own in enumerate(kept)):
                return []
            if kept == ways:
                return self._branch(_Node(bound, ways, cuts), needed, total, rest)
            if self.bounded:
                return [_Node(bound, kept, cuts)]
            ways = kept

    def _branch(self, node: _Node, needed: int, total: int, rest: dict[int, int]) -> list[_Node]:
        """One case for each way of the necessary goal where the second choice costs most."""
        choices = [goal for goal, own in enumerate(node.ways) if len(own) > 1 and needed >> goal & 1]
        goal = max(choices, key=lambda goal: (sorted([rest[way] for way in node.ways[goal]])[1], -goal))
        return [
            _Node(max(node.bound, total + rest[way]), [*node.ways[:goal], (way,), *node.ways[goal + 1 :]], node.cuts)
            for way in sorted(node.ways[goal], key=lambda way: (-rest[way], -way))
        ]

    def _try_solutions(self, ways: Ways, needed: int, *, first: bool) -> None:
        """Keep the best of a few quick solutions; the one by heights makes cost ≤ bound × goals true."""
        self._try(_cheapest_trees(self.problem, ways, needed))
        if not first:
            return
        self._try(_cheapest_trees(self.problem, ways, 0))
        if self.bounded:
            self._try(_lowest(self.problem, ways))
        while self.best:
            known = needed | sum([1 << goal for goal in self.best])
            if not self._try(_cheapest_trees(self.problem, ways, known)):
                break

    def _try(self, best: list[int]) -> bool:
        """Take the given way of each goal that the targets then need; whether that is a better solution."""
        chosen: dict[int, int] = {}
        stack = list(self.problem.targets)
        while stack:
            goal = stack.pop()
            if goal not in chosen:
                chosen[goal] = best[goal]
                stack += self.problem.requires[best[goal]]
        cost = sum([self.problem.cost[way] for way in chosen.values()])
        if cost >= self.best_cost or not (self.problem.acyclic or _has_order(self.problem, chosen)):
            return False
        self.best, self.best_cost = chosen, cost
        return True


def _cheapest_trees(problem: Problem, ways: Ways, free: int) -> list[int]:
    """For each goal the way with the least cost of a tree below it, in which ``free`` goals (bits) cost nothing."""
    cost, best = [INFINITE] * len(ways), [-1] * len(ways)
    paid = [not free >> goal & 1 for goal in range(len(ways))]
    changed = True
    while changed:
        changed = False
        for goal, own in enumerate(ways):
            for way in own:
                tree = problem.cost[way]
                for required in problem.requires[way]:
                    if cost[required] == INFINITE:
                        break
                    if paid[required]:
                        tree += cost[required]
                else:
                    tree = min(tree, INFINITE - 1)
                    if tree < cost[goal]:
                        cost[goal], best[goal] = tree, way
                        changed = not problem.acyclic
    return best


def _lowest(problem: Problem, ways: Ways) -> list[int]:
    """For each goal the way with the least height."""
    height = heights(problem, ways, problem.cost)
    best = [-1] * len(ways)
    for goal, own in enumerate(ways):
        for way in own:
            top = max([height[required] for required in problem.requires[way]], default=0)
            if top + problem.cost[way] == height[goal] and best[goal] < 0:
                best[goal] = way
    return best


def _has_order(problem: Problem, chosen: dict[int, int]) -> bool:
    """Whether the goals of a choice can be reached one after the other."""
    done: set[int] = set()
    waiting = list(chosen)
    while waiting:
        still = [goal for goal in waiting if not done.issuperset(problem.requires[chosen[goal]])]
        if len(still) == len(waiting):
            return False
        done.update(set(waiting).difference(still))
        waiting = still
    return True
