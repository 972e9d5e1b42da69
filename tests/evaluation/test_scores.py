"""Scores against cases counted by hand."""

from __future__ import annotations

import pytest

from evaluation.outcomes import FIGURES, Outcome, figures
from evaluation.scores import auroc, contains, exact_match, mean, normalised, quantile, share, token_f1


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("The  Norman Conquest!", "norman conquest"),
        ("an apple, a day", "apple day"),
        ("U.S.", "us"),
        ("theatre and another", "theatre and another"),
        ("—", "—"),
        ("", ""),
    ],
)
def test_answers_are_normalised_as_the_official_script_does(text: str, plain: str) -> None:
    assert normalised(text) == plain


def test_an_exact_match_is_one_of_the_gold_answers() -> None:
    assert exact_match("the Rhine", ["Danube", "Rhine."])
    assert not exact_match("Rhine river", ["Rhine"])
    assert not exact_match("Rhine", [])


@pytest.mark.parametrize(
    ("answer", "golds", "score"),
    [
        ("William the Conqueror", ["William the Conqueror"], 1.0),
        ("King William", ["William"], 2 / 3),  # precision 1/2, recall 1
        ("red red green", ["red blue"], 2 / 5),  # one word in common, counted once: 2·1/(3+2)
        ("red", ["blue", "red fox"], 2 / 3),
        ("", ["red"], 0.0),
        ("red", [], 0.0),
    ],
)
def test_f1_counts_words_in_common(answer: str, golds: list[str], score: float) -> None:
    assert token_f1(answer, golds) == pytest.approx(score)


def test_auroc_counts_pairs_in_the_right_order_and_ties_half() -> None:
    assert auroc([0.9, 0.4], [0.4, 0.1]) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert auroc([], [0.1]) is None
    assert contains("In the year 1066, they came.", ["year 1066"])
    assert (share([]), mean([]), quantile([], 0.5)) == (None, None, None)
    assert quantile([1.0, 2.0, 3.0], 0.5) == 2.0


def outcome(**given: object) -> Outcome:
    base: dict[str, object] = {
        "id": "q",
        "question": "Who?",
        "answers": ["Ada Thornbury"],
        "paragraph": ("Lighthouse", 0),
        "found": [("Lighthouse", 0), ("Otter", 1)],
        "best": "Ada Thornbury",
        "sentence": "Ada Thornbury built it.",
        "answer": "Ada Thornbury built it. [1]",
        "cited": "The tower. Ada Thornbury built it.",
        "abstained": False,
        "confidence": 0.8,
        "seconds": 1.0,
        "tokens_in": 10,
    }
    return Outcome(**{**base, **given})  # type: ignore[arg-type]  # the fields by name


def test_figures_of_five_questions() -> None:
    outcomes = [
        outcome(),
        outcome(found=[("Otter", 1), ("Otter", 2), ("Lighthouse", 0)], best="Thornbury", confidence=0.6, seconds=2.0),
        outcome(found=[("Otter", 1)], sentence="Gulls cry.", abstained=True, answer="I don't know.", cited=None),
        outcome(answers=[], abstained=True, answer="I don't know.", cited=None, confidence=0.1, seconds=3.0),
        outcome(answers=[], cited="Gulls cry.", confidence=0.7),
    ]
    found = figures(outcomes)
    assert list(found) == list(FIGURES)
    assert found["recall@1"] == pytest.approx(1 / 3)
    assert found["recall@3"] == found["recall@10"] == pytest.approx(2 / 3)
    assert found["mrr"] == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert found["sentence"] == pytest.approx(2 / 3)
    assert found["containment"] == pytest.approx(2 / 3)
    assert found["exact_match"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert found["exact_match_shown"] == pytest.approx(1 / 3)
    assert found["f1_shown"] == pytest.approx((1 + 2 / 3) / 3)
    assert found["citation"] == 1.0  # of the two that were answered and are answerable
    assert found["abstention_precision"] == 0.5
    assert found["abstention_recall"] == 0.5
    assert found["auroc"] == pytest.approx((2 + 1 + 2) / 6)  # 0.8, 0.6, 0.8 against 0.1, 0.7
    assert found["p50_s"] == 1.0
    assert found["tokens_in"] == 10


def test_a_system_that_says_nothing_has_no_figures_for_answers() -> None:
    found = figures([outcome(best=None, sentence=None, answer=None, cited=None)])
    assert found["recall@1"] == 1.0
    silent = ("sentence", "containment", "exact_match", "f1", "f1_shown", "citation", "abstention_recall", "auroc")
    assert [found[name] for name in silent] == [None] * len(silent)
    assert set(figures([]).values()) == {None}
