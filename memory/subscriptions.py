"""What a follower of streams asks for, and what he is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from memory.backlog import Gap
from memory.followed import Filter, Followed

MAX_PIECE_CHARS = 2**18
"""What is sent at a time: many WebSocket clients take no frame of more than a megabyte."""

Places = Mapping[str, str]
Encoder = Callable[[Sequence[Followed], Places, Places, bool], str]
"""Entries, the places before and after them, whether enriched → what is sent. One for all who see the same."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a follower is told, and how. Followers with equal ones share the work."""

    filter: Filter
    encode: Encoder
    enriched: bool = False

    def pieces(self, entries: Sequence[Followed], before: Places, after: Places) -> Iterator[Told]:
        """Entries as what is sent at a time: not more than ``MAX_PIECE_CHARS``, or a single one."""
        rest = deque(entries)
        while rest:
            piece = [rest.popleft()]
            chars = len(piece[0].text(enriched=self.enriched))
            while rest and (chars := chars + len(rest[0].text(enriched=self.enriched))) < MAX_PIECE_CHARS:
                piece.append(rest.popleft())
            places = {**before, **{entry.stream: entry.id for entry in piece}} if rest else after
            yield Told(self.encode(piece, before, places, self.enriched), piece, places)
            before = places


@dataclass(frozen=True, slots=True)
class Told:
    """Events, encoded."""

    payload: str
    entries: Sequence[Followed]
    places: Places
    """After them."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing has happened for a while; the places have moved on over what the filter leaves out."""

    places: Places


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """What stood in the streams has been told; from here on it is live."""

    places: Places


@dataclass(frozen=True, slots=True)
class Dropped:
    """The end. Whoever comes back with these places misses nothing."""

    reason: str
    places: Places


Notice = Told | Gap | CaughtUp | Silence | Dropped
"""What a follower is told."""
