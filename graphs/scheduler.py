"""The planner by the clock: at every tick of ``PLAN_CRON`` one process looks at the standing goals.

Which tick was the last is kept in Redis, beside the lock. However many ticks were missed (nobody was there, the clock
was set forward), they are one look. When the clock was set back, one look follows and the ticks go on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from croniter import croniter
from loguru import logger
from redis.exceptions import RedisError

from errors import LuminaError
from graphs.standing import SKEW_S, Kept, StandingGoals
from memory.locks import Lock, LockLost

LOCK_NAME = "planner"
LOOK_EVERY_S = 30.0
"""The longest wait between two looks at the clock, so that a clock that was set is noticed, and a tick taken up whose
planner has died."""
SHORTEST_WAIT_S = 0.1
SILENT_S = 3 * LOOK_EVERY_S
"""A scheduler that has not looked for so long is stuck."""
TICK = "tick"
"""Field of the lock's state: the last tick that was looked at, in seconds since the epoch."""


class SchedulerStuck(LuminaError):
    """The standing goals are not looked at, or not all of them."""


class Scheduler:
    """Looks at the standing goals on time. Cron fields are in UTC."""

    def __init__(
        self, standing: StandingGoals, lock: Lock, cron: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Take what it needs.

        Args:
            standing: The goals.
            lock: The planner's; see ``LOCK_NAME``.
            cron: Five cron fields.
            clock: Seconds since the epoch.
        """
        self._standing, self._lock, self._cron, self._clock = standing, lock, cron, clock
        self._last_tick: float | None = None
        self._looked = time.monotonic()
        self._problems: dict[str, str] = {}
        self._error = ""

    async def run(self, stop: asyncio.Event) -> None:
        """Look at every tick until ``stop`` is set."""
        while not stop.is_set():
            try:
                await self.look()
                self._error = ""
            except (LuminaError, RedisError, OSError) as error:
                if str(error) != self._error:
                    logger.warning("the standing goals were not looked at: {}", error)
                self._error = str(error)
            self._looked = time.monotonic()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self.wait_s())

    def wait_s(self) -> float:
        """Seconds until the next look at the clock; never negative, never long, whatever the clock says."""
        now = self._clock()
        return min(max(self._tick_after(now) - now, SHORTEST_WAIT_S), LOOK_EVERY_S)

    async def look(self) -> Kept | None:
        """Keep the standing goals if a tick has come; None when it has not, or another process looks after it.

        The very first time nothing was missed: it waits for the next tick.

        Raises:
            LockLost: this took so long that another process took over.
        """
        if not self._due(await self._lock.state()):
            return None
        held = await self._lock.acquire()
        if held is None:
            return None
        try:
            state = await self._lock.state()  # another may have been there since
            if not self._due(state):
                return None
            now = self._clock()
            kept = await self._standing.keep(held, state, now) if TICK in state else None
            self._last_tick = self._tick_before(now)
            await held.write({TICK: self._last_tick})
        finally:
            with contextlib.suppress(LockLost):
                await held.release()
        self._problems = kept.problems if kept else {}
        return kept

    async def check(self) -> dict[str, Any]:
        """The last and the next tick, for ``GET /health``.

        Raises:
            SchedulerStuck: with the reason.
        """
        silent_s = time.monotonic() - self._looked
        if self._error or silent_s > SILENT_S:
            raise SchedulerStuck(self._error or f"no look at the clock for {silent_s:.0f} s")
        if self._problems:
            raise SchedulerStuck("; ".join(f"standing goal {name}: {why}" for name, why in self._problems.items()))
        return {
            "cron": self._cron,
            "last_tick": _iso(self._last_tick) if self._last_tick is not None else None,
            "next_tick": _iso(self._tick_after(self._clock())),
            "standing": [goal.id for goal in self._standing.goals],
        }

    def _due(self, state: dict[str, str]) -> bool:
        if TICK not in state:
            return True
        now, last = self._clock(), float(state[TICK])
        self._last_tick = last
        return self._tick_before(now) > last or last > now + SKEW_S

    def _tick_before(self, now: float) -> float:
        """The latest tick that is not after ``now``."""
        start = datetime.fromtimestamp(math.floor(now) + 1, UTC)
        return float(croniter(self._cron, start).get_prev(float))

    def _tick_after(self, now: float) -> float:
        return float(croniter(self._cron, datetime.fromtimestamp(math.floor(now), UTC)).get_next(float))


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()
