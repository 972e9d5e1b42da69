"""What kind of answer a question asks for, and where a sentence has spans of that kind.

Cues only: the question word and the word after it on one side; numbers, dates and capitalised words on the other. No
tagger and no model, so that it costs microseconds and fails in ways that can be read.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import NamedTuple


class AnswerType(Enum):
    """Kinds of short answers."""

    NUMBER = "number"
    DATE = "date"
    NAME = "name"
    PHRASE = "phrase"
    """Anything else: a noun phrase, as most answers to «what» are."""
    CLAUSE = "clause"
    """Why and how: no short span will do."""


class Span(NamedTuple):
    """A piece of a text, in code points."""

    start: int
    end: int


_MONTH = (
    "January|February|March|April|May|June|July|August|September|October|November|December"
    "|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec"
)
_SMALL = (
    "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen"
)
_LARGE = (
    "nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundreds?|thousands?|millions?|billions?|trillions?"
)
_NUMBER_WORD = f"one|{_SMALL}|{_LARGE}|dozens?|half|quarter|third|twice|once|single|both|zero|none"
_ERA = r"(?:\s?(?:BCE?|AD|CE)\b\.?)?"

_DATE = re.compile(
    rf"\b(?:\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?(?:{_MONTH})\b\.?(?:,?\s+\d{{3,4}})?"
    rf"|(?:{_MONTH})\b\.?(?:\s+\d{{1,2}}(?:st|nd|rd|th)?\b)?(?:,?\s+\d{{3,4}}\b)?"
    rf"|(?:(?:early|late|mid)[-\s])?(?:the\s)?(?:\d{{1,2}}(?:st|nd|rd|th)|[a-z]+(?:th|first|second|third))"
    rf"(?:[-\s](?:and|to)[-\s]\d{{1,2}}(?:st|nd|rd|th))?\s+(?:century|centuries|millennium){_ERA}"
    rf"|(?:1\d|20)\d\ds?(?:\s?[-–]\s?\d{{2,4}})?{_ERA}"
    rf"|\d{{1,4}}\s?(?:BCE?|AD|CE)\b|AD\s?\d{{1,4}})"
)
_NUMBER = re.compile(
    rf"(?:[$€£¥]\s?)?(?:\d[\d,]*(?:\.\d+)?|\b(?:{_NUMBER_WORD})\b)"
    rf"(?:[-\s](?:to|and|or)[-\s](?:\d[\d,]*(?:\.\d+)?|(?:{_NUMBER_WORD})\b))?"
    rf"(?:[-\s](?:{_LARGE})\b)*(?:\s?(?:%|percent\b|per cent\b|[kcm]m\b|[°º]\s?[CFK]?))?",
    re.IGNORECASE,
)
_CAPITALISED = r"(?:[A-ZÀ-ÞĀ-Ž][\w'’.-]*[\w]|[A-Z]\b\.?)"
_NAME = re.compile(
    rf"{_CAPITALISED}(?:(?:\s+(?:of|the|de|la|von|van|der|du|des|al|el|and|&|I[IVX]*))*\s+{_CAPITALISED})*"
)

_TO_NUMBER = re.compile(
    r"\bhow\s+(?:many|much|old|long|far|tall|high|large|big|deep|wide|fast|heavy|often|few|large)\b"
    r"|\b(?:what|which)\s+(?:\w+\s+){0,2}(?:number|percent|percentage|proportion|fraction|amount|population|price|cost"
    r"|ratio|age|temperature|distance|length|height|score|rate|speed|size|area)\b",
    re.IGNORECASE,
)
_TO_DATE = re.compile(
    r"\bwhen\b|\b(?:what|which)\s+(?:\w+\s+){0,2}(?:years?|dates?|days?|months?|centur(?:y|ies)|decades?|era|period)\b"
    r"|\bhow\s+long\s+ago\b|\bin\s+what\s+year\b",
    re.IGNORECASE,
)
_TO_NAME = re.compile(
    r"\bwho(?:m|se)?\b|\bwhere\b"
    r"|\b(?:what|which)\s+(?:\w+\s+){0,2}(?:person|man|woman|king|queen|emperor|ruler|leader|president|scientist"
    r"|mathematician|physicist|chemist|philosopher|author|writer|poet|painter|composer|singer|player|coach|team|actor"
    r"|country|countries|nation|city|town|village|state|continent|river|island|region|province|place|location|company"
    r"|university|organi[sz]ation|institution|language|empire|kingdom|dynasty|name)\b",
    re.IGNORECASE,
)
_TO_CLAUSE = re.compile(
    r"\bwhy\b|\bhow\s+(?:do|does|did|is|are|was|were|can|could|has|have|had|would|should)\b", re.IGNORECASE
)


@lru_cache(maxsize=256)  # it is asked about the same question for each sentence
def expected_type(question: str) -> AnswerType:
    """The kind of answer that the question's words ask for."""
    for pattern, kind in (
        (_TO_DATE, AnswerType.DATE),
        (_TO_NUMBER, AnswerType.NUMBER),
        (_TO_NAME, AnswerType.NAME),
        (_TO_CLAUSE, AnswerType.CLAUSE),
    ):
        if pattern.search(question):
            return kind
    return AnswerType.PHRASE


def typed_spans(sentence: str, kind: AnswerType) -> list[Span]:
    """The spans of a sentence that are a number, a date or a name; none for the other kinds.

    A capital at the start of a sentence alone does not make a name, unless the word is capitalised elsewhere too.
    """
    pattern = {AnswerType.NUMBER: _NUMBER, AnswerType.DATE: _DATE, AnswerType.NAME: _NAME}.get(kind)
    if pattern is None:
        return []
    spans = [Span(*match.span()) for match in pattern.finditer(sentence)]
    if kind is not AnswerType.NAME:
        return spans
    return [span for span in spans if span.start > 0 or " " in sentence[span.start : span.end]]
