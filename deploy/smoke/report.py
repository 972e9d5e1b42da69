"""What was tried, how it went, and the table of it that is printed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx
import websockets


class SmokeFailed(Exception):
    """A step did not come to a good end; the text says which and why."""


@dataclass
class Report:
    """The table that is printed."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    async def step(self, name: str, work: Callable[[], Awaitable[str]]) -> None:
        """Do one step, and note how it went.

        Raises:
            SmokeFailed: it went wrong.
        """
        begun = time.monotonic()
        try:
            detail = await work()
        except (SmokeFailed, TimeoutError, OSError, httpx.HTTPError, websockets.WebSocketException) as error:
            reason = str(error) or "no good answer in time"
            self.rows.append((name, "FAILED", f"{time.monotonic() - begun:.1f} s", reason))
            raise SmokeFailed(f"{name}: {reason}") from error
        self.rows.append((name, "ok", f"{time.monotonic() - begun:.1f} s", detail))

    def print(self) -> None:
        """The steps so far, in columns."""
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        for row in self.rows:
            print("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())
