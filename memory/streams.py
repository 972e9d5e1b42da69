"""Events and the Redis streams that carry them."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from memory import keys
from memory.fencing import ensure_held
from memory.stream_scripts import APPEND, BACKLOG, TRIM

if TYPE_CHECKING:
    # Every room names Event; the client costs a tenth of a second to import.
    from redis.asyncio import Redis

BATCH = 500
"""Events appended in one script: about 3 ms of the server's time."""
MAX_TS_MS = 2**53
"""Times beyond this are no milliseconds; they would not survive JSON either."""


def now_ms() -> int:
    """Milliseconds since the epoch, UTC."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. Its identity, once sent, is (stream, stream id)."""

    type: str
    """For example ``node.add``; the list is in docs/queries.md."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """JSON object; ``owner`` in it says whose event this is."""
    agent: str = ""
    task_id: str = ""
    ts: int = field(default_factory=now_ms)
    """Milliseconds since the epoch, UTC."""

    def to_fields(self) -> dict[str, str | int]:
        """The fields of the stream entry.

        Raises:
            ValueError: ``data`` is not JSON (NaN, infinity).
        """
        return {
            "type": self.type,
            "ts": self.ts,
            "agent": self.agent,
            "task_id": self.task_id,
            "data": json.dumps(self.data, ensure_ascii=False, separators=(",", ":"), allow_nan=False),
        }

    def to_words(self) -> tuple[str | int, ...]:
        """The values of ``to_fields``, in its order."""
        return tuple(self.to_fields().values())

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> Event:
        """The inverse of ``to_fields``, from the raw reply of a client that does not decode.

        Raises:
            ValueError: when the entry is not an event (a field is missing, ``data`` is no JSON object).
        """
        try:
            data = json.loads(fields[b"data"])
            event = cls(
                type=fields[b"type"].decode(),
                data=data,
                agent=fields.get(b"agent", b"").decode(),
                task_id=fields.get(b"task_id", b"").decode(),
                ts=int(fields[b"ts"]),
            )
        except (KeyError, ValueError, RecursionError) as error:
            raise ValueError(f"not an event: {type(error).__name__} {error}") from error
        if not 0 <= event.ts < MAX_TS_MS:
            raise ValueError(f"not an event: ts {event.ts} is not milliseconds since the epoch")
        if not isinstance(data, dict):
            raise ValueError("not an event: data is not a JSON object")
        return event


def stream_of(event: Event) -> str:
    """The stream that carries an event of this type."""
    if event.type.startswith("plan."):
        return keys.PLANNER_STREAM
    return keys.PASSAGES_STREAM if event.type == "passages.add" else keys.GRAPH_STREAM


@dataclass(frozen=True, slots=True)
class Delivered:
    """An event as it came out of a stream."""

    id: str
    """Stream id; (stream, id) is the event's identity."""
    event: Event
    attempts: int = 0
    """How often a group has handed it out, this time included; 0 for a follower, who belongs to no group."""


@dataclass(frozen=True, slots=True)
class GroupBacklog:
    """What one group still has to do."""

    lag: int
    """Entries never handed out (counted up to 100,000 where the server does not know)."""
    pending: int
    """Entries handed out and not acknowledged."""
    consumers: int


@dataclass(frozen=True, slots=True)
class StreamBacklog:
    """How full a stream is."""

    length: int
    max_length: int
    groups: Mapping[str, GroupBacklog]


