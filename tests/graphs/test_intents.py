"""The intent of a message: with vectors made by hand for the rule, with the real MiniLM for how often it is right."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.intents import half_of, load_messages, measure
from graphs.goals import GoalFile, GoalSpec, Intent, WaySpec, load_goals
from graphs.intents import FALLBACK, find_intent, intent_scores
from models.embeddings import Embedder

GOAL_FILE = Path(__file__).parents[2] / "goal_lattice.yml"


class Compass:
    """Vectors by the first letter: n, e, s, w point where they say, everything else at right angles to all."""

    async def encode(self, texts: list[str], *, query: bool = False) -> NDArray[np.float32]:
        places = ["nesw".find(text[:1].lower()) % 5 for text in texts]
        return np.eye(5, dtype=np.float32)[places]


def goals(**examples: tuple[str, ...]) -> GoalFile:
    only = GoalSpec(id="done", title="Done", ways=(WaySpec(id="do", agent="doer"),))
    return GoalFile(
        version=1, goals=(only,), intents={name: Intent(examples=texts) for name, texts in examples.items()}
    )


FILE = goals(chat=("nod",), crawl=("east",), index=(), plan=("south",))


@pytest.mark.parametrize(
    ("message", "wanted"),
    [("elk", "crawl"), ("snow", "plan"), ("nut", "chat"), ("east", "crawl"), ("East?!", "crawl")],
)
async def test_a_message_has_the_intent_whose_example_it_is_like(message: str, wanted: str) -> None:
    assert await find_intent(FILE, Compass(), message) == wanted


@pytest.mark.parametrize("message", ["", " ", "?", "xyz", "日本語", "\ud800", "x" * 20_000])
async def test_a_message_like_no_example_is_plain_chat(message: str) -> None:
    assert await find_intent(FILE, Compass(), message) == FALLBACK


async def test_a_message_between_two_intents_is_plain_chat() -> None:
    file = goals(chat=("nod",), crawl=("east",), plan=("elk",))
    scores = await intent_scores(file, Compass(), "eye")
    assert list(scores)[2] == "chat"
    assert scores["crawl"] == pytest.approx(scores["plan"])
    assert await find_intent(file, Compass(), "eye") == FALLBACK


async def test_words_decide_where_vectors_do_not() -> None:
    file = goals(crawl=("x fetch it",), plan=("x plan it",))
    assert await find_intent(file, Compass(), "fetch opera") == "crawl"
    assert await find_intent(file, Compass(), "paln opera, planing it") == "plan"


async def test_without_chat_the_best_intent_counts_in_any_case() -> None:
    assert await find_intent(goals(crawl=("east",), plan=("south",)), Compass(), "xyz") in {"crawl", "plan"}


async def test_without_examples_there_is_only_chat() -> None:
    assert await find_intent(goals(crawl=(), chat=()), Compass(), "east") == FALLBACK
    assert await intent_scores(goals(), Compass(), "east") == {}


async def test_the_scores_explain_the_choice() -> None:
    scores = await intent_scores(FILE, Compass(), "east")
    assert next(iter(scores)) == "crawl"
    assert scores["crawl"] == pytest.approx(3 / 3.4)  # likeness to itself: cosine, words, pieces; 0.4 is the ridge
    assert scores["plan"] < 0.3


def normal(text: str) -> str:
    return " ".join("".join(one if one.isalnum() else " " for one in text.lower()).split())


def test_no_message_of_the_measurement_is_an_example_and_none_stands_twice() -> None:
    messages = [normal(text) for texts in load_messages().values() for text in texts]
    examples = [normal(text) for intent in load_goals(GOAL_FILE).intents.values() for text in intent.examples]
    assert not set(messages) & set(examples)
    assert len(set(messages)) == len(messages) >= 140
    assert len(set(examples)) == len(examples)


def test_the_messages_are_balanced() -> None:
    counts: Mapping[str, int] = {name: len(texts) for name, texts in load_messages().items()}
    assert set(counts) == {"wiki_qa", "crawl", "summarise", "chat", "plan"}
    assert max(counts.values()) - min(counts.values()) <= 1
    halves = [[half_of(text) for text in texts].count("held out") for texts in load_messages().values()]
    assert min(halves) >= 15


@pytest.fixture
async def minilm() -> AsyncIterator[Embedder]:
    async with Embedder() as embedder:
        yield embedder


@pytest.mark.slow
async def test_nine_of_ten_held_out_messages_get_their_intent(minilm: Embedder) -> None:
    result = await measure(load_goals(GOAL_FILE), minilm, "held out")
    print(f"\n{result.table()}")
    assert result.accuracy >= 0.9, result.table()


@pytest.mark.slow
async def test_a_second_message_costs_one_embedding(minilm: Embedder) -> None:
    shipped = load_goals(GOAL_FILE)
    await find_intent(shipped, minilm, "Who wrote the Aeneid?")
    before = minilm.counts.misses
    await find_intent(shipped, minilm, "Who wrote the Odyssey?")
    assert minilm.counts.misses == before + 1
    await find_intent(shipped, minilm, "Who wrote the Odyssey?")
    assert minilm.counts.misses == before + 1
