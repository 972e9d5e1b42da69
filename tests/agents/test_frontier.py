from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from agents.frontier import Frontier

TEXT = "The area was computed by Ada Moss. A cat sat there. Much later, Koch snowflake drawings became popular."
LINKS = ["Cat", "Koch snowflake", "Ada Moss"]


def frontier(question: str = "Who computed the area?", capacity: int = 100) -> Frontier:
    made = Frontier(question, "Mandelbrot set", capacity=capacity)
    made.add("Mandelbrot set", TEXT, LINKS, 1)
    return made


def test_a_link_whose_context_shares_the_questions_words_is_read_first() -> None:
    assert frontier().take(1)[0].title == "Ada Moss"


def test_a_link_whose_title_shares_the_questions_words_is_read_first() -> None:
    assert frontier("What is a snowflake?").take(1)[0].title == "Koch snowflake"


def test_links_from_several_pages_weigh_more() -> None:
    made = Frontier("", "x", capacity=10)
    made.add("A", "", ["one", "two"], 1)
    made.add("B", "", ["zzz", "two"], 1)
    made.add("C", "", ["zzz", "two"], 1)
    assert made.take(1)[0].title == "two"


def test_what_was_closed_is_never_offered() -> None:
    made = frontier()
    made.close(["Ada Moss"])
    made.add("Other", TEXT, LINKS, 1)
    assert {candidate.title for candidate in made.take(10)} == {"Cat", "Koch snowflake"}


def test_the_nearest_page_decides_the_depth() -> None:
    made = Frontier("", "x", capacity=10)
    made.add("far", "", ["page"], 3)
    made.add("near", "", ["page"], 1)
    assert made.take(1)[0].depth == 1


def test_only_the_best_are_kept() -> None:
    assert len(frontier(capacity=2)) == 2


@given(st.lists(st.lists(st.text(min_size=1, max_size=6), max_size=8, unique=True), max_size=5), st.integers(1, 6))
def test_a_restored_frontier_goes_on_as_the_old_one_would(pages: list[list[str]], capacity: int) -> None:
    made = Frontier("why", "topic", capacity=capacity)
    for number, links in enumerate(pages):
        made.add(f"page {number}", " ".join(links), links, number + 1)
    other = Frontier("why", "topic", capacity=capacity)
    other.restore(json.loads(json.dumps(made.to_json())))
    assert [c.title for c in other.take(99)] == [c.title for c in made.take(99)]
