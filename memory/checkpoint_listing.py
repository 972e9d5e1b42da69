"""From what Redis replies to LangGraph's checkpoint tuples, one or a page of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.base import SerializerProtocol

from memory import keys
from memory.checkpoint_calls import Calls
from memory.checkpoint_records import Place, Record, blob_field, load_writes
from memory.checkpoint_scripts import FETCH


def assemble(
    serde: SerializerProtocol,
    place: Place,
    record: Record,
    blobs: Mapping[str, bytes | None],
    batches: Iterable[bytes | None],
) -> CheckpointTuple:
    """A checkpoint tuple of its parts.

    Raises:
        CorruptCheckpoint: when a part is missing or unreadable.
    """
    return CheckpointTuple(
        config=place.config(),
        checkpoint=record.fill(serde, place, blobs),
        metadata=record.metadata,
        parent_config=place.config(record.parent) if record.parent else None,
        pending_writes=load_writes(serde, place, batches),
    )


async def places_of(calls: Calls, thread_id: str, ns: str | None, end: str, most: int) -> list[Place]:
    """Checkpoints of a thread, newest first, in one round trip.

    Args:
        calls: how to reach Redis.
        thread_id: the thread.
        ns: one namespace, or None for all of them.
        end: only ids older than this one, unless ''.
        most: at most so many of a namespace, -1 for all.
    """
    index = keys.checkpoint_thread(thread_id)[0]
    if ns is None:  # members sort by namespace first
        members = await calls.command("ZRANGE", index, 0, -1)
        places = sorted((Place.from_member(thread_id, m) for m in members), key=attrgetter("checkpoint_id"))
        return [place for place in reversed(places) if not end or place.checkpoint_id < end]
    prefix = Place(thread_id, ns, "").prefix
    upper = b"(" + prefix + end.encode() if end else b"[" + prefix + b"\xff"
    members = await calls.command("ZREVRANGEBYLEX", index, upper, b"[" + prefix, "LIMIT", 0, most)
    return [Place.from_member(thread_id, member) for member in members]


async def page_of(
    calls: Calls, serde: SerializerProtocol, places: Sequence[Place], wanted: Mapping[str, Any] | None, most: float
) -> list[CheckpointTuple]:
    """Those of a thread's checkpoints whose metadata are as wanted, at most so many, in two round trips.

    Raises:
        CorruptCheckpoint: when a part of one of them is missing or unreadable.
    """
    names = keys.checkpoint_thread(places[0].thread_id)
    found: list[tuple[Place, Record]] = []
    for place, data in zip(places, await calls.command("HMGET", names[1], *(p.member for p in places)), strict=True):
        if data is None or len(found) >= most:  # None: deleted since it was listed
            continue
        record = Record.decode(serde, place, data)
        metadata: Mapping[str, Any] = record.metadata
        if all(metadata.get(name) == value for name, value in (wanted or {}).items()):
            found.append((place, record))
    if not found:
        return []
    # Neighbours share most blobs: each is fetched once.
    fields = {blob_field(p.prefix, channel, ver): None for p, r in found for channel, ver in r.blobs.items()}
    members = [place.member for place, _ in found]
    batches, blobs = await calls.run(FETCH, names, len(members), *members, *fields)
    blob_at = dict(zip(fields, blobs, strict=True))
    tuples = []
    for (place, record), writes in zip(found, batches, strict=True):
        if writes is not None:
            values = {channel: blob_at[blob_field(place.prefix, channel, ver)] for channel, ver in record.blobs.items()}
            tuples.append(assemble(serde, place, record, values, writes))
    return tuples
