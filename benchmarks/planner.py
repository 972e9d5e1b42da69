"""How planning time grows with the number of goals and ways: ``python -m benchmarks.planner [--short]``.

Random lattices from fixed seeds: each goal requires up to three earlier ones (only among the first eighth may it be
none), costs are whole numbers from 0 to 50, targets are the last tenth of the goals, at most ten; with one way, all
goals. CPU time of this process, so that neighbours on the machine count little; a value a seed. Rows end early when a
plan takes longer than 20 s (short: 3).

*Peer*, where the explicit lattice is small enough to be written down: networkx's Dijkstra from the empty state to the
nearest that holds the targets, with the graph of states given, and with making it; both find the same cost. Then 64
goals with three ways each, in ten families of lattices.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.figures import OURS, Figures
from benchmarks.harness import add_peers, finish, options, peer_python, rounds_of
from graphs.lattice import Lattice, Way
from graphs.search import Plan, plan

EXPECTATION = (
    "1,000 single-way goals under 10 ms, for one pass over them is enough; 64 goals with three ways under 50 ms in the "
    "median, for most of them are settled by bounds; networkx doubles with every goal"
)
SIZES = (10, 30, 64, 100, 300, 1_000, 3_000, 10_000)
EXPLICIT = (6, 8, 10, 12, 14)
"""Goals of which all states are written down: thousands of them at fourteen."""
SLOW_S, SLOW_SHORT_S = 20.0, 3.0


def random_lattice(
    seed: int, goals: int, ways: int, *, requires: int = 3, circles: bool = False, window: int | None = None
) -> Lattice:
    """Goals that require earlier ones, of a window only, or with ``circles`` any; one way always goes backward."""
    rng = random.Random(seed)
    ids = [f"g{number:05}" for number in range(goals)]
    table: dict[str, list[Way]] = {}
    for place, goal in enumerate(ids):
        table[goal] = []
        for number in range(ways):
            pool = ids[max(0, place - (window or place)) : place]
            if circles and number:
                pool = [one for one in ids if one != goal]
            count = min(len(pool), rng.randint(0 if place < goals // 8 else 1, requires))
            required = frozenset(rng.sample(pool, count))
            table[goal].append(Way(f"{goal}.{number}", goal, "agent", required, rng.randint(0, 50)))
    return Lattice(table, {goal: rng.randint(0, 5) for goal in ids})


def timed(lattice: Lattice, targets: list[str]) -> tuple[float, Plan]:
    """CPU seconds and the plan."""
    begun = time.process_time()
    found = plan(lattice, (), targets)
    return time.process_time() - begun, found


def growth(figures: Figures, most: int, seeds: int, slow_s: float) -> None:
    for ways in (1, 2, 3):
        for goals in [size for size in SIZES if size <= most]:
            slowest = 0.0
            for seed in range(seeds):
                lattice = random_lattice(seed, goals, ways)
                # With one way everything is planned; otherwise the plan would be a small part of the lattice.
                targets = sorted(lattice.goals) if ways == 1 else sorted(lattice.goals)[-max(1, min(10, goals // 10)) :]
                seconds, found = timed(lattice, targets)
                slowest = max(slowest, seconds)
                figures.note_at(goals, f"CPU ms, {_ways(ways)}, by goals", OURS, 1e3 * seconds)
                if ways > 1:
                    gap = found.cost / found.bound if found.bound else 1.0
                    figures.note_at(goals, f"cost ÷ proven bound, {_ways(ways)}, by goals", OURS, gap)
            if slowest > slow_s:
                break


def _ways(count: int) -> str:
    return "one way" if count == 1 else f"{count} ways"


def beside_networkx(figures: Figures, seeds: int) -> None:
    """The same plans as shortest paths over the states that are there."""
    import networkx  # type: ignore[import-untyped, unused-ignore]  # a peer

    for goals in EXPLICIT:
        measure = "CPU ms on the explicit lattice, 3 ways, by goals"
        for seed in range(seeds):
            lattice = random_lattice(seed, goals, 3)
            targets = sorted(lattice.goals)[-2:]
            ours, found = timed(lattice, targets)
            begun = time.process_time()
            states = networkx.DiGraph()
            states.add_weighted_edges_from(_edges(lattice))
            made = time.process_time()
            costs = networkx.single_source_dijkstra_path_length(states, frozenset[str]())
            cost = min(cost for state, cost in costs.items() if state.issuperset(targets))
            done = time.process_time()
            assert not found.exact or abs(cost - found.cost) < 1e-6, (seed, goals, cost, found.cost)
            figures.note_at(goals, measure, OURS, 1e3 * ours)
            figures.note_at(goals, measure, "networkx, the states given", 1e3 * (done - made))
            figures.note_at(goals, measure, "networkx, the states made", 1e3 * (done - begun))


def _edges(lattice: Lattice) -> list[tuple[frozenset[str], frozenset[str], float]]:
    """From every feasible state to those with one goal more, by the cheapest way that can be walked there."""
    edges, seen = [], {frozenset[str]()}
    left = list(seen)
    while left:
        state = left.pop()
        for goal in lattice.fringe(state):
            cost = min(way.cost for way in lattice.ways_of(goal) if way.requires <= state)
            after = state | {goal}
            edges.append((state, after, cost))
            if after not in seen:
                seen.add(after)
                left.append(after)
    return edges


def exact(figures: Figures, seeds: int, slow_s: float) -> None:
    families: dict[str, tuple[Mapping[str, Any], int]] = {
        "last goal, 2 requirements": ({"requires": 2}, 1),
        "last goal, 3 requirements": ({"requires": 3}, 1),
        "last goal, 4 requirements": ({"requires": 4}, 1),
        "last 8 goals": ({}, 8),
        "last 32 goals": ({}, 32),
        "all goals": ({}, 64),
        "last goal, requirements among the 10 before": ({"window": 10}, 1),
        "last 4 goals, 2 requirements, 8 before": ({"requires": 2, "window": 8}, 4),
        "circles, last goal": ({"circles": True, "requires": 2}, 1),
        "circles, last 8 goals": ({"circles": True}, 8),
    }
    for name, (shape, targets) in families.items():
        spent = 0.0
        for seed in range(seeds):
            lattice = random_lattice(seed, 64, 3, **shape)
            seconds, found = timed(lattice, sorted(lattice.goals)[-targets:])
            figures.note(f"64 goals, 3 ways, {name}: CPU ms", OURS, 1e3 * seconds)
            figures.note("64 goals, 3 ways: proven to be the cheapest, share", OURS, float(found.exact))
            spent += seconds
            if spent > slow_s:
                break


def main(figures: Figures, most: int, seeds: int, slow_s: float) -> None:
    exact(figures, 4 * seeds, slow_s)
    if peer_python():
        beside_networkx(figures, seeds)
    else:
        figures.left_out["networkx"] = "not installed: `make bench-peers`"
    growth(figures, most, seeds, slow_s)


if __name__ == "__main__":
    parser = options(__doc__, rounds=5)
    parser.add_argument("--most", type=int, default=None, help=f"largest number of goals ({SIZES[-1]}; short: 1000)")
    given = parser.parse_args()
    add_peers()
    collected = Figures("planner", expectation=EXPECTATION)
    size, slow_s = (1_000, SLOW_SHORT_S) if given.short else (SIZES[-1], SLOW_S)
    main(collected, given.most or size, rounds_of(given), slow_s)
    finish(collected, given)
