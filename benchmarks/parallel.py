"""What the parallel fringe saves: two topics in one run beside the same two in runs one after the other.

Each answer of the source comes 0.2 s late, as an encyclopaedia's over a network does; reading, Redis, the index and the
event store are real, the model and the embedder stand-ins that take no time. Topics are crawled and summarised. Every
round works in fresh folders; the two kinds take turns. ``python -m benchmarks.parallel [--short]``
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from langchain_core.language_models import FakeListChatModel
from loguru import logger
from numpy.typing import NDArray

from agents.spec import RunRequest
from benchmarks.figures import Figures
from benchmarks.harness import finish, options, rounds_of, take_turns
from graphs.runs import Runner, new_task_id
from models.chat import Chat
from models.embeddings import Embedder
from services import open_runner
from settings import load_settings
from tools.encyclopaedia import ensure_sample
from tools.wikipedia.opening import open_source
from tools.wikipedia.source import Fetched, WikiSource

TOPICS = ("Julia set", "Koch snowflake")
WARM_UP = "Georg Cantor"


class Late:
    """An encyclopaedia whose every answer comes so many seconds late."""

    def __init__(self, source: WikiSource, latency_s: float) -> None:
        self.name = source.name
        self._source, self._latency_s = source, latency_s

    async def wait(self) -> None:
        """What a request takes on its way."""
        await asyncio.sleep(self._latency_s)

    async def fetch(self, titles: Sequence[str]) -> Fetched:
        await self.wait()
        return await self._source.fetch(titles)

    async def revisions(self, titles: Sequence[str]) -> dict[str, str]:
        await self.wait()
        return await self._source.revisions(titles)

    async def suggest(self, text: str, limit: int = 5) -> list[str]:
        await self.wait()
        return await self._source.suggest(text, limit)

    async def search(self, text: str, limit: int = 10) -> list[str]:
        await self.wait()
        return await self._source.search(text, limit)

    async def aclose(self) -> None:
        pass


class WordEmbedder:
    """Texts with common words have near vectors."""

    model_name = "words"
    dimensions = 64

    async def find_dimensions(self) -> int:
        return self.dimensions

    async def encode(
        self, texts: Sequence[str], *, query: bool = False, urgent: bool | None = None
    ) -> NDArray[np.float32]:
        rows = np.full((len(texts), self.dimensions), 1e-3, np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[zlib.crc32(word.encode()) % self.dimensions] += 1
        return cast(NDArray[np.float32], rows / np.linalg.norm(rows, axis=1, keepdims=True))


async def timed(folder: Path, source: WikiSource, requests: Sequence[Sequence[str]], max_nodes: int) -> float:
    """Seconds that these requests take one after the other, the engines open and warm."""
    settings = load_settings(data_dir=folder / "data", redis_url=None)
    chat = Chat.from_model(FakeListChatModel(responses=["I would not know."]))
    embedder = cast(Embedder, WordEmbedder())
    async with open_runner(settings, source=source, chat=chat, embedder=embedder) as runner:
        await run(runner, [WARM_UP], 1)
        started = time.perf_counter()
        for topics in requests:
            await run(runner, topics, max_nodes)
        return time.perf_counter() - started


async def run(runner: Runner, topics: Sequence[str], max_nodes: int) -> None:
    """One run to its end."""
    request = RunRequest(intent="summarise", topics=list(topics), max_nodes=max_nodes)
    done: dict[str, Any] = {}
    async for event in runner.stream(request, new_task_id()):
        done = event.data
    if done["outcome"]["status"] == "failed":
        raise SystemExit(done["outcome"]["reason"])


async def compare(figures: Figures, rounds: int, latency_s: float, max_nodes: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        sample = ensure_sample(Path(name) / "sample.zim")
        async with open_source(str(sample), contact="") as opened:
            source = Late(opened, latency_s)
            folders = (Path(name) / str(number) for number in count())

            async def turn(requests: Sequence[Sequence[str]]) -> Mapping[str, float]:
                return {"two topics, s": await timed(next(folders), source, requests, max_nodes)}

            ways = {"lumina": partial(turn, [TOPICS]), "one after the other": partial(turn, [[t] for t in TOPICS])}
            await take_turns(figures, ways, rounds)


if __name__ == "__main__":
    parser = options(__doc__, rounds=5)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--max-nodes", type=int, default=10)
    given = parser.parse_args()
    logger.remove()
    collected = Figures("parallel")
    asyncio.run(compare(collected, rounds_of(given), given.latency, given.max_nodes))
    finish(collected, given)
