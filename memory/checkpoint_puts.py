"""One put of the checkpointer: a checkpoint's record and the values of its changed channels, on their way to Redis."""

from __future__ import annotations

from collections.abc import Iterable

from langgraph.checkpoint.serde.base import SerializerProtocol

from memory import checkpoint_scripts as scripts
from memory import keys
from memory.checkpoint_cache import BlobCache
from memory.checkpoint_calls import Calls, RedisArgument
from memory.checkpoint_records import Place, Record, blob_field, dump_blob

AHEAD_BYTES = 32 * 1024
"""Blobs from here on are not passed through a script: Lua copies them twice and Valkey's hashes them whole, 50 µs for
100 KB; a command of its own costs 13."""


class Put:
    """A checkpoint, serialized.

    Args:
        serde: The saver's serializer.
        place: Where it belongs.
        record: What is stored.
        changed: Channels that have new values.

    Raises:
        UnstorableState: when the serializer refuses a value.
    """

    def __init__(self, serde: SerializerProtocol, place: Place, record: Record, changed: Iterable[str]) -> None:
        self._serde, self._place, self._record = serde, place, record
        self._data = record.encode(serde, place)
        self._blobs = self._dumped(changed)

    def _dumped(self, channels: Iterable[str]) -> dict[bytes, bytes]:
        """The values of some channels under their fields."""
        place, record = self._place, self._record
        prefix, values = place.prefix, record.checkpoint["channel_values"]
        return {
            blob_field(prefix, channel, record.blobs[channel]): dump_blob(self._serde, place, channel, values[channel])
            for channel in channels
        }

    async def send(self, calls: Calls, cache: BlobCache, ttl_ms: int, *, ahead: bool) -> bool:
        """Stores the record and the blobs of the changed channels; True when the thread is new.

        Unchanged blobs that are not there any more (the thread expired while a node ran, or the parent was pruned) are
        stored again from the state at hand, in a second round trip.

        ``ahead`` sends large blobs ahead of the script, which then looks for them as it does for unchanged ones; only
        where the thread is known to be there, for what a crash between the two leaves behind goes with the thread.
        """
        place, record, blobs = self._place, self._record, self._blobs
        prefix, names = place.prefix, keys.checkpoint_thread(place.thread_id)
        least = AHEAD_BYTES if ahead and calls.pool else float("inf")
        large = [part for field, blob in blobs.items() if len(blob) >= least for part in (field, blob)]
        small = [part for field, blob in blobs.items() if len(blob) < least for part in (field, blob)]
        fields = (blob_field(prefix, channel, version) for channel, version in record.blobs.items())
        there = large[::2] + [field for field in fields if field not in blobs]
        args: tuple[RedisArgument, ...] = (ttl_ms, place.member, self._data, len(small), *small, *there)
        if large:
            reply = await calls.run_after(("HSET", names[2], *large), scripts.PUT, names, *args)
        else:
            reply = await calls.run(scripts.PUT, names, *args)
        if isinstance(reply, list):
            self._blobs = self._dumped(record.blobs)
            return await self.send(calls, cache, ttl_ms, ahead=False)
        for field, blob in blobs.items():
            cache.hold(place.thread_id, prefix, field.rpartition(b"\0")[2].decode(), field, blob)
        return bool(reply)
