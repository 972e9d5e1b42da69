"""What an article supports, and what it does not."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from memory.passages import Passage
from tools.grounding import OwnSentence, ground, own_sentences, stands_in

HAROLD = (
    "Harold defeated Tostig at Stamford Bridge in 1066. He marched south with 7,000 men. William landed at Pevensey. "
    "The castle was not finished before 1070."
)


class Words:
    """Texts with common words have near vectors; counts what it was asked for."""

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.full((len(texts), 256), 1e-3, np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[zlib.crc32(word.strip(".,").encode()) % 256] += 1
        return cast(NDArray[np.float32], rows / np.linalg.norm(rows, axis=1, keepdims=True))


def passage(text: str, start: int = 0, index: int = 0) -> Passage:
    return Passage("o", "s", "Norman conquest", "u", "7", ("Battles",), text, start, start + len(text), index)


async def resting(text: str, *passages: Passage) -> Passage | None:
    words: Any = Words()
    [found] = await ground([text], own_sentences(passages), words)
    return found.passage


@pytest.mark.parametrize(
    "text",
    [
        "Harold defeated Tostig at Stamford Bridge in 1066.",
        "In 1066 Harold defeated Tostig.",  # a date may come first
        "Harold defeated Tostig and marched south.",  # out of two neighbours
        "The Norman conquest: William landed at Pevensey.",  # the title's words are given
        "The castle was not finished before 1070 [3].",
    ],
)
async def test_what_stands_at_one_place_is_supported(text: str) -> None:
    assert await resting(text, passage(HAROLD)) == passage(HAROLD)


@pytest.mark.parametrize(
    "text",
    [
        "Tostig defeated Harold at Stamford Bridge.",  # the names change places
        "Harold defeated Tostig at Stamford Bridge in 1067.",
        "Harold, a Martian, defeated Tostig.",
        "Harold did not march south.",
        "The castle was finished before 1070.",
        "The castle was finished not before 1070.",  # the same words, another one denied
        "The castle wasn't before 1070 finished.",
        "The castle was not finished before 7,000 men marched in 1070.",
        "Harold defeated Tostig before the castle was finished.",  # from both ends of the passage
        "Harold defeated Tostig. He flew to Mars.",
        "It is.",
        "",
    ],
)
async def test_what_does_not_is_refused(text: str) -> None:
    assert await resting(text, passage(HAROLD)) is None


async def test_the_nearest_sentence_comes_along() -> None:
    words: Any = Words()
    [found] = await ground(["William landed at Hastings."], own_sentences([passage(HAROLD)]), words)
    assert found.passage is None
    assert found.nearest.text == "William landed at Pevensey."
    assert 0.5 < found.nearness < 1
    assert await ground([], own_sentences([passage(HAROLD)]), words) == []
    assert await ground(["William landed."], [], words) == []


def test_sentences_of_overlapping_passages_come_once_with_the_wider_place() -> None:
    at = HAROLD.index("William")
    one, two = passage(HAROLD[: at + len("William landed at Pevensey.")]), passage(HAROLD[at:], at, 1)
    own = own_sentences([one, two])
    assert [each.text for each in own] == [each.text for each in own_sentences([passage(HAROLD)])]
    assert own[2] == OwnSentence("William landed at Pevensey.", two, two.text)


def test_every_sentence_of_an_article_stands_in_it() -> None:
    own = own_sentences([passage(f"{HAROLD} Was it? “No,” said Emma, “never.” Emma asked Harold, and Harold Emma.")])
    assert [one.text for one in own if not stands_in(one.text, one)] == ["Was it?"]
    assert not stands_in("Harold asked Emma.", own[-1])
