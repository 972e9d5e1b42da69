"""Every agent is a Runnable of its own: no graph, no planner."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from agents.crawl import build_crawl
from agents.orchestrator import Failure, OrchestratorInput, build_orchestrator, decide
from agents.qa import QAInput, build_qa
from agents.spec import discover
from agents.summarise import NothingToSummarise, SummariseInput, build_summarise
from agents.walk import CrawlInput, UnknownTopic
from graphs.runs import Runner

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]
TOLD = "Julia set"


async def crawl(runner: Runner, topic: str = "Julia set", **more: int) -> None:
    await build_crawl(runner.context).ainvoke(CrawlInput(topic=topic, max_nodes=6, **more))
    await build_orchestrator(runner.context).ainvoke(OrchestratorInput(action="await_index", topic=topic))


async def test_a_crawl_reads_to_its_end_and_tells_what_it_read(lumina: Lumina) -> None:
    async with lumina() as runner:
        output = await build_crawl(runner.context).ainvoke(CrawlInput(topic="M-set", hops=2, max_nodes=40))
        counts = await runner.context.graph.counts("local")
    assert output.title == "Mandelbrot set"
    assert output.carry is None
    assert len(output.titles) == output.nodes == counts.nodes == 40
    assert output.edges == counts.edges > 40


async def test_a_crawl_in_steps_reads_the_same_pages(lumina: Lumina) -> None:
    async with lumina() as runner:
        agent = build_crawl(runner.context)
        whole = await agent.ainvoke(CrawlInput(topic="Julia set", hops=2, max_nodes=30, owner="a", pages_per_step=None))
        part = await agent.ainvoke(CrawlInput(topic="Julia set", hops=2, max_nodes=30, owner="b", pages_per_step=25))
        while part.carry:
            again = CrawlInput(topic="Julia set", hops=2, max_nodes=30, owner="b", pages_per_step=25, carry=part.carry)
            part = await agent.ainvoke(again)
    assert part.titles == whole.titles


async def test_no_hops_reads_the_topic_only(lumina: Lumina) -> None:
    async with lumina() as runner:
        output = await build_crawl(runner.context).ainvoke(CrawlInput(topic="Julia set", hops=0))
    assert output.titles == ["Julia set"]


async def test_an_unknown_topic_carries_suggestions(lumina: Lumina) -> None:
    async with lumina() as runner:
        with pytest.raises(UnknownTopic) as raised:
            await build_crawl(runner.context).ainvoke(CrawlInput(topic="Mandelbort set"))
    assert raised.value.suggestions[0] == "Mandelbrot set"


async def test_an_answer_needs_no_model(lumina: Lumina) -> None:
    async with lumina() as runner:
        await crawl(runner)
        output = await build_qa(runner.context).ainvoke(QAInput(question="What is a Julia set?", phrase=False))
    assert output.answer.startswith("The Julia set of a function is the set of points")
    assert output.phrased_by == "quote"
    assert output.citations[0].title == "Julia set"


async def test_one_owner_does_not_read_anothers_memory(lumina: Lumina) -> None:
    async with lumina() as runner:
        await crawl(runner)
        output = await build_qa(runner.context).ainvoke(QAInput(question="What is a Julia set?", owner="bob"))
    assert output.abstained
    assert output.looked_at == []


@pytest.mark.parametrize(
    ("message", "abstained", "shown"),
    [("Who won the football cup?", True, []), ("Who ate the Julia set?", True, [TOLD]), ("Who?", False, [TOLD])],
    ids=["guessed", "named", "answered"],
)
async def test_a_topic_that_was_only_guessed_is_not_told_of_without_an_answer(
    lumina: Lumina, message: str, abstained: bool, shown: list[str]
) -> None:
    results = {
        "topics_found": {"topics": [TOLD]},
        f"summarised[{TOLD}]": {"topic": TOLD, "text": "It is a set."},
        "answered": {"answer": "…", "abstained": abstained},
    }
    request = OrchestratorInput(action="report", message=message, topics=[TOLD], results=results)
    async with lumina() as runner:
        report = (await build_orchestrator(runner.context).ainvoke(request)).report
        given = request.model_copy(update={"results": {k: v for k, v in results.items() if k != "topics_found"}})
        asked_for = (await build_orchestrator(runner.context).ainvoke(given)).report
    assert [one["topic"] for one in report["summaries"]] == shown
    assert [one["topic"] for one in asked_for["summaries"]] == [TOLD]


NOTE = "It is named after Gaston Julia, who described it in 1918."


async def test_a_summary_keeps_the_models_sentences_that_the_article_supports(lumina: Lumina) -> None:
    lead = "The Julia set of a function is the set of points at which repeated application behaves chaotically."
    async with lumina(answers=[f"{NOTE} {lead} It was found by Isaac Newton on Mars."]) as runner:
        await crawl(runner)
        output = await build_summarise(runner.context).ainvoke(SummariseInput(topic="Julia set"))
    assert output.method == "map_reduce"
    assert NOTE in output.text
    assert "Newton" not in output.text
    assert output.dropped == 1
    assert {citation.title for citation in output.citations} == {"Julia set"}


async def test_a_model_that_invents_everything_is_replaced_by_the_articles_own_sentences(lumina: Lumina) -> None:
    async with lumina(answers=["Isaac Newton lived on Mars. He ate cheese."]) as runner:
        await crawl(runner)
        output = await build_summarise(runner.context).ainvoke(SummariseInput(topic="Julia set"))
    assert output.method == "extract"
    assert output.text.startswith("The Julia set of a function is")
    assert "Newton" not in output.text


async def test_what_was_not_read_cannot_be_summarised(lumina: Lumina) -> None:
    async with lumina() as runner:
        with pytest.raises(NothingToSummarise, match="crawl it first"):
            await build_summarise(runner.context).ainvoke(SummariseInput(topic="Julia set"))


def test_failures_that_may_pass_are_retried_three_times_and_others_never() -> None:
    def failure(attempts: int, *, transient: bool) -> Failure:
        return Failure(way="w", error="e", attempts=attempts, transient=transient)

    actions = [decide([failure(n, transient=True)])[0].action for n in (1, 2, 3)]
    assert actions == ["retry", "retry", "rule_out"]
    assert decide([failure(1, transient=False)])[0].action == "rule_out"


def test_the_four_agents_are_found_by_themselves() -> None:
    registry = discover()
    assert list(registry) == ["crawl", "orchestrator", "qa", "summarise"]
    assert "crawled" in registry.achievable()["crawl"]
