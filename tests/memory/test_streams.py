from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis as Client

from memory import keys
from memory.consumers import Consumer, NotReady
from memory.redis_server import open_redis
from memory.streams import Delivered, Event, Streams, stream_of

Redis = Any
"""The stubs of redis-py give every reply as a union of all protocols' shapes."""
STREAM = keys.GRAPH_STREAM
GROUP = "masterchat"


@asynccontextmanager
async def running(
    redis: Redis, handler: Callable[[list[Delivered]], Awaitable[None]], name: str = "mc", **options: Any
) -> AsyncIterator[Consumer]:
    """A consumer at work, stopped and drained at the end."""
    stop = asyncio.Event()
    consumer = Consumer(redis, STREAM, GROUP, name, handler, **{"block_ms": 20, "lease_s": 0.3, **options})
    task = asyncio.create_task(consumer.run(stop))
    try:
        yield consumer
    finally:
        stop.set()
        await task


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 60) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.01)


async def settled(redis: Redis) -> bool:
    """Whether every entry was handed out and acknowledged."""
    if not await redis.exists(STREAM) or not (groups := await redis.xinfo_groups(STREAM)):
        return False
    group = groups[0]
    last = (await redis.xinfo_stream(STREAM))["last-generated-id"]
    return bool(group["pending"] == 0 and group["last-delivered-id"] == last)


async def dead(redis: Redis) -> list[dict[bytes, bytes]]:
    return [fields for _, fields in await redis.xrange(keys.dead_letters(STREAM))]


def numbers(count: int) -> list[Event]:
    return [Event("node.add", {"n": n}) for n in range(count)]


class Seen:
    """A handler that remembers, and fails where it is told to."""

    def __init__(self, poison: Callable[[Delivered], bool] = lambda item: False) -> None:
        self.items: list[Delivered] = []
        self.calls = 0
        self.poison = poison

    async def __call__(self, batch: list[Delivered]) -> None:
        self.calls += 1
        if any(self.poison(item) for item in batch):
            raise RuntimeError("this one hurts")
        self.items += batch

    @property
    def values(self) -> list[int]:
        return [item.event.data["n"] for item in self.items]


async def test_events_go_where_their_type_belongs_and_ids_come_in_order(redis: Redis) -> None:
    events = [Event("plan.start"), Event("node.add", {"a": "ü"}), Event("passages.add"), Event("plan.done")]
    assert [stream_of(event) for event in events] == [
        keys.PLANNER_STREAM,
        keys.GRAPH_STREAM,
        keys.PASSAGES_STREAM,
        keys.PLANNER_STREAM,
    ]
    ids = await Streams(redis).publish(events)
    assert [entry_id.decode() for entry_id, _ in await redis.xrange(keys.PLANNER_STREAM)] == [ids[0], ids[3]]
    [(entry_id, fields)] = await redis.xrange(keys.GRAPH_STREAM)
    assert entry_id.decode() == ids[1]
    assert Event.from_fields(fields) == events[1]


async def test_nothing_is_published_for_no_events(redis: Redis) -> None:
    assert await Streams(redis).publish([]) == []
    assert await redis.keys() == []


@pytest.mark.parametrize("data", [{"x": math.nan}, {"x": math.inf}, {"x": "\ud800"}])
async def test_data_that_is_not_json_is_refused_by_the_producer(redis: Redis, data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"JSON|surrogate"):
        await Streams(redis).publish([Event("node.add", data)])
    assert await redis.exists(STREAM) == 0


async def test_what_was_sent_before_the_groups_is_not_lost(redis: Redis) -> None:
    streams, seen = Streams(redis), Seen()
    await streams.publish(numbers(3))
    await streams.setup()
    await streams.setup()
    async with running(redis, seen):
        await until(lambda: settled(redis))
    assert seen.values == [0, 1, 2]


async def test_a_batch_reaches_the_handler_once_and_in_order(redis: Redis) -> None:
    seen = Seen()
    async with running(redis, seen, batch=100):
        ids = await Streams(redis).publish(numbers(1234))
        await until(lambda: settled(redis))
    assert [item.id for item in seen.items] == ids
    assert {item.attempts for item in seen.items} == {1}


