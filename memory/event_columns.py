"""Stream entries as the columns of one Arrow table, without an ``Event`` of each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from memory.event_rows import LATEST_TS
from memory.streams import Event

RawEntry = tuple[bytes, Sequence[bytes]]
"""Stream id, and names and values of the fields in turns, as the server sends them."""

_NAMES = tuple(name.encode() for name in Event("").to_fields())
SLICE = 500
"""Entries handled in one go: one or two milliseconds."""
_NESTING = 200
"""Text that opens more brackets is left to the reader that makes an ``Event``; Python reads some 900 levels back."""


async def columns(stream: str, entries: Sequence[RawEntry]) -> Any:
    """The Arrow table that ``event_rows.arrow_table`` would make of these entries; their JSON is kept as it is written.

    It is made on the event loop, which gets a turn after every ``SLICE`` entries: on a thread it would take as much of
    the interpreter, and more for passing it to and fro.

    Raises:
        ValueError: when an entry is not what ``Event.to_fields`` writes, or holds what a table or another reader of
            JSON could not take as it is: such a batch is for ``Event.from_fields`` to judge, entry by entry.
    """
    import pyarrow as pa  # heavy

    parts = []
    for start in range(0, len(entries), SLICE):
        parts.append(_table(stream, entries[start : start + SLICE]))
        await asyncio.sleep(0)
    return pa.concat_tables(parts)


def _table(stream: str, entries: Sequence[RawEntry]) -> Any:
    import orjson
    import pyarrow as pa

    if {tuple(fields[::2]) for _, fields in entries} != {_NAMES}:
        raise ValueError("other fields than an event's")
    types, times, agents, task_ids, data = zip(*[fields[1::2] for _, fields in entries], strict=True)
    moments = [int(text) for text in times if text.isdigit()]
    if len(moments) != len(times) or max(moments) > LATEST_TS:
        raise ValueError("a time that is no time")
    if any(len(text) > _NESTING and text.count(b"[") + text.count(b"{") > _NESTING for text in data):
        raise ValueError("data nested deeply")
    # orjson refuses what only some readers take: NaN, a comma too many, numbers beyond a double, half surrogates.
    if not all(type(orjson.loads(text)) is dict for text in data):
        raise ValueError("data that is no JSON object")
    texts = {"id": [id_ for id_, _ in entries], "type": types, "agent": agents, "task_id": task_ids, "data": data}
    return pa.table(
        {
            "stream": pa.repeat(stream, len(entries)),
            "ts": pa.array(moments, pa.timestamp("ms", tz="UTC")),
            **{name: pa.array(values, pa.string()) for name, values in texts.items()},
        }
    )
