from __future__ import annotations

import pytest

from memory.passages import Passage
from tools.definitions import opens_article_on, subject_of
from tools.lexical import stems


def passage(title: str, index: int = 0) -> Passage:
    return Passage("local", "s", title, "", "1", (), "It is a thing.", 0, 14, index)


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("What is a Julia set?", "Julia set"),
        ("What's a «Julia» set?", "Julia set"),
        ("what are Julia sets", "Julia set"),
        ("Who was Gaston Julia?", "Gaston Julia"),
        ("Define cardioid.", "Cardioid"),
        ("Tell me about the Cantor set", "Cantor set"),
        ("Explain what a Menger sponge is", "Menger sponge"),
    ],
)
def test_a_question_that_asks_what_something_is_has_that_as_its_subject(question: str, title: str) -> None:
    assert opens_article_on(passage(title), subject_of(question))


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("What is the dimension of the Julia set?", "Julia set"),
        ("When was Gaston Julia born?", "Gaston Julia"),
        ("Who proved that the Mandelbrot set is connected?", "Mandelbrot set"),
        ("What is the difference between a Julia set and a Fatou set?", "Julia set"),
        ("What is it?", "It"),
    ],
)
def test_other_questions_do_not_ask_for_a_definition(question: str, title: str) -> None:
    assert not opens_article_on(passage(title), subject_of(question))


def test_only_the_beginning_of_the_article_defines() -> None:
    assert not opens_article_on(passage("Julia set", index=1), stems("Julia set"))
