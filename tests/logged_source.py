"""An encyclopaedia that tells what it was asked for, in tests whose crawls run in processes of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from tools.wikipedia.source import Fetched, WikiSource


class Logged:
    """An encyclopaedia that notes the titles of every request when it has been answered, after a wait."""

    def __init__(self, source: WikiSource, log: Path, seconds: float = 0) -> None:
        self._source, self._log, self._seconds = source, log, seconds
        self.name = source.name
        self.suggest, self.search, self.revisions = source.suggest, source.search, source.revisions

    async def fetch(self, titles: Sequence[str]) -> Fetched:
        await asyncio.sleep(self._seconds)
        with self._log.open("a") as file:  # one line, in a test
            file.write("|".join(titles) + "\n")
        return await self._source.fetch(titles)

    async def aclose(self) -> None:
        await self._source.aclose()


def requests(log: Path) -> list[list[str]]:
    """The titles of each request that the file tells of."""
    return [line.split("|") for line in log.read_text().splitlines()] if log.exists() else []