async def test_two_members_of_a_group_share_the_work(redis: Redis) -> None:
    first, second = Seen(), Seen()
    async with running(redis, first, "a", batch=10), running(redis, second, "b", batch=10):
        await Streams(redis).publish(numbers(1000))
        await until(lambda: settled(redis))
    assert sorted(first.values + second.values) == list(range(1000))
    assert first.items
    assert second.items


async def test_names_do_not_pile_up(redis: Redis) -> None:
    for name in ("a", "b", "c"):
        async with running(redis, Seen(), name):
            await Streams(redis).publish(numbers(2))
            await until(lambda: settled(redis))
    assert await redis.xinfo_consumers(STREAM, GROUP) == []


async def test_an_entry_that_always_fails_ends_in_the_dead_letters_alone(redis: Redis) -> None:
    seen = Seen(lambda item: item.event.data["n"] == 7)
    async with running(redis, seen, lease_s=0.05, max_attempts=3):
        [*_, ids] = [await Streams(redis).publish(numbers(100))]
        await until(lambda: settled(redis))
    assert sorted(seen.values) == [n for n in range(100) if n != 7]
    [letter] = await dead(redis)
    assert Event.from_fields(letter).data == {"n": 7}
    assert letter[b"dead_error"] == b"RuntimeError: this one hurts"
    assert (letter[b"dead_id"].decode(), letter[b"dead_attempts"]) == (ids[7], b"3")


async def test_an_entry_that_fails_once_is_handled_the_next_time(redis: Redis) -> None:
    seen = Seen(lambda item: item.attempts == 1 and item.event.data["n"] == 3)
    async with running(redis, seen, lease_s=0.05):
        await Streams(redis).publish(numbers(5))
        await until(lambda: settled(redis))
    assert sorted(seen.values) == [0, 1, 2, 3, 4]
    assert [item.attempts for item in seen.items if item.event.data["n"] == 3] == [2]
    assert await dead(redis) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"nonsense": "1"},
        {"type": "node.add", "ts": "1", "data": "{"},
        {"type": "node.add", "ts": "1", "data": "[1]"},
        {"type": "node.add", "ts": "yesterday", "data": "{}"},
        {"type": "node.add", "ts": "9" * 30, "data": "{}"},
        {"type": b"\xff\xfe", "ts": "1", "data": "{}"},
        {"type": "node.add", "ts": "1", "data": "[" * 200_000},
    ],
    ids=["no fields", "no json", "no object", "no time", "far future", "no text", "too deep"],
)
async def test_a_malformed_entry_goes_to_the_dead_letters_and_stops_nothing(redis: Redis, fields: Any) -> None:
    seen = Seen()
    await redis.xadd(STREAM, fields)
    await Streams(redis).publish(numbers(2))
    async with running(redis, seen):
        await until(lambda: settled(redis))
    assert seen.values == [0, 1]
    [letter] = await dead(redis)
    assert b"not an event" in letter[b"dead_error"]
    assert [event.event.type for event in await Streams(redis).tail(STREAM)] == ["error", "node.add", "node.add"]


async def test_a_handler_that_is_not_ready_costs_no_attempts(redis: Redis) -> None:
    ready, seen, refusals = asyncio.Event(), Seen(), 0

    async def handler(batch: list[Delivered]) -> None:
        nonlocal refusals
        if not ready.is_set():
            refusals += 1
            if refusals == 4:
                ready.set()
            raise NotReady("the disk is full")
        await seen(batch)

    async with running(redis, handler, max_attempts=2, lease_s=0.2):
        await Streams(redis).publish(numbers(1))
        await until(lambda: settled(redis))
    assert (refusals, seen.values, await dead(redis)) == (4, [0], [])


async def test_when_every_entry_of_a_batch_fails_none_is_blamed(redis: Redis) -> None:
    broken = True
    seen = Seen(lambda item: broken)
    await Streams(redis).publish(numbers(200))
    async with running(redis, seen, max_attempts=1):
        await until(lambda: asyncio.sleep(0, seen.calls > 30))
        assert await dead(redis) == []
        broken = False
        await until(lambda: settled(redis))
    assert sorted(seen.values) == list(range(200))


