"""Flat text, with markup resolved but line breaks still meaning something, to paragraphs, lists and headings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tools.wikipedia.preparation import END, HEAD, LINE, LINKS, RAW, UNKNOWN

PLACEHOLDER = re.compile(f"{UNKNOWN}(\\d+){END}")
_MARKERS = re.compile(r"^[*#:;]+")
QUOTES = re.compile(r"''(?:'(?:'')?)?")
_CONTENT = re.compile(rf"\w|{RAW}")
_SWITCH = re.compile(r"__[A-Z]{3,}__")
_STRAY_TAG = re.compile(
    r"</?(?:div|span|font|center|small|big|ref|references|br|hr|table|tbody|tr|td|th|p|i|b|u|s|em|strong|sub|sup|ul|ol|"
    r"li|dl|dt|dd|blockquote|code|tt|pre|nowiki|gallery|cite|del|ins|poem|section|templatestyles|math|caption|h[1-6])"
    r"\b[^<>\n]*(?:>|$)",
    re.I,
)
_STRAY_LINK = re.compile(r"\[\[(?:[^\[\]|\n]*\|)?([^\[\]|\n]*)\]\]")
_STRAY_TEMPLATE = re.compile(r"\{\{[^{}\n]*\}\}")
_STRAY_BRACKETS = re.compile(r"\[\[|\]\]|\{\{+|\}\}+|\{\||\|\}")
_EMPTY_URL = re.compile(r"\[(?:https?|ftp)://[^\s\]]*\s*\]")
_HATNOTE = re.compile(
    r"(?i)^[:*\s]*(?:'*\(?(?:see )?(?:the )?(?:main|detailed|related) articles?\b\s*(?:''+)?\s*:?|'*see also\s*:|"
    r"'*further information\s*:|"
    r"''+\s*[(\[]?(?:see\b|for (?:other|more|the|a|an|further|information|additional|details|alternat)|"
    r"further (?:information|reading|details)|(?:this|the) (?:article|page|section) (?:is|deals|describes|covers|"
    r"discusses|refers|concerns)|(?:alternat\w+|other) (?:uses|meanings)|not to be confused|"
    r"more (?:details?|information)|"
    r"[^.]{1,80} redirects? here).*''+\W*$)"
)


def blocks_of(flat: str) -> Iterator[tuple[int, str]]:
    """Paragraphs, lists and headings of flat text by the line rules of wikitext."""
    lines: list[str] = []
    is_list = False
    tables = 0

    def flush() -> Iterable[tuple[int, str]]:
        if not lines:
            return ()
        text = ("\n" if is_list else " ").join(lines)
        lines.clear()
        return ((0, text),)

    for line in flat.replace(LINE, "").split("\n"):
        bare = line.strip()
        if not bare:
            if not tables:
                yield from flush()
        elif line.startswith(HEAD):
            yield from flush()
            tables = 0
            yield int(line[1]), line[2:]
        elif bare.lstrip(":").startswith("{|"):
            tables += 1
        elif bare.startswith("|}"):
            tables = max(0, tables - 1)
        elif tables or bare.startswith(("|", LINKS)):
            continue
        elif bare.startswith("----"):
            yield from flush()
        elif not _says_something(bare):
            continue
        elif (marked := _MARKERS.match(bare)) or line.startswith(" "):
            if not is_list:
                yield from flush()
            is_list = True
            lines.append(_item(bare, marked[0] if marked else ""))
        else:
            if is_list:
                yield from flush()
            is_list = False
            lines.append(bare)
    yield from flush()


def _says_something(line: str) -> bool:
    """Whether a line is more than a hatnote, or than templates that stand alone (boxes and notices do)."""
    if _HATNOTE.match(line):
        return False
    if UNKNOWN in line:
        line = PLACEHOLDER.sub("", QUOTES.sub("", line))
    return _CONTENT.search(line) is not None


def _item(line: str, marker: str) -> str:
    content = line[len(marker) :].strip()
    return re.sub(r"\s+:\s+|\s+:(?=\S)", ": ", content, count=1) if ";" in marker else content


_BROKEN = re.compile(r"[<>\[\]{}_](?:(?<!_)|_)")
_STEPS = (
    (_SWITCH, ""),
    (_STRAY_TAG, ""),
    (_EMPTY_URL, ""),
    (_STRAY_LINK, r"\1"),
    (_STRAY_TEMPLATE, ""),
    (re.compile(r"(?i)\[\[\s*(?:file|image)\s*:.*"), ""),
    (_STRAY_BRACKETS, ""),
)


def strip_stray(text: str) -> str:
    """Flat text without what the parser left of broken markup."""
    if "''" in text:
        text = QUOTES.sub("", text)
    for pattern, replacement in _STEPS if _BROKEN.search(text) else ():
        text = pattern.sub(replacement, text)
    return text
