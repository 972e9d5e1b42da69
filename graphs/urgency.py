"""The order of the steps of a plan: value early, each step after those that it requires.

The best order (least weighted sum of completion times under precedence) is NP-hard to find; this rule is linear but for a
heap, and says in one sentence why a step comes first.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Mapping


def by_urgency(steps: Mapping[str, tuple[float, Collection[str]]], values: Mapping[str, float]) -> list[str]:
    """Goals in the order of their steps: of the possible ones the most urgent first, ties by id.

    Args:
        steps: Cost and required goals of each goal's step; requirements outside of the steps count as met. Some order
            must exist.
        values: What each goal is worth.
    """
    above: dict[str, list[str]] = {goal: [] for goal in steps}
    missing: dict[str, int] = {}
    for goal, (_, required) in steps.items():
        below = [one for one in required if one in steps]
        missing[goal] = len(below)
        for one in below:
            above[one].append(goal)
    urgency = _urgencies(steps, values, above, dict(missing))
    ready = [(-urgency[goal], goal) for goal, count in missing.items() if not count]
    heapq.heapify(ready)
    ordered: list[str] = []
    while ready:
        _, goal = heapq.heappop(ready)
        ordered.append(goal)
        for dependent in above[goal]:
            missing[dependent] -= 1
            if not missing[dependent]:
                heapq.heappush(ready, (-urgency[dependent], dependent))
    return ordered


def _urgencies(
    steps: Mapping[str, tuple[float, Collection[str]]],
    values: Mapping[str, float],
    above: Mapping[str, list[str]],
    missing: dict[str, int],
) -> dict[str, float]:
    """For each goal the best value per cost of a chain that starts with it, each link taken greedily from above."""
    order = [goal for goal, count in missing.items() if not count]
    for goal in order:  # grows while it is read
        for dependent in above[goal]:
            missing[dependent] -= 1
            if not missing[dependent]:
                order.append(dependent)
    chain: dict[str, tuple[float, float, float]] = {}
    for goal in reversed(order):
        value, cost = values[goal], steps[goal][0]
        best = (_ratio(value, cost), value, cost)
        for dependent in above[goal]:
            _, more_value, more_cost = chain[dependent]
            ratio = _ratio(value + more_value, cost + more_cost)
            if ratio > best[0]:
                best = (ratio, value + more_value, cost + more_cost)
        chain[goal] = best
    return {goal: ratio for goal, (ratio, _, _) in chain.items()}


def _ratio(value: float, cost: float) -> float:
    return value / cost if cost else math.inf