class Streams:
    """Writes events, follows them, and keeps the streams short.

    A batch for one stream is appended atomically and costs one round trip. When the connection breaks while a batch is
    on its way, the client sends it again: at least once, and twice only if the first reply was lost.
    """

    def __init__(self, redis: Redis, *, max_wait_s: float = 5.0) -> None:
        """Take a client whose values are bytes.

        Args:
            redis: the client.
            max_wait_s: the longest that ``publish`` holds a producer back while a stream is full.
        """
        self._redis = redis
        self._max_wait_s = max_wait_s
        self._append = redis.register_script(APPEND)
        self._trim = redis.register_script(TRIM)
        self._backlog = redis.register_script(BACKLOG)

    async def setup(self) -> None:
        """Create every stream and group that is not there yet, at 0, so that nothing sent earlier is missed."""
        for stream, groups in keys.STREAM_GROUPS.items():
            for group in groups:
                await create_group(self._redis, stream, group)

    async def publish(self, events: Sequence[Event], stream: str | None = None) -> list[str]:
        """Append events and return their ids, in the order given.

        While some group with a consumer is more than the stream's length behind, the producer waits, up to
        ``max_wait_s``; then the events are written all the same, for nothing may be lost.

        Args:
            events: what happened.
            stream: where to; by default each goes where its type belongs.

        Raises:
            ValueError: ``data`` is not JSON (NaN, a lone surrogate, an object).
        """
        await ensure_held()
        batches: dict[str, list[int]] = {}
        for position, event in enumerate(events):
            batches.setdefault(stream or stream_of(event), []).append(position)
        ids = [""] * len(events)

        async def send(target: str, positions: list[int]) -> None:
            for start in range(0, len(positions), BATCH):
                part = positions[start : start + BATCH]
                for position, entry_id in zip(
                    part, await self._send(target, [events[position] for position in part]), strict=True
                ):
                    ids[position] = entry_id

        await asyncio.gather(*(send(target, positions) for target, positions in batches.items()))
        return ids

    async def _send(self, stream: str, events: Sequence[Event]) -> list[str]:
        words = [word for event in events for word in event.to_words()]
        deadline = time.monotonic() + self._max_wait_s
        pause_s = 0.02
        while True:
            force = int(time.monotonic() >= deadline)
            reply = await self._append([stream], [max_length(stream), force, *words])
            if reply or not events:
                return [entry_id.decode() for entry_id in reply]
            # Full jitter (Brooker, "Exponential Backoff And Jitter"): producers must not come back all at once.
            await asyncio.sleep(min(random.uniform(pause_s / 2, pause_s), max(0.0, deadline - time.monotonic())))
            pause_s = min(pause_s * 2, 1.0)

    async def tail(
        self, stream: str, after_id: str = "0", count: int = 500, block_ms: int | None = None
    ) -> list[Delivered]:
        """Entries after ``after_id``, for a follower that belongs to no group.

        Waits up to ``block_ms`` for the first one (``None``: not at all). An entry that is not an event comes as an
        event of type ``error``, so that the follower's position always moves on.
        """
        reply: Any = await self._redis.xread({stream: after_id}, count=count, block=block_ms)
        return [_followed(entry_id, fields) for _, entries in reply or () for entry_id, fields in entries]

    async def last_id(self, stream: str) -> str:
        """Id of the newest entry ever written, ``0-0`` for a stream that is not there: where "from now on" begins."""
        from redis.exceptions import ResponseError  # late, see above

        try:
            info = await self._redis.xinfo_stream(stream)
        except ResponseError:
            return "0-0"
        return str(info["last-generated-id"].decode())

    async def trim(self, stream: str | None = None) -> int:
        """Remove what lies beyond the length and every group has acknowledged; returns how many entries went."""
        removed = 0
        for name in [stream] if stream else [*keys.STREAM_MAX_LENGTH]:
            while part := int((await self._trim([name], [max_length(name)]))[0]):
                removed += part
        return removed

    async def wait_for_room(self, stream: str) -> bool:
        """Hold a producer back, up to ``max_wait_s``, while a working group is behind; whether there is room now."""
        deadline, pause_s = time.monotonic() + self._max_wait_s, 0.02
        while int((await self._trim([stream], [max_length(stream)]))[1]):
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(pause_s * 2, 1.0)
        return True

    async def backlog(self) -> dict[str, StreamBacklog]:
        """How full each stream is, and what each group has still to do, for metrics and health."""
        found = {}
        for stream, longest in keys.STREAM_MAX_LENGTH.items():
            length, *groups = await self._backlog([stream])
            found[stream] = StreamBacklog(
                length, longest, {name.decode(): GroupBacklog(*numbers) for name, *numbers in groups}
            )
        return found

    async def dead_letters(self) -> dict[str, int]:
        """Stream → entries of it that could not be handled and lie among its dead letters."""
        counts = await asyncio.gather(*(self._redis.xlen(keys.dead_letters(name)) for name in keys.STREAM_MAX_LENGTH))
        return dict(zip(keys.STREAM_MAX_LENGTH, counts, strict=True))


async def create_group(redis: Redis, stream: str, group: str) -> None:
    """Create a group at the very beginning of a stream, and the stream; nothing happens when they are there."""
    from redis.exceptions import ResponseError  # late, see above

    try:
        await redis.xgroup_create(stream, group, id="0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


def max_length(stream: str) -> int:
    """Entries that a stream keeps beyond what is not acknowledged; dead letters and private streams too."""
    return keys.STREAM_MAX_LENGTH.get(stream, keys.DEFAULT_MAX_LENGTH)


def _followed(entry_id: bytes, fields: Mapping[bytes, bytes]) -> Delivered:
    name = entry_id.decode()
    try:
        return Delivered(name, Event.from_fields(fields))
    except ValueError as error:
        return Delivered(name, Event("error", {"message": str(error)}, ts=int(name.partition("-")[0])))
