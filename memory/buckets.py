"""Token buckets in Redis: several are taken from at once, all or none, in one round trip and on Redis's own clock.

A bucket holds ``per_minute`` tokens and fills evenly. What is kept of it is one number, the moment at which it will be
full again (the «theoretical arrival time» of the generic cell rate algorithm, ITU-T I.371, which equals a token bucket
that fills continuously); a bucket that is full is not kept at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from redis.asyncio import Redis

from memory import keys

MINUTE_US = 60_000_000

_TAKE = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local function text(number) return string.format('%.0f', number) end
local buckets, granted = {}, 1
for i, key in ipairs(KEYS) do
  local capacity, cost, need = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1])
  local interval = math.ceil(60000000 / capacity)
  local most = 2 * capacity * interval
  local missing = math.min(math.max(tonumber(redis.call('GET', key) or 0) - now, 0), most)
  local wait = math.max(missing + (need - capacity) * interval, 0)
  if wait > 0 and ARGV[1] ~= 'charge' then granted = 0 end
  buckets[i] = {key = key, missing = missing, wait = wait, cost = cost * interval, most = most}
end
local reply = {granted, text(now)}
for _, bucket in ipairs(buckets) do
  if granted == 1 and bucket.cost > 0 then
    bucket.missing = math.min(bucket.missing + bucket.cost, bucket.most)
    redis.call('SET', bucket.key, text(now + bucket.missing), 'PX', text(math.ceil(bucket.missing / 1000)))
  end
  reply[#reply + 1] = text(bucket.missing)
  reply[#reply + 1] = text(bucket.wait)
end
return reply
"""
"""KEYS: the buckets, all of one owner, so that a cluster has them in one slot. ARGV: ``take`` or ``charge``; then for
each bucket its capacity, how many tokens are taken and how many must be there. ``charge`` takes what is not there as
well; no bucket owes more than it holds, which also bounds what a clock that was set back can do. Returns whether it was
granted, the time, and for each bucket how long until it is full and until it has what must be there (microseconds)."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket as it was at one moment of Redis's clock."""

    limit: int
    """Tokens that it holds, and gets a minute."""
    remaining: int
    """Whole tokens in it."""
    retry_after_us: int
    """Microseconds until it has the tokens that were asked for; 0 when it has."""
    full_after_us: int
    """Microseconds until it is full."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The answer to one take."""

    granted: bool
    now_us: int
    """Redis's clock, in microseconds since the epoch."""
    buckets: Mapping[str, Bucket]

    @property
    def retry_after_us(self) -> int:
        """Microseconds until every bucket has what was asked for, when nobody else takes from them."""
        return max((bucket.retry_after_us for bucket in self.buckets.values()), default=0)


class TokenBuckets:
    """One bucket for each owner and agent. All processes of one Redis see the same."""

    def __init__(self, redis: Redis) -> None:
        self._script = redis.register_script(_TAKE)

    async def take(
        self,
        owner: str,
        limits: Mapping[str, int],
        costs: Mapping[str, int],
        *,
        needs: Mapping[str, int] | None = None,
        mode: Literal["take", "charge"] = "take",
    ) -> Taken:
        """Take tokens from several buckets of an owner: from all, or from none.

        Args:
            owner: Whose buckets; no braces in it, which would break the hash tag.
            limits: Agent → tokens a minute, of every bucket that the answer is to tell of.
            costs: Agent → tokens to take; those left out cost nothing. No more than the limit can ever be there.
            needs: Agent → tokens that must be there, where that is more than is taken.
            mode: ``charge`` takes them even when they are not there.
        """
        if not limits:
            return Taken(True, 0, {})
        arguments: list[str | int] = [mode]
        for agent, limit in limits.items():
            cost = costs.get(agent, 0)
            arguments += [limit, cost, max(cost, (needs or {}).get(agent, 0))]
        reply = await self._script([keys.rate_limit(owner, agent) for agent in limits], arguments)
        granted, now_us, *rest = map(int, reply)
        pairs = zip(rest[::2], rest[1::2], strict=True)
        found = {agent: _bucket(limits[agent], *pair) for agent, pair in zip(limits, pairs, strict=True)}
        return Taken(bool(granted), now_us, found)


def _bucket(limit: int, full_after_us: int, retry_after_us: int) -> Bucket:
    interval_us = -(-MINUTE_US // limit)
    remaining = max((limit * interval_us - full_after_us) // interval_us, 0)
    return Bucket(limit, remaining, retry_after_us, full_after_us)
