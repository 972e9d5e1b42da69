"""Broken wikitext made harmless before it is parsed.

The parser tries every opening bracket to its end and goes back when it finds no closing one: on a page with many
unclosed brackets that takes a time that grows with the square of its length or worse. What opens without closing, or
closes without opening, is therefore taken out first, in one pass, and long texts are parsed in parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_MARK = re.compile(r"\{\{|\}\}|\[\[|\]\]|\n\n|<(/?)([a-zA-Z][a-zA-Z0-9]{0,15})\b[^<>]{0,400}>")
_CLOSERS = {"}}": "{{", "]]": "[["}
_TAGS = frozenset(
    "a abbr b bdi bdo big blockquote caption ce center chem cite code data del dfn div dl em font gallery h1 h2 h3 h4 "
    "h5 h6 hiero i imagemap inputbox ins kbd mapframe math nowiki ol poem pre q rp rt ruby s samp score section small "
    "source span strike strong style sub sup syntaxhighlight table tbody templatestyles time timeline tt u ul "
    "var".split()
)
"""What else stands between angle brackets is text."""
_SINGLE = frozenset("br hr wbr img link meta li dd dt td tr th ref references nowiki".split())
_LITERAL = frozenset({"nowiki", "math", "pre", "syntaxhighlight", "source", "ce", "chem", "score", "timeline"})
"""Tags whose content is no wikitext."""
_PICTURE = re.compile(r"\s*(?:file|image|datei|bild|fichier|archivo|immagine|ficheiro)\s*:", re.I)
_DEEPEST = 30
"""Deeper nesting than this is no article's; the parser itself gives up at 40."""
_PART_CHARS = 4000
"""Parts are cut at the first blank line outside of all brackets after this many characters."""

_UNCLOSED_URL = re.compile(
    r"\[(?=(?:[a-z]{3,7}:)?//|mailto:)(?![^\[\]\n]*(?:\[{1,2}[^\[\]\n]*\]{1,2}[^\[\]\n]*){0,3}\])", re.I
)

_ANGLE = re.compile(r"<(?=[/a-zA-Z!])(?!/?[a-zA-Z][a-zA-Z0-9]{0,15}\b[^<>]{0,400}>)(?:/?([a-zA-Z][a-zA-Z0-9]{0,15}))?")
_PARAGRAPH_TAG = re.compile(r"</?p\b[^<>]{0,400}>", re.I)

Cut = tuple[int, int]


def balanced_parts(text: str) -> Iterator[str]:
    """The text in parts, in order, in which every bracket and tag is paired.

    What has no partner is left out; what looks like a tag and is none is escaped.
    """
    text = _PARAGRAPH_TAG.sub("\n\n", _ANGLE.sub(_angle, _UNCLOSED_URL.sub("", text)))
    changes, cuts, deepest = _scan(text)
    if deepest > _DEEPEST:
        yield re.sub(r"\{\{|\}\}|\[\[|\]\]|<[^<>]{0,400}>", " ", text)
        return
    position = at = 0
    for cut in [*cuts, len(text)]:
        kept: list[str] = []
        while at < len(changes) and changes[at][0][0] < cut:
            (start, end), instead = changes[at]
            if start >= position:
                kept += [text[position:start], instead]
            position = max(position, end)
            at += 1
        yield "".join([*kept, text[position:cut]])
        position = max(position, cut)


def _angle(match: re.Match[str]) -> str:
    """The beginning of a tag that never ends goes; a sign that begins none is escaped."""
    return "" if (match[1] or "").lower() in _TAGS else match[0].replace("<", "&lt;")


def _with_rest(text: str, opener: Cut) -> Cut:
    """An unclosed picture, or an unclosed template that begins its line, takes the rest of the line with it."""
    start, end = opener
    alone = text[start] == "{" and (start == 0 or text[start - 1] == "\n")
    if not alone and not _PICTURE.match(text, end):
        return opener
    line_end = text.find("\n", end)
    return start, len(text) if line_end < 0 else line_end


def _scan(text: str) -> tuple[list[tuple[Cut, str]], list[int], int]:
    """What to replace by what, in order; where the text may be cut; how deep it nests."""
    stack: list[tuple[str, Cut]] = []
    waiting = {"{{": 0, "[[": 0}
    unpaired: list[Cut] = []
    foreign: list[int] = []
    unclosed: set[str] = set()
    cuts: list[int] = []
    deepest = position = 0
    for mark in _MARK.finditer(text):
        if mark.start() < position:  # inside a tag whose content is no wikitext
            continue
        position = mark.end()
        token = mark[0]
        if token == "\n\n":
            if not stack and position - (cuts[-1] if cuts else 0) > _PART_CHARS:
                cuts.append(position)
        elif token in waiting:
            stack.append((token, mark.span()))
            waiting[token] += 1
            deepest = max(deepest, waiting["{{"] + waiting["[["])
        elif token in _CLOSERS:
            if waiting[_CLOSERS[token]]:
                _pop_to(_CLOSERS[token], stack, waiting, unpaired, text)
            else:
                unpaired.append(mark.span())
        elif (name := mark[2].lower()) not in _TAGS:
            if name not in _SINGLE:
                foreign.append(mark.start())
        elif token.endswith("/>"):
            continue
        elif mark[1]:
            if _open_here(name, stack):
                _pop_to(name, stack, waiting, unpaired, text)
            else:
                unpaired.append(mark.span())
        elif name in _LITERAL:
            closing = None if name in unclosed else re.compile(rf"</{name}\s*>", re.I).search(text, position)
            if closing is None:
                unclosed.add(name)
                unpaired.append(mark.span())
            else:
                position = closing.end()
        else:
            stack.append((name, mark.span()))
    unpaired += [_with_rest(text, span) for _, span in stack]
    return sorted([*((span, "") for span in unpaired), *(((at, at + 1), "&lt;") for at in foreign)]), cuts, deepest


def _open_here(name: str, stack: Sequence[tuple[str, Cut]]) -> bool:
    """Whether the tag was opened inside the same bracket, not too many tags ago."""
    for kind, _ in reversed(stack[-_DEEPEST:]):
        if kind == name:
            return True
        if kind in _CLOSERS.values():
            return False
    return False


def _pop_to(kind: str, stack: list[tuple[str, Cut]], waiting: dict[str, int], unpaired: list[Cut], text: str) -> None:
    while True:
        found, span = stack.pop()
        if found in waiting:
            waiting[found] -= 1
        if found == kind:
            return
        unpaired.append(_with_rest(text, span))
