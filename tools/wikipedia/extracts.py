"""Plain text of the extension TextExtracts to sections (https://www.mediawiki.org/wiki/Extension:TextExtracts)."""

from __future__ import annotations

import re

from tools.wikipedia.prose import Outline, latex
from tools.wikipedia.source import Section

_HEADING = re.compile(r"^(={2,6})\s*(.*?)\s*\1$")
_BRACED = r"(?:[^{}]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})*"
_FORMULA = re.compile(rf"(?:\n[ \t]{{2,}}[^\n{{]*)*\n?[ \t]*\{{\\displaystyle ({_BRACED})\}}[ \t]*\n?")
"""A formula stands in an extract twice: as the text of its MathML, a symbol a line and indented, and as its LaTeX."""


def read_extract(extract: str) -> tuple[Section, ...]:
    """The sections of an extract that was asked for with ``explaintext`` and ``exsectionformat=wiki``."""
    outline = Outline()
    text = _FORMULA.sub(lambda match: f" {latex(match[1])} ", extract) if "\\displaystyle" in extract else extract
    for line in text.split("\n"):
        if heading := _HEADING.match(line.strip()):
            outline.heading(len(heading[1]), heading[2])
        else:
            outline.block([line])
    return outline.sections()
