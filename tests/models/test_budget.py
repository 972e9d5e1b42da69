"""A run's budget against a real Redis: it is never passed, and nothing set aside is lost for good."""

import asyncio

import pytest
from redis.asyncio import Redis

from models.budget import Budget, BudgetExceeded, Reservation
from models.prices import CAREFUL, NANO_USD, Price, PriceTable

CENT = NANO_USD // 100


def budget(redis: Redis, limit_usd: float = 1.0, ttl_s: float = 60.0) -> Budget:
    return Budget(redis, limit_usd=limit_usd, prices=PriceTable(), ttl_s=ttl_s)


async def test_fifty_concurrent_reservations_from_two_processes_views_never_pass_the_limit(
    redis: Redis, redis_url: str
) -> None:
    other: Redis = Redis.from_url(redis_url)
    views = [budget(redis), budget(other)]
    outcomes = await asyncio.gather(*(views[n % 2].reserve("run", 7 * CENT) for n in range(50)), return_exceptions=True)
    granted = [held for held in outcomes if isinstance(held, Reservation)]
    assert len(granted) == 14  # 14 times 7 cents = 98 cents; the fifteenth would pass the dollar
    assert sum(isinstance(refused, BudgetExceeded) for refused in outcomes) == 36
    await asyncio.gather(*(views[n % 2].settle(held, 7 * CENT) for n, held in enumerate(granted)))
    assert await views[0].spent("run") == pytest.approx(0.98)
    with pytest.raises(BudgetExceeded):
        await views[1].reserve("run", 3 * CENT)
    await other.aclose()


async def test_settling_returns_what_was_not_spent(redis: Redis) -> None:
    account = budget(redis)
    held = await account.reserve("run", 90 * CENT)
    with pytest.raises(BudgetExceeded, match=r"LLM_BUDGET_USD"):
        await account.reserve("run", 20 * CENT)
    assert await account.settle(held, 10 * CENT) == 10 * CENT
    await account.reserve("run", 90 * CENT)


async def test_a_released_reservation_costs_nothing(redis: Redis) -> None:
    account = budget(redis)
    await account.release(await account.reserve("run", 100 * CENT))
    assert await account.spent("run") == 0
    await account.reserve("run", 100 * CENT)


async def test_settling_twice_gives_back_the_reservation_once(redis: Redis) -> None:
    account = budget(redis)
    held = await account.reserve("run", 50 * CENT)
    await account.release(held)
    await account.release(held)
    await account.reserve("run", 100 * CENT)
    with pytest.raises(BudgetExceeded):
        await account.reserve("run", 1)


async def test_a_leaked_reservation_expires_on_the_servers_clock(redis: Redis) -> None:
    account = budget(redis, ttl_s=0.05)
    leaked = await account.reserve("run", 100 * CENT)
    with pytest.raises(BudgetExceeded):
        await account.reserve("run", CENT)
    async with asyncio.timeout(60):
        while True:
            try:
                await account.reserve("run", CENT)
                break
            except BudgetExceeded:
                await asyncio.sleep(0.01)
    # What the late call really spent still counts.
    assert await account.settle(leaked, 100 * CENT) == 100 * CENT
    with pytest.raises(BudgetExceeded):
        await account.reserve("run", CENT)


async def test_runs_do_not_share_an_account_and_zero_refuses_all(redis: Redis) -> None:
    account = budget(redis)
    await account.reserve("one", 100 * CENT)
    await account.reserve("two", 100 * CENT)
    with pytest.raises(BudgetExceeded):
        await budget(redis, limit_usd=0).reserve("three", 1)


async def test_every_key_of_an_account_expires(redis: Redis) -> None:
    account = budget(redis)
    await account.settle(await account.reserve("run", CENT), CENT)
    await account.reserve("run", CENT)
    keys = await redis.keys("*")
    assert keys
    assert all([await redis.pttl(key) > 0 for key in keys])


def test_prices_are_exact_dated_names_count_and_unknown_models_are_dear() -> None:
    table = PriceTable({"house-model": Price(1.0, 2.0), "gpt-4o": Price(3.0, 4.0)})
    assert table["gpt-4o-mini"].cost_nano_usd(input_tokens=1, output_tokens=1) == 150 + 600
    assert table["gpt-4o-mini-2024-07-18"] == table["gpt-4o-mini"]
    assert table["mistral-large-latest"] == table["mistral-large-2411"] == table["mistral-large"]
    assert table["gpt-5-pro"] == CAREFUL  # another model, not a release of gpt-5
    assert table["house-model"] == Price(1.0, 2.0)
    assert table["gpt-4o"] == Price(3.0, 4.0)
    assert [table.names(name) for name in ("house-model", "gpt-4o-mini")] == [True, False]
    assert Price(0.0375, 0).cost_nano_usd(input_tokens=1, output_tokens=0) == 38
