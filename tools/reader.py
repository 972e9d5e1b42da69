"""The reader: from passages to an answer, without a large model, and the check that a text stands in its passages.

The answer rests on the best sentence. The short answer is the span that the span reader found in it; where none has
read the passage, cues find a number, a date or a name. The confidence says how likely the sentence answers the question
at all; below ``ABSTAIN_BELOW`` nothing should be claimed.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tools.answer_types import AnswerType, Span, expected_type, typed_spans
from tools.definitions import opens_article_on, subject_of
from tools.evidence import Evidence, Sentence
from tools.lexical import Stems, stem, stems
from tools.opposites import contrary
from tools.splitter import sentences as sentence_borders

SIGNALS = (
    "cosine of the best sentence",
    "its passage's cosine",
    "question's words in and before it",
    "span of the expected type",
    "question's names and numbers that the passage lacks",
    "contrary of the best sentence asked for",
)
CONFIDENCE_WEIGHTS = (2.29, 3.69, 1.58, 0.16, -1.38, -1.94)
CONFIDENCE_BIAS = -3.64
"""Logistic regression, fitted by ``benchmarks/reader_fit.py DATA`` on SQuAD's development articles: questions that the
memory answers against unanswerable ones and questions about pages that are not in memory."""

ABSTAIN_BELOW = 0.45
"""Confidence under which «I don't know» is the better answer. From the same run, held out: 0.883 of the sentences that
hold a gold answer lie above it, and 4 of 1,000 questions about pages that are not in memory."""

ABOVE_ITS_SENTENCES = 0.07
"""Of a passage's cosine over the mean of its sentences', on the same questions; they correlate at 0.92."""

SUPPORT_LIMIT = 3
"""Further sentences that a reading brings along."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the passages say to a question."""

    answer: str
    """A short span of ``sentence`` where the question asks for one, else the sentence."""
    sentence: str
    evidence: int
    """Index of the passage that the sentence is from."""
    confidence: float
    """0 to 1; see ``ABSTAIN_BELOW``."""
    support: tuple[str, ...] = ()
    """Next best sentences, best first."""

    @property
    def known(self) -> bool:
        """Whether the confidence allows an answer."""
        return self.confidence >= ABSTAIN_BELOW


def read(question: str, evidence: Sequence[Evidence]) -> Reading | None:
    """The best sentence, a short answer from it, and how sure that is; None without evidence."""
    if not evidence:
        return None
    ranked = sorted(
        ((sentence, index) for index, one in enumerate(evidence) for sentence in one.sentences),
        key=lambda pair: -pair[0].score,
    )
    best, index = ranked[0]
    # Passages of a page overlap by a sentence, so the same one may come twice.
    further = [text for text in dict.fromkeys(sentence.text for sentence, _ in ranked) if text != best.text]
    return Reading(
        answer=_short(question, evidence[index], best),
        sentence=best.text,
        evidence=index,
        confidence=max(confidence(signals(question, evidence)), _defined(question, evidence[index], best)),
        support=tuple(further[:SUPPORT_LIMIT]),
    )


DEFINED = 0.9
"""Confidence that the first sentence of an article says what its title is."""


def _defined(question: str, one: Evidence, best: Sentence) -> float:
    first = best is one.sentences[0] and opens_article_on(one.passage, subject_of(question))
    return DEFINED if first else 0.0


def signals(question: str, evidence: Sequence[Evidence]) -> tuple[float, ...]:
    """What the confidence is made of, in the order of ``SIGNALS``; ``evidence`` must not be empty."""
    top = max(evidence, key=lambda one: one.score)
    best = top.best_sentence
    names = name_stems(question)
    there = set(stems(f"{top.passage.title} {' '.join(top.passage.section)} {top.passage.text}"))
    lacking = len(names - there) / len(names) if names else 0.0
    return (
        best.cosine,
        _cosine(top),
        best.covered,
        _cue(question, best, top.passage.title),
        lacking,
        float(contrary(question, best.text)),
    )


def _cosine(one: Evidence) -> float:
    """The passage's cosine, or what it most likely is where it was found by its words alone."""
    if one.cosine is not None:
        return one.cosine
    return sum(sentence.cosine for sentence in one.sentences) / len(one.sentences) + ABOVE_ITS_SENTENCES


def confidence(values: Sequence[float]) -> float:
    """The logistic function of the weighted signals."""
    total = CONFIDENCE_BIAS + sum(weight * value for weight, value in zip(CONFIDENCE_WEIGHTS, values, strict=True))
    return 1 / (1 + math.exp(-total))


def name_stems(text: str) -> set[int]:
    """The stems of names and numbers: capitalised words other than the first one, and everything with a digit."""
    words = re.findall(r"\w+", text)
    marked = [word for n, word in enumerate(words) if (n > 0 and word[0].isupper()) or any(map(str.isdigit, word))]
    return {number for word in marked if (number := stem(word)) is not None}


