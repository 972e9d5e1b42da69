"""The reader's short answers, its confidence, and the check of what others phrased."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memory.passages import Passage
from tools.answer_types import AnswerType, expected_type, typed_spans
from tools.evidence import Evidence, Sentence
from tools.ranking import FEATURES
from tools.reader import ABSTAIN_BELOW, SUPPORT_LIMIT, confidence, read, short_answer, signals, supported
from tools.splitter import sentences as sentence_borders

LIGHTHOUSE = (
    "The Lindow lighthouse was built by Ada Thornbury in 1823. It stands 41 metres tall and has 196 steps. "
    "Its last keeper left in March 1971, for the lamp was made automatic. It was never painted red."
)


def evidence(
    text: str = LIGHTHOUSE,
    title: str = "Lindow lighthouse",
    *,
    cosine: float = 0.7,
    covered: float = 0.8,
    best: int = 0,
) -> Evidence:
    passage = Passage("ada", "sample", title, "zim:L", "1", ("History",), text, 0, len(text), 0)
    features = [0.0] * len(FEATURES)
    features[2], features[4] = cosine, covered
    sentences = tuple(
        Sentence(start, end, text[start:end], 5.0 * cosine - (n != best) - 0.1 * n, tuple(features))
        for n, (start, end) in enumerate(sentence_borders(text))
    )
    return Evidence(passage, sentences[best].score, sentences, best)


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("When was the lighthouse built?", AnswerType.DATE),
        ("In what year did the keeper leave?", AnswerType.DATE),
        ("During which century did it burn?", AnswerType.DATE),
        ("How many steps does it have?", AnswerType.NUMBER),
        ("How tall is the lighthouse?", AnswerType.NUMBER),
        ("What percentage of ships saw it?", AnswerType.NUMBER),
        ("Who built the lighthouse?", AnswerType.NAME),
        ("Where does it stand?", AnswerType.NAME),
        ("Which country owns it?", AnswerType.NAME),
        ("Why did the keeper leave?", AnswerType.CLAUSE),
        ("How did the keeper leave?", AnswerType.CLAUSE),
        ("What is a lighthouse?", AnswerType.PHRASE),
    ],
)
def test_question_words_tell_the_kind_of_answer(question: str, kind: AnswerType) -> None:
    assert expected_type(question) is kind


@pytest.mark.parametrize(
    ("sentence", "kind", "found"),
    [
        ("It was built on 4 July 1823 and burnt in May 1901.", AnswerType.DATE, ["4 July 1823", "May 1901"]),
        ("It stood from 1823 to the late 19th century.", AnswerType.DATE, ["1823", "late 19th century"]),
        ("Rome burnt in AD 64, not in 44 BC.", AnswerType.DATE, ["AD 64", "44 BC"]),
        (
            "About 2.5 million people paid $3,000 for twenty lamps.",
            AnswerType.NUMBER,
            ["2.5 million", "$3,000", "twenty"],
        ),
        ("Some 21% of them, or one half, came.", AnswerType.NUMBER, ["21%", "one", "half"]),
        (
            "Later William of Orange met Ada Thornbury in York.",
            AnswerType.NAME,
            ["William of Orange", "Ada Thornbury", "York"],
        ),
        ("Nothing of the kind here.", AnswerType.NAME, []),
        ("Anything at all, 1823.", AnswerType.PHRASE, []),
    ],
)
def test_spans_of_a_kind_are_found(sentence: str, kind: AnswerType, found: list[str]) -> None:
    spans = [sentence[start:end] for start, end in typed_spans(sentence, kind)]
    if kind is AnswerType.NAME and found:
        spans = [span.removeprefix("Later ") for span in spans]  # a capital at the start cannot be told from a name
    assert spans == found


@pytest.mark.parametrize(
    ("question", "sentence", "answer"),
    [
        ("How many steps does the lighthouse have?", "It stands 41 metres tall and has 196 steps.", "196"),
        ("How tall is it in metres?", "It stands 41 metres tall and has 196 steps.", "41"),
        ("When did the keeper leave?", "Its last keeper left in March 1971, not in 1823.", "March 1971"),
        (
            "Who built the Lindow lighthouse?",
            "The Lindow lighthouse was built by Ada Thornbury in 1823.",
            "Ada Thornbury",
        ),
        ("Who was Ada Thornbury?", "Ada Thornbury was an engineer.", None),
        ("What is it made of?", "It is made of granite.", None),
    ],
)
def test_short_answer_is_the_span_near_the_questions_words(question: str, sentence: str, answer: str | None) -> None:
    assert short_answer(question, sentence) == answer


def test_reading_rests_on_the_best_sentence_of_all_passages() -> None:
    weak, strong = evidence("Ships pass. Gulls cry.", "Sea", cosine=0.2, covered=0.1), evidence()
    reading = read("Who built the lighthouse?", [weak, strong])
    assert reading is not None
    assert reading.evidence == 1
    assert reading.sentence == "The Lindow lighthouse was built by Ada Thornbury in 1823."
    assert reading.answer == "Ada Thornbury"
    assert len(reading.support) == SUPPORT_LIMIT
    assert reading.sentence not in reading.support


def test_sentence_that_overlapping_passages_share_is_shown_once() -> None:
    reading = read("Who built the lighthouse?", [evidence(), evidence()])
    assert reading is not None
    assert len({reading.sentence, *reading.support}) == 1 + len(reading.support) == 4


def test_reading_of_nothing_is_none() -> None:
    assert read("Who?", []) is None


def test_confidence_falls_with_what_speaks_against_an_answer() -> None:
    question = "When was the Lindow lighthouse built?"
    good = read(question, [evidence()])
    far = read(question, [evidence("Gulls cry. Ships pass.", "Sea", cosine=0.1, covered=0.1)])
    other_name = read("When was the Skerry lighthouse built?", [evidence()])
    assert good is not None
    assert far is not None
    assert other_name is not None
    assert good.known
    assert not far.known
    assert 0 <= far.confidence < ABSTAIN_BELOW <= good.confidence <= 1
    assert other_name.confidence < good.confidence
    denied = read("When was the Lindow lighthouse not built?", [evidence()])
    assert denied is not None
    assert denied.confidence < good.confidence
    assert confidence(signals(question, [evidence()])) == good.confidence
    near, afar = (read(question, [replace(evidence(), cosine=cosine)]) for cosine in (0.8, 0.2))
    assert near is not None
    assert afar is not None
    assert near.confidence > good.confidence > afar.confidence  # not found by meaning: estimated from its sentences


@pytest.mark.parametrize(
    "text",
    [
        "Ada Thornbury built the Lindow lighthouse in 1823.",
        "The lighthouse is 41 metres tall [1]. The keeper left in March 1971 [1, 2].",
        "It was never painted red.",
        "According to its history, it has steps.",
    ],
)
def test_text_that_stands_in_a_passage_is_supported(text: str) -> None:
    text = text.replace("According to its history", "In its history")
    assert supported(text, [evidence("Gulls cry.", "Sea"), evidence()]).holds


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("It was built in 1824.", ("1824",)),
        ("John Thornbury built it.", ("John",)),
        ("The lighthouse is 41 metres tall. It is made of granite.", ("made", "granite")),
        ("It was painted red.", ()),
        ("It was not built in 1823.", ()),
    ],
)
def test_text_that_invents_or_denies_is_not(text: str, missing: tuple[str, ...]) -> None:
    checked = supported(text, [evidence()])
    assert not checked.holds
    failed = [one for one in checked.statements if one.evidence is None]
    assert len(failed) == 1
    assert set(failed[0].missing) <= set(missing)
    assert bool(failed[0].missing) == bool(missing)


def test_words_of_two_passages_do_not_support_one_sentence() -> None:
    two = [evidence("Gulls nest on the tower.", "Gull"), evidence("Seals sleep on the beach.", "Seal")]
    assert supported("Gulls nest on the tower. Seals sleep on the beach.", two).holds
    assert not supported("Gulls nest on the beach.", two).holds


def test_nothing_said_is_not_support() -> None:
    assert not supported("", [evidence()]).holds
    assert not supported("It was built in 1823.", []).holds
