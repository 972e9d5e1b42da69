"""Events as the columns of one Arrow table, which reaches DuckDB without a call a row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from memory.streams import Event

Entry = tuple[str, str, Event]
"""Stream, stream id, event: the first two are the event's identity."""

LATEST_TS = 253_402_300_799_999
"""The last millisecond of the year 9999, the latest that a Python datetime can hold."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)  # json.dumps makes one a call


def arrow_table(entries: Sequence[Entry]) -> Any:
    """The entries as columns: an Arrow table reaches DuckDB without a call a row."""
    import pyarrow as pa  # heavy

    events = [event for _, _, event in entries]
    texts = {
        "stream": [stream for stream, _, _ in entries],
        "id": [id_ for _, id_, _ in entries],
        "type": [event.type for event in events],
        "agent": [event.agent for event in events],
        "task_id": [event.task_id for event in events],
        "data": [_json_text(event.data) for event in events],
    }
    times = [event.ts if 0 <= event.ts <= LATEST_TS else _id_ms(id_) for (_, id_, event) in entries]
    columns = {"ts": pa.array(times, pa.timestamp("ms", tz="UTC"))}
    for name, values in texts.items():
        try:
            columns[name] = pa.array(values, pa.string())
        except UnicodeEncodeError:  # half a surrogate pair, which UTF-8 cannot hold
            columns[name] = pa.array([value.encode("utf-8", "replace").decode() for value in values], pa.string())
    return pa.table(columns)


def _id_ms(id_: str) -> int:
    text = id_.partition("-")[0]
    return min(int(text), LATEST_TS) if text.isdecimal() else 0


def _json_text(data: Mapping[str, Any]) -> str:
    try:
        return _ENCODER.encode(data)
    except ValueError:  # NaN and Infinity are Python's, not JSON's
        return _ENCODER.encode(json.loads(json.dumps(data), parse_constant=lambda _: None))
