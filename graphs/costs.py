"""What a way is expected to cost: the goal file's prior, blended with what its latest runs really cost.

The reasons for the formula are in docs/decisions/costs.md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

from redis.asyncio import Redis

from graphs.goals import Cost, GoalFile, parse_instance
from memory.event_history import effective_runs
from memory.events import WayHistory
from memory.way_history import load_history

PRIOR_RUNS = 5.0
"""k: the prior weighs as much as so many runs. One odd run, such as the first, which loads a model, moves a cost by a
sixth; after five runs half of it is learned, after fifty six sevenths."""
HALF_LIFE_S = 86_400.0
"""Runs count half when the way has not been taken for a day: one that was given up for its failures is tried again."""
RETRY_S = 1.0
"""What a failed try costs beside its own time: the mean backoff before a retry, and a round of the planner."""


def expected_cost(prior: Cost, past: WayHistory, *, seconds_per_usd: float, now_s: float) -> float:
    """Expected cost in seconds of reaching a goal by a way.

    With n successes and m failures of the latest 200 runs, newer ones counting more (``effective_runs``), all halved
    with every ``HALF_LIFE_S`` since the last, and k = ``PRIOR_RUNS``::

        seconds   t = (k · prior + n · median of successes) / (k + n)                    credibility, Bühlmann 1967
        failures  r = m / (k + n), the failed tries before a success: p / (1 - p)        geometric distribution
        dollars   u = (k · prior + (n + m) · mean of all tries) / (k + n + m)
        cost        = t + r · (median of failures + RETRY_S) + (1 + r) · u · seconds_per_usd + loss_s

    Args:
        prior: What the goal file says; its ``loss_s`` is a judgement that no history can teach.
        past: The latest runs.
        seconds_per_usd: ``limits.seconds_per_usd`` of the goal file.
        now_s: Seconds since the epoch.
    """
    weight = math.pow(0.5, max(0.0, now_s - past.last_s) / HALF_LIFE_S)
    runs = effective_runs(past.runs) * weight
    failed = runs * past.failure_rate
    seconds = _blend(prior.seconds, past.ok_seconds, runs - failed)
    failures = failed / (PRIOR_RUNS + runs - failed)
    usd = _blend(prior.usd, past.usd, runs)
    lost = failures * ((past.failed_seconds or 0.0) + RETRY_S)
    return seconds + lost + (1 + failures) * usd * seconds_per_usd + prior.loss_s


def _blend(prior: float, observed: float | None, runs: float) -> float:
    return prior if observed is None else (PRIOR_RUNS * prior + runs * observed) / (PRIOR_RUNS + runs)


def learned_costs(goals: GoalFile, history: Mapping[str, WayHistory], *, now_s: float) -> dict[str, float]:
    """Way of the goal file (``goal.way``) → its expected cost in seconds, for those that were ever run."""
    rate = goals.limits.seconds_per_usd
    ways = {f"{goal.id}.{way.id}": way.cost for goal in goals.goals for way in goal.ways}
    return {
        name: round(expected_cost(prior, history[name], seconds_per_usd=rate, now_s=now_s), 4)
        for name, prior in ways.items()
        if name in history
    }


def costs_of_instances(goals: GoalFile, learned: Mapping[str, float], topics: Sequence[str]) -> dict[str, float]:
    """The same for the way instances of a request, as ``Situation.costs`` wants them."""
    lattice = goals.ground(topics)
    names = (way.id for goal in lattice.goals for way in lattice.ways_of(goal))
    return {name: learned[base] for name in names if (base := parse_instance(name)[0]) in learned}


async def read_costs(redis: Redis, goals: GoalFile) -> dict[str, float]:
    """``learned_costs`` of this moment, from the snapshot that the owner of the event store keeps in Redis.

    Read once a run, so that a run plans on the same costs from its beginning to its end.
    """
    return learned_costs(goals, await load_history(redis), now_s=time.time())
