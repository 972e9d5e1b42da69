"""What a summary shows: nothing that the article does not say, each sentence with the revision that says it."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from pydantic import ValidationError

from agents.crawl import build_crawl
from agents.orchestrator import OrchestratorInput, build_orchestrator
from agents.summarise import SummariseInput, SummariseOutput, build_summarise
from agents.walk import CrawlInput
from graphs.runs import Runner

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]
NAMED = "It is named after Gaston Julia, who described it in 1918."
NEVER_EMPTY = "A Julia set is never empty and is closed."


async def summary(lumina: Lumina, answers: list[str], **given: Any) -> SummariseOutput:
    """Of «Julia set», by a model that says these."""
    async with lumina(answers=answers) as runner:
        context = runner.context
        await build_crawl(context).ainvoke(CrawlInput(topic="Julia set", hops=0))
        await build_orchestrator(context).ainvoke(OrchestratorInput(action="await_index", topic="Julia set"))
        return await build_summarise(context).ainvoke(SummariseInput(topic="Julia set", **given))


def shown(output: SummariseOutput) -> list[str]:
    return [piece for piece in re.split(r" \[\d+\] ?", output.text) if piece]


@pytest.mark.parametrize(
    "invented",
    [
        "It was found by Isaac Newton on Mars.",
        "David Ruelle constructed quadratic Julia sets of positive area in 1918.",  # his words are of another place
        "It is named after Gaston Julia, who described it in 1981.",
        "A Julia set is empty and is not closed.",
        "The Mandelbrot set of a Fatou set is named after Samuel Lattès.",
        "Fatou set: [click here](http://example.org/x).",
    ],
)
async def test_a_sentence_that_the_article_does_not_support_is_not_shown(lumina: Lumina, invented: str) -> None:
    output = await summary(lumina, [f"{NAMED} {invented} {NEVER_EMPTY}"])
    assert output.method == "map_reduce"
    assert invented not in output.text
    assert {NAMED, NEVER_EMPTY} <= set(shown(output))
    assert output.dropped == 1


async def test_every_sentence_cites_the_passage_and_revision_that_say_it(lumina: Lumina) -> None:
    output = await summary(lumina, [f"{NAMED} It was found on Mars. {NEVER_EMPTY}"])
    numbers = [int(number) for number in re.findall(r"\[(\d+)\]", output.text)]
    cited = {one.number: one for one in output.citations}
    assert len(numbers) == len(shown(output)) >= 2
    assert set(numbers) == set(cited)
    assert {one.revision for one in cited.values()} == {"1002"}
    assert all("1002" in one.url for one in cited.values())
    for number, text in zip(numbers, shown(output), strict=True):
        if text == NAMED:
            assert "Gaston Julia" in cited[number].quote
        if text == NEVER_EMPTY:
            assert "never empty" in cited[number].quote


async def test_what_is_said_in_other_words_gives_way_to_the_articles_own_sentence(lumina: Lumina) -> None:
    own = "Samuel Lattès gave in 1918 a rational function of degree 4 whose Julia set is the entire sphere."
    reworded = "Samuel Lattès gave in 1918 a rational mapping of degree 4 whose Julia set is the entire sphere."
    output = await summary(lumina, [f"{NAMED} {reworded} {NEVER_EMPTY}"])
    assert own in shown(output)
    assert reworded not in output.text
    assert (output.dropped, output.replaced) == (1, 1)


async def test_marks_that_the_model_makes_up_are_taken_away(lumina: Lumina) -> None:
    output = await summary(lumina, [f"{NAMED[:-1]} [9]. {NEVER_EMPTY[:-1]} [4, 5]."])
    assert shown(output) == [NAMED, NEVER_EMPTY]
    assert "[9]" not in output.text
    assert "[4" not in output.text


@pytest.mark.parametrize("method", ["extract", "map_reduce"])
@pytest.mark.parametrize("most", [1, 3])
async def test_a_summary_has_at_most_as_many_sentences_as_asked_for(lumina: Lumina, method: str, most: int) -> None:
    output = await summary(lumina, [f"{NAMED} {NEVER_EMPTY} {NAMED}"], method=method, max_sentences=most)
    assert len(shown(output)) == (most if method == "extract" else min(most, 2))
    assert output.method == method


async def test_what_the_model_says_twice_is_shown_once(lumina: Lumina) -> None:
    output = await summary(lumina, [f"{NAMED} {NEVER_EMPTY} {NAMED} {NEVER_EMPTY}"], max_parts=1)
    assert shown(output) == [NAMED, NEVER_EMPTY]


async def test_a_model_that_says_nothing_leaves_the_extract(lumina: Lumina) -> None:
    output = await summary(lumina, [""])
    assert output.method == "extract"
    assert output.text.startswith("The Julia set of a function is")
    assert (output.dropped, output.replaced) == (0, 0)


async def test_the_extract_is_the_articles_own_and_within_its_passages(lumina: Lumina) -> None:
    output = await summary(lumina, [""], method="extract")
    quotes = " ".join(one.quote for one in output.citations)
    assert len(shown(output)) == 5
    assert all(text in quotes for text in shown(output))


def test_a_summary_has_at_least_one_sentence_and_at_most_twenty() -> None:
    for most in (0, 21):
        with pytest.raises(ValidationError, match="max_sentences"):
            SummariseInput(topic="Julia set", max_sentences=most)
