"""Prose out of an article's blocks: headings become section paths, what is not prose is dropped.

Wikitext, HTML and TextExtracts all end here, so that an article reads the same whichever way it came.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from tools.wikipedia.source import Section

_APPARATUS = frozenset(
    " ".join(name.split())
    for name in """references|external links|external link|see also|further reading|notes|bibliography|footnotes
    |citations|works cited|notes and references|general references|related articles|external sources|web links|links
    |reading|literature cited|suggested reading|other links|related links|online references|cited references
    |einzelnachweise|weblinks|siehe auch|literatur|anmerkungen|références|liens externes|voir aussi|bibliographie
    |notes et références|articles connexes|referencias|enlaces externos|véase también|bibliografía|note
    |voci correlate|collegamenti esterni|altri progetti|bibliografia|referências|ligações externas|ver também""".split(
        "|"
    )
)
"""Headings under which no prose stands, in lower case."""
_LINK_LISTS = frozenset({"see also", "related articles", "siehe auch", "voir aussi", "articles connexes"})
"""Those among them whose links lead to related articles."""

_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\ufffc]")
_OPENS_ILL = re.compile(r"\([ ,;:/)\]]")
_CLOSES_ILL = re.compile(r"\)(?<=[ ,;]\))")
_OPENS_ILL_SQUARE = re.compile(r"\[[ ,;:/)\]]")
_CLOSES_ILL_SQUARE = re.compile(r"\](?<=[ ,;]\])")
_COMMA_ILL = re.compile(r",(?<=[ ,],)")
_STOP_ILL = re.compile(r"\.(?<= \.)")
"""These begin with one character, so that a search goes from one such to the next and does not look at the others."""
_HOLLOW = re.compile(r"(?:^| |(?<=[^\w\s]))[(\[][ ,;:/]*[)\]](?=\W|$)")
_AFTER_OPENING = re.compile(r"(?<=[(\[])(?: ?[,;:])+ ?|(?<=\() ")
_BEFORE_CLOSING = re.compile(r"(?: ?[,;])+ ?(?=\))| (?=\))")
_LOOSE_MARK = re.compile(r" ([,;.])(?= |$)")
_DOUBLE_COMMA = re.compile(r",(?: ?,)+")
_WORD = re.compile(r"\w")
_CONJUNCTION = re.compile(r"\s*(?:,|/|&|\band\b)\s*")
_RAISED = str.maketrans("0123456789+-−–=()ni", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁻⁼⁽⁾ⁿⁱ")
_ORDINAL_ENDINGS = frozenset(
    {"st", "nd", "rd", "th", "e", "er", "re", "o", "a", "ème", "tm", "sm", "®", "™", "mo", "me"}
)
_LATEX_SPACING = re.compile(
    r"\\(?:displaystyle|textstyle|scriptstyle|limits|!|,|;|:|quad|qquad|left|right)(?![a-zA-Z])|~"
)


_SHORT_HEADING = 200
"""Characters; longer headings are rare, and not worth the memory."""


class Outline:
    """Collects an article's blocks in reading order and gives its sections."""

    def __init__(self) -> None:
        self._headings: list[tuple[int, str]] = []
        self._blocks: list[str] = []
        self._sections: list[Section] = []
        self._apparatus_level = 0

    @property
    def in_apparatus(self) -> bool:
        """Whether what comes now belongs to references, notes and the like."""
        return self._apparatus_level > 0

    @property
    def links_count(self) -> bool:
        """Whether links that come now lead to related articles: everywhere but in references and the like."""
        return not self.in_apparatus or any(name.casefold() in _LINK_LISTS for _, name in self._headings)

    def heading(self, level: int, title: str) -> None:
        """A heading of ``level`` 1 to 6 begins; the sections above it of the same or a deeper level end."""
        self._close()
        while self._headings and self._headings[-1][0] >= level:
            self._headings.pop()
        name, is_apparatus = (_named if len(title) <= _SHORT_HEADING else _named.__wrapped__)(title)
        self._headings.append((level, name or "…"))
        if self._apparatus_level and level > self._apparatus_level:
            return
        self._apparatus_level = level if is_apparatus else 0

    def paragraph(self, text: str) -> None:
        """One line of prose. Without a word it is dropped."""
        if not self._apparatus_level and _WORD.search(line := tidy(text)):
            self._blocks.append(line)

    def block(self, lines: Iterable[str]) -> None:
        """A paragraph, which is one line, or the items of a list. What has no word is dropped."""
        if self._apparatus_level:
            return
        kept = [line for line in map(tidy, lines) if _WORD.search(line)]
        if kept:
            self._blocks.append("\n".join(kept))

    def sections(self) -> tuple[Section, ...]:
        """The sections that have prose, in order."""
        self._close()
        return tuple(self._sections)

    def _close(self) -> None:
        if self._blocks:
            path = tuple(name for _, name in self._headings)
            self._sections.append(Section(path, "\n\n".join(self._blocks)))
            self._blocks = []


