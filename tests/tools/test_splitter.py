"""Passages are whole sentences that can be found again in the page."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from memory.passages import Passage
from tools.splitter import plain_text, sentences, split
from tools.wikipedia.source import Page, Section


def page(*sections: tuple[tuple[str, ...], str]) -> Page:
    return Page("Set", "http://wiki/Set?oldid=7", "7", tuple(Section(path, text) for path, text in sections))


def passages(subject: Page, **options: Any) -> list[Passage]:
    return split(subject, owner="ada", source="sample", **options)


def test_sentences_end_where_a_reader_ends_them() -> None:
    text = "Dr. Smith met J. R. Tolkien. He paid $3.50 (e.g. for tea). “Who?” asked Ann. 日本。\nA list item\n\nEnd"
    assert [text[start:end] for start, end in sentences(text)] == [
        "Dr. Smith met J. R. Tolkien.",
        "He paid $3.50 (e.g. for tea).",
        "“Who?” asked Ann.",
        "日本。",
        "A list item",
        "End",
    ]


def test_formulae_stay_in_one_sentence_and_single_letters_may_end_one() -> None:
    text = "Dioxygen, O\n2, is a gas (Al\n2O\n3 is not). Add x, y and z. The sum is x.\nan item\nIn\n1823\nit burnt."
    assert [text[start:end] for start, end in sentences(text)] == [
        "Dioxygen, O\n2, is a gas (Al\n2O\n3 is not).",
        "Add x, y and z.",
        "The sum is x.",
        "an item",
        "In",
        "1823",
        "it burnt.",
    ]


def test_passages_keep_section_revision_and_offsets() -> None:
    subject = page(((), "Alpha one. Alpha two."), (("History",), "Beta one. " * 60 + "Beta end."))
    found = passages(subject, max_chars=200)
    assert found[0].section == ()
    assert found[0].text == "Alpha one. Alpha two."
    assert {passage.section for passage in found[1:]} == {("History",)}
    assert [passage.index for passage in found] == list(range(len(found)))
    assert all(
        (p.owner, p.source, p.url, p.revision, p.title) == ("ada", "sample", subject.url, "7", "Set") for p in found
    )
    assert found[-1].text.endswith("Beta end.")
    assert found == passages(subject, max_chars=200), "the same page gives the same passages"


def test_each_passage_repeats_the_last_sentence_of_the_one_before() -> None:
    text = " ".join(f"Sentence number {number} says something." for number in range(30))
    found = passages(page((("A",), text)), max_chars=200, overlap_sentences=1)
    for before, after in itertools.pairwise(found):
        assert after.start < before.end
        assert before.text.endswith(after.text.split(".")[0] + ".")
    apart = passages(page((("A",), text)), max_chars=200, overlap_sentences=0)
    assert all(after.start > before.end for before, after in itertools.pairwise(apart))


def test_short_sections_under_one_heading_are_joined_and_others_are_not() -> None:
    found = passages(page(((), "Lead."), (("H", "a"), "Short a."), (("H", "b"), "Short b."), (("I",), "Short i.")))
    assert [(passage.section, passage.text) for passage in found] == [
        ((), "Lead."),
        (("H",), "Short a.\n\nShort b."),
        (("I",), "Short i."),
    ]


def test_a_very_long_sentence_is_cut_at_spaces_or_hard() -> None:
    found = passages(page(((), "word " * 500 + "end.")), max_chars=100)
    assert all(len(passage.text) <= 100 and passage.text.split()[0] == "word" for passage in found[:-1])
    assert {len(passage.text) for passage in passages(page(((), "x" * 1000)), max_chars=100)} == {100}


def test_an_empty_page_has_no_passages() -> None:
    assert passages(page()) == []


TEXTS = st.text(alphabet=st.sampled_from(list('ab. ?!\n(")é日。😀A1,')), max_size=400)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.sampled_from("HIJ"), max_size=2).map(tuple), TEXTS), max_size=5),
    st.integers(1, 120),
    st.integers(0, 3),
)
def test_offsets_always_lead_back_to_the_text_and_nothing_is_lost(
    sections: list[tuple[tuple[str, ...], str]], max_chars: int, overlap: int
) -> None:
    subject = page(*sections)
    text = plain_text(subject)
    found = passages(subject, max_chars=max_chars, overlap_sentences=overlap, min_chars=20)
    covered: set[int] = set()
    for passage in found:
        assert text[passage.start : passage.end] == passage.text
        assert 0 < len(passage.text) <= max_chars
        covered.update(range(passage.start, passage.end))
    assert all(at in covered for at, char in enumerate(text) if not char.isspace())
    assert all(before.start < after.start and before.end < after.end for before, after in itertools.pairwise(found))
