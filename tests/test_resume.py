"""A crawl that is killed in the middle goes on from its last checkpoint, under the same task id."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from agents.spec import RunRequest
from graphs.runs import Runner
from tests.logged_source import Logged, requests
from tools.wikipedia.opening import open_source

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]

REQUEST = RunRequest(intent="crawl", topics=["Mandelbrot set"], hops=3, max_nodes=64)

CHILD = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from tests.logged_source import Logged
from test_resume import REQUEST
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
