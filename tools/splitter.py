"""Pages to passages on sentence borders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sentencex  # type: ignore[import-untyped]  # it has no stubs

from memory.passages import Passage
from tools.wikipedia.source import Page

MAX_CHARS = 900
"""About 185 tokens of English: well below the 256 that all-MiniLM-L6-v2 was trained to read."""
MIN_CHARS = 200
"""Sections shorter than this are joined with their neighbours of the same parent."""
_BETWEEN_SECTIONS = "\n\n"
_LONGEST_OVERLAP = 3
"""Repeated sentences take at most this part (1/3) of a passage."""
_LINE = re.compile(r"[^\n]+")
_BREAK_IN_FORMULA = re.compile(
    r"(?<=[^\W\d_]|[)\]])[ \t]*\n[ \t]*(?=\d{1,3}(?:[+−-]|[A-Z])?(?:[\s,.;:)]|$))|(?<=[^\s.!?])\n(?=[ \t]*[,;)\].])"
)
"""A line break inside a sentence, as the extracts of a wiki have them: before an index («O\\n2») and before a mark."""
_DANGLING = re.compile(r"\b(?:[A-Z]|[Ee]st|[Cc]f|[Vv]s|[Vv]ol|[Pp]p?|[Nn]os?|[Ff]igs?|[Ee]d|[Cc]a?|approx)\.\s*$")
"""An abbreviation or an initial after which a sentence does not end."""
_OPENER = re.compile(
    r"(?<![\w.])(?<!\b[A-Z]\.\s)\w\.(?=\s+(?:The|This|These|Those|It|In|If|For|When|Then|Thus|Hence|However|There|They|We|He|She)\s)"
)
"""A letter that ends a sentence after all («… of x and z. The …»), for no name goes on with such a word."""

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Sections that are split together."""

    path: tuple[str, ...]
    start: int
    end: int


def plain_text(page: Page) -> str:
    """The page's prose without headings: its sections in order, one blank line between them.

    The offsets of passages are offsets into this text, in code points.
    """
    return _BETWEEN_SECTIONS.join(section.text for section in page.sections)


def sentences(text: str, language: str = "en") -> list[Span]:
    """(start, end) of each sentence, without the white space around it. A line break ends a sentence, but for
    the breaks that formulae leave inside one.

    Args:
        text: Any text.
        language: ISO 639-1 code; decides which abbreviations do not end a sentence.
    """
    # As many blanks as there were characters: offsets stay.
    if "\n" in text:  # looking for them costs as much as all the rest
        text = _BREAK_IN_FORMULA.sub(lambda found: " " * len(found[0]), text)
    return [span for line in _LINE.finditer(text) for span in _sentences_of_line(line[0], line.start(), language)]


def split(
    page: Page,
    *,
    owner: str,
    source: str,
    max_chars: int = MAX_CHARS,
    overlap_sentences: int = 1,
    min_chars: int = MIN_CHARS,
    language: str = "en",
) -> list[Passage]:
    """The page as passages of whole sentences; the same page always gives the same ones.

    ``plain_text(page)[p.start:p.end] == p.text`` for every passage. A passage lies in one section, or in several
    short neighbouring sections under the same heading. A sentence longer than ``max_chars`` is cut, at a space where
    there is one.

    Args:
        page: The page.
        owner: Whose memory the passages are for.
        source: Name of the encyclopaedia.
        max_chars: Most characters of a passage.
        overlap_sentences: How many sentences a passage repeats from the one before, within a section.
        min_chars: Sections shorter than this are joined with neighbours under the same heading.
        language: See ``sentences``.

    Raises:
        ValueError: when ``max_chars`` is less than 1 or ``overlap_sentences`` is negative.
    """
    if max_chars < 1 or overlap_sentences < 0:
        raise ValueError(f"max_chars {max_chars} must be at least 1, overlap_sentences {overlap_sentences} at least 0")
    text = plain_text(page)
    passages: list[Passage] = []
    for stretch in _stretches(page, max_chars, min_chars):
        part = text[stretch.start : stretch.end]
        pieces = [piece for span in sentences(part, language) for piece in _cut(part, span, max_chars)]
        for start, end in _pack(part, pieces, max_chars, overlap_sentences):
            begin, finish = stretch.start + start, stretch.start + end
            passages.append(
                Passage(
                    owner=owner,
                    source=source,
                    title=page.title,
                    url=page.url,
                    revision=page.revision,
                    section=stretch.path,
                    text=text[begin:finish],
                    start=begin,
                    end=finish,
                    index=len(passages),
                )
            )
    return passages


