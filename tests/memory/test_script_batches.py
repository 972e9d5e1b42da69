"""Scripts that are called at the same time share round trips, and nothing else."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import ResponseError

from memory.script_batches import LARGEST, ScriptBatches

SCRIPTS = {
    "count": "return redis.call('INCRBY', KEYS[1], ARGV[1])",
    "refuse": "return redis.error_reply('no luck')",
    "which": "return ARGV[1]",
}


@pytest.fixture
def batches(redis: Redis) -> ScriptBatches:
    return ScriptBatches(redis, SCRIPTS)


async def test_calls_at_the_same_time_share_round_trips_and_each_has_its_own_reply(
    batches: ScriptBatches, redis: Redis
) -> None:
    await batches.call("which", [], ["first"])
    before = (await redis.info("stats"))["total_reads_processed"]
    words = [str(number) for number in range(3 * LARGEST)]
    assert await asyncio.gather(*(batches.call("which", [], [word]) for word in words)) == [w.encode() for w in words]
    reads = (await redis.info("stats"))["total_reads_processed"] - before
    assert reads < len(words) / 4


async def test_they_run_in_the_order_in_which_they_were_called(batches: ScriptBatches) -> None:
    await batches.call("count", ["n"], [0])
    replies = await asyncio.gather(*(batches.call("count", ["n"], [1]) for _ in range(LARGEST)))
    assert replies == list(range(1, LARGEST + 1))


async def test_a_server_that_has_forgotten_the_scripts_is_told_again(batches: ScriptBatches, redis: Redis) -> None:
    for _ in range(2):
        await redis.script_flush()
        assert await asyncio.gather(*(batches.call("count", ["n"], [1]) for _ in range(3)))
    assert await redis.get("n") == b"6"


async def test_one_that_is_refused_does_not_disturb_the_others(batches: ScriptBatches) -> None:
    names = ["which", "refuse", "which"]
    replies = await asyncio.gather(*(batches.call(name, [], ["x"]) for name in names), return_exceptions=True)
    assert [replies[0], replies[2]] == [b"x", b"x"]
    assert isinstance(replies[1], ResponseError)
    assert "no luck" in str(replies[1])


async def test_who_leaves_calls_nothing_back_and_holds_nobody_up(batches: ScriptBatches, redis: Redis) -> None:
    await batches.call("count", ["n"], [0])
    leaver = asyncio.create_task(batches.call("count", ["n"], [1]))
    stayer = asyncio.create_task(batches.call("count", ["n"], [1]))
    await asyncio.sleep(0)
    leaver.cancel()
    assert await stayer == 2
    assert leaver.cancelled()


async def test_a_server_that_is_not_there_is_told_to_every_caller(unused_tcp_port: int) -> None:
    async with Redis(host="127.0.0.1", port=unused_tcp_port) as nobody:
        batches = ScriptBatches(nobody, SCRIPTS)
        replies = await asyncio.gather(*(batches.call("which", [], ["x"]) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(reply, NotConnected) for reply in replies)
