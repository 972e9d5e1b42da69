"""The usage that a provider tells at the end of a stream of chat completion chunks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json

_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_END_OF_EVENT = re.compile(rb"\n\r?\n")
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')


class UsageFilter:
    """Finds the usage in a stream of server-sent events, and hides the chunk of it where nobody asked for it."""

    def __init__(self, *, shown: bool) -> None:
        self.usage: dict[str, Any] | None = None
        """The provider's own counts, once they have come."""
        self._shown = shown
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """What may go on now; an event that is not whole yet is held back."""
        if self._rest:
            data = self._rest + data
        end = _end_of_events(data)
        data, self._rest = data[:end], data[end:]
        if _USAGE.search(data):
            return b"".join(event for event in _events(data) if not self._takes(event))
        return data

    def end(self) -> bytes:
        """What is left when the provider has closed the stream."""
        rest, self._rest = self._rest, b""
        return b"" if _USAGE.search(rest) and self._takes(rest) else rest

    def _takes(self, event: bytes) -> bool:
        """Note the usage of an event; whether it is to be hidden."""
        if not _USAGE.search(event):
            return False
        try:
            chunk = from_json(event.strip().removeprefix(b"data:").strip())
        except ValueError:
            return False  # an event of several lines, which no provider sends; it is handed on untouched
        self.usage = chunk.get("usage") or self.usage
        return not self._shown and bool(_NO_CHOICES.search(event))


def _events(data: bytes) -> Iterator[bytes]:
    """Each with the empty line that ends it."""
    start = 0
    for end in _END_OF_EVENT.finditer(data):
        yield data[start : end.end()]
        start = end.end()
    yield data[start:]


def _end_of_events(data: bytes) -> int:
    """Where the last whole event ends."""
    if data.endswith(b"\n\n"):
        return len(data)
    lf, crlf = data.rfind(b"\n\n"), data.rfind(b"\r\n\r\n")
    return max(lf + 2 if lf >= 0 else 0, crlf + 4 if crlf >= 0 else 0)