def _sentences_of_line(line: str, offset: int, language: str) -> Iterator[Span]:
    begin = 0
    ends = {boundary["end_index"] for boundary in sentencex.get_sentence_boundaries(language, line)}
    certain = {match.end() for match in _OPENER.finditer(line)}
    for end in sorted(ends | certain | {len(line)}):
        piece = line[begin:end]
        if end < len(line) and end not in certain and _DANGLING.search(piece):
            continue
        stripped = piece.strip()
        if stripped:
            lead = len(piece) - len(piece.lstrip())
            yield offset + begin + lead, offset + begin + lead + len(stripped)
        begin = end


def _stretches(page: Page, max_chars: int, min_chars: int) -> Iterator[_Stretch]:
    """Sections, short ones joined with the neighbours that share their parent heading."""
    current: _Stretch | None = None
    position = 0
    for section in page.sections:
        here = _Stretch(section.path, position, position + len(section.text))
        position = here.end + len(_BETWEEN_SECTIONS)
        if current is None:
            current = here
            continue
        common = _common(current.path, here.path)
        short = min(current.end - current.start, here.end - here.start) < min_chars
        if common and short and here.end - current.start <= max_chars:
            current = _Stretch(common, current.start, here.end)
        else:
            yield current
            current = here
    if current is not None:
        yield current


def _common(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...]:
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1
    return tuple(one[:shared])


def _cut(text: str, span: Span, max_chars: int) -> Iterator[Span]:
    """A sentence, or pieces of it no longer than ``max_chars``, cut at the last space in their second half."""
    start, end = span
    while end - start > max_chars:
        space = text.rfind(" ", start + max_chars // 2, start + max_chars + 1)
        stop = space if space > start else start + max_chars
        yield start, stop
        start = stop
        while start < end and text[start].isspace():
            start += 1
    if start < end:
        yield start, end


def _pack(text: str, pieces: Sequence[Span], max_chars: int, overlap_sentences: int) -> Iterator[Span]:
    """Runs of pieces of at most ``max_chars`` together; each begins with the last pieces of the one before."""
    first = 0
    while first < len(pieces):
        start = pieces[first][0]
        last = first
        while last + 1 < len(pieces) and pieces[last + 1][1] - start <= max_chars:
            if _ends_early(text, pieces, start, last, max_chars):
                break
            last += 1
        yield start, pieces[last][1]
        if last + 1 >= len(pieces):
            return
        again = last + 1
        room = min(max_chars // _LONGEST_OVERLAP, max_chars - (pieces[last + 1][1] - pieces[last + 1][0]) - 1)
        while (
            again - 1 > first
            and last + 1 - again < overlap_sentences
            and pieces[last][1] - pieces[again - 1][0] <= room
        ):
            again -= 1
        # What is repeated must leave room for the next piece, or the passage would not get on.
        first = again if pieces[last + 1][1] - pieces[again][0] <= max_chars else last + 1


def _ends_early(text: str, pieces: Sequence[Span], start: int, last: int, max_chars: int) -> bool:
    """Whether to end at a paragraph though another sentence fits: if well filled and the paragraph does not fit."""
    end = pieces[last][1]
    if "\n\n" not in text[end : pieces[last + 1][0]] or end - start < max_chars * 2 // 3:
        return False
    paragraph_end = text.find("\n\n", pieces[last + 1][0])
    return (len(text) if paragraph_end < 0 else paragraph_end) - start > max_chars
