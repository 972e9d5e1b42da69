"""How checkpoints, channel values and pending writes become bytes in Redis, and back.

A *member* names a checkpoint inside its thread: the namespace as a netstring, then the checkpoint id. Members of one
namespace share a prefix that no other namespace's begin with, and sort by checkpoint id, which is by age.

A *record* is ``0x01``, the length of the header (4 bytes, big-endian), the header, the body, both msgpack. The header
is what the scripts read: ``[parent id, run id, {channel: version of its blob}, [delta channels without a blob]]``. The
body is ``[type, checkpoint, type, metadata]`` as the serializer typed them, without the channel values.

A *blob* is one channel's value at one version: the length of the type (1 byte), the type, the value. A *batch* is what
one task wrote in one call: ``[task id, task path, [[index, channel, type, value], …]]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import ormsgpack
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    Checkpoint,
    CheckpointMetadata,
    PendingWrite,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from errors import LuminaError

_FORMAT = 1
_HEADER_AT = 5
_UNREADABLE = (ValueError, TypeError, LookupError, NotImplementedError, AttributeError)
"""What serializers raise on bytes that are not theirs."""


class CheckpointError(LuminaError):
    """A checkpoint that cannot be stored, read or found."""


class CorruptCheckpoint(CheckpointError):
    """Redis holds something else than what was stored."""


class UnstorableState(CheckpointError):
    """The state holds a value that the serializer refuses."""


class BadCheckpointRequest(CheckpointError):
    """The caller asks for what no checkpointer can do."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a thread: a namespace and, unless the latest is meant, a checkpoint."""

    thread_id: str
    ns: str
    checkpoint_id: str

    @classmethod
    def of(cls, config: RunnableConfig) -> Self:
        """The place that a config names; ids of another type than ``str`` are written out.

        Raises:
            BadCheckpointRequest: when the config names no thread.
        """
        named = config.get("configurable") or {}
        if (thread_id := named.get("thread_id")) is None:
            raise BadCheckpointRequest('no thread: put {"configurable": {"thread_id": "…"}} into the config')
        return cls(str(thread_id), named.get("checkpoint_ns") or "", str(named.get("checkpoint_id") or ""))

    @property
    def prefix(self) -> bytes:
        """What every member of this namespace begins with."""
        ns = self.ns.encode()
        return b"%d:%b:" % (len(ns), ns)

    @property
    def member(self) -> bytes:
        """This checkpoint's own name in the thread's keys."""
        return self.prefix + self.checkpoint_id.encode()

    @classmethod
    def from_member(cls, thread_id: str, member: bytes) -> Self:
        """The inverse of ``member``."""
        try:
            size, _, rest = member.partition(b":")
            end = int(size)
            return cls(thread_id, rest[:end].decode(), rest[end + 1 :].decode())
        except ValueError as error:
            raise CorruptCheckpoint(f"thread {thread_id!r}: no checkpoint is called {member!r}; {_REPAIR}") from error

    def config(self, checkpoint_id: str | None = None) -> RunnableConfig:
        """The config that names this place, or another checkpoint of the same namespace."""
        named = {"thread_id": self.thread_id, "checkpoint_ns": self.ns}
        return {"configurable": {**named, "checkpoint_id": checkpoint_id or self.checkpoint_id}}

    def __str__(self) -> str:
        inside = f" in {self.ns!r}" if self.ns else ""
        return f"thread {self.thread_id!r}{inside}, checkpoint {self.checkpoint_id or 'latest'}"


_REPAIR = "delete the thread, or go on from an earlier checkpoint"


def blob_field(prefix: bytes, channel: str, version: str) -> bytes:
    """The field of a thread's blobs that holds one version of a channel of a namespace."""
    return b"%b%b\0%b" % (prefix, version.encode(), channel.encode())


@dataclass(frozen=True, slots=True)
class Record:
    """A checkpoint as it is kept: all but the channel values and the pending writes."""

    parent: str
    """Id of the parent checkpoint, or ''."""
    run_id: str
    blobs: Mapping[str, str]
    """Channels that have a value, with the version under which it is stored."""
    open: Sequence[str]
    """Delta channels whose value is made of ancestors' writes."""
    checkpoint: Checkpoint
    metadata: CheckpointMetadata

    @classmethod
    def of(cls, checkpoint: Checkpoint, metadata: CheckpointMetadata, parent: str) -> Self:
        """The record of a checkpoint that is about to be stored."""
        values, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
        deltas = metadata.get("counters_since_delta_snapshot") or ()
        return cls(
            parent=parent,
            run_id=str(metadata.get("run_id") or ""),
            blobs={channel: str(version) for channel, version in versions.items() if channel in values},
            open=[channel for channel in deltas if channel in versions and channel not in values],
            checkpoint=checkpoint,
            metadata=metadata,
        )

    def encode(self, serde: SerializerProtocol, place: Place) -> bytes:
        """Its bytes.

        Raises:
            UnstorableState: when the metadata hold a value that the serializer refuses.
        """
        bare = {name: part for name, part in self.checkpoint.items() if name != "channel_values"}
        header = ormsgpack.packb((self.parent, self.run_id, self.blobs, self.open))
        body = ormsgpack.packb(
            (*dump(serde, bare, "checkpoint", place), *dump(serde, self.metadata, "metadata", place))
        )
        return b"%c%b%b%b" % (_FORMAT, len(header).to_bytes(4, "big"), header, body)

    @classmethod
    def decode(cls, serde: SerializerProtocol, place: Place, data: bytes | None) -> Self:
        """The inverse of ``encode``; the channel values are still to be filled in.

        Raises:
            CorruptCheckpoint: when the bytes are missing or are no record of a known format.
        """
        if not data:
            raise CorruptCheckpoint(f"{place}: its record is missing; {_REPAIR}")
        if data[0] != _FORMAT:
            raise CorruptCheckpoint(f"{place}: record of format {data[0]}, this Lumina reads {_FORMAT}; {_REPAIR}")
        try:
            body_at = _HEADER_AT + int.from_bytes(data[1:_HEADER_AT], "big")
            parent, run_id, blobs, open_channels = ormsgpack.unpackb(data[_HEADER_AT:body_at])
            kind, checkpoint, meta_kind, metadata = ormsgpack.unpackb(data[body_at:])
            return cls(
                parent,
                run_id,
                blobs,
                open_channels,
                cast(Checkpoint, {**serde.loads_typed((kind, checkpoint)), "channel_values": {}}),
                serde.loads_typed((meta_kind, metadata)),
            )
        except _UNREADABLE as error:
            raise CorruptCheckpoint(f"{place}: unreadable record ({error}); {_REPAIR}") from error

    def fill(self, serde: SerializerProtocol, place: Place, blobs: Mapping[str, bytes | None]) -> Checkpoint:
        """The checkpoint with its channel values, decoded anew at each call.

        Raises:
            CorruptCheckpoint: when a blob is missing or unreadable.
        """
        values = {channel: load_blob(serde, place, channel, blobs.get(channel)) for channel in self.blobs}
        return {**self.checkpoint, "channel_values": values}


