"""An event as a follower of streams is told it, and his place in each of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from errors import LuminaError
from memory import keys
from memory.streams import Event, now_ms

LOGS_STREAM = "logs"
"""The log of this process; it is kept in memory and not in Redis."""
STREAM_NAMES = {name.partition("/")[0]: name for name in (*keys.STREAM_MAX_LENGTH, LOGS_STREAM)}
"""What followers call the streams → their names."""
EVENT_TYPES = (
    *("node.add", "edge.add", "summary.add", "answer.add", "passages.add", "chat.message", "page.prune", "prune.done"),
    *("task.submit", "task.start", "task.retry", "task.complete", "task.fail", "task.dead", "task.cancel"),
    *("plan.start", "plan.step", "plan.done", "llm.usage", "error", "log"),
)
"""Every type of event that Lumina sends; docs/queries.md says what each one holds."""
NOW = "$"
"""The place where only what is new comes."""
_ID = re.compile(r"(\d{1,20})(?:-(\d{1,20}))?", re.ASCII)
_LARGEST = 2**64 - 1


class InvalidSubscription(LuminaError):
    """Streams, types or a place in a stream that do not exist."""


Order = tuple[int, int]


def order_of(id_: str) -> Order:
    """A stream id as what it is compared by."""
    ms, _, seq = id_.partition("-")
    return int(ms), int(seq or 0)


class Followed:
    """An entry of a stream. Its text is made once, however many are told it."""

    __slots__ = ("_enriched", "_text", "event", "extra", "id", "order", "owner", "stream")

    def __init__(self, stream: str, id_: str, event: Event) -> None:
        self.stream, self.id, self.event = stream, id_, event
        self.order = order_of(id_)
        self.owner = event.data.get("owner")
        self.extra: Mapping[str, Any] = {}
        """What ``memory.enrichment`` found out about it."""
        self._text: str | None = None
        self._enriched: str | None = None

    @property
    def place(self) -> tuple[int, bool, int]:
        """What entries of several streams are ordered by: within a millisecond a task is submitted before it starts."""
        ms, seq = self.order
        return ms, self.stream != keys.TASKS_STREAM, seq

    def text(self, *, enriched: bool = False) -> str:
        """The event as one line of JSON: ``stream``, ``id``, ``type``, ``ts``, ``agent``, ``task_id``, ``data``.

        Enriched it holds ``extra`` and ``lag_ms`` as well: how old the event was when it was told for the first time.
        """
        if enriched:
            if self._enriched is None:
                self._enriched = _json({**self._fields(), **self.extra, "lag_ms": max(0, now_ms() - self.event.ts)})
            return self._enriched
        if self._text is None:
            self._text = _json(self._fields())
        return self._text

    def _fields(self) -> dict[str, Any]:
        event = self.event
        place = {"stream": short_name(self.stream), "id": self.id, "type": event.type, "ts": event.ts}
        return {**place, "agent": event.agent, "task_id": event.task_id, "data": event.data}


def _json(value: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which UTF-8 cannot hold
        text = json.dumps(value, separators=(",", ":"))
    except ValueError:  # NaN and infinity, which are Python's and not JSON's
        text = _json(json.loads(json.dumps(value), parse_constant=lambda _: None))
    return text


def read_entry(stream: str, id_: bytes, fields: Mapping[bytes, bytes]) -> Followed:
    """An entry as Redis gives it. What is no event comes as ``error`` without an owner: the place moves on over it."""
    name = id_.decode()
    try:
        event = Event.from_fields(fields)
    except ValueError as error:
        event = Event("error", {"message": str(error)}, ts=order_of(name)[0])
    return Followed(stream, name, event)


def short_name(stream: str) -> str:
    """What followers call a stream: its name without the version."""
    return stream.partition("/")[0]


def parse_streams(text: str) -> tuple[str, ...]:
    """Stream names out of a list with commas, with or without their version, in the order of ``STREAM_NAMES``.

    Raises:
        InvalidSubscription: one of them does not exist.
    """
    wanted = _words(text)
    for word in wanted:
        if word not in STREAM_NAMES and word not in STREAM_NAMES.values():
            raise InvalidSubscription(f"stream «{word[:60]}» does not exist; accepted: {', '.join(STREAM_NAMES)}")
    if not wanted:
        raise InvalidSubscription(f"no stream was given; accepted: {', '.join(STREAM_NAMES)}")
    return tuple(name for short, name in STREAM_NAMES.items() if short in wanted or name in wanted)


def parse_types(text: str) -> frozenset[str]:
    """Event types out of a list with commas; ``task.*`` stands for all of that kind, and nothing for every type.

    Raises:
        InvalidSubscription: one of them does not exist.
    """
    found: set[str] = set()
    for word in _words(text):
        prefix = word.removesuffix("*")
        matching = {name for name in EVENT_TYPES if name == word or (word.endswith(".*") and name.startswith(prefix))}
        if not matching:
            known = ", ".join(EVENT_TYPES)
            raise InvalidSubscription(f"event type «{word[:60]}» does not exist; accepted: {known}, or such as task.*")
        found |= matching
    return frozenset(found)


def parse_positions(text: str, streams: Sequence[str], missing: str = NOW) -> dict[str, str]:
    """The place in each stream after which to begin.

    Args:
        text: ``graph_stream=17-0,tasks=16-3`` as ``format_positions`` makes it; or one id for every stream, which is
            a time in milliseconds; or ``0`` for the beginning, or ``$`` for what is new.
        streams: What is followed; the places of other streams are passed over.
        missing: The place in streams that ``text`` does not name.

    Raises:
        InvalidSubscription: it is none of these.
    """
    if "=" not in text:
        return dict.fromkeys(streams, _checked_id(text))
    given: dict[str, str] = {}
    for part in text.split(","):
        name, _, place = part.partition("=")
        given[parse_streams(name)[0]] = _checked_id(place)
    return {stream: given.get(stream, missing) for stream in streams}


def format_positions(positions: Mapping[str, str]) -> str:
    """One text for the places in every stream; of a single stream only its id."""
    if len(positions) == 1:
        return next(iter(positions.values()))
    return ",".join([f"{short_name(stream)}={place}" for stream, place in positions.items()])


def _checked_id(text: str) -> str:
    text = text.strip()
    match = _ID.fullmatch(text)
    if text != NOW and (match is None or any(int(part) > _LARGEST for part in match.groups("0"))):
        raise InvalidSubscription(f"«{text[:60]}» is no stream id; send one like 1700000000000-0, or 0, or {NOW}")
    if match is None:
        return NOW
    return f"{int(match[1])}-{int(match[2] or 0)}"


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events of the streams are told. Equal ones see the same."""

    streams: tuple[str, ...]
    owner: str
    types: frozenset[str] = frozenset()
    """None means all."""
    task_id: str | None = None

    def takes(self, entry: Followed) -> bool:
        """Whether an entry is told."""
        return (
            entry.owner == self.owner
            and entry.stream in self.streams
            and (not self.types or entry.event.type in self.types)
            and (self.task_id is None or entry.event.task_id == self.task_id)
        )

    def of(self, entries: Iterable[Followed]) -> list[Followed]:
        """Those entries that are told."""
        return [entry for entry in entries if self.takes(entry)]
