"""What can be read off the words of a question and a text, token by token, beside what a transformer makes of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from tools.answer_types import AnswerType, expected_type, typed_spans
from tools.lexical import stem

if TYPE_CHECKING:
    from numpy.typing import NDArray

TYPED = (AnswerType.NUMBER, AnswerType.DATE, AnswerType.NAME)
KINDS = tuple(AnswerType)
_WORD = re.compile(r"\w+")
_NEAR = 4.0
"""Tokens after which the nearness to a word of the question has fallen to 1/e."""


def text_features(question: str, text: str, offsets: NDArray[np.int64]) -> NDArray[np.float32]:
    """Shape (tokens, 15): is it a word of the question, its form, is it in a number, date or name, what is asked for.

    Args:
        question: The question.
        text: The text.
        offsets: Shape (tokens, 2): where the tokens lie in the text.
    """
    asked = {stem(word) for word in _WORD.findall(question)} - {None}
    kind = expected_type(question)
    masks = np.zeros((len(TYPED), len(text) + 1), bool)
    for mask, one in zip(masks, TYPED, strict=True):
        for start, end in typed_spans(text, one):
            mask[start:end] = True
    words = _words_at(text)
    rows = np.zeros((len(offsets), 15), np.float32)
    for row, (start, _) in zip(rows, offsets, strict=True):
        word = words[start]
        number = _stem(word)
        row[0] = number in asked if number is not None else 0
        row[1:5] = word[:1].isupper(), any(map(str.isdigit, word)), not word[:1].isalnum(), number is None
        row[5:8] = masks[:, start]
        row[8 + KINDS.index(kind)] = 1
        row[13] = kind in TYPED and masks[TYPED.index(kind), start]
    rows[:, 14] = _nearness(rows[:, 0])
    return rows


def question_features(question: str, text: str, offsets: NDArray[np.int64]) -> NDArray[np.float32]:
    """Shape (tokens of the question, 2): does the text have the word, does the word carry meaning."""
    there = {stem(word) for word in _WORD.findall(text)}
    words = _words_at(question)
    rows = np.zeros((len(offsets), 2), np.float32)
    for row, (start, _) in zip(rows, offsets, strict=True):
        number = _stem(words[start])
        row[:] = number is not None and number in there, number is not None
    return rows


def _stem(word: str) -> int | None:
    return stem(word) if _WORD.match(word) else None


def _words_at(text: str) -> list[str]:
    """For each character the word it belongs to, else the character itself."""
    words = list(text)
    for match in _WORD.finditer(text):
        words[match.start() : match.end()] = [match.group()] * len(match.group())
    return words


def _nearness(hits: NDArray[np.float32]) -> NDArray[np.float32]:
    places = np.flatnonzero(hits)
    if not len(places):
        return np.zeros(len(hits), np.float32)
    distance = np.abs(np.arange(len(hits))[:, None] - places[None, :]).min(axis=1)
    near: NDArray[np.float32] = np.exp(-distance / _NEAR).astype(np.float32)
    return near
