"""Questions that need two articles, through the whole graph: the planner has the second one read along a link."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agents.spec import RunRequest
from graphs.explaining import explain_log
from graphs.planner import replay
from graphs.runs import Runner
from memory.graph import node_id
from memory.keys import PLANNER_STREAM
from settings import load_settings
from tools.wikipedia.source import Fetched, SourceUnavailable
from tools.wikipedia.zim import Zim

ROOT = Path(__file__).parents[1]
Lumina = Callable[..., AbstractAsyncContextManager[Runner]]


class Case(NamedTuple):
    """A question, the two articles, and words of the answer."""

    question: str
    first: str
    second: str
    answer: str


CASES = [
    Case("Where was the mathematician after whom the Julia set is named born?", "Julia set", "Gaston Julia", "Algeria"),
    Case(
        "At which university is the mathematician who proved that the boundary of the Mandelbrot set has Hausdorff "
        "dimension 2 a professor?",
        "Hausdorff dimension",
        "Mitsuhiro Shishikura",
        "Kyoto University",
    ),
    Case("In which city was the doctoral supervisor of Adrien Douady born?", "Adrien Douady", "Henri Cartan", "Nancy"),
    Case("When did Adrien Douady's doctoral supervisor die?", "Adrien Douady", "Henri Cartan", "Paris"),
    Case(
        "Where was the physicist who discovered the Feigenbaum constants born?",
        "Feigenbaum constants",
        "Mitchell Feigenbaum",
        "Philadelphia",
    ),
    Case(
        "Where was the author of the article that made the logistic map famous born?",
        "Logistic map",
        "Robert May",
        "Sydney",
    ),
    Case(
        "In what year did the mathematician who described the Koch snowflake receive his doctorate?",
        "Koch snowflake",
        "Helge von Koch",
        "1892",
    ),
    Case(
        "Who was the teacher of the mathematician who described the Koch snowflake?",
        "Koch snowflake",
        "Helge von Koch",
        "Gösta Mittag-Leffler",
    ),
    Case(
        "Where was the mathematician after whom the Sierpiński triangle is named born?",
        "Sierpiński triangle",
        "Wacław Sierpiński",
        "Warsaw",
    ),
    Case("Where was the person who coined the term fractal born?", "Fractal", "Benoît Mandelbrot", "Warsaw"),
]
"""The topic of each is found in its words; its crawl is told to read one page, so that the second has to be fetched."""

ONE_ARTICLE = [
    "Who proved that the Mandelbrot set is connected?",
    "What is the Hausdorff dimension of the boundary of the Mandelbrot set?",
    "Where was Gaston Julia born?",
    "When was the paper that introduced the Hénon map published?",
    "Who was the first person who printed a picture of the Mandelbrot set?",
    "What is the name of the constant that governs period doubling?",
    "Who first saw pictures of the set named after Mandelbrot?",
    "What is a Julia set?",
]
"""Some of them describe something too."""


def request(question: str, **more: Any) -> RunRequest:
    return RunRequest(**{"intent": "wiki_qa", "message": question, "max_nodes": 1, **more})


async def ask(runner: Runner, asked: RunRequest, task_id: str = "task") -> dict[str, Any]:
    return {event.kind: event.data async for event in runner.stream(asked, task_id)}["done"]


def ways(done: dict[str, Any]) -> list[str]:
    return [step["way"].partition("[")[0] for step in done["walked"]]


def titles(answer: dict[str, Any]) -> list[str]:
    return [citation["title"] for citation in answer["citations"]]


class Torn(Zim):
    """The sample, without some articles, or out of reach for them."""

    def __init__(self, path: Path, *, missing: Sequence[str] = (), unreachable: Sequence[str] = ()) -> None:
        super().__init__(path)
        self._missing, self._unreachable = set(missing), set(unreachable)
        self.fetched: list[str] = []

    async def fetch(self, titles: Sequence[str]) -> Fetched:
        self.fetched += titles
        if self._unreachable & set(titles):
            raise SourceUnavailable("sample: connection refused; tried 5 times, giving up")
        found = await super().fetch([title for title in titles if title not in self._missing])
        return Fetched(found.pages, tuple(title for title in titles if title in self._missing) + found.missing)


@pytest.fixture
async def torn(sample: Path, closing: AsyncExitStack) -> Callable[..., Torn]:
    def open_one(**without: Sequence[str]) -> Torn:
        source = Torn(sample, **without)
        closing.push_async_callback(source.aclose)
        return source

    return open_one


USUAL = ("topics_found", "crawled", "answered", "summarised", "answer_reported")
KYOTO, CHAOS = CASES[1], CASES[4]
"""Word vectors are sure enough of the first step of these; the slow test asks all ten of the real model."""


@pytest.mark.parametrize("case", [KYOTO, CHAOS], ids=lambda case: str(case.answer))
async def test_the_second_article_is_read_along_a_link_and_both_are_cited(lumina: Lumina, case: Case) -> None:
    async with lumina() as runner:
        done = await ask(runner, request(case.question))
        answer = done["report"]["answer"]
        kept = await runner.context.library.kept("local", runner.context.source.name, [case.first, case.second])
        neighbours = await runner.context.graph.neighbours("local", node_id(case.first))
    assert done["outcome"]["status"] == "done"
    assert case.answer in answer["answer"]
    assert ways(done).count("linked.link") == 1
    assert len(kept) == 2
    assert [(c["title"], c["revision"]) for c in answer["citations"]] == [(t, p.revision) for t, p in kept.items()]
    assert all(c["url"].endswith(f"oldid={c['revision']}") for c in answer["citations"])
    assert all(c["quote"] in answer["answer"] for c in answer["citations"])
    assert [step["title"] for step in answer["steps"]] == [case.first, case.second]
    assert node_id(case.second) in str(neighbours)


async def test_a_question_that_one_article_answers_makes_no_second_step(lumina: Lumina) -> None:
    async with lumina() as runner:
        for number, question in enumerate(ONE_ARTICLE):
            done = await ask(runner, request(question, owner=f"owner-{number}"), f"one-{number}")
            walked = Counter(way.partition(".")[0] for way in ways(done) if way != "searchable.text")
            assert walked == dict.fromkeys(USUAL, 1), question
            assert not done["report"]["answer"]["steps"]


async def test_an_article_that_is_in_memory_is_not_read_again(lumina: Lumina) -> None:
    async with lumina() as runner:
        await ask(runner, request(CHAOS.question, intent="crawl", topics=[CHAOS.second]), "before")
        done = await ask(runner, request(CHAOS.question, topics=[CHAOS.first]))
    assert "linked.link" not in ways(done)
    assert ways(done).count("answered.phrased") == 1
    assert titles(done["report"]["answer"]) == [CHAOS.first, CHAOS.second]


async def test_the_log_and_the_explanation_say_why_another_article_was_read(lumina: Lumina) -> None:
    async with lumina() as runner:
        done = await ask(runner, request(CHAOS.question))
        log = [entry.event.data for entry in await runner.context.streams.tail(PLANNER_STREAM)]
        steps = [data for data in log if "decision" in data]
        decisions = replay(runner.goals, steps)
        told = explain_log(runner.goals, steps)
    [hop] = [one for one in steps if any(step["way"] == "linked.link" for step in one["decision"]["run"])]
    why = "«Feigenbaum constants» says of «the physicist who discovered the Feigenbaum constants»: «Mitchell Feigenbaum"
    assert why in hop["situation"]["links"][CHAOS.second]
    assert why in hop["decision"]["why"]
    assert "linked" not in hop["situation"]["holding"]
    assert {"linked", "bridged"} <= set(steps[0]["situation"]["holding"])
    assert [decision.to_json() for decision in decisions] == [one["decision"] for one in steps]
    assert f"Another article is needed: {why}" in told
    assert "linked by link, now: agent crawl" in told
    assert "By without the whole plan would cost" in told
    assert done["outcome"]["status"] == "done"


async def test_a_link_that_leads_nowhere_is_told_and_nothing_is_made_up(
    lumina: Lumina, torn: Callable[..., Torn]
) -> None:
    async with lumina(source=torn(missing=[CHAOS.second])) as runner:
        done = await ask(runner, request(CHAOS.question))
    answer = done["report"]["answer"]
    assert ways(done).count("bridged.without") == 1
    assert done["outcome"]["status"] == "partial"
    assert "no article «Mitchell Feigenbaum»" in done["outcome"]["reason"]
    assert answer["abstained"]
    assert answer["answer"] == "I don't know."


async def test_a_wiki_that_goes_down_on_the_way_is_told_and_ends_no_run(
    lumina: Lumina, torn: Callable[..., Torn]
) -> None:
    async with lumina(source=torn(unreachable=[CHAOS.second])) as runner:
        done = await ask(runner, request(CHAOS.question))
    assert done["outcome"]["status"] == "partial"
    assert "connection refused" in done["outcome"]["reason"]
    assert done["report"]["answer"]["abstained"]
    assert ways(done)[-1] == "answer_reported.full"


async def test_no_more_links_are_followed_than_the_goal_file_allows(
    lumina: Lumina, torn: Callable[..., Torn], tmp_path: Path, sample: Path
) -> None:
    text = (ROOT / "goal_lattice.yml").read_text()
    (tmp_path / "goals.yml").write_text(text.replace("max_links: 2", "max_links: 0"))
    settings = load_settings(
        data_dir=tmp_path / "data", wiki_source=str(sample), redis_url=None, goal_file=tmp_path / "goals.yml"
    )
    source = torn()
    async with lumina(settings=settings, source=source) as runner:
        done = await ask(runner, request(CHAOS.question))
    assert source.fetched == [CHAOS.first]
    assert "linked.link" not in ways(done)
    assert titles(done["report"]["answer"]) == [CHAOS.first]


async def test_the_same_question_gives_the_same_walk_and_answer(lumina: Lumina) -> None:
    async with lumina() as runner:
        one = await ask(runner, request(CHAOS.question, owner="a"), "a")
        other = await ask(runner, request(CHAOS.question, owner="b"), "b")
    assert chosen(one) == chosen(other)
    assert one["report"]["answer"]["answer"] == other["report"]["answer"]["answer"]


def chosen(done: dict[str, Any]) -> list[str]:
    """The ways of a walk, without the waits for the indexer: one is left out when the indexer was there before."""
    return [way for way in ways(done) if way not in {"searchable.text", "bridged.text"}]


async def test_a_good_model_may_phrase_it_from_both_articles(lumina: Lumina) -> None:
    words = "Mitchell Feigenbaum discovered the first in 1975. He was born in Philadelphia."
    async with lumina(answers=[words]) as runner:
        answer = (await ask(runner, request(CHAOS.question)))["report"]["answer"]
    assert answer["phrased_by"] != "quote"
    assert answer["answer"] == "Mitchell Feigenbaum discovered the first in 1975. [1] He was born in Philadelphia. [2]"
    assert titles(answer) == [CHAOS.first, CHAOS.second]


@pytest.mark.parametrize("words", ["He was born in Paris.", "He was born in Philadelphia."])
async def test_words_that_leave_a_step_out_or_invent_are_not_shown(lumina: Lumina, words: str) -> None:
    async with lumina(answers=[words]) as runner:
        answer = (await ask(runner, request(CHAOS.question)))["report"]["answer"]
    assert answer["phrased_by"] == "quote"
    assert titles(answer) == [CHAOS.first, CHAOS.second]


@pytest.mark.slow
@pytest.mark.timeout(500)
async def test_with_the_real_models_each_is_answered_from_both_articles(lumina: Lumina) -> None:
    wrong = {}
    async with lumina(chat=None, embedder=None) as runner:
        for number, case in enumerate(CASES):
            done = await ask(runner, request(case.question, owner=f"owner-{number}"), f"two-{number}")
            answer = done["report"]["answer"]
            right = case.answer in answer["answer"] and titles(answer) == [case.first, case.second]
            if not right or ways(done).count("linked.link") != 1:
                wrong[case.question] = (answer["answer"], titles(answer), ways(done))
    assert not wrong


@pytest.mark.slow
@pytest.mark.timeout(500)
async def test_with_the_real_models_one_article_is_enough_for_the_others(lumina: Lumina) -> None:
    async with lumina(chat=None, embedder=None) as runner:
        walks = {}
        for number, question in enumerate(ONE_ARTICLE):
            done = await ask(runner, request(question, owner=f"owner-{number}"), f"one-{number}")
            walks[question] = (ways(done).count("answered.phrased"), "linked.link" in ways(done))
    assert walks == dict.fromkeys(ONE_ARTICLE, (1, False))
