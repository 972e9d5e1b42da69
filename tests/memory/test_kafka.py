"""Events on their way to Kafka, against librdkafka's mock broker on a real port."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from memory import keys
from memory.kafka import STREAMS, KafkaAway, KafkaForwarder, forget, give_up, key_of, topic_of
from memory.streams import Delivered, Event, Streams

SHARED = Path(os.environ.get("LUMINA_SHARED", Path(__file__).parents[3] / "shared"))
MOCK = SHARED / "tools" / "kafka_mock.py"


class Broker:
    """A broker that can be taken down and brought back at the same port."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.servers = process.stdout.readline().split()[1]

    async def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        assert (await asyncio.to_thread(self._process.stdout.readline)).startswith("ok")


@pytest.fixture
def broker() -> Iterator[Broker]:
    if not MOCK.exists():
        pytest.skip(f"{MOCK} is not there; LUMINA_SHARED says where the shared folder is")
    topics = [f"{topic_of(stream)}:3" for stream in STREAMS]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, str(MOCK), *topics], text=True, **pipes) as process:
        yield Broker(process)
        process.kill()


@asynccontextmanager
async def forwarding(redis: Redis, servers: str) -> AsyncIterator[KafkaForwarder]:
    forwarder, stop = KafkaForwarder(redis, servers), asyncio.Event()
    task = asyncio.create_task(forwarder.run(stop))
    try:
        yield forwarder
    finally:
        stop.set()
        await task


async def consumed(servers: str, stream: str, count: int) -> dict[str, Any]:
    """So many different messages of a stream's topic from its beginning, by the stream id in their headers."""
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(topic_of(stream), bootstrap_servers=servers, auto_offset_reset="earliest")
    found: dict[str, Any] = {}
    await consumer.start()
    try:
        async with asyncio.timeout(60):
            async for message in consumer:
                found.setdefault(dict(message.headers)["id"].decode(), message)
                if len(found) == count:
                    return found
    finally:
        await consumer.stop()
    raise AssertionError("the topic ended")


async def backlog(redis: Redis, stream: str) -> int:
    group = (await Streams(redis).backlog())[stream].groups[keys.KAFKA_GROUP]
    return group.lag + group.pending


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.05)


def nodes(numbers: Sequence[int]) -> list[Event]:
    return [Event("node.add", {"owner": "ada", "id": f"n{number % 7}", "number": number}) for number in numbers]


@pytest.mark.slow
async def test_everything_arrives_in_order_for_each_key_though_the_broker_was_away(
    redis: Redis, broker: Broker
) -> None:
    streams = Streams(redis)
    ids = await streams.publish(nodes(range(50)))
    async with forwarding(redis, broker.servers) as forwarder:

        async def is_well() -> bool:
            try:
                return bool((await forwarder.check())["sent"] >= len(ids))
            except KafkaAway:
                return False

        await until(is_well)
        await broker.tell("down")
        ids += await streams.publish(nodes(range(50, 100)))
        submitted = await streams.publish([Event("task.submit", {"owner": "ada"}, task_id="t9")], keys.TASKS_STREAM)

        async def is_away() -> bool:
            try:
                await forwarder.check()
            except KafkaAway as error:
                return "they wait" in str(error)
            return False

        await until(is_away)
        assert await backlog(redis, keys.GRAPH_STREAM) == 50
        await broker.tell("up")
        found = await consumed(broker.servers, keys.GRAPH_STREAM, 100)
        tasks = await consumed(broker.servers, keys.TASKS_STREAM, 1)

        async def is_done() -> bool:
            return not await backlog(redis, keys.GRAPH_STREAM)

        await until(is_done)
        await until(is_well)
    assert sorted(found) == sorted(ids)
    assert tasks[submitted[0]].key == b"t9"
    for id_, message in found.items():
        told = json.loads(message.value)
        assert message.key.decode() == told["data"]["id"] == f"n{told['data']['number'] % 7}"
        assert (told["id"], told["stream"]) == (id_, "graph_stream")
    for key in {message.key for message in found.values()}:
        mine = sorted((m.offset, ids.index(id_), m.partition) for id_, m in found.items() if m.key == key)
        assert [number for _, number, _ in mine] == sorted(number for _, number, _ in mine)
        assert len({partition for _, _, partition in mine}) == 1


def test_the_key_is_the_node_or_the_task() -> None:
    assert key_of(Event("node.add", {"id": "a"}, task_id="t")) == b"a"
    assert key_of(Event("edge.add", {"source": "a", "target": "b"}, task_id="t")) == b"a"
    assert key_of(Event("node.add", {"id": 7}, task_id="t")) == b"t"
    assert key_of(Event("plan.step", {}, task_id="t")) == b"t"
    assert key_of(Event("error", {})) is None


async def test_a_broker_that_is_away_holds_up_neither_producers_nor_memory_for_ever(redis: Redis) -> None:
    streams = Streams(redis, max_wait_s=60)
    async with forwarding(redis, "127.0.0.1:1") as forwarder:

        async def has_group() -> bool:
            return all([keys.KAFKA_GROUP in (await streams.backlog())[name].groups for name in STREAMS])

        await until(has_group)
        async with asyncio.timeout(30):
            ids = await streams.publish([Event("plan.step", {"owner": "ada"}) for _ in range(1_500)])
            ids += await streams.publish([Event("plan.step", {"owner": "ada"}) for _ in range(500)])
        with pytest.raises(KafkaAway, match=r"127\.0\.0\.1:1 does not take events"):
            await until(forwarder.check)
        assert await backlog(redis, keys.PLANNER_STREAM) == 2_000
    assert await streams.trim(keys.PLANNER_STREAM) == 0, "what waits is not trimmed"
    assert await give_up(redis, keys.PLANNER_STREAM, 1_200) == 800
    assert await backlog(redis, keys.PLANNER_STREAM) == 1_200
    assert await give_up(redis, keys.PLANNER_STREAM, 1_200) == 0
    assert await streams.trim(keys.PLANNER_STREAM) == 800
    left: Any = await redis.xreadgroup(keys.KAFKA_GROUP, "producer", {keys.PLANNER_STREAM: ">"}, count=1)
    assert left[0][1][0][0].decode() == ids[800]
    told = await streams.tail(keys.GRAPH_STREAM)
    assert isinstance(told[-1], Delivered)
    assert "800 events of planner_log/v1 were not sent to Kafka" in told[-1].event.data["error"]
    await forget(redis)
    assert keys.KAFKA_GROUP not in (await streams.backlog())[keys.PLANNER_STREAM].groups
