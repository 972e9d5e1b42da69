"""An answer in words: the sentence as it was found, or a model's phrasing where its words stand in the evidence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from langchain_core.runnables import RunnableConfig

from agents.asking import ask_if_affordable, is_small, writer_in_use
from agents.context import Context
from agents.prompts import ANSWER
from agents.spec import Usage
from models.fallback import NoModelAnswers
from tools.evidence import Evidence, describe
from tools.reader import Reading, supported

PASSAGES_FOR_MODEL = 3
"""Passages that the model is shown: about 700 tokens."""
PASSAGES_FOR_SMALL_MODEL = 1
"""The same for the tiny embedded one, whose words must stand in one sentence anyway: it reads 200 tokens a second."""
ANSWER_TOKENS = 96


async def phrase(
    context: Context,
    question: str,
    reading: Reading,
    evidence: Sequence[Evidence],
    config: RunnableConfig,
    *,
    owner: str,
) -> tuple[str | None, Usage, str]:
    """The model's words, or None when there is no model or its words do not stand in the evidence.

    The best passage goes first, for a small model heeds the beginning most.
    """
    best = evidence[reading.evidence]
    small = is_small(writer_in_use(context))
    shown = [best, *(one for one in evidence if one is not best)]
    shown = shown[: PASSAGES_FOR_SMALL_MODEL if small else PASSAGES_FOR_MODEL]
    messages = ANSWER.format_messages(passages=describe(shown), question=question)
    try:
        said = await ask_if_affordable(context, messages, config, max_tokens=ANSWER_TOKENS, agent="qa", owner=owner)
    except NoModelAnswers:
        return None, Usage(), "quote"
    text = " ".join(said.text.split())
    # A tiny model's words must stand in the one sentence that was found, for it joins what does not belong together.
    allowed = [_sentence_only(best, reading.sentence)] if small else evidence
    if not said.whole or not supported(text, allowed).holds or not _says(reading.answer, text):
        return None, said.usage, "quote"
    return text, said.usage, said.model


def _sentence_only(one: Evidence, sentence: str) -> Evidence:
    """The evidence cut down to one of its sentences."""
    kept = tuple(found for found in one.sentences if found.text == sentence)
    return replace(one, passage=replace(one.passage, text=sentence, section=()), sentences=kept, best=0)


_PRONOUN = re.compile(r"(?:he|she|it|they|his|her|its|their|this|these|the latter)\b", re.IGNORECASE)


def in_context(sentence: str, one: Evidence) -> str:
    """A sentence that speaks of «he» or «it» without a name, with the page's title before it."""
    title = one.passage.title
    if title.lower() in sentence.lower():
        return sentence
    if _PRONOUN.match(sentence):
        return f"{title}: {sentence}"
    named = set(re.findall(r"\w+", title.lower())) & set(re.findall(r"\w+", sentence.lower()))
    inside = re.search(r"\b(?:he|she|it|they)\b", sentence, re.IGNORECASE)
    return f"{title}: {sentence}" if inside and not named else sentence


def _says(short: str, text: str) -> bool:
    """Whether a phrasing holds the words of the span that the reader found."""
    words = set(re.findall(r"\w+", text.lower()))
    return all(word in words for word in re.findall(r"\w+", short.lower())) or len(short) > 80


def renumber(text: str, evidence: Sequence[Evidence]) -> tuple[str, list[int]]:
    """The text with a number after each sentence, by the passage that has its words; and those passages in order."""
    order: dict[int, int] = {}
    parts = []
    for statement in supported(text, evidence).statements:
        if statement.evidence is not None:
            number = order.setdefault(statement.evidence, len(order) + 1)
            parts.append(f"{statement.text} [{number}]")
    return " ".join(parts), list(order)
