"""Records that are kept, and read when they are not."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from memory.passages import Record
from memory.record_cache import RecordCache

IDS = [uuid.uuid5(uuid.NAMESPACE_URL, str(number)) for number in range(4)]


class Reader:
    """Has every record but the last; remembers what was read."""

    def __init__(self) -> None:
        self.read: list[uuid.UUID] = []

    def __call__(self, ids: Sequence[uuid.UUID]) -> list[Record]:
        self.read += ids
        return [Record(str(one), f"text of {one}") for one in ids if one != IDS[-1]]


def test_a_record_is_read_once_while_it_is_kept_and_the_latest_used_are() -> None:
    cache, reader = RecordCache(2), Reader()
    for one in (0, 1, 0, 2, 0, 1):  # 1 makes room for 2
        assert cache.get([IDS[one].int], reader)[IDS[one].int] == Record(str(IDS[one]), f"text of {IDS[one]}")
    assert reader.read == [IDS[0], IDS[1], IDS[2], IDS[1]]


def test_more_than_are_kept_are_all_given_and_what_is_not_there_is_left_out() -> None:
    cache, reader = RecordCache(1), Reader()
    assert cache.get([one.int for one in IDS], reader).keys() == {one.int for one in IDS[:3]}
    assert cache.get([IDS[2].int], reader).keys() == {IDS[2].int}
    assert reader.read == IDS


def test_what_is_forgotten_is_read_again() -> None:
    cache, reader = RecordCache(), Reader()
    every = [one.int for one in IDS[:3]]
    cache.get(every, reader)
    cache.forget([str(IDS[0]).upper(), str(IDS[3])])
    cache.get(every, reader)
    assert reader.read == [*IDS[:3], IDS[0]]
    cache.clear()
    cache.get(every, reader)
    assert reader.read == [*IDS[:3], IDS[0], *IDS[:3]]
