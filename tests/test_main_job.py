"""The main job, end to end, on embedded engines: Redis, Qdrant, DuckDB and a ZIM are real; the model is scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from agents.spec import RunRequest
from graphs.runs import Runner
from memory.keys import PLANNER_STREAM
from settings import load_settings
from tools.wikipedia.source import Fetched, Page, Section, SourceUnavailable

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]

QUESTION = "Who proved that the Mandelbrot set is connected?"
REQUEST = RunRequest(intent="wiki_qa", message=QUESTION, topics=["Mandelbrot set"], max_nodes=30)


async def ask(runner: Runner, request: RunRequest = REQUEST, task_id: str = "task") -> dict[str, Any]:
    return {event.kind: event.data async for event in runner.stream(request, task_id)}["done"]


async def until(condition: Any, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_a_question_is_answered_from_what_was_crawled_with_citations_at_a_revision(lumina: Lumina) -> None:
    async with lumina() as runner:
        done = await ask(runner)
    answer = done["report"]["answer"]
    assert done["outcome"]["status"] == "done"
    assert "Douady" in answer["answer"]
    assert "[1]" in answer["answer"]
    [citation] = answer["citations"]
    assert citation["quote"] in answer["answer"]
    assert citation["url"].endswith(f"oldid={citation['revision']}")
    [crawl] = done["report"]["crawls"]
    assert len(crawl["titles"]) == 30
    assert crawl["titles"][0] == "Mandelbrot set"
    assert done["report"]["summaries"][0]["citations"]
    calls = done["usage"]["input_tokens"] // 11
    assert (done["usage"]["output_tokens"], done["usage"]["usd"]) == (7 * calls, 0.0)
    assert calls > 0


async def test_the_second_time_memory_answers_and_the_plan_is_shorter(lumina: Lumina) -> None:
    async with lumina() as runner:
        first = await ask(runner)
    async with lumina() as runner:
        second = await ask(runner, task_id="again")
    assert [step["goal"] for step in second["walked"]] == ["answered", "answer_reported"]
    assert len(first["walked"]) > len(second["walked"])
    assert second["report"]["summaries"] == first["report"]["summaries"]
    assert "Douady" in second["report"]["answer"]["answer"]


async def test_answer_and_summary_are_made_side_by_side(lumina: Lumina) -> None:
    async with lumina() as runner:
        done = await ask(runner)
    gained = [sorted(set(after) - set(before)) for before, after in zip(done["chain"], done["chain"][1:], strict=False)]
    assert any({"answered", "summarised[Mandelbrot set]"} <= set(step) for step in gained)


async def test_two_topics_are_read_and_summarised_side_by_side(lumina: Lumina) -> None:
    topics = ["Julia set", "Koch snowflake"]
    async with lumina() as runner:
        await ask(runner, RunRequest(intent="crawl", topics=topics, max_nodes=5), "crawl")
        done = await ask(runner, RunRequest(intent="summarise", topics=topics, max_nodes=5), "summarise")
        log = [entry.event for entry in await runner.context.streams.tail(PLANNER_STREAM)]
    for task, goal in (("crawl", "crawled"), ("summarise", "summarised")):
        both = {f"{goal}[{topic}]" for topic in topics}
        decisions = [one.data["decision"] for one in log if one.task_id == task and "decision" in one.data]
        rounds = [{step["goal"] for step in decision["run"]} for decision in decisions]
        assert both <= rounds[0]
        assert all(both <= ran for ran in rounds if both & ran), f"{goal} ran for one topic alone: {rounds}"
    assert {summary["topic"] for summary in done["report"]["summaries"]} == set(topics)
    assert done["outcome"]["status"] == "done"


async def test_a_question_without_a_topic_finds_one(lumina: Lumina) -> None:
    async with lumina() as runner:
        done = await ask(runner, RunRequest(intent="wiki_qa", message="Where was Gaston Julia born?", max_nodes=5))
    assert done["report"]["topics"] == ["Gaston Julia"]
    assert "Sidi Bel Abb" in done["report"]["answer"]["answer"]


@pytest.mark.parametrize("intent", ["crawl", "summarise"])
async def test_an_instruction_without_a_topic_finds_one_before_it_reports(lumina: Lumina, intent: str) -> None:
    async with lumina() as runner:
        done = await ask(runner, RunRequest(intent=intent, message="About the Koch snowflake, please.", max_nodes=2))
    assert done["report"]["topics"] == ["Koch snowflake"]
    assert [crawl["title"] for crawl in done["report"]["crawls"]] == ["Koch snowflake"]


async def test_an_unknown_topic_says_so_suggests_and_leaves_nothing(lumina: Lumina) -> None:
    async with lumina() as runner:
        done = await ask(runner, REQUEST.model_copy(update={"topics": ["Mandelbort set"]}))
        counts = await runner.context.graph.counts("local")
        assert runner.context.vectors is not None
        assert await runner.context.vectors.count() == 0
    assert done["outcome"]["status"] == "failed"
    assert "no article «Mandelbort set»" in done["outcome"]["reason"]
    assert "Mandelbrot set" in done["outcome"]["reason"]
    assert (counts.nodes, counts.edges) == (0, 0)


async def test_a_disambiguation_page_leads_to_what_it_lists(lumina: Lumina) -> None:
    async with lumina() as runner:
        done = await ask(runner, RunRequest(intent="crawl", message="", topics=["Mandelbrot"], max_nodes=8))
    [crawl] = done["report"]["crawls"]
    assert {"Mandelbrot set", "Benoît Mandelbrot"} <= set(crawl["titles"])
    assert "Mandelbrot" not in crawl["titles"]


async def test_what_was_read_does_not_answer_everything(lumina: Lumina) -> None:
    async with lumina() as runner:
        # Few small words: to the tests' embedder they are as near as any, and every page has them.
        question = "At how many kelvin does tungsten boil?"
        done = await ask(runner, REQUEST.model_copy(update={"message": question, "max_nodes": 3}))
    answer = done["report"]["answer"]
    assert answer["abstained"]
    assert answer["answer"] == "I don't know."
    assert answer["looked_at"]
    assert not answer["citations"]


async def test_a_models_words_are_shown_when_they_stand_in_the_evidence(lumina: Lumina) -> None:
    words = "Douady and Hubbard proved in 1982 that the Mandelbrot set is connected [1]."
    async with lumina(answers=[words]) as runner:
        answer = (await ask(runner))["report"]["answer"]
    assert answer["phrased_by"] != "quote"
    assert "proved in 1982" in answer["answer"]
    assert answer["citations"]


@pytest.mark.parametrize(
    "invention",
    [
        pytest.param("Albert Einstein proved it in Berlin in 1905 [1].", id="another answer"),
        # It says all that the reader found, so that only the check against the evidence can tell.
        pytest.param(
            "Douady and Hubbard proved in 1982 with Einstein that the Mandelbrot set is connected [1].",
            id="an embroidered one",
        ),
    ],
)
async def test_a_models_invention_is_never_shown(lumina: Lumina, invention: str) -> None:
    async with lumina(answers=[invention]) as runner:
        done = await ask(runner)
    answer = done["report"]["answer"]
    assert done["outcome"]["status"] == "done", "it was caught late, by a way that failed"
    assert answer["phrased_by"] == "quote"
    assert "Einstein" not in answer["answer"]
    assert "Douady" in answer["answer"]


async def test_everything_that_happened_reaches_the_event_store(lumina: Lumina) -> None:
    async with lumina() as runner:
        done = await ask(runner)
        events = runner.context.events
        assert events is not None

        async def told() -> bool:
            found = await events.query("SELECT count(*) FROM events WHERE type IN ('plan.done', 'answer.add')")
            return bool(found.rows[0][0] == 2)

        await until(told)
        nodes = (await events.query("SELECT count(*) FROM nodes")).rows[0][0]
        edges = (await events.query("SELECT count(*) FROM edges")).rows[0][0]
        counts = await runner.context.graph.counts("local")
        history = await events.run_history()
    assert (nodes, edges) == (counts.nodes, counts.edges)
    assert nodes == 30
    assert edges > 30
    assert history["crawled.links"].failure_rate == 0
    crawling = [step["seconds"] for step in done["walked"] if step["agent"] == "crawl"]
    assert len(crawling) > 1
    assert history["crawled.links"].seconds == pytest.approx(sum(crawling), abs=0.002)


async def test_embedding_goes_on_behind_the_answer(lumina: Lumina) -> None:
    async with lumina() as runner:
        await ask(runner)
        vectors = runner.context.vectors
        assert vectors is not None

        async def embedded() -> bool:
            return await vectors.count(embedded=False) == 0

        await until(embedded)
        progress = await runner.context.library.progress("local", runner.context.source.name, ["Mandelbrot set"])
    assert progress.passages == progress.indexed == progress.embedded > 0


class Shelf:
    """An encyclopaedia with the pages that a test puts on it."""

    name = "shelf"

    def __init__(self, *pages: Page, skipped: dict[str, str] | None = None, broken: bool = False) -> None:
        self._pages = {page.title: page for page in pages}
        self._skipped, self._broken = skipped or {}, broken

    async def fetch(self, titles: Sequence[str]) -> Fetched:
        if self._broken:
            raise SourceUnavailable("shelf: connection refused; tried 5 times, giving up")
        return Fetched(
            tuple(self._pages[title] for title in titles if title in self._pages),
            tuple(title for title in titles if title not in self._pages and title not in self._skipped),
            {title: why for title, why in self._skipped.items() if title in titles},
        )

    async def revisions(self, titles: Sequence[str]) -> dict[str, str]:
        return {title: self._pages[title].revision for title in titles if title in self._pages}

    async def suggest(self, text: str, limit: int = 5) -> list[str]:
        return []

    async def search(self, text: str, limit: int = 10) -> list[str]:
        return []

    async def aclose(self) -> None:
        pass


def page(title: str, text: str, links: Sequence[str] = ()) -> Page:
    return Page(title, f"shelf:{title}?oldid=1", "1", (Section((), text),), tuple(links))


LONG_TITLE = "é" * 127 + "x"
HUGE = " ".join(f"Sentence number {number} says nothing of interest." for number in range(45_000))


async def test_odd_pages_break_nothing_and_an_event_says_what_was_skipped(lumina: Lumina) -> None:
    links = ["Huge", "Empty", LONG_TITLE, "Loop", "Gone"]
    shelf = Shelf(
        page("Start", "The start was written by Ada Moss in 1850.", links),
        page("Huge", HUGE),
        page("Empty", ""),
        page(LONG_TITLE, "A page with a long title."),
        skipped={"Loop": "redirects in a circle"},
    )
    request = RunRequest(intent="wiki_qa", message="Who was the start written by?", topics=["Start"])
    async with lumina(source=shelf) as runner:
        done = await ask(runner, request)
        events = runner.context.events
        assert events is not None

        async def told() -> bool:
            return bool((await events.query("SELECT 1 FROM events WHERE type = 'error'")).rows)

        await until(told)
        found = await events.query("SELECT data ->> 'title', data ->> 'error' FROM events WHERE type = 'error'")
    [crawl] = done["report"]["crawls"]
    assert set(crawl["titles"]) == {"Start", "Huge", "Empty", LONG_TITLE}
    assert crawl["skipped"] == {"Loop": "redirects in a circle", "Gone": "no such article"}
    assert ["Loop", "redirects in a circle"] in found.rows
    assert "Ada Moss" in done["report"]["answer"]["answer"]


async def test_a_source_that_is_down_is_one_clear_line(lumina: Lumina) -> None:
    async with lumina(source=Shelf(broken=True)) as runner:
        done = await ask(runner)
    assert done["outcome"]["status"] == "failed"
    assert done["outcome"]["reason"] == "shelf: connection refused; tried 5 times, giving up"


@pytest.mark.slow
@pytest.mark.timeout(500)
async def test_the_whole_with_the_real_models(lumina: Lumina) -> None:
    async with lumina(chat=None, embedder=None) as runner:
        done = await ask(runner)
        assert runner.context.chat.providers()[0].name == "embedded"
    assert "Douady" in done["report"]["answer"]["answer"]
    assert done["usage"]["output_tokens"] > 0
    assert load_settings().embedding_model == runner.context.embedder.model_name