async def test_a_long_handler_keeps_its_entries_and_a_second_member_gets_none(redis: Redis) -> None:
    seen, other, begun, finish = Seen(), Seen(), asyncio.Event(), asyncio.Event()

    async def slow(batch: list[Delivered]) -> None:
        begun.set()
        await finish.wait()
        await seen(batch)

    await Streams(redis).publish(numbers(5))
    async with running(redis, slow, "slow"):
        await begun.wait()
        async with running(redis, other, "other"):
            # Several leases long: without a heartbeat the other would have taken them.
            await asyncio.sleep(1.0)
        finish.set()
        await until(lambda: settled(redis))
    assert (seen.values, other.values) == ([0, 1, 2, 3, 4], [])


async def test_stopping_finishes_the_batch_in_hand(redis: Redis) -> None:
    stop, begun, finish, seen = asyncio.Event(), asyncio.Event(), asyncio.Event(), Seen()

    async def handler(batch: list[Delivered]) -> None:
        begun.set()
        await finish.wait()
        await seen(batch)

    await Streams(redis).publish(numbers(3))
    task = asyncio.create_task(Consumer(redis, STREAM, GROUP, "mc", handler).run(stop))
    await begun.wait()
    stop.set()
    finish.set()
    await task
    assert seen.values == [0, 1, 2]
    assert await settled(redis)


CRASHING = """
import asyncio, os, signal, sys
from redis.asyncio import Redis
from memory.consumers import Consumer

async def handler(batch):
    print(len(batch), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    redis = Redis.from_url(sys.argv[1])
    await Consumer(redis, "graph_stream/v1", "masterchat", sys.argv[2], handler, block_ms=50).run(asyncio.Event())

asyncio.run(main())
"""


@pytest.mark.parametrize("name", ["mc", "other"], ids=["the same name comes back", "another takes over"])
async def test_kill_9_between_handling_and_acknowledging_redelivers(redis: Redis, redis_url: str, name: str) -> None:
    await Streams(redis).publish(numbers(10))
    command = [sys.executable, "-c", CRASHING, redis_url, "mc"]
    crashed = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30)
    assert (crashed.returncode, crashed.stdout.strip()) == (-signal.SIGKILL, "10")
    seen = Seen()
    # With the same name there is no need to wait for the lease.
    async with running(redis, seen, name, lease_s=60 if name == "mc" else 0.2):
        await until(lambda: settled(redis))
    assert seen.values == list(range(10))
    assert {item.attempts for item in seen.items} == {2}


async def test_a_consumer_outlives_a_restart_of_redis(tmp_path: Path) -> None:
    seen = Seen()
    async with open_redis(None, tmp_path) as redis:
        client = Client.from_url(f"unix://{tmp_path}/redis/s")
        async with client, running(client, seen):
            await Streams(redis).publish(numbers(5))
            await until(lambda: settled(redis))
            os.kill((await redis.info("server"))["process_id"], signal.SIGKILL)
            # A second user of the folder brings the server back, at the same socket.
            async with open_redis(None, tmp_path) as again:
                await Streams(again).publish(numbers(5))
                await until(lambda: settled(again))
    assert seen.values == [0, 1, 2, 3, 4] * 2


async def test_trimming_never_outruns_a_slow_group(redis: Redis) -> None:
    streams = Streams(redis, max_wait_s=0.01)
    stream = keys.PLANNER_STREAM
    await streams.setup()
    ids = await streams.publish([Event("plan.step", {"n": n}) for n in range(3000)])
    assert await redis.xlen(stream) == 3000
    # One group reads and acknowledges everything, the other has read 2500 and still owes the 1700th.
    everything = await redis.xreadgroup("ui", "frontend", {stream: ">"}, count=3000)
    await redis.xack(stream, "ui", *(entry_id for entry_id, _ in everything[0][1]))
    assert await streams.trim(stream) == 0
    await redis.xreadgroup("masterchat", "mc", {stream: ">"}, count=2500)
    await redis.xack(stream, "masterchat", *(entry_id for n, entry_id in enumerate(ids[:2500]) if n != 1700))
    assert await streams.trim(stream) == 1700
    assert (await redis.xrange(stream, count=1))[0][0].decode() == ids[1700]
    # When nobody owes anything, the length is what remains.
    await redis.xack(stream, "masterchat", ids[1700])
    await streams.trim(stream)
    assert await redis.xlen(stream) == 1000
    await redis.xreadgroup("masterchat", "mc", {stream: ">"}, count=3000)
    await streams.trim(stream)
    assert await redis.xlen(stream) == 1000


