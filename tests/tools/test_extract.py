"""Which of an article's own sentences summarise it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from memory.passages import Passage
from tools.extract import extract, reads_alone
from tools.grounding import own_sentences

LEAD = "Otters are carnivorous mammals of rivers and coasts. They are kin to weasels. Thirteen species are known."
DIET = (
    "Otters eat fish, crabs and other animals of rivers and coasts. However, otters of rivers and coasts eat frogs. "
    "In 1998, 4,211 faeces were counted at 12 sites near Inverness."
)
FUR = "The fur of otters keeps the cold water of rivers and coasts out. It was traded until 1911. and so on"


class Words:
    """Texts with common words have near vectors."""

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.full((len(texts), 256), 1e-3, np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[zlib.crc32(word.strip(".,").encode()) % 256] += 1
        return cast(NDArray[np.float32], rows / np.linalg.norm(rows, axis=1, keepdims=True))


def passages(*sections: tuple[str, str]) -> list[Passage]:
    made, start = [], 0
    for index, (heading, text) in enumerate(sections):
        path = (heading,) if heading else ()
        made.append(Passage("o", "s", "Otters", "u", "7", path, text, start, start + len(text), index))
        start += len(text) + 2
    return made


async def extracted(most: int, *sections: tuple[str, str]) -> list[str]:
    embedder: Any = Words()
    return [text for text, _ in await extract(own_sentences(passages(*sections)), most, embedder)]


async def test_the_lead_comes_first_then_what_the_article_is_about() -> None:
    found = await extracted(4, ("", LEAD), ("Diet", DIET), ("Fur", FUR))
    assert found == [
        "Otters are carnivorous mammals of rivers and coasts.",
        "They are kin to weasels.",
        "Otters eat fish, crabs and other animals of rivers and coasts.",
        "The fur of otters keeps the cold water of rivers and coasts out.",
    ]


async def test_without_a_lead_the_best_sentences_are_taken_wherever_they_stand() -> None:
    found = await extracted(
        2, ("Sites", "In 1998, 4,211 faeces were counted at 12 sites near Inverness."), ("Fur", FUR)
    )
    assert "The fur of otters keeps the cold water of rivers and coasts out." in found
    assert await extracted(1, ("Diet", DIET)) == ["Otters eat fish, crabs and other animals of rivers and coasts."]


async def test_a_short_article_is_taken_as_it_is() -> None:
    assert await extracted(9, ("", "Otters swim.")) == ["Otters swim."]
    assert await extracted(9, ("Fur", "It is wet. It is thick.")) == ["It is wet.", "It is thick."]
    assert await extracted(5, ("", "Otters swim."), ("Fur", "It is wet.")) == ["Otters swim.", "It is wet."]
    embedder: Any = Words()
    assert await extract([], 3, embedder) == []


async def test_what_was_said_is_not_said_again() -> None:
    again = "Otters eat fish, crabs and other animals of rivers and coasts."
    found = await extracted(2, ("Diet", again), ("Food", again), ("Fur", FUR))
    assert found == [again, "The fur of otters keeps the cold water of rivers and coasts out."]


@pytest.mark.parametrize(
    ("text", "alone"),
    [
        ("The fur of otters keeps the cold water out.", True),
        ("“Otters keep to the water all day long,” he said.", True),
        ("41 sites near the river are known to have otters.", True),
        ("Выдра живёт у рек и озёр и питается рыбой.", True),
        ("It was traded for a long time until the year 1911.", False),
        ("However, otters of rivers and coasts eat frogs too.", False),
        ("and so on with many more words that are not a sentence.", False),
        ("A list of otters that does not end with a full stop", False),
        ("Otters swim.", False),
        ("Otters " * 80 + "swim.", False),
        ("", False),
    ],
)
def test_a_sentence_reads_alone_when_it_leans_on_no_other(text: str, alone: bool) -> None:
    assert reads_alone(text) is alone
