"""Records that were read last, so that a passage that is found again and again is not read again and again.

Only for a store that nobody else writes to: whoever writes says what to forget. Used on one thread.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from memory.passages import Record

SIZE = 4_000
"""A passage of 900 characters takes 4 KB: 16 MB in all."""


class RecordCache:
    """The records used last.

    Args:
        size: How many at most.
    """

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._records: OrderedDict[int, Record] = OrderedDict()

    def get(self, ids: Iterable[int], read: Callable[[Sequence[uuid.UUID]], Iterable[Record]]) -> dict[int, Record]:
        """Records by the number of their id.

        Args:
            ids: Which; the ``int`` of their UUIDs, which costs a twentieth of writing one out.
            read: Reads those that are not here.
        """
        found = {}
        missing = []
        for number in ids:
            if (known := self._records.get(number)) is None:
                missing.append(uuid.UUID(int=number))
            else:
                found[number] = known
                self._records.move_to_end(number)
        if missing:
            for record in read(missing):
                number = uuid.UUID(record.id).int
                found[number] = self._records[number] = record
            while len(self._records) > self._size:
                self._records.popitem(last=False)
        return found

    def forget(self, ids: Iterable[str]) -> None:
        """These are written or deleted."""
        for one in ids:
            self._records.pop(uuid.UUID(one).int, None)

    def clear(self) -> None:
        """Anything may have been written."""
        self._records.clear()
