"""What each way of the goal lattice cost in its latest runs, as SQL over the planner's events."""

from __future__ import annotations

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
)
SELECT
    way, count(*), median(seconds), median(seconds) FILTER (ok), avg(CASE WHEN ok THEN 0.0 ELSE 1.0 END), avg(usd),
    median(seconds) FILTER (NOT ok), epoch(max(ts))
FROM steps
WHERE age <= $runs
GROUP BY way
ORDER BY way
"""
"""The columns of ``WayHistory`` for each way; ``$runs`` is how many of its latest runs count."""


@dataclass(frozen=True, slots=True)
class WayHistory:
    """What the latest runs of one way cost."""

    way: str
    runs: int
    """Number of runs that the figures rest on."""
    seconds: float | None
    """Median duration of all runs."""
    ok_seconds: float | None
    """Median duration of the runs that succeeded; None when none did."""
    failure_rate: float
    """Share of the runs that failed, 0 to 1."""
    usd: float
    """Mean price of a run in US dollars."""
    failed_seconds: float | None
    """Median duration of the runs that failed; None when none did."""
    last_s: float
    """When the latest of them ended, in seconds since the epoch."""
