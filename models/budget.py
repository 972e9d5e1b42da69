"""What one run may spend on paid models: reserve before a call, settle after it, release on failure.

Every step is one Lua script in one round trip, on Redis' own clock, so that all processes that serve a run share one
account and together never pass its limit. Money is whole nano-dollars (see ``models.prices``).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from redis.asyncio import Redis

from errors import LuminaError
from models.prices import NANO_USD, PriceTable

_RESERVE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)) do
  redis.call('HINCRBY', KEYS[1], 'held', -tonumber(redis.call('HGET', KEYS[1], id) or 0))
  redis.call('HDEL', KEYS[1], id)
  redis.call('ZREM', KEYS[2], id)
end
local spent = tonumber(redis.call('HGET', KEYS[1], 'spent') or 0)
local held = tonumber(redis.call('HGET', KEYS[1], 'held') or 0)
if spent + held + tonumber(ARGV[2]) > tonumber(ARGV[3]) then return {0, spent, held} end
redis.call('HINCRBY', KEYS[1], 'held', ARGV[2])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now + ARGV[4], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return {1, spent, held}
"""
"""KEYS: account, leases. ARGV: reservation id, amount, limit, lease in ms, account's life in ms."""

_SETTLE = """
local amount = redis.call('HGET', KEYS[1], ARGV[1])
if amount then
  redis.call('HINCRBY', KEYS[1], 'held', -tonumber(amount))
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
end
local spent = redis.call('HINCRBY', KEYS[1], 'spent', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return spent
"""
"""KEYS: account, leases. ARGV: reservation id, amount really spent, account's life in ms. An expired reservation's
spending still counts."""

_ACCOUNT_TTL_S = 30 * 24 * 3600
"""An account outlives its run by a month, then it is forgotten."""


class BudgetExceeded(LuminaError):
    """The run's budget does not cover a call to a paid model."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Money set aside for one call that is under way."""

    run_id: str
    id: str
    nano_usd: int


class Budget:
    """The accounts of all runs, one for each run id.

    Args:
        redis: any client of Redis 6.2 or later; a cluster's too, for an account's two keys share a hash tag.
        limit_usd: what one run may spend; 0 refuses every paid call.
        prices: what a model costs.
        ttl_s: after so long a reservation that nobody settled is taken as leaked and given back. It must be longer
            than a call may take.
        prefix: put before the names of the keys.
    """

    def __init__(
        self, redis: Redis, *, limit_usd: float, prices: PriceTable, ttl_s: float = 900.0, prefix: str = "lumina"
    ) -> None:
        self.limit_usd = limit_usd
        self.prices = prices
        self._redis = redis
        self._limit = round(limit_usd * NANO_USD)
        self._lease_ms = max(1, round(ttl_s * 1000))
        self._life_ms = self._lease_ms + _ACCOUNT_TTL_S * 1000
        self._prefix = prefix
        self._reserve = redis.register_script(_RESERVE)
        self._settle = redis.register_script(_SETTLE)

    async def reserve(self, run_id: str, nano_usd: int) -> Reservation:
        """Set money aside before a call.

        Raises:
            BudgetExceeded: when spent, reserved and this amount together would pass the limit.
            redis.RedisError: when the account cannot be reached; the call must then not be made.
        """
        held = Reservation(run_id, secrets.token_hex(8), nano_usd)
        granted, spent, reserved = await self._reserve(
            keys=self._keys(run_id), args=[held.id, nano_usd, self._limit, self._lease_ms, self._life_ms]
        )
        if not granted:
            raise BudgetExceeded(
                f"run {run_id}: a call of up to ${nano_usd / NANO_USD:.6f} does not fit into the budget of "
                f"${self.limit_usd:g} (${int(spent) / NANO_USD:.6f} spent, ${int(reserved) / NANO_USD:.6f} reserved); "
                "raise LLM_BUDGET_USD or use a local model"
            )
        return held

    async def settle(self, held: Reservation, nano_usd: int) -> int:
        """Turn a reservation into what was really spent; returns the run's spending in nano-dollars."""
        args: list[str | int] = [held.id, nano_usd, self._life_ms]
        return int(await self._settle(keys=self._keys(held.run_id), args=args))

    async def release(self, held: Reservation) -> None:
        """Give a reservation back: nothing was spent."""
        await self.settle(held, 0)

    async def spent(self, run_id: str) -> float:
        """US dollars that the run has spent; reservations do not count."""
        reply = await self._redis.hget(self._keys(run_id)[0], "spent")
        return int(reply or 0) / NANO_USD

    def _keys(self, run_id: str) -> list[str]:
        account = f"{self._prefix}:{{budget:{run_id}}}"
        return [account, f"{account}:leases"]
