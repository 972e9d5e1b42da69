"""The log of a chat's run, against a real Redis."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from memory import keys
from memory.run_log import EventsGone, Hold, HolderLost, RunHead, RunLogs, UnknownRun

HEAD = RunHead("run", "ada", {"message": "Hé"}, "f", background=False)


async def begin(logs: RunLogs) -> Hold:
    _, hold = await logs.begin(HEAD)
    assert hold is not None
    return hold


def tokens(*numbers: int) -> list[tuple[str, str]]:
    return [("token", str(number)) for number in numbers]


async def test_events_come_back_in_order_under_positions_without_gaps(redis: Redis) -> None:
    logs = RunLogs(redis)
    hold = await begin(logs)
    assert await logs.append(hold, 0, tokens(1, 2)) == 2
    assert await logs.append(hold, 2, [("done", "{}")]) == 3
    events = await logs.read("run", 0)
    assert [(event.position, event.kind, event.data) for event in events] == [
        (1, "token", "1"),
        (2, "token", "2"),
        (3, "done", "{}"),
    ]
    assert await logs.read("run", 1, count=1) == events[1:2]
    head = await logs.head("run", "ada")
    assert (head.position, head.ended, head.request) == (3, True, {"message": "Hé"})


async def test_a_batch_that_is_sent_again_is_written_once(redis: Redis) -> None:
    logs = RunLogs(redis)
    hold = await begin(logs)
    assert [await logs.append(hold, 0, tokens(1, 2)) for _ in range(2)] == [2, 2]
    assert len(await logs.read("run", 0)) == 2


async def test_who_lost_the_hold_cannot_write(redis: Redis) -> None:
    logs = RunLogs(redis)
    first = await begin(logs)
    await logs.append(first, 0, tokens(1))
    assert await logs.take_over("run") is None, "it is held"
    await redis.delete(keys.run_log("run")[2])  # as when the lease has run out
    second = await logs.take_over("run")
    assert second is not None
    with pytest.raises(HolderLost):
        await logs.append(first, 1, tokens(2))
    assert not (await logs.renew(first)).held
    await logs.release(first)
    assert (await logs.renew(second)).held, "the loser must not release the winner's hold"
    assert await logs.append(second, 1, tokens(3)) == 2


async def test_an_ended_run_is_not_taken_over(redis: Redis) -> None:
    logs = RunLogs(redis)
    hold = await begin(logs)
    await logs.append(hold, 0, [("error", "{}")])
    await logs.release(hold)
    assert await logs.take_over("run") is None


async def test_a_run_begins_once(redis: Redis) -> None:
    logs = RunLogs(redis)
    found = await asyncio.gather(*(logs.begin(HEAD) for _ in range(5)))
    assert sum(hold is not None for _, hold in found) == 1


async def test_a_sign_of_life_of_a_follower_is_seen_and_expires(redis: Redis) -> None:
    logs = RunLogs(redis, grace_s=0.05)
    hold = await begin(logs)
    assert await logs.is_held("run")
    assert (await logs.renew(hold)).followed
    async with asyncio.timeout(60):
        while (await logs.renew(hold)).followed:
            await asyncio.sleep(0.01)


async def test_only_its_owner_finds_a_run(redis: Redis) -> None:
    logs = RunLogs(redis)
    await begin(logs)
    with pytest.raises(UnknownRun):
        await logs.head("run", "bob")
    with pytest.raises(UnknownRun):
        await logs.head("nothing", "ada")


async def test_the_log_is_bounded_and_says_what_is_gone(redis: Redis) -> None:
    logs = RunLogs(redis, max_events=100)
    hold = await begin(logs)
    for first in range(0, 1_000, 100):
        await logs.append(hold, first, tokens(*range(first, first + 100)))
    with pytest.raises(EventsGone, match="1 is wanted"):
        await logs.read("run", 0)
    kept = await logs.read("run", 0, count=1_000, gaps=True)
    assert len(kept) < 300
    assert kept[-1].position == 1_000
    assert await logs.read("run", 999) == kept[-1:]


async def test_nothing_is_kept_for_ever(redis: Redis) -> None:
    logs = RunLogs(redis)
    hold = await begin(logs)
    await logs.append(hold, 0, tokens(1))
    await logs.renew(hold)
    names = [name async for name in redis.scan_iter("*run/run*")]
    assert len(names) == 4
    assert all([await redis.pttl(name) > 0 for name in names])
