"""How planning time grows with the number of goals and ways.

Random lattices from fixed seeds: each goal requires up to three earlier ones (only among the first eighth may it be
none), costs are whole numbers from 0 to 50, targets are the last tenth of the goals, at most ten; with one way, all
goals. CPU time of this process, so that neighbours on the machine count little. Rows end early when a plan takes
longer than ``SLOW_S``. The limits: --most goals, --rounds seeds a row.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from graphs.lattice import Lattice, Way
from graphs.search import Plan, plan

SIZES = (10, 30, 64, 100, 300, 1_000, 3_000, 10_000)
SLOW_S = 20.0


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


def growth(most: int, rounds: int) -> None:
    print("growth: median CPU time, its ratio to the row above, cost ÷ proven lower bound (1 = exact)")
    print(f"{'ways':>4} {'goals':>6} {'steps':>6} {'ms':>10} {'ratio':>7} {'worst ms':>10} {'cost/bound':>11} exact")
    for ways in (1, 2, 3):
        before = 0.0
        for goals in [size for size in SIZES if size <= most]:
            took, plans = [], []
            for seed in range(rounds):
                lattice = random_lattice(seed, goals, ways)
                # With one way everything is planned; otherwise the plan would be a small part of the lattice.
                targets = sorted(lattice.goals) if ways == 1 else sorted(lattice.goals)[-max(1, min(10, goals // 10)) :]
                seconds, found = timed(lattice, targets)
                took.append(seconds)
                plans.append(found)
            median = statistics.median(took)
            gap = statistics.median([found.cost / found.bound if found.bound else 1.0 for found in plans])
            exact = sum(found.exact for found in plans)
            steps = statistics.median([len(found.steps) for found in plans])
            ratio = f"{median / before:7.1f}" if before else " " * 7
            print(
                f"{ways:4} {goals:6} {steps:6.0f} {median * 1e3:10.2f} {ratio} {max(took) * 1e3:10.2f} {gap:11.3f}"
                f" {exact}/{rounds}",
                flush=True,
            )
            before = median
            if max(took) > SLOW_S:
                break


def exact(rounds: int) -> None:
    print("\n64 goals with three ways each, planned exactly: CPU ms over seeds")
    print(f"{'family':44} {'median':>8} {'worst':>9}")
    families: dict[str, tuple[dict[str, int | bool], int]] = {
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
    for name, (options, targets) in families.items():
        took: list[float] = []
        unproven = 0
        for seed in range(rounds):
            lattice = random_lattice(seed, 64, 3, **options)  # type: ignore[arg-type]  # a table of keyword arguments
            seconds, found = timed(lattice, sorted(lattice.goals)[-targets:])
            took.append(seconds)
            unproven += not found.exact
            if sum(took) > SLOW_S:
                break
        note = "" if len(took) == rounds else f"  ({len(took)} seeds)"
        note += f"  {unproven} gave up the proof" if unproven else ""
        print(f"{name:44} {statistics.median(took) * 1e3:8.2f} {max(took) * 1e3:9.2f}{note}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--most", type=int, default=SIZES[-1], help="largest number of goals")
    parser.add_argument("--rounds", type=int, default=5, help="seeds a row; the exact table takes four times as many")
    given = parser.parse_args()
    exact(4 * given.rounds)
    growth(given.most, given.rounds)


if __name__ == "__main__":
    main()
