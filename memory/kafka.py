"""Events to Kafka: a topic for each stream, at least once, in order for each key, also after the broker was away.

A consumer group of its own reads each stream, and acknowledges what the broker has acknowledged to it. So nothing is
trimmed before it is in Kafka, up to ``MAX_BEHIND``: a broker that stays away may not fill the memory of Redis.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from loguru import logger
from redis.exceptions import RedisError, ResponseError

from memory import keys
from memory.consumers import Consumer, NotReady
from memory.followed import Followed, order_of
from memory.streams import Delivered, Event, Streams

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer
    from redis.asyncio import Redis

STREAMS = (keys.GRAPH_STREAM, keys.TASKS_STREAM, keys.PLANNER_STREAM)
"""Streams that are passed on; passages are copies of what the encyclopaedia holds, and stay here."""
CONSUMER = "producer"
MAX_BEHIND = 100_000
"""Entries of a stream that wait for a broker; older ones are given up, and are still in the event store."""
LOOK_EVERY_S = 10.0
REQUEST_TIMEOUT_S = 10.0
"""How long the broker may take for a batch; after that the batch waits and is sent again."""
BATCH = 500


_Message = tuple[bytes, bytes | None, int, list[tuple[str, bytes]]]


class KafkaAway(NotReady):
    """The broker does not answer, or does not take what it is sent."""


def topic_of(stream: str) -> str:
    """``graph_stream/v1`` → ``lumina.graph_stream.v1``."""
    return "lumina." + stream.replace("/", ".")


def key_of(event: Event) -> bytes | None:
    """What keeps events in order: the node (of an edge, where it begins), or else the task."""
    field = {"node.add": "id", "edge.add": "source"}.get(event.type)
    name = event.data.get(field) if field else None
    text = name if isinstance(name, str) and name else event.task_id
    return text.encode("utf-8", "replace") or None


class KafkaForwarder:
    """Passes the events of the streams on. One process does it; see ``run``."""

    def __init__(
        self, redis: Redis, servers: str, *, max_behind: int = MAX_BEHIND, look_every_s: float = LOOK_EVERY_S
    ) -> None:
        """Take a client whose values are bytes.

        Args:
            redis: the client.
            servers: ``host:port``, several separated by commas.
            max_behind: see ``MAX_BEHIND``.
            look_every_s: how often that is looked at.
        """
        self._redis, self._servers = redis, servers
        self._max_behind, self._look_every_s = max_behind, look_every_s
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._error, self._away = "nothing was sent yet", False
        self._stop = asyncio.Event()
        self._sent = self._given_up = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Pass on until ``stop`` is set. What was not acknowledged then is sent at the next start."""
        self._stop = stop
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it tells of every attempt; what matters is told here
        consumers = [
            Consumer(self._redis, stream, keys.KAFKA_GROUP, CONSUMER, self._handler(stream), batch=BATCH)
            for stream in STREAMS
        ]
        jobs = [asyncio.create_task(consumer.run(stop)) for consumer in consumers]
        jobs += [asyncio.create_task(self._limit(stop)), asyncio.create_task(self._connect())]
        try:
            await asyncio.gather(*jobs)
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.wait(jobs)
            await self._drop()

    async def check(self) -> dict[str, Any]:
        """What a health page says.

        Raises:
            KafkaAway: the broker does not take anything now.
        """
        if self._error:
            raise KafkaAway(self._error)
        behind = {}
        backlog = await Streams(self._redis).backlog()
        for stream in STREAMS:
            group = backlog[stream].groups.get(keys.KAFKA_GROUP)
            behind[topic_of(stream)] = group.lag + group.pending if group else 0
        return {"servers": self._servers, "sent": self._sent, "behind": behind, "given_up": self._given_up}

    def _handler(self, stream: str) -> Any:
        topic = topic_of(stream)

        async def send(delivered: Sequence[Delivered]) -> None:
            messages = [_message(stream, one) for one in delivered]

            async def attempt() -> None:
                async with self._kafka() as producer:
                    await _send(producer, topic, messages)

            await self._persist(attempt)
            self._sent += len(delivered)

        return send

    async def _connect(self) -> None:
        """Be connected before there is anything to send, so that health can tell."""

        async def attempt() -> None:
            async with self._kafka():
                pass

        with suppress(KafkaAway):
            await self._persist(attempt)

    async def _persist(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Try until it succeeds, with growing pauses, or until this ends.

        Raises:
            KafkaAway: it did not, and this ends.
        """
        pause_s = 0.2
        while True:
            try:
                return await attempt()
            except KafkaAway:
                if self._stop.is_set():
                    raise
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause_s)
            pause_s = min(pause_s * 2, 5.0)

    @asynccontextmanager
    async def _kafka(self) -> AsyncIterator[AIOKafkaProducer]:
        """A connected producer; when it fails, the next one is a new one, whose sequence numbers begin again."""
        from aiokafka.errors import KafkaError  # late: it takes a tenth of a second

        producer = None
        try:
            async with self._starting:
                if self._producer is None:
                    self._producer = await self._start()
                producer = self._producer
            yield producer
            if self._away:
                logger.info("Kafka at {} takes events again", self._servers)
            self._error, self._away = "", False
        except (KafkaError, OSError) as error:
            if producer is self._producer:
                await self._drop()
            what = " ".join(str(error).split()) or type(error).__name__
            self._error = f"Kafka at {self._servers} does not take events: {what}; they wait (KAFKA_BOOTSTRAP_SERVERS)"
            if not self._away:
                logger.warning("{}", self._error)
            self._away = True
            raise KafkaAway(self._error) from error

    async def _start(self) -> AIOKafkaProducer:
        from aiokafka import AIOKafkaProducer

        producer = AIOKafkaProducer(
            bootstrap_servers=self._servers,
            client_id="lumina",
            enable_idempotence=True,
            linger_ms=5,
            request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000),
            retry_backoff_ms=200,
        )
        try:
            await producer.start()
        except BaseException:  # whatever it is, cancellation too, passes on and leaves nothing open
            await producer.stop()
            raise
        return producer

    async def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            stopping = asyncio.create_task(producer.stop())
            await asyncio.wait({stopping}, timeout=1.0)
            stopping.cancel()
            await asyncio.wait({stopping})

    async def _limit(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            for stream in STREAMS:
                with suppress(RedisError, OSError):  # it is looked at again
                    self._given_up += await give_up(self._redis, stream, self._max_behind)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._look_every_s)


async def give_up(redis: Redis, stream: str, max_behind: int) -> int:
    """Let the group go on so that at most ``max_behind`` entries wait, and say so; returns how many it will not see."""
    backlog = (await Streams(redis).backlog())[stream].groups.get(keys.KAFKA_GROUP)
    excess = backlog.lag + backlog.pending - max_behind if backlog else 0
    if excess <= 0:
        return 0
    last = await _skipped(redis, stream, excess)
    groups: Any = await redis.xinfo_groups(stream)
    read = next(group["last-delivered-id"] for group in groups if group["name"] == keys.KAFKA_GROUP.encode())
    if order_of(last) > order_of(read.decode()):
        await redis.xgroup_setid(stream, keys.KAFKA_GROUP, last)
    while pending := await redis.xpending_range(stream, keys.KAFKA_GROUP, "-", last, BATCH):
        await redis.xack(stream, keys.KAFKA_GROUP, *(entry["message_id"] for entry in pending))
    data = {"kind": "kafka", "error": f"{excess} events of {stream} were not sent to Kafka: it was away for too long"}
    logger.error("{}", data["error"])
    await Streams(redis, max_wait_s=0).publish([Event("error", data)])
    return excess


async def _skipped(redis: Redis, stream: str, count: int) -> str:
    """Id of the last of so many entries that the group has not acknowledged."""
    summary: Any = await redis.xpending(stream, keys.KAFKA_GROUP)
    groups: Any = await redis.xinfo_groups(stream)
    read = next(group["last-delivered-id"] for group in groups if group["name"] == keys.KAFKA_GROUP.encode())
    start = summary["min"].decode() if summary["pending"] else f"({read.decode()}"
    last = read.decode()
    while count > 0:
        page: Any = await redis.xrange(stream, start, count=min(count, BATCH))
        if not page:
            break
        last, count = page[-1][0].decode(), count - len(page)
        start = f"({last}"
    return str(last)


async def forget(redis: Redis) -> None:
    """Take the group away where Kafka is switched off: nobody reads for it, and it would hold every trimming back."""
    for stream in STREAMS:
        with suppress(ResponseError):  # the stream is not there
            await redis.xgroup_destroy(stream, keys.KAFKA_GROUP)


async def _send(producer: AIOKafkaProducer, topic: str, messages: Sequence[_Message]) -> None:
    """Send all and wait for the broker to have them; what went wrong first is raised when nothing is on its way."""
    from aiokafka.errors import KafkaError

    replies: list[Any] = []
    failed: BaseException | None = None
    for value, key, ts, headers in messages:
        try:
            replies.append(await producer.send(topic, value, key, timestamp_ms=ts, headers=headers))
        except KafkaError as error:
            failed = error
            break
    outcomes = await asyncio.gather(*replies, return_exceptions=True)
    failed = next((outcome for outcome in outcomes if isinstance(outcome, BaseException)), failed)
    if failed is not None:
        raise failed


def _message(stream: str, delivered: Delivered) -> _Message:
    """Value, key, time, headers: (stream, id) tells a second copy from another event."""
    event = delivered.event
    headers = [("stream", stream.encode()), ("id", delivered.id.encode()), ("type", event.type.encode())]
    value = Followed(stream, delivered.id, event).text().encode()
    return value, key_of(event), event.ts, headers
