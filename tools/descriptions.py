"""Questions about a thing that they describe instead of naming it: «where was the man after whom X is named born?».

Such a question has two steps: which thing that is, and what is asked of it. Cues only, as in ``answer_types``: no
parser and no model. Where the description ends is left to the evidence, for that shows which words it is about.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from tools.lexical import stem, stems


class Described(Enum):
    """What is described."""

    PERSON = "person"
    PLACE = "place"
    THING = "thing"


@dataclass(frozen=True, slots=True)
class Description:
    """A question cut before the thing that it describes."""

    front: str
    """What stands before the description, e.g. «In which city was»."""
    rest: str
    """The description and what follows it, without the question mark."""
    given: int
    """Offset in ``rest`` where the words begin that tell the thing from others of its kind."""
    noun_end: int
    """Offset in ``rest`` after the noun for it; the description is at least as long."""
    kind: Described


_WORD = re.compile(r"[\w'’-]+")
_PERSON = (
    r"(?!(?:attractor|border|cent(?:er|re)|chapter|colou?r|computer|corner|error|factor|floor|integer|layer|letter"
    r"|master|matter|member|mirror|motor|newspaper|number|order|paper|power|river|sector|tower|vector|water)s?\b)"
    r"(?:\w{3,}(?:er|or|ist|ian)s?|\w*(?:man|woman)|person|people|namesake|king|queen|wife|husband|son|president"
    r"|student|pupil)\b"
)
"""Nouns for people by their endings, and nouns with such an ending that are none."""
_PLACE = r"(?:city|country|town|village|state|continent|river|island|region|province|place|university|school|company)\b"
_NOUN = r"(?:the|an?)\s+(?:(?!(?:the|an?|of|is|was)\b)[\w-]+\s+){0,3}?(?P<noun>[\w-]+)"
_RELATIVE = re.compile(
    rf"\b{_NOUN},?\s+(?:(?:after|at|by|for|from|in|on|to|under|with)\s+)?(?P<pronoun>who|whom|whose|which|that|where)\b",
    re.IGNORECASE,
)
_PARTICIPLE = re.compile(
    rf"\b{_NOUN}\s+(?:\w+ed|built|drawn|found|given|known|led|made|shown|taught|won|written)"
    r"\s+(?:after|as|at|by|for|from|in|on|to|with)\b",
    re.IGNORECASE,
)
_GENITIVE = re.compile(rf"\b{_NOUN}\s+(?:of|behind)\b", re.IGNORECASE)
_POSSESSIVE = re.compile(
    rf"\b[A-ZÀ-Ž][\w-]*(?:\s+[A-ZÀ-Ž][\w-]*){{0,3}}(?:['’]s|s['’])\s+(?:[a-z-]+\s+){{0,2}}?(?P<noun>{_PERSON})"
)
_IDENTIFIES = re.compile(r"^(?:and\s+)?(?:who|what|which)(?:\s+\w+)?\s+(?:is|are|was|were)$", re.IGNORECASE)
"""Before a description: the question asks for nothing but what is described."""
_INVERTED = re.compile(r"\b(?:(?P<be>is|are|was|were)|do|does|did|has|have|had|can|could|will|would)$", re.I)
_KIND_ASKED = re.compile(
    r"\b(?:what|which)\s+((?:\w+\s+){0,1}?\w+)\s+(?:is|are|was|were|do|does|did|has|had|have)\b", re.I
)
_SAYS_NOTHING = frozenset(
    number for word in ("name", "named", "called", "known", "kind", "type") if (number := stem(word))
)


def descriptions(question: str) -> list[Description]:
    """Where the question may describe a thing, the innermost description first; none for most questions."""
    text = question.strip().rstrip("?!. ")
    found: dict[int, Description] = {}
    for pattern in (_RELATIVE, _PARTICIPLE, _GENITIVE, _POSSESSIVE):
        for match in pattern.finditer(text):
            kind = _kind(match["noun"], match.groupdict().get("pronoun") or "")
            # «The area of X» is a property of X, «the discoverer of X» somebody else.
            if pattern in (_GENITIVE, _POSSESSIVE) and kind is not Described.PERSON:
                continue
            front = text[: match.start()].strip()
            if not front or _IDENTIFIES.match(front):
                continue
            noun_end = match.end("noun") - match.start()
            given = 0 if pattern is _POSSESSIVE else noun_end
            found.setdefault(match.start(), Description(front, text[match.start() :], given, noun_end, kind))
    return [found[start] for start in sorted(found, reverse=True)]


def _kind(noun: str, pronoun: str) -> Described:
    if pronoun.lower() in ("who", "whom", "whose") or re.match(_PERSON, noun, re.IGNORECASE):
        return Described.PERSON
    return Described.PLACE if re.match(_PLACE, noun, re.IGNORECASE) else Described.THING


@dataclass(frozen=True, slots=True)
class Split:
    """A question in its two steps, where a text shows how far the description goes."""

    description: Description
    described: str
    """E.g. «the man after whom the Julia set is named»."""
    tail: str
    """What follows, e.g. «born»; may be empty."""
    found: int
    """How many words of the description the text has."""
    coverage: float
    """Share of the words that tell the thing from others which the text has, 0 to 1."""
    asked: frozenset[int]
    """Stems of what is asked of the thing."""

    def by(self, sentence: str, title: str) -> Split:
        """The same cut again by one sentence; as it is where the sentence has none of the words."""
        return split(self.description, frozenset(stems(f"{title} {sentence}"))) or self

    @property
    def first(self) -> str:
        """The question of the first step."""
        kind = self.description.kind
        word = "Who was" if kind is Described.PERSON else "Which place is" if kind is Described.PLACE else "What is"
        return f"{word} {self.described}?"

    def second(self, name: str) -> str:
        """The question of the second step: with a name in the place of the description."""
        return " ".join(filter(None, (self.description.front, name, self.tail))) + "?"


def _kind_asked(front: str) -> frozenset[int]:
    """The stems of «city» in «in which city was»."""
    found = _KIND_ASKED.search(front)
    return frozenset(stems(found[1])) if found else frozenset()


def _waits(front: str) -> bool:
    """Whether the verb or the predicate comes after the description: «where was» waits, «how long is» does not."""
    verb = _INVERTED.search(front)
    if verb is None:
        return False
    return not verb["be"] or not frozenset(stems(front)) - _kind_asked(front)


def split(description: Description, there: frozenset[int]) -> Split | None:
    """Cut the description after its last word that a text has; None where it has none, or nothing else is asked.

    Args:
        description: Of a question.
        there: Stems of the text.
    """
    rest = description.rest
    words = [match for match in _WORD.finditer(rest, description.given) if stems(match.group())]
    if words and _waits(description.front):
        words.pop()
    ends = [word.end() for word in words if not there.isdisjoint(stems(word.group()))]
    if not ends:
        return None
    end = max(ends[-1], description.noun_end)
    given = set(stems(rest[description.given : end]))
    tail = rest[end:].strip(" ,")
    asked = frozenset(stems(f"{description.front} {tail}")) - _SAYS_NOTHING
    wanted = asked - _kind_asked(description.front) or asked
    there_too = given & there
    return Split(description, rest[:end], tail, len(there_too), len(there_too) / len(given), wanted) if wanted else None
