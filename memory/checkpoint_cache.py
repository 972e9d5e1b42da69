"""Large channel values that a process has lately put or got, so that it need not fetch them again.

A version of a channel never changes, for its name ends in 40 random bits; only names of that form are kept. Redis is
still asked each time which versions the checkpoint has and whether they are still there: a reader never sees what has
been replaced or deleted, it is only spared the bytes.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass

MIN_BYTES = 4_096
"""Smaller blobs travel as fast as their names."""
_UNIQUE = re.compile(rb"\d+:.*:\d{10,}\.[0-9a-f]{10}\0", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Held:
    """One version of a channel."""

    field: bytes
    blob: bytes


class BlobCache:
    """The newest large blob of each channel of the threads used last.

    Args:
        max_bytes: values kept in all; 0 keeps none.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._threads: OrderedDict[str, dict[tuple[bytes, str], Held]] = OrderedDict()

    def held(self, thread_id: str, prefix: bytes) -> dict[bytes, bytes]:
        """Blobs of a namespace, by field."""
        channels = self._threads.get(thread_id, {})
        return {one.field: one.blob for (ns, _), one in channels.items() if ns == prefix}

    def hold(self, thread_id: str, prefix: bytes, channel: str, field: bytes, blob: bytes) -> None:
        """Keeps a blob in place of the channel's earlier one, and lets go the threads unused for longest."""
        if not MIN_BYTES <= len(blob) <= self._max_bytes // 4 or not _UNIQUE.match(field):
            return
        channels = self._threads.setdefault(thread_id, {})
        self._threads.move_to_end(thread_id)
        earlier = channels.get((prefix, channel))
        self._bytes += len(blob) - (len(earlier.blob) if earlier else 0)
        channels[prefix, channel] = Held(field, blob)
        while self._bytes > self._max_bytes:
            self.drop(next(iter(self._threads)))

    def drop(self, thread_id: str) -> None:
        """Lets go all of a thread."""
        self._bytes -= sum(len(one.blob) for one in self._threads.pop(thread_id, {}).values())
