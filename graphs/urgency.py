"""The order of the steps of a plan: value early, each step after those that it requires.

The best order (least weighted sum of completion times under precedence) is NP-hard to find; this rule is linear but for
a heap, and says in one sentence why a step comes first.
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
    chain_value: dict[str, float] = {}
    chain_cost: dict[str, float] = {}
    urgency: dict[str, float] = {}
    for goal in reversed(order):
        value, cost = values[goal], steps[goal][0]
        most, best_value, best_cost = (value / cost if cost else math.inf), value, cost
        for dependent in above[goal]:
            longer_value, longer_cost = value + chain_value[dependent], cost + chain_cost[dependent]
            ratio = longer_value / longer_cost if longer_cost else math.inf
            if ratio > most:
                most, best_value, best_cost = ratio, longer_value, longer_cost
        urgency[goal], chain_value[goal], chain_cost[goal] = most, best_value, best_cost
    return urgency