def _short(question: str, one: Evidence, best: Sentence) -> str:
    """The span that was found, or the one that cues find, or the sentence."""
    if best.span is not None:
        return one.passage.text[best.span.start : best.span.end].strip(" ,;:")
    return short_answer(question, best.text, one.passage.title) or best.text


def short_answer(question: str, sentence: str, title: str = "") -> str | None:
    """The span of the expected kind that is nearest to the question's words; None where there is none.

    Spans that only repeat the question, or the title of the page, do not count.
    """
    asked = set(stems(question))
    said = asked.union(stems(title))
    spans = [span for span in typed_spans(sentence, expected_type(question)) if not _repeats(sentence, span, said)]
    if not spans:
        return None
    anchors = [match.start() for match in re.finditer(r"\w+", sentence) if stem(match.group()) in asked]

    def distance(span: Span) -> float:
        outside = [min(abs(at - span.start), abs(at - span.end)) for at in anchors if not span.start <= at < span.end]
        return sum(sorted(outside)[:3]) / 3 if outside else 0.0

    nearest = min(spans, key=lambda span: (distance(span), span.start))
    return sentence[nearest.start : nearest.end].strip(" ,;:")


def _repeats(sentence: str, span: Span, said: set[int]) -> bool:
    words = stems(sentence[span.start : span.end])
    return bool(words) and said.issuperset(words)


def _cue(question: str, sentence: Sentence, title: str) -> float:
    if expected_type(question) in (AnswerType.PHRASE, AnswerType.CLAUSE):
        return 0.0
    return 1.0 if short_answer(question, sentence.text, title) else -1.0


@dataclass(frozen=True, slots=True)
class Statement:
    """One sentence of a text that was checked."""

    text: str
    evidence: int | None
    """Index of a passage that has all its words; None when there is none."""
    missing: tuple[str, ...] = ()
    """Words that the nearest passage lacks; empty but for a denial, when only the «not» is missing or added."""


@dataclass(frozen=True, slots=True)
class Support:
    """Whether a text stands in the evidence, sentence by sentence."""

    statements: tuple[Statement, ...]

    @property
    def holds(self) -> bool:
        """Whether every sentence does, and there is one."""
        return bool(self.statements) and all(one.evidence is not None for one in self.statements)


_CITATION = re.compile(r"\s*\[\d+(?:\s*,\s*\d+)*\]")
_DENIAL = re.compile(r"\b(?:not|never|no|none|neither|nor|without|cannot)\b|n['’]t\b", re.IGNORECASE)


def supported(text: str, evidence: Sequence[Evidence]) -> Support:
    """Check what somebody (a model, say) phrased: every sentence must find its words in one passage.

    All content words, names and numbers of a sentence must be in the passage, its title or its headings (stems are
    compared), and the sentence must deny no more and no less than the nearest sentence of the passage does. It is a
    check of words: it finds what was invented, not what was put together wrongly from words that are there.
    Citation marks such as ``[1]`` are passed over.
    """
    plain = without_marks(text)
    pieces = [plain[start:end] for start, end in sentence_borders(plain)]
    return Support(tuple(_statement(piece, evidence) for piece in pieces))


def without_marks(text: str) -> str:
    """The text without citation marks such as ``[1]`` or ``[2, 3]``."""
    return _CITATION.sub("", text)


def denied(text: str) -> set[int]:
    """The stems that come next after a «not», «never», «without» and so on."""
    found: set[int] = set()
    for denial in _DENIAL.finditer(text):
        after = (stem(word) for word in re.findall(r"\w+", _DENIAL.sub(" ", text[denial.end() :])))
        found.update(list(itertools.islice((number for number in after if number is not None), 1)))
    return found


def _statement(text: str, evidence: Sequence[Evidence]) -> Statement:
    words = {match: stem(match) for match in re.findall(r"\w+", text)}
    missing: tuple[str, ...] | None = None
    for index, one in enumerate(evidence):
        there = set(stems(f"{one.passage.title} {' '.join(one.passage.section)} {one.passage.text}"))
        lacking = tuple(word for word, number in words.items() if number is not None and number not in there)
        if not lacking and _same_denial(text, one):
            return Statement(text, index)
        if missing is None or len(lacking) < len(missing):
            missing = lacking
    return Statement(text, None, missing or ())


def _same_denial(text: str, one: Evidence) -> bool:
    said = set(stems(text))

    def shared(sentence: Sentence) -> tuple[int, int]:
        words: Stems = stems(sentence.text)
        return len(said & set(words)), -len(words)

    nearest = max(one.sentences, key=shared)
    return bool(_DENIAL.search(text)) == bool(_DENIAL.search(nearest.text))