def dump(serde: SerializerProtocol, value: object, name: str, place: Place) -> tuple[str, bytes]:
    """A value as the serializer types it.

    Raises:
        UnstorableState: naming the channel (or part of the checkpoint), when the serializer refuses the value.
    """
    try:
        return serde.dumps_typed(value)
    except (TypeError, ValueError) as error:
        raise UnstorableState(
            f"{place}: {name!r} holds what cannot be stored ({error}); keep plain values, messages or documents there"
        ) from error


def dump_blob(serde: SerializerProtocol, place: Place, channel: str, value: object) -> bytes:
    """A channel's value as a blob."""
    kind, data = dump(serde, value, channel, place)
    return b"%c%b%b" % (len(kind), kind.encode(), data)


def load_blob(serde: SerializerProtocol, place: Place, channel: str, blob: bytes | None) -> Any:
    """The inverse of ``dump_blob``.

    Raises:
        CorruptCheckpoint: when the blob is missing or unreadable.
    """
    if not blob:
        raise CorruptCheckpoint(f"{place}: the value of channel {channel!r} is missing; {_REPAIR}")
    try:
        at = 1 + blob[0]
        return serde.loads_typed((blob[1:at].decode(), blob[at:]))
    except _UNREADABLE as error:
        raise CorruptCheckpoint(f"{place}: unreadable value of channel {channel!r} ({error}); {_REPAIR}") from error


Write = tuple[int, str, str, bytes]
"""Index, channel, type, value."""


def dump_writes(
    serde: SerializerProtocol, place: Place, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
) -> list[str | int | bytes]:
    """What one task wrote, as (name, 1 when a later one replaces it, batch) for ``PUT_WRITES``.

    Ordinary writes travel as one batch, named by its indices: the first of a name stays. A special write (error,
    interrupt, …; negative index) is a batch of its own, which a later one of its kind replaces.
    """
    batches: dict[str, list[Write]] = {}
    ordinary: list[Write] = []
    for position, (channel, value) in enumerate(writes):
        write = (WRITES_IDX_MAP.get(channel, position), channel, *dump(serde, value, channel, place))
        if write[0] < 0:
            batches[str(write[0])] = [write]
        else:
            ordinary.append(write)
    if ordinary:
        indices = [write[0] for write in ordinary]
        gapless = indices == list(range(len(indices)))
        batches[f"+{len(indices)}" if gapless else ",".join(map(str, indices))] = ordinary
    arguments: list[str | int | bytes] = []
    for name, batch in batches.items():
        arguments += (f"{task_id}\0{name}", int(batch[0][0] < 0), ormsgpack.packb((task_id, task_path, batch)))
    return arguments


def load_writes(
    serde: SerializerProtocol, place: Place, batches: Iterable[bytes | None], channels: set[str] | None = None
) -> list[PendingWrite]:
    """The pending writes of a checkpoint (of some channels only, if given), in the order in which they apply.

    Raises:
        CorruptCheckpoint: when a batch is missing or unreadable.
    """
    found: dict[tuple[str, int], tuple[str, str, str, bytes]] = {}
    try:
        for batch in batches:
            if batch is None:
                raise CorruptCheckpoint(f"{place}: pending writes are missing; {_REPAIR}")
            task_id, task_path, writes = ormsgpack.unpackb(batch)
            for index, channel, kind, data in writes:
                if channels is None or channel in channels:
                    found.setdefault((task_id, index), (task_path, channel, kind, data))
        order = sorted(found, key=lambda key: writes_sort_key(found[key][0], *key))
        return [(key[0], found[key][1], serde.loads_typed((found[key][2], found[key][3]))) for key in order]
    except _UNREADABLE as error:
        raise CorruptCheckpoint(f"{place}: unreadable pending writes ({error}); {_REPAIR}") from error
