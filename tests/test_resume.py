"""A crawl that is killed in the middle goes on from its last checkpoint, under the same task id."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from agents.spec import RunRequest
from graphs.runs import Runner
from tools.wikipedia.opening import open_source
from tools.wikipedia.source import Fetched, WikiSource

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]

REQUEST = RunRequest(intent="crawl", topics=["Mandelbrot set"], hops=3, max_nodes=64)

CHILD = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_resume import Logged, REQUEST
from services import open_runner
from settings import load_settings
from tools.wikipedia.opening import open_source

async def main():
    async with open_source({sample!r}, contact="tests") as source:
        settings = load_settings(data_dir=Path({data!r}), wiki_source={sample!r})
        async with open_runner(settings, owns_files=False, source=Logged(source, Path({log!r}), 0.7)) as runner:
            async for event in runner.stream(REQUEST, "the-crawl"):
                pass

asyncio.run(main())
"""


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
    return [line.split("|") for line in log.read_text().splitlines()] if log.exists() else []


@pytest.mark.slow
async def test_a_crawl_killed_in_the_middle_resumes_from_its_checkpoint(
    lumina: Lumina, sample: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    script = CHILD.format(
        tests=str(Path(__file__).parent), sample=str(sample), data=str(tmp_path / "data"), log=str(first)
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", script, cwd=Path(__file__).parents[1])
    async with asyncio.timeout(60):
        while len(requests(first)) < 2:
            await asyncio.sleep(0.02)
            assert child.returncode is None, "the crawl ended before it could be killed"
    child.kill()
    await child.wait()
    async with open_source(str(sample), contact="tests") as source, lumina(source=Logged(source, second)) as runner:
        events = [event async for event in runner.stream(REQUEST, "the-crawl")]
        counts = await runner.context.graph.counts("local")
    done = events[-1].data
    [crawl] = done["report"]["crawls"]
    assert done["outcome"]["status"] == "done"
    assert len(crawl["titles"]) == len(set(crawl["titles"])) == counts.nodes == 64
    fetched_before, fetched_after = requests(first), requests(second)
    assert ["Mandelbrot set"] not in fetched_after, "it started over"
    again = {title for titles in fetched_before for title in titles} & {t for titles in fetched_after for t in titles}
    assert again <= set(fetched_before[-1]), "pages of a finished step were fetched twice"
