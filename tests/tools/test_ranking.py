"""The features of sentences, against their definition written out."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from tools.lexical import rarities, stems
from tools.passage_parts import parts_of, words_of
from tools.ranking import FEATURES, Candidate, sentence_features, type_cues, words_covered

OTTER = parts_of("Otter", "Sea otters eat crabs. They float. Stones help them to open shells.")


def test_rarer_words_weigh_more() -> None:
    texts = [words_of(text) for text in ("fish swim", "fish dive", "fish and otters")]
    [fish, otter, heron] = (rarities(stems(word), texts)[stems(word)[0]] for word in ("fish", "otters", "heron"))
    assert 0 < fish < otter < heron
    assert otter == pytest.approx(math.log(1 + 2.5 / 1.5))
    assert rarities(stems("fish"), []).keys() == set(stems("fish"))


def test_a_sentence_has_its_words_those_of_the_title_and_for_a_wider_look_those_before() -> None:
    [otter, crab, stone] = stems("otter crab stone")
    assert words_covered({crab: 2.0, stone: 0.5}, OTTER) == ([2.0, 0.0, 0.5], [2.0, 2.0, 0.5])
    assert words_covered({otter: 1.0}, OTTER) == ([1.0] * 3, [1.0] * 3)
    assert words_covered({}, OTTER) == ([0.0] * 3, [0.0] * 3)


def test_a_text_without_a_word_is_one_sentence() -> None:
    empty = parts_of("", "…")
    assert empty.borders == ((0, 1),)
    assert words_covered({1: 1.0}, empty) == ([0.0], [0.0])
    assert len(sentence_features("???", [Candidate(empty, 0.0, 0.0)], [0.5], [b""])) == 1


def test_the_question_says_which_kind_of_span_is_looked_for() -> None:
    sentences = ["It was built in 1823.", "It is tall."]
    assert type_cues("When was the lighthouse built?", sentences) == [1.0, -1.0]
    assert type_cues("When in 1823 was it built?", sentences) == [-1.0, -1.0]  # the question says it itself
    assert type_cues("Why was it built?", sentences) == [0.0, 0.0]


def test_features_are_what_their_names_say() -> None:
    rng = np.random.default_rng(4)
    words = [f"{letter}{other}tter" for letter in "bcdfg" for other in "aiou"]
    texts = [". ".join(" ".join(rng.choice(words, 4)) for _ in range(rng.integers(1, 6))) for _ in range(12)]
    titles = [str(rng.choice(words)) for _ in texts]
    pool = [words_of(f"{title} {text}") for title, text in zip(titles, texts, strict=True)]
    question = " ".join(rng.choice(words, 6))
    scores = rng.normal(size=(len(texts), 2))
    candidates = [
        Candidate(parts_of(title, text), float(dense), float(said))
        for title, text, (dense, said) in zip(titles, texts, scores, strict=True)
    ]
    cosines = rng.random(sum(len(one.parts.sentences) for one in candidates)).tolist()
    met = [(cosine / 2, cosine / 3) for cosine in cosines]

    rows = sentence_features(question, candidates, cosines, pool, met)

    asked = stems(question)
    rarity = rarities(asked, pool)
    neighbours = {pair: rarity[pair[0]] + rarity[pair[1]] for pair in pairwise(asked)}
    expected: list[tuple[float, ...]] = []
    for title, text, one in zip(titles, texts, candidates, strict=True):
        there = set(pairwise(stems(f"{title} {text}")))
        pairs = sum(weight for pair, weight in neighbours.items() if pair in there) / sum(neighbours.values())
        best = max(cosines[len(expected) :][: len(one.parts.sentences)])
        before: set[int] = set()
        for sentence in one.parts.sentences:
            own = {*stems(sentence), *stems(title)}
            covered, wider = (
                sum(weight for word, weight in rarity.items() if word in seen) / sum(rarity.values())
                for seen in (own, own | before)
            )
            at = len(expected)
            expected.append((one.dense, one.words, cosines[at], covered, wider, 0.0, pairs, best, *met[at]))
            before = own
    assert {len(row) for row in rows} == {len(FEATURES)}
    assert np.array(rows) == pytest.approx(np.array(expected))
    assert len({row[3] for row in rows}) > 5
    assert len({row[6] for row in rows}) > 1
