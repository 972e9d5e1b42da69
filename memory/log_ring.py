"""The latest records of this process's log, as a stream in memory: bounded, without traces, without secrets."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from loguru import logger

from memory.followed import LOGS_STREAM, Followed, order_of
from memory.streams import Event, now_ms

if TYPE_CHECKING:
    from loguru import Message

    from memory.backlog import Gap

KEPT = 1_000
"""Records kept."""
MAX_TEXT_CHARS = 500
MIN_SECRET_CHARS = 4
"""A shorter one would take away half of every text, and is none."""
QUOTED = re.compile(r"«[^»]*»|\"[^\"]*\"|'[^']*'")
"""What somebody else wrote is quoted in Lumina's errors: it may be a person's text, and is left out."""
SECRETS = re.compile(
    r"(?i)(://)[^/\s@]+@|\b(bearer\s+|(?:api[-_]?key|token|password|secret|authorization)\s*[=:]\s*)\S+"
    r"|\b(?:sk|pk)-[\w-]{8,}"
)
"""User and password of a URL, values that are named as secrets, keys of model providers."""


class LogRing:
    """Takes log records from any thread, keeps the latest, and tells one listener of each."""

    def __init__(self, owner: str, *, secrets: Sequence[str] = (), kept: int = KEPT) -> None:
        """Keep the records as events of ``owner``, the only one who may see them; ``secrets`` are never shown."""
        self.owner = owner
        self.listener: Callable[[list[Followed]], None] = lambda entries: None
        self._secrets = [secret for secret in secrets if len(secret) >= MIN_SECRET_CHARS]
        self._entries: deque[Followed] = deque(maxlen=kept)
        self._last = (now_ms(), 0)

    @property
    def last_id(self) -> str:
        """Id of the newest record, or the time at which this ring was made."""
        return "{}-{}".format(*self._last)

    @contextmanager
    def listening(self, level: str = "INFO") -> Iterator[None]:
        """Take what loguru's logger is given from ``level`` on while the block runs."""
        loop = asyncio.get_running_loop()

        def sink(message: Message) -> None:
            event = _event(self.owner, message.record, self._secrets)
            if not loop.is_closed():
                loop.call_soon_threadsafe(self.add, event)

        handler = logger.add(sink, level=level, format="{message}", backtrace=False, diagnose=False, catch=True)
        try:
            yield
        finally:
            logger.remove(handler)

    def add(self, event: Event) -> None:
        """Keep one record and tell the listener."""
        ms, seq = self._last
        now = max(now_ms(), ms)
        self._last = (now, seq + 1 if now == ms else 0)
        entry = Followed(LOGS_STREAM, self.last_id, event)
        self._entries.append(entry)
        self.listener([entry])

    def pages(self, after: str, until: str | None) -> Iterator[list[Followed] | Gap]:
        """The records after an id, up to another."""
        from memory.backlog import Gap

        first = self._entries[0] if self._entries else None
        if first and len(self._entries) == self._entries.maxlen and (0, 0) < order_of(after) < first.order:
            yield Gap(LOGS_STREAM, after, first.id, f"only the latest {self._entries.maxlen} records are kept")
        last = order_of(until) if until else self._last
        if page := [entry for entry in self._entries if order_of(after) < entry.order <= last]:
            yield page


def _event(owner: str, record: Any, secrets: Sequence[str]) -> Event:
    """A record as an event: where it was written and what it says, shortened; of an exception only its name."""
    text = record["message"]
    for secret in secrets:
        text = text.replace(secret, "…")
    text = SECRETS.sub(lambda match: f"{match[1] or match[2] or ''}…", text)
    text = QUOTED.sub("«…»", " ".join(text.split()))
    if len(text) > MAX_TEXT_CHARS:
        text = text[: MAX_TEXT_CHARS - 1] + "…"
    data = {
        "owner": owner,
        "level": record["level"].name,
        "text": text,
        "module": record["name"],
        "function": record["function"],
        "line": record["line"],
    }
    if record["exception"] and record["exception"].type:
        data["exception"] = record["exception"].type.__name__
    return Event("log", data, ts=int(record["time"].timestamp() * 1000))
