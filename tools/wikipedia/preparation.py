"""Wikitext made ready for the parser: comments, footnotes and tables taken out, sections told apart."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

HEAD, UNKNOWN, RAW, END, LINE, LINKS = "\ue000", "\ue001", "\ue002", "\ue003", "\ue004", "\ue005"
"""Private characters that mark, in flat text: a heading, an unknown template by number, a literal by number, the end of
either number, a list marker at the beginning of a line, the links of a table."""
MARKUP = frozenset("[]{}|'<>=*#:;&")
_PRIVATE = (HEAD, UNKNOWN, RAW, END, LINE, LINKS)
PRIVATE = re.compile("[\ue000-\ue005]")
_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{2,6}|#[xX][0-9a-fA-F]{2,5});")
_LINE_START = re.compile(r"\n(?=[*#:;]+(?!\s*\{\|))")
_REFERENCE_TAG = re.compile(r"<(/?)ref(?:erences)?\b((?:[^<>\"]|\"[^\"\n]*\")*)>", re.I)
_INCLUDE_ONLY = re.compile(
    r"<includeonly>[^<]*(?:<(?!/?includeonly>)[^<]*)*</includeonly>|</?(?:noinclude|onlyinclude|includeonly)\s*/?>",
    re.I,
)
_HEADING = re.compile(r"\n(={1,6})[ \t]*(.+?)[ \t]*\1[ \t]*$", re.M)
_TABLE_EDGE = re.compile(r"\n[ \t:*#]*(?:\{\|(?!\})|\|\}(?!\}))")
_TABLE_START = re.compile(r"^[ \t:*#]*\{\|(?!\})", re.M)
_TABLE_LINK = re.compile(r"\[\[[^\[\]{}<>\n]+\]\]")


def prepare(wikitext: str) -> str:
    """The source without comments, footnotes and harmless entities; list markers are hidden from the parser.

    The parser would build several objects for each marker and entity, which cost more than all the rest.
    """
    text = PRIVATE.sub("", wikitext) if any(mark in wikitext for mark in _PRIVATE) else wikitext
    text = _without_tables(_without_references(_INCLUDE_ONLY.sub("", _without_comments(text))))
    return _LINE_START.sub(f"\n{LINE}", "\n" + _ENTITY.sub(_unescape, text))[1:]


def _without_comments(text: str) -> str:
    """The text without comments; one alone on its line takes the line with it, an unclosed one all the rest."""
    kept: list[str] = []
    position = 0
    while (start := text.find("<!--", position)) >= 0:
        end = text.find("-->", start + 4)
        end = len(text) if end < 0 else end + 3
        before, rest = text[position:start], text.find("\n", end)
        after = text[end : len(text) if rest < 0 else rest]
        line = before[before.rfind("\n") + 1 :]
        if "\n" in before and len(after) < 80 and not line.strip() and not after.strip():
            before, end = before[: before.rfind("\n")], end + len(after)
        kept.append(before)
        position = end
    return "".join([*kept, text[position:]])


def _without_tables(text: str) -> str:
    """The text with each table replaced by a marked line of its links; an unclosed one loses its beginning."""
    kept: list[str] = []
    position = start = depth = 0
    for edge in _TABLE_EDGE.finditer("\n" + text):
        line_start, end = edge.start(), edge.end() - 1
        opens = edge[0].endswith("{|")
        if opens and not depth:
            start = line_start
        depth = depth + 1 if opens else max(0, depth - 1)
        if not opens and not depth and start >= position:
            kept += [text[position:start], LINKS, " ".join(_TABLE_LINK.findall(text, start, end))]
            position = start = end
    rest = text[position:]
    return "".join([*kept, _TABLE_START.sub("|", rest) if "{|" in rest else rest])


def _unescape(match: re.Match[str]) -> str:
    char = html.unescape(match[0])
    return match[0] if char in MARKUP or len(char) != 1 else char


def _without_references(text: str) -> str:
    """The text without footnotes; an unclosed one ends with its paragraph."""
    kept: list[str] = []
    position = 0
    while found := _REFERENCE_TAG.search(text, position):
        kept.append(text[position : found.start()])
        position = found.end()
        if found[1] or found[2].rstrip().endswith("/"):
            continue
        paragraph_end = text.find("\n\n", position)
        closing = _REFERENCE_TAG.search(text, position)
        while closing and not closing[1] and closing[2].rstrip().endswith("/"):
            closing = _REFERENCE_TAG.search(text, closing.end())
        if closing and closing[1]:
            position = closing.end()
        elif paragraph_end >= 0:
            position = paragraph_end
        else:
            position = len(text)
    kept.append(text[position:])
    return "".join(kept)


def chunks(text: str) -> Iterator[tuple[int, str, str]]:
    """(level, heading, source) of each part; a heading inside a template or table does not begin a part."""
    level, heading, start = 0, "", 0
    for found in _HEADING.finditer("\n" + text):
        chunk = text[start : found.start()]
        if chunk.count("{{") != chunk.count("}}") or chunk.count("\n{|") != chunk.count("\n|}"):
            continue
        yield level, heading, chunk
        level, heading, start = len(found[1]), found[2], found.end() - 1
    yield level, heading, text[start:]
