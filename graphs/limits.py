"""How often an owner may have each agent run, and which tokens a request takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from agents.spec import Registry
from errors import LuminaError
from graphs.goals import GoalFile
from graphs.planner import Situation
from graphs.search import NoPlan, plan
from memory.buckets import MINUTE_US, Bucket, TokenBuckets

UNKNOWN_TOPIC = "?"
"""Stands for a topic that the run has yet to find."""


class InvalidLimit(LuminaError):
    """A rate limit that is none."""


class RateLimited(LuminaError):
    """A bucket lacks a token that the request needs; nothing was taken."""

    def __init__(self, owner: str, buckets: Mapping[str, Bucket]) -> None:
        self.buckets = dict(buckets)
        """Agent → bucket, of every agent that the request needs."""
        self.agent = max(buckets, key=lambda name: buckets[name].retry_after_us)
        """The agent that has to be waited for longest."""
        self.retry_after_s = buckets[self.agent].retry_after_us / 1e6
        limit = buckets[self.agent].limit
        super().__init__(
            f"{owner} may have {self.agent} run {limit} times a minute, and not enough of that is left; "
            f"try again in {self.retry_after_s:.1f} s, or queue it as a task (POST /tasks), which waits"
        )


@dataclass(frozen=True, slots=True)
class Admission:
    """What a run was let in with."""

    paid: Mapping[str, int]
    """Agent → tokens taken for it."""
    buckets: Mapping[str, Bucket]
    """Agent → bucket after that, of every limited agent that the run needs or may need."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Which agents a request needs."""

    sure: Mapping[str, int]
    """Agent → how often the plan uses it."""
    possible: frozenset[str] = frozenset()
    """Agents that it may use for topics which are not known yet."""


def limits_of(registry: Registry, overrides: Mapping[str, int]) -> dict[str, int]:
    """Agent → runs a minute, for every limited agent: ``overrides``, else what the agent's own spec says.

    Raises:
        UnknownAgent: an override names none of these agents.
        InvalidLimit: a number that no bucket can have.
    """
    own = {name: spec.runs_per_minute for name, spec in registry.items()}
    own |= {registry[name].name: limit for name, limit in overrides.items()}
    limits = {name: limit for name, limit in own.items() if limit is not None}
    for name, limit in limits.items():
        if not 1 <= limit <= MINUTE_US:
            raise InvalidLimit(f"agent «{name}» has a limit of {limit} runs a minute; accepted: 1 or more, or None")
    return limits


def demand_of(goals: GoalFile, situation: Situation) -> Demand:
    """What the plan from these facts will use, each goal counted once."""
    sure = _agents(goals, situation)
    if situation.topics:
        return Demand(sure)
    later = _agents(goals, replace(situation, topics=(UNKNOWN_TOPIC,)))
    return Demand(sure, frozenset(later - sure))


def _agents(goals: GoalFile, situation: Situation) -> Counter[str]:
    lattice = goals.ground(situation.topics)
    targets = goals.instances(situation.targets, situation.topics)
    try:
        found = plan(lattice, situation.holding & lattice.goals, targets, cost=situation.costs)
    except NoPlan:  # the run will say why
        return Counter()
    return Counter(lattice.way(step.way).agent for step in found.steps)


class RateLimits:
    """The token buckets of the agents of one application."""

    def __init__(self, buckets: TokenBuckets, per_minute: Mapping[str, int]) -> None:
        self.per_minute = dict(per_minute)
        """Agent → runs a minute, of those that are limited."""
        self.refused = Counter(dict.fromkeys(self.per_minute, 0))
        """Agent → how often it had to be waited for, in this process."""
        self._buckets = buckets

    async def admit(self, owner: str, demand: Demand) -> Admission:
        """Take every token that is needed, in one round trip.

        A demand for more than a bucket holds takes all that it holds. For an agent that is only possible no token is
        taken, but one must be there.

        Raises:
            RateLimited: one is not there.
        """
        limits = {
            name: limit for name, limit in self.per_minute.items() if name in demand.sure or name in demand.possible
        }
        paid = {name: min(demand.sure[name], limit) for name, limit in limits.items() if name in demand.sure}
        taken = await self._buckets.take(owner, limits, paid, needs=dict.fromkeys(demand.possible, 1))
        if not taken.granted:
            error = RateLimited(owner, taken.buckets)
            self.refused[error.agent] += 1
            raise error
        return Admission(paid, taken.buckets)

    async def charge(self, owner: str, agent: str) -> None:
        """Take one token for a run that nobody could foresee, even when none is there."""
        if agent in self.per_minute:
            await self._buckets.take(owner, {agent: self.per_minute[agent]}, {agent: 1}, mode="charge")

    async def look(self, owner: str) -> Mapping[str, Bucket]:
        """Every bucket of an owner; nothing is taken. ``retry_after_us`` is until there is one token."""
        taken = await self._buckets.take(owner, self.per_minute, {}, needs=dict.fromkeys(self.per_minute, 1))
        return taken.buckets
