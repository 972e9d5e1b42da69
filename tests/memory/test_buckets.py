from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from memory import keys
from memory.buckets import Taken, TokenBuckets

OWNER = "ada"


@pytest.fixture
def buckets(redis: Redis) -> TokenBuckets:
    return TokenBuckets(redis)


async def drain(buckets: TokenBuckets, limit: int, owner: str = OWNER) -> None:
    assert (await buckets.take(owner, {"qa": limit}, {"qa": limit})).granted


async def test_fifty_at_a_time_never_get_more_than_there_is(buckets: TokenBuckets) -> None:
    taken = await asyncio.gather(*(buckets.take(OWNER, {"qa": 20}, {"qa": 1}) for _ in range(50)))
    granted = [one for one in taken if one.granted]
    # 20 at once, and one more for each three seconds of Redis's clock that the fifty took
    seconds = (max(one.now_us for one in taken) - min(one.now_us for one in taken)) / 1e6
    assert 20 <= len(granted) <= 20 + seconds / 3


async def test_two_owners_and_two_agents_do_not_share(buckets: TokenBuckets) -> None:
    await drain(buckets, 5)
    assert not (await buckets.take(OWNER, {"qa": 5}, {"qa": 1})).granted
    assert (await buckets.take("bob", {"qa": 5}, {"qa": 1})).granted
    assert (await buckets.take(OWNER, {"crawl": 5}, {"crawl": 1})).granted


async def test_of_two_buckets_all_is_taken_or_nothing(buckets: TokenBuckets) -> None:
    limits = {"crawl": 2, "qa": 20}
    both = {"crawl": 1, "qa": 1}
    for _ in range(2):
        assert (await buckets.take(OWNER, limits, both)).granted
    refused = await buckets.take(OWNER, limits, both)
    assert not refused.granted
    assert refused.retry_after_us == refused.buckets["crawl"].retry_after_us > 0
    assert (refused.buckets["qa"].remaining, refused.buckets["qa"].retry_after_us) == (18, 0)


async def test_a_take_is_one_round_trip(redis: Redis, buckets: TokenBuckets) -> None:
    limits = {"crawl": 5, "summarise": 10, "qa": 20}
    await buckets.take(OWNER, limits, limits)  # the first one also loads the script
    before = await calls(redis)
    await buckets.take(OWNER, limits, {"crawl": 1, "qa": 1})
    assert await calls(redis) - before == 1


async def calls(redis: Redis) -> int:
    stats: Any = await redis.info("commandstats")
    return int(stats["cmdstat_evalsha"]["calls"])


async def refusals(buckets: TokenBuckets, limit: int) -> list[Taken]:
    """Ask until a token is there; the last one is granted."""
    found: list[Taken] = []
    async with asyncio.timeout(30):
        while not found or not found[-1].granted:
            found.append(await buckets.take(OWNER, {"qa": limit}, {"qa": 1}))
    return found


async def test_retry_after_is_exact_to_the_microsecond(buckets: TokenBuckets) -> None:
    limit = 600  # a token every 0.1 s
    await drain(buckets, limit)
    *refused, granted = await refusals(buckets, limit)
    assert refused
    moments = {one.now_us + one.retry_after_us for one in refused}
    assert len(moments) == 1
    assert max(one.now_us for one in refused) < moments.pop() <= granted.now_us


async def test_taking_often_does_not_lose_parts_of_a_token(redis: Redis, buckets: TokenBuckets) -> None:
    limit = 6_000  # a token every 10 ms, asked for far more often
    await drain(buckets, limit)
    start = (await refusals(buckets, limit))[-1].now_us
    last, granted = start, 0
    while last - start < 500_000:
        taken = await buckets.take(OWNER, {"qa": limit}, {"qa": 1})
        last, granted = taken.now_us, granted + taken.granted
    assert abs(granted - (last - start) // 10_000) <= 1


async def test_the_clock_of_the_client_does_not_matter(redis: Redis, buckets: TokenBuckets) -> None:
    """Nothing that a client sends is a time, so none can be wrong; what is kept is a time of the server's."""
    await drain(buckets, 5)
    seconds, micros = await redis.time()
    full_at = int(await redis.get(keys.rate_limit(OWNER, "qa")) or 0)
    assert 0 < full_at - (seconds * 1_000_000 + micros) <= 60_000_000
    sent: list[Any] = []

    class Watching:
        def register_script(self, text: str) -> Any:
            script = redis.register_script(text)

            async def call(names: list[str], arguments: list[Any]) -> Any:
                sent.extend(arguments)
                return await script(names, arguments)

            return call

    watched: Any = Watching()
    await TokenBuckets(watched).take(OWNER, {"qa": 5}, {"qa": 1})
    assert sent == ["take", 5, 1, 1]
    assert not any(isinstance(one, int) and one > time.time() / 2 for one in sent)


async def test_a_bucket_whose_server_was_set_back_owes_no_more_than_it_holds(
    redis: Redis, buckets: TokenBuckets
) -> None:
    await redis.set(keys.rate_limit(OWNER, "qa"), 9_000_000_000_000_000)
    refused = await buckets.take(OWNER, {"qa": 20}, {"qa": 1})
    assert not refused.granted
    assert refused.retry_after_us == 63_000_000  # a minute for what is owed, and one token
    assert refused.buckets["qa"].remaining == 0


async def test_a_charge_takes_what_is_not_there_and_the_next_one_waits_longer(buckets: TokenBuckets) -> None:
    await drain(buckets, 5)
    before = await buckets.take(OWNER, {"qa": 5}, {"qa": 1})
    charged = await buckets.take(OWNER, {"qa": 5}, {"qa": 1}, mode="charge")
    after = await buckets.take(OWNER, {"qa": 5}, {"qa": 1})
    assert (before.granted, charged.granted, after.granted) == (False, True, False)
    assert after.now_us + after.retry_after_us == before.now_us + before.retry_after_us + 12_000_000


async def test_what_must_be_there_and_is_not_taken_stays(buckets: TokenBuckets) -> None:
    taken = await buckets.take(OWNER, {"crawl": 1}, {}, needs={"crawl": 1})
    assert taken.granted
    assert taken.buckets["crawl"].remaining == 1
    await buckets.take(OWNER, {"crawl": 1}, {"crawl": 1})
    assert not (await buckets.take(OWNER, {"crawl": 1}, {}, needs={"crawl": 1})).granted


async def test_a_full_bucket_leaves_nothing_behind(redis: Redis, buckets: TokenBuckets) -> None:
    await buckets.take(OWNER, {"qa": 60}, {"qa": 1})
    left_ms: Any = await redis.pttl(keys.rate_limit(OWNER, "qa"))
    assert 0 < left_ms <= 1_001


async def test_the_keys_of_one_take_lie_in_one_slot() -> None:
    from redis.crc import key_slot

    slots = {key_slot(keys.rate_limit("ada", agent).encode()) for agent in ("crawl", "qa", "summarise")}
    assert len(slots) == 1
