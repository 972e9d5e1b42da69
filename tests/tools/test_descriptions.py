"""Questions that describe a thing, and how a text shows where the description ends."""

from __future__ import annotations

import pytest

from tools.bridging import bridges, named_links
from tools.descriptions import Described, Split, descriptions, split
from tools.lexical import stems


def cut(question: str, text: str) -> Split:
    [description] = descriptions(question)
    made = split(description, frozenset(stems(text)))
    assert made is not None
    return made


@pytest.mark.parametrize(
    ("question", "text", "first", "second"),
    [
        (
            "Where was the man after whom the Julia set is named born?",
            "The Julia set is named after Gaston Julia.",
            "Who was the man after whom the Julia set is named?",
            "Where was X born?",
        ),
        (
            "In which city did the discoverer of penicillin die?",
            "Penicillin was discovered by Alexander Fleming.",
            "Who was the discoverer of penicillin?",
            "In which city did X die?",
        ),
        (
            "When did Marie Curie's husband win the prize?",
            "Marie Curie married Pierre Curie.",
            "Who was Marie Curie's husband?",
            "When did X win the prize?",
        ),
        (
            "How long is the river that flows through Geneva?",
            "The Rhône flows through Geneva.",
            "Which place is the river that flows through Geneva?",
            "How long is X?",
        ),
        (
            "Who was the teacher of the painter who made the altar?",
            "The altar was made by Hubert.",
            "Who was the painter who made the altar?",
            "Who was the teacher of X?",
        ),
    ],
)
def test_a_question_is_cut_where_the_evidence_ends(question: str, text: str, first: str, second: str) -> None:
    made = cut(question, text)
    assert (made.first, made.second("X")) == (first, second)


@pytest.mark.parametrize(
    "question",
    [
        "Who proved that the Mandelbrot set is connected?",
        "Where was Gaston Julia born?",
        "Who was the man who built the lighthouse?",
        "What is the area of the Mandelbrot set?",
        "How large is the area of the Mandelbrot set?",
        "What did the Normans build?",
        "the",
        "?",
        "",
    ],
)
def test_most_questions_describe_nothing(question: str) -> None:
    assert descriptions(question) == []


def test_a_long_message_takes_no_time() -> None:
    assert descriptions("Where was the " + "very " * 4_000 + "end?") == []


def test_a_text_without_its_words_cuts_nothing() -> None:
    [description] = descriptions("Where was the man after whom the Julia set is named born?")
    assert split(description, frozenset(stems("Bread is baked in ovens."))) is None


@pytest.mark.parametrize(
    ("sentence", "named"),
    [
        ("Douady and Hubbard proved that the Mandelbrot set is connected.", ["Adrien Douady", "John H. Hubbard"]),
        ("It was found by Mandelbrot with external rays.", ["Benoît Mandelbrot", "External ray"]),
        ("The hubbard grows in gardens.", []),
    ],
)
def test_links_are_found_by_what_a_sentence_calls_them(sentence: str, named: list[str]) -> None:
    links = ["External ray", "Benoît Mandelbrot", "Adrien Douady", "John H. Hubbard", "Chaos (physics)"]
    assert named_links(sentence, links, besides=["Mandelbrot set"]) == named


def test_a_person_is_looked_for_among_people_and_not_among_what_the_question_names() -> None:
    made = cut("Where was the man who found the Lorenz attractor born?", "Edward Lorenz found the Lorenz attractor.")
    assert made.description.kind is Described.PERSON
    links = ["Chaos theory", "Edward Lorenz", "Lorenz attractor", "Robert May"]
    sentence = "Edward Lorenz found it, a beginning of chaos theory."
    question = "Where was the man who found the Lorenz attractor born?"
    assert bridges(question, made, "Lorenz attractor", sentence, links) == ["Edward Lorenz"]
