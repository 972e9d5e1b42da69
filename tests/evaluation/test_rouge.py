"""ROUGE-L against cases counted by hand, and against the table that it comes from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.rouge import of_sentences, of_text, words


@pytest.mark.parametrize(
    ("reference", "summary", "precision", "recall"),
    [
        # Lin 2004, section 3.1: three of four words in order, then two.
        ("police killed the gunman", "police kill the gunman", 3 / 4, 3 / 4),
        ("police killed the gunman", "the gunman kill police", 2 / 4, 2 / 4),
        ("the otter eats fish", "the otter", 1.0, 1 / 2),
        ("The OTTER, eats — fish.", "the otter eats fish", 1.0, 1.0),
        ("otter", "", 0.0, 0.0),
        ("", "otter", 0.0, 0.0),
        ("Ångström über", "ångström", 1.0, 1 / 2),
    ],
)
def test_a_text_is_one_sequence(reference: str, summary: str, precision: float, recall: float) -> None:
    found = of_text(reference, summary)
    assert (found.precision, found.recall) == pytest.approx((precision, recall))


def test_sentences_are_united_as_in_the_paper() -> None:
    # Lin 2004, section 3.2: w1 w2 w3 and w1 w3 w5 of one reference sentence unite to four of its five words.
    found = of_sentences(["w1 w2 w3 w4 w5"], ["w1 w2 w6 w7 w8", "w1 w3 w8 w9 w5"])
    assert found.recall == pytest.approx(4 / 5)
    assert found.precision == pytest.approx(4 / 10)
    turned = of_sentences(["a b c", "d e f"], ["d e f", "a b c"])
    assert turned.f1 == 1.0
    assert of_text("a b c d e f", "d e f a b c").f1 == pytest.approx(1 / 2)
    assert of_sentences([], []).f1 == 0.0


TEXTS = st.lists(st.sampled_from("abcde"), max_size=40)


@given(TEXTS, TEXTS)
def test_the_length_is_that_of_the_table(one: list[str], other: list[str]) -> None:
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, left in enumerate(one, 1):
        for j, right in enumerate(other, 1):
            table[i][j] = table[i - 1][j - 1] + 1 if left == right else max(table[i - 1][j], table[i][j - 1])
    found = of_text(" ".join(one), " ".join(other))
    assert round(found.recall * len(one)) == round(found.precision * len(other)) == table[-1][-1]
    assert of_sentences([" ".join(one)], [" ".join(other)]).recall == pytest.approx(found.recall)


def test_words_are_letters_and_digits_of_any_script() -> None:
    assert words("Z² + c_1: «Кошка», 41 m.") == ["z²", "c", "1", "кошка", "41", "m"]
