"""The LangGraph checkpointer on plain Redis: no modules, one round trip a call, each channel's value stored once.

Bytes are laid out by ``memory.checkpoint_records``; what must be atomic runs in ``memory.checkpoint_scripts``, which
``memory.checkpoint_calls`` sends; a put is in ``memory.checkpoint_puts``, the index of threads in
``memory.checkpoint_index``, reading in ``memory.checkpoint_listing``, the blocking twins for notebooks in
``memory.checkpoint_twins``. Why it is so: docs/decisions/checkpointer.md.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from memory import checkpoint_scripts as scripts
from memory import keys
from memory.checkpoint_cache import BlobCache
from memory.checkpoint_calls import Calls, RedisArgument, Script
from memory.checkpoint_index import SCRIPTS as INDEX_SCRIPTS
from memory.checkpoint_index import ThreadIndex
from memory.checkpoint_listing import assemble, page_of, places_of
from memory.checkpoint_puts import Put
from memory.checkpoint_records import (
    BadCheckpointRequest,
    Place,
    Record,
    blob_field,
    dump_writes,
    load_blob,
    load_writes,
)
from memory.checkpoint_serializer import StrictSerializer
from memory.checkpoint_twins import BlockingTwins
from memory.fencing import ensure_held
from memory.redis_connection import Pool

PAGE = 32
"""Checkpoints that ``alist`` takes at a time: large states arrive in bearable portions."""
ANCESTORS_A_CALL = 100
"""Checkpoints that one script visits for the history of delta channels; two to three milliseconds."""


class RedisSaver(BlockingTwins):
    """Keeps LangGraph's checkpoints in any Redis ≥ 6.2, Valkey or Redis Cluster.

    Values pass through LangGraph's msgpack serializer in strict mode: no pickle, and an object of a type that is not on
    its list of safe types comes back as the plain data it was made of, never as code that runs.

    Args:
        redis: a client with ``decode_responses=False``; it is used, not owned.
        ttl_s: seconds after the last write at which a whole thread expires; ``None`` keeps it.
        serde: another serializer than the strict one.
        cache_bytes: large channel values kept in this process, so that getting a checkpoint again does not move them.

    Raises:
        BadCheckpointRequest: when the client decodes its responses (states are binary), or ``ttl_s`` is not positive.
    """

    def __init__(
        self,
        redis: Redis | RedisCluster,
        *,
        ttl_s: int | None = None,
        serde: SerializerProtocol | None = None,
        cache_bytes: int = 32 * 1024 * 1024,
    ) -> None:
        super().__init__(serde=serde or StrictSerializer())
        if redis.get_encoder().decode_responses:
            raise BadCheckpointRequest("the Redis client decodes responses: make it with decode_responses=False")
        if ttl_s is not None and ttl_s <= 0:
            raise BadCheckpointRequest(f"ttl_s={ttl_s}: give a positive number of seconds, or None to keep threads")
        self._ttl_ms = (ttl_s or 0) * 1000
        self._calls = Calls(redis)
        self._index = ThreadIndex(self._calls, self._ttl_ms)
        self._cache = BlobCache(cache_bytes)

    @classmethod
    @asynccontextmanager
    async def from_conn_string(
        cls, url: str, *, ttl_s: int | None = None, serde: SerializerProtocol | None = None, cluster: bool = False
    ) -> AsyncIterator[Self]:
        """A saver with a client of its own, closed at the end. ``cluster`` asks for a Redis Cluster's client."""
        client: Redis | RedisCluster = RedisCluster.from_url(url) if cluster else Redis.from_pool(Pool.from_url(url))
        try:
            saver = cls(client, ttl_s=ttl_s, serde=serde)
            await saver.setup()
            yield saver
        finally:
            await client.aclose()

    async def setup(self) -> None:
        """Sends the scripts to the server ahead of the first call; nothing else needs to be set up."""
        for script in (*scripts.ALL, *INDEX_SCRIPTS):
            await self._calls.redis.script_load(script.text)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Stores a checkpoint and the values of its new versions, in one round trip.

        The first checkpoint of a thread, or of a run in it, is entered in the index by a command beside the first.

        Raises:
            UnstorableState: when the serializer refuses a value.
        """
        self._meet_loop()
        await ensure_held()
        parent = Place.of(config)
        place = Place(parent.thread_id, parent.ns, checkpoint["id"])
        record = Record.of(checkpoint, get_checkpoint_metadata(config, metadata), parent.checkpoint_id)
        changed = [channel for channel in record.blobs if channel in new_versions]
        is_known = self._index.knows(place.thread_id, record.run_id)
        put = Put(self.serde, place, record, changed).send(self._calls, self._cache, self._ttl_ms, ahead=is_known)
        if not is_known:
            await asyncio.gather(self._index.enter(place.thread_id, record.run_id), put)
        elif await put:  # the thread was deleted or expired since it was entered
            await self._index.enter(place.thread_id, record.run_id)
        return place.config()

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Stores what a task wrote, in one round trip; the checkpoint itself may still be under way.

        Ordinary writes of a task are kept as they came first, special ones (error, interrupt, …) as they came last.

        Raises:
            UnstorableState: when the serializer refuses a value.
        """
        self._meet_loop()
        await ensure_held()
        place = Place.of(config)
        batches = dump_writes(self.serde, place, writes, task_id, task_path)
        if batches:
            put = self._run(scripts.PUT_WRITES, place, self._ttl_ms, place.member, *batches)
            if self._ttl_ms and not self._index.knows(place.thread_id, ""):
                await asyncio.gather(self._index.enter(place.thread_id, ""), put)
            else:
                await put

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The named checkpoint, or the latest of the namespace, in one round trip; None when there is none.

        Raises:
            CorruptCheckpoint: when Redis holds something else than what was stored.
        """
        self._meet_loop()
        asked = Place.of(config)
        prefix = asked.prefix
        held = self._cache.held(asked.thread_id, prefix)
        reply = await self._run(scripts.GET, asked, prefix, asked.checkpoint_id, *held)
        if reply is None:
            return None
        member, data, blobs, batches = reply
        place = Place.from_member(asked.thread_id, member)
        record = Record.decode(self.serde, place, data)
        values: dict[str, bytes | None] = {}
        for name, blob in zip(map(bytes.decode, blobs[::2]), blobs[1::2], strict=True):
            field = blob_field(prefix, name, record.blobs[name])
            values[name] = held[field] if blob == 1 else blob
            if blob and blob != 1:
                self._cache.hold(place.thread_id, prefix, name, field, blob)
        return assemble(self.serde, place, record, values, batches)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints, newest first, three round trips for each 32 of them.

        Args:
            config: the thread, the namespace (all of the thread's when the key is missing) and the checkpoint, if only
                one is meant; ``None`` lists thread after thread, the one announced last first.
            filter: values that the metadata must have.
            before: only checkpoints older than the one named here.
            limit: at most so many.

        Raises:
            CorruptCheckpoint: when Redis holds something else than what was stored.
        """
        self._meet_loop()
        left = float("inf") if limit is None else limit
        named = {} if config is None else config["configurable"]
        ns, only = named.get("checkpoint_ns"), str(named.get("checkpoint_id") or "")
        end = Place.of(before).checkpoint_id if before else ""
        for thread_id in await self._index.threads() if config is None else [Place.of(config).thread_id]:
            places = await places_of(self._calls, thread_id, ns, end, -1 if filter or only or limit is None else limit)
            wanted = [place for place in places if not only or place.checkpoint_id == only]
            for start in range(0, len(wanted), PAGE):
                if left > 0:
                    for saved in await page_of(self._calls, self.serde, wanted[start : start + PAGE], filter, left):
                        yield saved
                        left -= 1
            if left <= 0:
                return

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What ancestors wrote to some channels since the last stored value, one round trip for 100 ancestors.

        Raises:
            CorruptCheckpoint: when Redis holds something else than what was stored.
        """
        self._meet_loop()
        asked = Place.of(config)
        seeds: dict[str, Any] = {}
        newest_first: dict[str, list[list[PendingWrite]]] = {channel: [] for channel in channels}
        cursor: str | None = asked.checkpoint_id
        while cursor is not None and len(seeds) < len(newest_first):
            wanted = [channel for channel in newest_first if channel not in seeds]
            reply = await self._run(scripts.HISTORY, asked, asked.prefix, cursor, ANCESTORS_A_CALL, *wanted)
            cursor = reply[0].decode() or None
            for ancestor, batches, found in reply[1]:
                place = Place(asked.thread_id, asked.ns, ancestor.decode())
                open_channels = {channel for channel in wanted if channel not in seeds}
                writes = load_writes(self.serde, place, batches, open_channels)
                for channel in open_channels:
                    newest_first[channel].append([write for write in writes if write[1] == channel])
                for name, blob in zip(found[::2], found[1::2], strict=True):
                    seeds[name.decode()] = load_blob(self.serde, place, name.decode(), blob)
        history: dict[str, DeltaChannelHistory] = {}
        for channel, steps in newest_first.items():
            history[channel] = {"writes": [write for step in reversed(steps) for write in step]}
            if channel in seeds:
                history[channel]["seed"] = seeds[channel]
        return history

    async def adelete_thread(self, thread_id: str) -> None:
        """Deletes a thread: checkpoints, values, writes and its entries in the indexes."""
        self._meet_loop()
        place = Place(str(thread_id), "", "")
        self._cache.drop(place.thread_id)
        await self._forget(place, await self._run(scripts.DELETE, place), is_empty=True)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Deletes the checkpoints of some runs in every thread, with their writes and the values nobody else refers to.

        A delta channel of a later run that rests on writes of a deleted one loses them, as the base class warns.
        """
        self._meet_loop()
        for run_id in map(str, run_ids):
            for thread_id in await self._index.threads_of(run_id):
                place = Place(thread_id, "", "")
                left, gone = await self._run(scripts.REMOVE, place, "runs", run_id)
                await self._forget(place, gone, is_empty=left == 0)
            await self._calls.command("UNLINK", keys.checkpoint_run(run_id))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Deletes history: ``keep_latest`` keeps each namespace's latest checkpoint, ``delete`` nothing.

        The latest checkpoint stays resumable: its values, its pending writes, and the ancestors that its delta channels
        need, stay.

        Raises:
            BadCheckpointRequest: when the strategy is neither of the two.
        """
        if strategy not in ("keep_latest", "delete"):
            raise BadCheckpointRequest(f"prune strategy {strategy!r}: it is keep_latest or delete")
        for thread_id in map(str, thread_ids):
            if strategy == "delete":
                await self.adelete_thread(thread_id)
            else:
                place = Place(thread_id, "", "")
                left, gone = await self._run(scripts.REMOVE, place, "latest")
                await self._forget(place, gone, is_empty=left == 0)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies a thread whole, at one instant; what the target holds already stays beside it."""
        self._meet_loop()
        source, target = Place(str(source_thread_id), "", ""), Place(str(target_thread_id), "", "")
        members, *hashes = await self._run(scripts.DUMP, source)
        if not members or source == target:
            return
        records = (Record.decode(self.serde, source, data) for data in hashes[0][1::2])
        for run_id in {"", *(record.run_id for record in records)}:
            await self._index.enter(target.thread_id, run_id)
        names = keys.checkpoint_thread(target.thread_id)
        async with self._calls.slots, self._calls.redis.pipeline(transaction=True) as pipe:
            pipe.zadd(names[0], dict.fromkeys(members, 0))
            for name, items in zip(names[1:], hashes, strict=True):
                if items:
                    pipe.hset(name, items=items)
            for name in names if self._ttl_ms else ():
                pipe.pexpire(name, self._ttl_ms)
            await pipe.execute()

    def get_next_version(self, current: str | None, channel: None) -> str:
        """A channel's next version: a number that sorts as text, and chance, so that forks do not share blobs."""
        head = str(current or 0).partition(".")[0]
        return f"{int(head) + 1:0{max(10, len(head))}}.{random.getrandbits(40):010x}"

    async def _forget(self, place: Place, run_ids: Sequence[bytes], *, is_empty: bool) -> None:
        await self._index.leave(place.thread_id, [run_id.decode() for run_id in run_ids], is_empty=is_empty)

    async def _run(self, script: Script, place: Place, *args: RedisArgument) -> Any:
        return await self._calls.run(script, keys.checkpoint_thread(place.thread_id), *args)