@lru_cache(maxsize=512)
def _named(title: str) -> tuple[str, bool]:
    """A heading's text, and whether no prose stands under it; most articles share a few headings."""
    name = tidy(title).strip(" :")
    return name, _is_apparatus(name)


def _is_apparatus(name: str) -> bool:
    bare = name.casefold().strip(" .:")
    return bare in _APPARATUS or all(part in _APPARATUS for part in _CONJUNCTION.split(bare))


def tidy(text: str) -> str:
    """One line of prose: single spaces, no invisible characters, no brackets left hollow by what was taken out."""
    text = text.strip()
    if not _is_plain(text):
        text = " ".join(_INVISIBLE.sub("", text).split())
    else:
        while "  " in text:  # of white space a plain text has spaces only
            text = text.replace("  ", " ")
    if _has_ill_brackets(text):
        text = _BEFORE_CLOSING.sub("", _AFTER_OPENING.sub("", text))
        text = _HOLLOW.sub("", text)  # ``f()`` is a name and stays: no space before it
    comma = _COMMA_ILL.search(text)
    if comma or _STOP_ILL.search(text) or (";" in text and " ;" in text):
        text = _LOOSE_MARK.sub(r"\1", text)
    if comma:
        text = _DOUBLE_COMMA.sub(",", text)
    return text.strip()


def _is_plain(text: str) -> bool:
    """Whether a text has no invisible characters and of white space only spaces."""
    if text.isascii():  # known without a look at the characters, and few of them are white space
        return not (
            "\n" in text
            or "\t" in text
            or "\r" in text
            or "\v" in text
            or "\f" in text
            or "\x1c" in text
            or "\x1d" in text
            or "\x1e" in text
            or "\x1f" in text
        )
    # Of the invisible characters only the object replacement counts as printable.
    return text.isprintable() and "\ufffc" not in text


def _has_ill_brackets(text: str) -> bool:
    """Whether a bracket has beside it what no writer puts there."""
    return (
        ("(" in text and _OPENS_ILL.search(text) is not None)
        or (")" in text and _CLOSES_ILL.search(text) is not None)
        or ("[" in text and _OPENS_ILL_SQUARE.search(text) is not None)
        or ("]" in text and _CLOSES_ILL_SQUARE.search(text) is not None)
    )


def superscript(text: str) -> str:
    """Raised text in one line: ``10`` and a raised ``6`` are not ``106`` but ``10⁶``; endings of ordinals stay."""
    text = text.strip()
    if not text or text.casefold() in _ORDINAL_ENDINGS:
        return text
    bare = text.replace(" ", "")
    if all(ord(char) in _RAISED for char in bare):
        return bare.translate(_RAISED)
    return f"^{text}" if len(text) == 1 else f"^({text})"


def latex(source: str) -> str:
    """A formula's LaTeX without spacing commands, in one line, and without doubled braces, which look like wikitext."""
    text = _LATEX_SPACING.sub(" ", source)
    return " ".join(text.split()).replace("{{", "{ {").replace("}}", "} }")
