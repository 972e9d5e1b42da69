"""Opposites: what asks for the contrary of a sentence, and what only sounds so."""

from __future__ import annotations

import pytest

from tools.opposites import contrary

SENTENCE = "The lighthouse is the largest of the northern coast and was built after the war by active keepers."


@pytest.mark.parametrize(
    "question",
    [
        "What is the smallest lighthouse of the coast?",
        "What stands on the southern coast?",
        "What was built before the war?",
        "Who never built a lighthouse?",
        "Who didn't build the lighthouse?",
        "Who didnt build the lighthouse?",
        "Which inactive keepers built the lighthouse?",
        "WHAT IS THE SMALLEST LIGHTHOUSE?",
    ],
)
def test_the_contrary_is_seen(question: str) -> None:
    assert contrary(question, SENTENCE)


@pytest.mark.parametrize(
    "question",
    [
        "What is the largest lighthouse of the northern coast?",
        "Is it the largest or the smallest lighthouse?",
        "What was built after the war?",
        "Who wants information about the keepers?",
        "",
        "?",
    ],
)
def test_what_the_sentence_says_is_no_contrary(question: str) -> None:
    assert not contrary(question, SENTENCE)


def test_a_denial_in_both_is_none() -> None:
    assert not contrary("Who did not build it?", "Ada did not build it.")
    assert contrary("Who built no tower?", "Ada built it.")
    assert not contrary("Who built it?", "Ada did not build it.")
