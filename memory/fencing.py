"""Keeps a process that slept past its lease from writing: what writes for a task asks here first.

The queue refuses such a writer by its token. Streams, checkpoints and the library know no tokens, so the writer itself
looks how old its lease is, which costs nothing, and asks the queue only when it may be over. A process that was stopped
(SIGSTOP, a paused container) therefore finds out before its first write. What stays is the moment between the look and
the arrival of the write; all that is written so is idempotent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar

_check: ContextVar[Callable[[], Awaitable[None]] | None] = ContextVar("check", default=None)


class Fence:
    """Have ``check`` awaited before every write in this block, and in the tasks that are started in it."""

    __slots__ = ("_before", "_check")

    def __init__(self, check: Callable[[], Awaitable[None]]) -> None:
        """Take what raises when the right to write is lost."""
        self._check = check

    def __enter__(self) -> None:
        self._before = _check.set(self._check)

    def __exit__(self, *_: object) -> None:
        _check.reset(self._before)


async def ensure_held() -> None:
    """Raise what the check raises; outside of a ``Fence`` nothing happens."""
    check = _check.get()
    if check is not None:
        await check()
