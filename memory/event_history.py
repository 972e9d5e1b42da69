"""What each way of the goal lattice cost in its latest runs, as SQL over the planner's events."""

from __future__ import annotations

import math
from dataclasses import dataclass

HISTORY = r"""
WITH steps AS (
    SELECT
        regexp_replace(data ->> 'way', '\[.*\]$', '') AS way,
        try_cast(data ->> 'seconds' AS DOUBLE) AS seconds,
        try_cast(data ->> 'ok' AS BOOLEAN) AS ok,
        coalesce(try_cast(data ->> 'usd' AS DOUBLE), 0) AS usd,
        ts,
        row_number() OVER (PARTITION BY way ORDER BY stream_order(id) DESC) AS age
    FROM events
    WHERE type = 'plan.step' AND data ->> 'way' IS NOT NULL AND try_cast(data ->> 'ok' AS BOOLEAN) IS NOT NULL
), weighted AS (
    SELECT *, pow(0.5, (age - 1) / $half_life) AS weight FROM steps WHERE age <= $runs
), ranked AS (
    SELECT
        *,
        sum(weight) OVER (PARTITION BY way ORDER BY seconds NULLS LAST, age) / sum(weight) OVER (PARTITION BY way)
            AS share,
        sum(weight) OVER (PARTITION BY way, ok ORDER BY seconds NULLS LAST, age)
            / sum(weight) OVER (PARTITION BY way, ok) AS own_share
    FROM weighted
)
SELECT
    way, count(*), min(seconds) FILTER (share >= 0.5), min(seconds) FILTER (ok AND own_share >= 0.5),
    sum(CASE WHEN ok THEN 0.0 ELSE weight END) / sum(weight), sum(weight * usd) / sum(weight),
    min(seconds) FILTER (NOT ok AND own_share >= 0.5), epoch(max(ts))
FROM ranked
GROUP BY way
ORDER BY way
"""
"""The columns of ``WayHistory`` for each way; ``$runs`` is how many of its latest runs count, ``$half_life`` after how
many newer ones a run counts half."""
HALF_LIFE_RUNS = 25.0
"""A median turns when so many runs have gone another way, however many came before; a rate goes half the way."""


def effective_runs(runs: float) -> float:
    """What the weights of so many latest runs add up to; never more than about 36."""
    fading = math.pow(0.5, 1 / HALF_LIFE_RUNS)
    return (1 - math.pow(fading, runs)) / (1 - fading)


@dataclass(frozen=True, slots=True)
class WayHistory:
    """What the latest runs of one way cost; newer ones count more."""

    way: str
    runs: int
    """Number of runs that the figures rest on."""
    seconds: float | None
    """Weighted median of the durations of all runs."""
    ok_seconds: float | None
    """The same of those that succeeded; None when none did."""
    failure_rate: float
    """Weighted share of the runs that failed, 0 to 1."""
    usd: float
    """Weighted mean price of a run in US dollars."""
    failed_seconds: float | None
    """The same of those that failed; None when none did."""
    last_s: float
    """When the latest of them ended, in seconds since the epoch."""