async def test_publishing_trims_as_it_goes(redis: Redis) -> None:
    streams, stream = Streams(redis), keys.PLANNER_STREAM
    for _ in range(10):
        await streams.publish([Event("plan.step", {"n": n}) for n in range(500)])
    # No group: only the length counts, give or take the last batch.
    assert 1000 <= await redis.xlen(stream) <= 1500
    assert await streams.trim(stream) > 0
    assert await redis.xlen(stream) == 1000


async def test_a_producer_waits_for_a_group_that_is_behind_and_goes_on_when_it_caught_up(redis: Redis) -> None:
    streams, stream = Streams(redis, max_wait_s=30), keys.PLANNER_STREAM
    await redis.xgroup_create(stream, "masterchat", id="0", mkstream=True)
    await redis.xgroup_createconsumer(stream, "masterchat", "mc")
    await Streams(redis, max_wait_s=0).publish([Event("plan.step", {"n": n}) for n in range(1100)])
    waiting = asyncio.create_task(streams.publish([Event("plan.step", {"n": -1})]))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    assert await redis.xlen(stream) == 1100
    await redis.xreadgroup("masterchat", "mc", {stream: ">"}, count=1100, noack=True)
    assert len(await waiting) == 1


async def test_a_producer_is_held_back_for_a_bounded_time_only(redis: Redis) -> None:
    stream = keys.PLANNER_STREAM
    await redis.xgroup_create(stream, "masterchat", id="0", mkstream=True)
    await redis.xgroup_createconsumer(stream, "masterchat", "mc")
    streams = Streams(redis, max_wait_s=0.1)
    for _ in range(4):
        await streams.publish([Event("plan.step", {"n": n}) for n in range(500)])
    assert await redis.xlen(stream) == 2000


async def test_a_group_without_consumers_holds_entries_but_no_producer(redis: Redis) -> None:
    streams = Streams(redis, max_wait_s=60)
    await streams.setup()
    async with asyncio.timeout(60):
        for _ in range(4):
            await streams.publish([Event("plan.step", {"n": n}) for n in range(500)])
    assert await redis.xlen(keys.PLANNER_STREAM) == 2000


async def test_backlog_counts_what_each_group_has_to_do(redis: Redis) -> None:
    streams = Streams(redis)
    await streams.setup()
    await streams.publish([Event("plan.step", {"n": n}) for n in range(10)])
    await redis.xreadgroup("ui", "frontend", {keys.PLANNER_STREAM: ">"}, count=4)
    backlog = (await streams.backlog())[keys.PLANNER_STREAM]
    assert (backlog.length, backlog.max_length) == (10, 1000)
    assert (backlog.groups["ui"].lag, backlog.groups["ui"].pending, backlog.groups["ui"].consumers) == (6, 4, 1)
    assert (backlog.groups["masterchat"].lag, backlog.groups["masterchat"].pending) == (10, 0)


async def test_a_follower_reads_on_from_any_id_and_waits_for_more(redis: Redis) -> None:
    streams = Streams(redis)
    assert await streams.last_id(STREAM) == "0-0"
    ids = await streams.publish(numbers(5))
    assert await streams.last_id(STREAM) == ids[-1]
    assert [item.id for item in await streams.tail(STREAM, ids[1], count=2)] == ids[2:4]
    assert await streams.tail(STREAM, ids[-1]) == []
    waiting = asyncio.create_task(streams.tail(STREAM, ids[-1], block_ms=4000))
    await asyncio.sleep(0)
    [new] = await streams.publish([Event("node.add", {"n": 99})])
    assert [item.id for item in await waiting] == [new]


async def test_the_consumer_does_not_spin_when_there_is_nothing_to_do(redis: Redis) -> None:
    async with running(redis, Seen(), block_ms=500, lease_s=15):
        await until(lambda: asyncio.sleep(0, True))
        before = (await redis.info("stats"))["total_commands_processed"]
        await asyncio.sleep(1.0)
        after = (await redis.info("stats"))["total_commands_processed"]
    assert after - before < 15


def test_an_event_survives_its_own_fields() -> None:
    event = Event("chat.message", {"text": "snow ☃", "owner": "me"}, agent="qa", task_id="t", ts=5)
    fields = {name.encode(): str(value).encode() for name, value in event.to_fields().items()}
    assert Event.from_fields(fields) == event
    assert json.loads(fields[b"data"]) == event.data
