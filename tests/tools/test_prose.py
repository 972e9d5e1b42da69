"""One line of prose, whichever way it came."""

from __future__ import annotations

import pytest

from tools.wikipedia.prose import tidy


@pytest.mark.parametrize(
    ("text", "tidied"),
    [
        ("One.  Two.   Three.", "One. Two. Three."),
        *((f"One{mark}two", "One two") for mark in "\n\t\r\v\f\x1c\x1d\x1e\x1f\xa0\u2028"),
        *((f"On{mark}e", "One") for mark in "\u00ad\u200b\ufeff\ufffc"),
        ("a \x00 b", "a \x00 b"),
        ("One , two ; three .", "One, two; three."),
        ("One,, two, , three", "One, two, three"),
        ("It was (; born 1900 ) there ().", "It was (born 1900) there."),
        ("It was [ , ] there", "It was there"),
        ("f() and .5 and (a, b)", "f() and .5 and (a, b)"),
        ("  ", ""),
    ],
)
def test_a_line_is_tidied(text: str, tidied: str) -> None:
    assert tidy(text) == tidied
